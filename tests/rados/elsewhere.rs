//! A volume that a daemon of one host serves, and every verb that needs it, tried from another host that has a daemon of its own:
//! refused with who has it, and nothing has changed.

use crate::cluster::{self, User};
use crate::host::{Host, Processes};
use crate::takeover::{PIECES, at, byte, served_and_written};
use std::fs;

const IN_USE: i32 = 4;

#[test]
fn what_another_host_serves_is_refused_to_every_verb_with_who_has_it() {
    let Some(cluster) = cluster::shared() else { return };
    let namespace = cluster::namespace();
    let mut first = Host::with_daemon(cluster, User::Archvhost, &namespace, Processes::Shared);
    drop(served_and_written(&first));
    first.run(&["snapshot", "web", "before"]).text();
    let tree = first.run(&["list", "--json"]).json();
    let holder = format!("volume web is in use by process {} on host archvhost", first.daemon().child.id());
    let second = Host::with_daemon(cluster, User::Other, &namespace, Processes::Shared);
    let alone = Host::new(cluster, User::Other, &namespace);
    let image = tempfile::NamedTempFile::new().unwrap();
    fs::write(image.path(), "what was there").unwrap();
    let image = image.path().to_str().unwrap();
    let verbs: [&[&str]; 15] = [
        &["attach", "web", "--socket", "s"],
        &["open", "web"],
        &["lock", "web"],
        &["snapshot", "web", "late"],
        &["clone", "web", "late"],
        &["resize", "web", "128MiB"],
        &["resize", "web", "32MiB", "--shrink"],
        &["rollback", "web", "before"],
        &["flatten", "web"],
        &["limit", "web", "--iops", "500"],
        &["rename", "web", "late"],
        &["remove", "web"],
        &["export", "web", image, "--force"],
        &["diff", "before", "web"],
        &["check", "web"],
    ];
    for verb in verbs {
        // Without a daemon, some have nobody to do them.
        let ways = if matches!(verb[0], "attach" | "open" | "lock") { &[&second][..] } else { &[&second, &alone] };
        for host in ways {
            let ran = host.run(verb);
            let told = format!("{}{}", String::from_utf8_lossy(&ran.stdout), ran.stderr);
            assert_eq!(ran.code, IN_USE, "{verb:?}: {told}");
            assert!(told.contains(holder.strip_prefix("volume web is ").unwrap()), "{verb:?}: {told}");
        }
    }
    assert_eq!(fs::read(image).unwrap(), b"what was there");
    assert_eq!(first.run(&["list", "--json"]).json(), tree);
    let mut guest = first.guest_again("web");
    (0..PIECES).for_each(|piece| assert_eq!(guest.read(at(piece)), byte(piece)));
    guest.write(0, 9);
    assert_eq!(guest.read(0), 9);
    // What nobody changes is anybody's.
    second.run(&["clone", "before", "copy"]).text();
    assert_eq!(second.guest("copy").read(0), byte(0));
}
