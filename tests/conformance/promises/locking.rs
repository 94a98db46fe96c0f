//! Locks of volumes.

use crate::subject::{Subject, volume};
use archvhost::store::{Lease, LockMode, Seized, StoreError, StoreErrorKind};

pub(crate) fn a_volume_has_one_holder(subject: &Subject) {
    let store = &subject.store;
    assert_eq!(store.holder(volume(1)).unwrap(), None);
    let lease = store.lock(volume(1), LockMode::Exclusive, b"first").unwrap();
    assert_eq!(lease.volume, volume(1));
    assert_eq!(store.lock(volume(1), LockMode::Exclusive, b"second").err().unwrap().kind(), StoreErrorKind::Held);
    assert_eq!(store.holder(volume(1)).unwrap().as_deref(), Some(&b"first"[..]));
    let _other = store.lock(volume(2), LockMode::Exclusive, b"other").unwrap();
    let clone = lease.clone();
    drop(lease);
    assert_eq!(store.lock(volume(1), LockMode::Exclusive, b"second").err().unwrap().kind(), StoreErrorKind::Held);
    drop(clone);
    let _lease = store.lock(volume(1), LockMode::Exclusive, b"a longer second").unwrap();
    assert_eq!(store.holder(volume(1)).unwrap().as_deref(), Some(&b"a longer second"[..]));
}

pub(crate) fn a_record_outlives_its_holder(subject: &Subject) {
    drop(subject.store.lock(volume(1), LockMode::Exclusive, b"long gone, and longer").unwrap());
    assert_eq!(subject.store.holder(volume(1)).unwrap().as_deref(), Some(&b"long gone, and longer"[..]));
    drop(subject.store.lock(volume(1), LockMode::Exclusive, b"").unwrap());
    assert_eq!(subject.store.holder(volume(1)).unwrap().as_deref(), Some(&b""[..]));
}

pub(crate) fn a_channel_with_a_lease_works_and_lets_go_of_it(subject: &Subject) {
    let lease = subject.store.lock(volume(1), LockMode::Exclusive, b"first").unwrap();
    for _ in 0..3 {
        let channel = subject.store.channel(Some(&lease)).unwrap();
        assert_eq!(channel.in_flight(), 0);
    }
    drop(lease);
    let _again = subject.store.lock(volume(1), LockMode::Exclusive, b"second").unwrap();
}

pub(crate) fn a_volume_has_many_readers_or_one_holder(subject: &Subject) {
    let store = &subject.store;
    let refusal = |mode| store.lock(volume(1), mode, b"late").err().map(|error| error.kind());
    let readers = [(); 3].map(|()| store.lock(volume(1), LockMode::Shared, b"a reader").unwrap());
    assert_eq!(store.holder(volume(1)).unwrap(), None, "readers leave no record");
    assert_eq!(refusal(LockMode::Exclusive), Some(StoreErrorKind::BeingRead));
    let [first, rest @ ..] = readers;
    drop(rest);
    assert_eq!(refusal(LockMode::Exclusive), Some(StoreErrorKind::BeingRead), "one is left");
    drop(first);
    let holder = store.lock(volume(1), LockMode::Exclusive, b"the holder").unwrap();
    assert_eq!(refusal(LockMode::Shared), Some(StoreErrorKind::Held));
    assert_eq!(refusal(LockMode::Exclusive), Some(StoreErrorKind::Held));
    drop(holder);
    let _reader = store.lock(volume(1), LockMode::Shared, b"a reader").unwrap();
    assert_eq!(store.holder(volume(1)).unwrap().as_deref(), Some(&b"the holder"[..]));
}

