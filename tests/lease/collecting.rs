//! What a collection takes of those who died at their work, and what it leaves because they may live elsewhere.

use crate::host::{Site, name};
use archvhost::admin::branch::Opened;
use archvhost::admin::collect::{CollectOptions, collect};
use archvhost::admin::job::Job;
use archvhost::map::format::header::{Header, HeaderState, Unfinished};
use archvhost::map::format::name::encode;
use archvhost::store::{FreeLock, ListScope, ObjectName, PublishMode, Store, StoreError, io};
use archvhost::units::{Generation, VolumeId, VolumeName};
use archvhost::volume::Volume;
use archvhost::volume::lease::{Holder, lock_new};
use archvhost::volume::open::{find, read_header};
use std::sync::Arc;

struct NothingOpen;

impl Opened for NothingOpen {
    fn open_volume(&self, _name: &VolumeName) -> Option<Arc<Volume>> {
        None
    }
}

fn run(site: &Site) {
    let spill_dir = site.directory.path().join("spill");
    let options = CollectOptions { dry_run: false, memory_bytes: 1 << 20, spill_dir };
    collect(&site.store(), &NothingOpen, &options, &Job::default()).unwrap();
}

#[test]
fn a_lock_without_a_header_goes_when_its_process_died() {
    for free_lock in [FreeLock::ProvesTheEnd, FreeLock::ProvesNothing] {
        let site = Site::new(free_lock);
        let mut maker = site.host("a");
        let directory = site.directory.path().join("volumes").join(maker.ask("begin").unwrap());
        run(&site);
        assert!(directory.exists(), "its maker lives");
        maker.kill();
        // It died while it published the header.
        std::fs::write(directory.join(".new.7f3a"), b"half a header").unwrap();
        run(&site);
        assert!(!directory.exists());
        site.host("b").ask("open").unwrap();
    }
}

/// A volume in the making whose maker could not be heard of any more.
struct InTheMaking {
    id: VolumeId,
    store: Arc<dyn Store>,
}

impl InTheMaking {
    fn new(site: &Site, maker: Option<&Holder>, change: fn(Header) -> Header) -> Self {
        let (store, id) = (site.store(), VolumeId::random());
        let lease = maker.map(|maker| lock_new(&store, id, &name("new"), maker).unwrap());
        let read = |io: io::Io| async move { read_header(&io, find(&io, &name("web")).await?, &name("web")).await };
        let (web, _) = io::block_on(&store, None, read).unwrap();
        let header = change(Header { id, generation: Generation(1), name: name("new"), ..web });
        let making = Self { id, store };
        making.publish(ObjectName::Header { volume: id, generation: Generation(1) }, &header.encode());
        for number in [header.current_journal, header.next_journal].into_iter().filter(|number| *number != 0) {
            making.publish(ObjectName::Journal { volume: id, generation: Generation(1), number }, &[0; 4096]);
        }
        if !is_never_opened(&header) {
            making.publish(ObjectName::Name(header.name.clone()), &encode(id));
        }
        // As a server does that forgot its client.
        drop(lease);
        making
    }

    fn publish(&self, object: ObjectName, bytes: &[u8]) {
        let publish = |io: io::Io| async move { io.publish(object, bytes, PublishMode::Exclusive).await };
        io::block_on(&self.store, None, publish).unwrap();
    }

    /// What there is of it, and all names.
    fn left(&self) -> Vec<ObjectName> {
        let scopes = [ListScope::Metadata(self.id), ListScope::Names];
        let list = |scope| {
            let listed: Result<_, StoreError> =
                io::block_on(&self.store, None, |io| async move { io.list(scope, None, 1000).await });
            listed.unwrap()
        };
        scopes.into_iter().flat_map(list).collect()
    }
}

fn unfinished(header: Header) -> Header {
    Header { state: HeaderState::Building, unfinished: Some(Unfinished { with: header.id }), ..header }
}

/// It has no name yet.
fn never_opened(header: Header) -> Header {
    Header { state: HeaderState::Building, unfinished: None, ..header }
}

fn is_never_opened(header: &Header) -> bool {
    header.state == HeaderState::Building && header.unfinished.is_none()
}

/// As an import has it while it fills the volume.
fn half_imported(header: Header) -> Header {
    let name = name(&format!("importing.web.{}", &header.id.to_string()[..8]));
    Header { state: HeaderState::Live, current_journal: 1, next_journal: 2, name, ..header }
}

#[test]
fn what_a_maker_on_another_host_may_be_at_is_left_alone() {
    let elsewhere = Holder::this_process("elsewhere", None);
    for maker in [Some(&elsewhere), None] {
        for change in [unfinished, never_opened, half_imported] {
            let site = Site::new(FreeLock::ProvesNothing);
            let making = InTheMaking::new(&site, maker, change);
            let before = making.left();
            // Twice: the first leaves a record of its own, and the doubt in it.
            run(&site);
            run(&site);
            assert_eq!(making.left(), before, "{maker:?}");
        }
    }
}

#[test]
fn what_a_maker_of_this_host_died_over_goes() {
    let here = Holder::successor(None, None);
    for (free_lock, changes) in [
        (FreeLock::ProvesNothing, &[unfinished, half_imported][..]),
        (FreeLock::ProvesTheEnd, &[unfinished, never_opened, half_imported]),
    ] {
        for change in changes {
            let site = Site::new(free_lock);
            let making = InTheMaking::new(&site, Some(&here), *change);
            run(&site);
            assert_eq!(making.left(), [ObjectName::Name(name("web"))]);
        }
    }
}
