//! A lock's cookie: which process has it, so that another one of the same host and boot sees at once that it is gone (rule M12), and
//! which of its locks.
//!
//! `archvhost BOOT PID-NAMESPACE PID START RANDOM [ADDRESS]...`
//!
//! The addresses are those of further connections over which the holder writes; that of the connection that has the lock the cluster
//! puts down by itself.

use crate::clock;
use std::ffi::CString;
use std::iter;

const WORD: &str = "archvhost";

const WORDS: usize = 6;

/// For a new lock of this process.
pub(super) fn new(other_addresses: &[String]) -> CString {
    let (boot, namespace) = (clock::boot_id(), clock::pid_namespace());
    let (pid, started) = (std::process::id(), clock::process_start_ticks());
    let text = format!("{WORD} {boot} {namespace} {pid} {started} {}", uuid::Uuid::new_v4().simple());
    let words: Vec<_> = iter::once(&text).chain(other_addresses).map(String::as_str).collect();
    CString::new(words.join(" ")).expect("none of its words has a zero")
}

pub(super) fn other_addresses(cookie: &str) -> impl Iterator<Item = &str> {
    let ours = cookie.split(' ').next() == Some(WORD);
    cookie.split(' ').skip(WORDS).filter(move |_| ours)
}

/// Whether it is of another process of this host and boot that is seen to be gone.
pub(super) fn is_seen_gone(cookie: &str) -> bool {
    let words: Vec<_> = cookie.split(' ').collect();
    let [WORD, boot, namespace, pid, started, _, ..] = words[..] else { return false };
    let (Ok(pid), Ok(started)) = (pid.parse(), started.parse()) else { return false };
    // Where /proc tells nothing, nothing is seen.
    let here = !boot.is_empty() && boot == clock::boot_id() && namespace == clock::pid_namespace();
    here && started != 0 && clock::is_process_gone(pid, started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_of_this_host_and_boot_is_seen_to_be_gone() {
        let ours = new(&[]).into_string().unwrap();
        assert!(!is_seen_gone(&ours), "we live");
        let words: Vec<_> = ours.split(' ').collect();
        let with = |at: usize, word: &str| {
            let mut words = words.clone();
            words[at] = word;
            is_seen_gone(&words.join(" "))
        };
        assert!(with(3, &u32::MAX.to_string()) && with(4, "1"), "another process has the number, or none");
        for (at, word) in [(0, "rbd"), (3, "x"), (4, "0"), (4, "")] {
            assert!(!with(at, word), "{at} {word}");
        }
        let gone_elsewhere = |at: usize| {
            let mut words = words.clone();
            (words[3], words[at]) = ("4294967295", "elsewhere");
            is_seen_gone(&words.join(" "))
        };
        assert!(!gone_elsewhere(1) && !gone_elsewhere(2));
        assert!(!is_seen_gone("auto 94234"));
    }

    #[test]
    fn a_cookie_has_the_addresses_of_further_connections() {
        let addresses = ["1.2.3.4:0/5".to_owned(), "1.2.3.4:0/6".to_owned()];
        let cookie = new(&addresses).into_string().unwrap();
        assert!(other_addresses(&cookie).eq(addresses.iter().map(String::as_str)));
        assert!(!is_seen_gone(&cookie));
        assert_eq!(other_addresses(new(&[]).to_str().unwrap()).count(), 0);
        assert_eq!(other_addresses("a b c d e f g").count(), 0);
    }
}