pub(crate) fn who_passes_by_gets_a_free_lock_and_takes_none_away(subject: &Subject) {
    let store = &subject.store;
    let refusal = |mode| store.try_lock(volume(1), mode, b"late").err().map(|error| error.kind());
    let passing = store.try_lock(volume(1), LockMode::Exclusive, b"passing").unwrap();
    assert_eq!(store.holder(volume(1)).unwrap().as_deref(), Some(&b"passing"[..]));
    assert_eq!(refusal(LockMode::Shared), Some(StoreErrorKind::Held));
    assert_eq!(refusal(LockMode::ExclusiveToFree), Some(StoreErrorKind::Held));
    drop(passing);
    let readers = [(); 2].map(|()| store.try_lock(volume(1), LockMode::Shared, &[]).unwrap());
    assert_eq!(refusal(LockMode::Exclusive), Some(StoreErrorKind::BeingRead));
    readers.iter().for_each(|reader| store.confirm(reader).unwrap());
    drop(readers);
    assert_eq!(refusal(LockMode::ExclusiveToFree), None);
}

pub(crate) fn a_lock_is_seized_from_whom_it_was_meant_to_be(subject: &Subject) {
    let store = &subject.store;
    let refusal = |result: Result<Seized, StoreError>| result.err().map(|error| error.kind());
    let first = store.lock(volume(1), LockMode::Exclusive, b"first").unwrap();
    assert_eq!(refusal(store.seize(volume(1), Some(b"another"), b"second")), Some(StoreErrorKind::Held));
    assert_eq!(refusal(store.seize(volume(1), None, b"second")), Some(StoreErrorKind::Held));
    let second = store.seize(volume(1), Some(b"first"), b"second").unwrap().lease;
    assert_eq!(store.holder(volume(1)).unwrap().as_deref(), Some(&b"second"[..]));
    assert_eq!(refusal(store.seize(volume(1), Some(b"first"), b"third")), Some(StoreErrorKind::Held), "too late");
    drop(first);
    let held = store.lock(volume(1), LockMode::Exclusive, b"third");
    assert_eq!(
        held.err().map(|error| error.kind()),
        Some(StoreErrorKind::Held),
        "the end of the one cut off frees nothing"
    );
    drop(second);
    let _third = store.lock(volume(1), LockMode::Exclusive, b"third").unwrap();
}

pub(crate) fn a_lease_that_was_cut_off_is_told_so(subject: &Subject) {
    let store = &subject.store;
    let cut_off = |lease: &Lease| store.confirm(lease).err().map(|error| error.kind());
    let reader = store.lock(volume(1), LockMode::Shared, &[]).unwrap();
    assert_eq!(cut_off(&reader), None);
    let first = store.seize(volume(1), None, b"first").unwrap().lease;
    assert_eq!((cut_off(&reader), cut_off(&first)), (Some(StoreErrorKind::Lost), None));
    drop(reader);
    let second = store.seize(volume(1), Some(b"first"), b"second").unwrap().lease;
    assert_eq!((cut_off(&first), cut_off(&second)), (Some(StoreErrorKind::Lost), None));
    drop(second);
    let third = store.lock(volume(1), LockMode::Exclusive, b"third").unwrap();
    assert_eq!((cut_off(&first), cut_off(&third)), (Some(StoreErrorKind::Lost), None));
}

pub(crate) fn a_record_may_be_replaced_by_its_holder(subject: &Subject) {
    let store = &subject.store;
    let lease = store.lock(volume(1), LockMode::Exclusive, b"a long first record").unwrap();
    store.record(&lease, b"shorter").unwrap();
    assert_eq!(store.holder(volume(1)).unwrap().as_deref(), Some(&b"shorter"[..]));
    store.confirm(&lease).unwrap();
    assert_eq!(store.holder(volume(1)).unwrap().as_deref(), Some(&b"shorter"[..]));
    assert_eq!(lease.replaced, None, "nobody had it before");
    let second = store.seize(volume(1), Some(b"shorter"), b"second").unwrap();
    assert_eq!(second.lease.replaced.as_deref(), Some(&b"shorter"[..]));
    drop(second);
    let reader = store.lock(volume(1), LockMode::Shared, &[]).unwrap();
    assert_eq!(reader.replaced, None);
    drop(reader);
    let third = store.lock(volume(1), LockMode::Exclusive, b"third").unwrap();
    assert_eq!(third.replaced.as_deref(), Some(&b"second"[..]));
}
