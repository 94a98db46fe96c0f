//! `wait`, `watch` and the waker.

use crate::subject::{Subject, buffer, data};
use archvhost::store::{Channel, Op, Token};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(30);

fn eventfd() -> File {
    #[allow(unsafe_code, reason = "libc is what a test has at hand")]
    // SAFETY: eventfd takes no pointers; the descriptor it returns is ours alone.
    let fd = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
    fd.into()
}

fn signal(mut event: &File) {
    event.write_all(&1u64.to_ne_bytes()).unwrap();
}

/// Waits; returns whether it took less than the time given.
fn woken(channel: &mut dyn Channel, timeout: Duration) -> bool {
    let start = Instant::now();
    channel.wait(Some(timeout));
    start.elapsed() < timeout
}

/// Waits until nothing is pending any more: an early return for no reason is allowed, but not for ever.
fn settle(channel: &mut dyn Channel) {
    let settled = (0..100).any(|_| {
        channel.reap(&mut Vec::new());
        !woken(channel, SHORT)
    });
    assert!(settled, "the channel never sleeps");
}

pub(crate) fn a_signal_before_the_sleep_ends_it(subject: &Subject) {
    let mut channel = subject.store.channel(None).unwrap();
    let event = eventfd();
    let watch = channel.watch(event.as_fd()).unwrap();
    for reap_between in [false, true, false, true] {
        settle(channel.as_mut());
        signal(&event);
        if reap_between {
            channel.reap(&mut Vec::new());
            thread::sleep(Duration::from_millis(2));
            channel.reap(&mut Vec::new());
        }
        assert!(woken(channel.as_mut(), LONG), "reaped between: {reap_between}");
    }
    channel.unwatch(watch);
    settle(channel.as_mut());
    signal(&event);
    settle(channel.as_mut());
}

pub(crate) fn a_signal_during_the_sleep_ends_it(subject: &Subject) {
    let mut channel = subject.store.channel(None).unwrap();
    let event = eventfd();
    channel.watch(event.as_fd()).unwrap();
    for _ in 0..5 {
        settle(channel.as_mut());
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(20));
                signal(&event);
            });
            assert!(woken(channel.as_mut(), LONG));
        });
    }
}

pub(crate) fn a_watched_descriptor_may_be_closed_by_its_owner(subject: &Subject) {
    let mut channel = subject.store.channel(None).unwrap();
    let event = eventfd();
    let other = event.try_clone().unwrap();
    channel.watch(event.as_fd()).unwrap();
    drop(event);
    settle(channel.as_mut());
    signal(&other);
    assert!(woken(channel.as_mut(), LONG));
}

pub(crate) fn the_waker_ends_a_sleep_from_any_thread(subject: &Subject) {
    let mut channel = subject.store.channel(None).unwrap();
    let waker = channel.waker();
    for before in [true, false, true, false] {
        settle(channel.as_mut());
        let waker = waker.clone();
        let caller = thread::spawn(move || {
            if !before {
                thread::sleep(Duration::from_millis(20));
            }
            (0..3).for_each(|_| waker.wake());
        });
        if before {
            caller.join().unwrap();
            assert!(woken(channel.as_mut(), LONG));
        } else {
            assert!(woken(channel.as_mut(), LONG));
            caller.join().unwrap();
        }
    }
}

pub(crate) fn a_completion_ends_a_sleep_without_a_kick(subject: &Subject) {
    let mut channel = subject.store.channel(None).unwrap();
    let mut done = Vec::new();
    for number in 0..20 {
        channel.submit(
            Token(number),
            Op::Create { object: data(number), offset: 0, buffer: buffer(1, 4096), size: 1 << 20 },
        );
        while done.is_empty() {
            assert!(woken(channel.as_mut(), LONG));
            channel.reap(&mut done);
        }
        let completion = done.pop().unwrap();
        assert_eq!(completion.token, Token(number));
        completion.result.unwrap();
        assert_eq!(channel.in_flight(), 0);
    }
}

pub(crate) fn polling_without_ever_waiting_sees_completions(subject: &Subject) {
    let mut channel = subject.store.channel(None).unwrap();
    let mut done = Vec::new();
    channel.submit(Token(1), Op::Create { object: data(1), offset: 0, buffer: buffer(1, 4096), size: 1 << 20 });
    channel.kick();
    let start = Instant::now();
    while done.is_empty() {
        channel.reap(&mut done);
        assert!(start.elapsed() < LONG);
    }
    done.pop().unwrap().result.unwrap();
}
