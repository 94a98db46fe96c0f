//! Somebody overwrites an object of a volume in the pool: verbs name what is damaged, with the exit code for damage, and other
//! volumes do not notice. tests/damage.rs has what each format recognises.

use crate::cluster::{self, Cluster, User};
use crate::host::{Host, Processes};
use std::fs;

const STORE: i32 = 5;
const DAMAGED: i32 = 6;

/// Where to change a byte of a journal of six flushes, so that whole records follow.
const IN_RECORD_3: usize = 2 * 4096 + 80;

/// Two volumes of a host that was killed: `web`, written and flushed six times, and `other`, closed in order.
struct Written {
    cluster: &'static Cluster,
    namespace: String,
    host: Host,
    id: String,
}

impl Written {
    fn new() -> Option<Self> {
        let cluster = cluster::shared()?;
        let namespace = cluster::namespace();
        let mut host = Host::with_daemon(cluster, User::Archvhost, &namespace, Processes::Shared);
        for (name, pieces) in [("other", 1), ("web", 6)] {
            host.run(&["create", name, "--size", "64MiB", "--object-size", "64KiB"]).text();
            let mut guest = host.guest(name);
            (0..pieces).for_each(|piece| guest.write(piece << 16, 7));
            drop(guest);
            if name == "other" {
                host.run(&["detach", name]).text();
            }
        }
        let id = host.run(&["info", "web", "--json"]).json()["id"].as_str().unwrap().to_owned();
        host.kill();
        Some(Self { cluster, namespace, host, id })
    }

    /// The volume's objects of a kind (`h`, `j`, `s`), in order.
    fn objects(&self, kind: &str) -> Vec<String> {
        let start = format!("{}.{kind}.", self.id);
        let listed = self.cluster.rados(&self.namespace, &["ls"]);
        let mut objects: Vec<_> = listed.lines().filter(|name| name.starts_with(&start)).map(str::to_owned).collect();
        objects.sort_unstable();
        assert!(!objects.is_empty(), "{listed}");
        objects
    }

    /// Changes one byte.
    fn flip(&self, object: &str, byte: usize) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        self.cluster.rados(&self.namespace, &["get", object, path]);
        let mut bytes = fs::read(path).unwrap();
        bytes[byte] ^= 0x40;
        fs::write(path, bytes).unwrap();
        self.cluster.rados(&self.namespace, &["put", object, path]);
    }

    fn export(&self, volume: &str) -> crate::program::Ran {
        self.host.run(&["export", volume, "image", "--force"])
    }

    /// Without one of its own objects the store is not collected, and nothing makes an empty one.
    fn lost(&self, object: &str) {
        const TOLD: &str = "archvhost-names or one of archvhost-volumes";
        self.cluster.rados(&self.namespace, &["rm", object]);
        for verb in ["gc", "check"] {
            let ran = self.host.run(&[verb]);
            assert!(ran.failure(DAMAGED).contains(TOLD), "{ran:?}");
        }
        // This one tells of each volume, if there are names.
        let listed = self.host.run(&["list"]);
        let told = [String::from_utf8_lossy(&listed.stdout).as_ref(), &listed.stderr].concat();
        assert!(told.contains(TOLD), "{told}");
        let _refused_or_elsewhere = self.host.run(&["create", "new", "--size", "1MiB"]);
        let present = self.cluster.rados(&self.namespace, &["ls"]);
        assert!(!present.lines().any(|present| present == object), "nothing makes it anew");
    }

    fn is_whole(&self) {
        self.export("web").text();
        self.export("other").text();
        let checked = self.host.run(&["check"]);
        assert_eq!(checked.code, 0, "{checked:?}");
        self.host.run(&["gc"]).text();
        self.export("other").text();
    }

    fn other_is_not_harmed(&self) {
        self.export("other").text();
        self.host.run(&["snapshot", "other", "of-other"]).text();
        let listed = self.host.run(&["list", "--json"]).json();
        assert!(listed.as_array().unwrap().iter().any(|volume| volume["name"] == "other" && volume["error"].is_null()));
    }

    fn refused(&self, words: &[&str]) {
        let ran = self.export("web");
        assert_eq!(ran.code, DAMAGED, "{ran:?}");
        // Before it may come what was told of the last holder's end.
        let text = ran.stderr.lines().last().unwrap();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
        self.other_is_not_harmed();
    }
}

#[test]
fn an_overwritten_header_is_named() {
    let Some(written) = Written::new() else { return };
    written.flip(written.objects("h").last().unwrap(), 100);
    written.refused(&["header", &written.id]);
    let checked = written.host.run(&["check", "--json"]);
    assert_eq!(checked.code, DAMAGED, "{checked:?}");
    assert!(String::from_utf8(checked.stdout).unwrap().contains(&written.id));
}

#[test]
fn an_overwritten_journal_is_named() {
    let Some(written) = Written::new() else { return };
    written.flip(&written.objects("j")[0], IN_RECORD_3);
    written.refused(&["journal", "web", "record 3"]);
}

#[test]
fn an_overwritten_segment_is_named() {
    let Some(written) = Written::new() else { return };
    // Opened and closed once: now the map is in pages.
    written.export("web").text();
    written.objects("s").iter().for_each(|segment| written.flip(segment, 512 + 60));
    written.refused(&["segment", "checksum"]);
}

#[test]
fn an_overwritten_name_is_named() {
    let Some(written) = Written::new() else { return };
    written.cluster.rados(&written.namespace, &["setomapval", "archvhost-names", "web", "nonsense"]);
    let ran = written.export("web");
    assert!(ran.failure(DAMAGED).contains("name record web"), "{ran:?}");
    let checked = written.host.run(&["check"]);
    assert_eq!(checked.code, DAMAGED, "{checked:?}");
    assert!(String::from_utf8_lossy(&checked.stdout).contains("name record web"), "{checked:?}");
    written.other_is_not_harmed();
}

/// Otherwise a collection would take it for a removed volume's, and remove what only that one names.
#[test]
fn a_lost_list_of_volumes_is_damage_and_is_made_again() {
    let Some(written) = Written::new() else { return };
    written.host.run(&["snapshot", "other", "of-other"]).text();
    let index = format!("archvhost-volumes.{}", &written.id[..1]);
    written.lost(&index);
    // As docs/operations.md tells.
    let listed = written.cluster.rados(&written.namespace, &["ls"]);
    let headers = listed.lines().filter_map(|object| object.split_once(".h."));
    for (id, generation) in headers.filter(|(id, _)| id[..1] == written.id[..1]) {
        written.cluster.rados(&written.namespace, &["setomapval", &index, &format!("{id}.{generation}"), ""]);
    }
    written.is_whole();
}

#[test]
fn a_lost_list_of_names_is_damage_and_is_made_again() {
    let Some(written) = Written::new() else { return };
    written.lost("archvhost-names");
    written.cluster.rados(&written.namespace, &["create", "archvhost-names"]);
    let repaired = written.host.run(&["check", "--repair"]);
    assert_eq!(repaired.code, 0, "{repaired:?}");
    written.is_whole();
}

#[test]
fn what_somebody_else_has_in_the_pool_is_not_taken_for_a_store() {
    let Some(written) = Written::new() else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "hello").unwrap();
    written.cluster.rados(&written.namespace, &["put", "archvhost-store", file.path().to_str().unwrap()]);
    let ran = written.export("other");
    let text = ran.failure(STORE);
    assert!(text.contains(&written.namespace) && text.contains("archvhost-store"), "{text}");
    // What the message says to do.
    written.cluster.rados(&written.namespace, &["rm", "archvhost-store"]);
    written.host.run(&["create", "made-again", "--size", "1MiB"]).text();
    written.export("other").text();
}
