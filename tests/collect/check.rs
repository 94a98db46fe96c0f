//! What `check` finds, what it mends, and what it does not take for damage.

use crate::hooks::nth;
use crate::world::{BLOCKS, OBJECT, World, name};
use archvhost::admin::check::{CheckReport, CheckRequest, Finding, Repair, Severity, check};
use archvhost::admin::job::Job;
use archvhost::map::format::header::{Header, HeaderState, Unfinished};
use archvhost::map::format::name as name_record;
use archvhost::store::{ListScope, ObjectName, Op};
use archvhost::units::{BlockIndex, Epoch, Generation, VolumeId};
use archvhost::volume::{Port, VolumeErrorKind};

fn run(world: &World, volumes: &[&str], repair: Repair) -> CheckReport {
    let request = CheckRequest { volumes: volumes.iter().map(|text| name(text)).collect(), repair };
    check(&world.store, &request, &world.opened(), &Job::default()).unwrap()
}

fn findings(world: &World) -> Vec<Finding> {
    run(world, &[], Repair::Nothing).findings
}

fn one(mut findings: Vec<Finding>) -> Finding {
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.remove(0)
}

fn branched() -> World {
    let mut world = World::new();
    world.create("disk");
    for block in 0..BLOCKS {
        world.fill("disk", block, 1);
    }
    world.snapshot("disk", "snap");
    world.write("disk", 4096, &[2; 4096]);
    world.clone_of("snap", "clone");
    world.write("clone", OBJECT, &[3; 512]);
    world
}

#[test]
fn nothing_is_wrong_with_volumes_in_use() {
    let world = branched();
    let report = run(&world, &[], Repair::Nothing);
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!((report.volumes, report.cancelled), (3, false));
    assert!(report.objects >= BLOCKS + 2, "{report:?}");
}

#[test]
fn a_missing_object_is_told_for_everybody_who_needs_it() {
    let mut world = branched();
    world.close("disk");
    world.close("clone");
    let id = world.id("disk");
    let victim = world
        .list(ListScope::Data(id))
        .into_iter()
        .find(|name| matches!(name, ObjectName::Data { block: BlockIndex(3), .. }));
    let victim = victim.unwrap();
    world.take_away(&victim);
    let found = findings(&world);
    let mut volumes: Vec<String> = found.iter().map(|finding| finding.volume.as_ref().unwrap().to_string()).collect();
    volumes.sort();
    assert_eq!(volumes, ["clone", "disk", "snap"], "{found:#?}");
    assert!(found.iter().all(|finding| finding.text == format!("{victim} is missing")), "{found:#?}");
    assert!(found.iter().all(|finding| finding.severity == Severity::Damage));
}

#[test]
fn a_flipped_bit_in_a_page_is_told_and_nobody_else_is_accused() {
    let mut world = branched();
    world.create("other");
    world.fill("other", 0, 9);
    world.close("other");
    let metadata = world.list(ListScope::Metadata(world.id("other")));
    let segment = metadata.into_iter().find(|name| matches!(name, ObjectName::Segment { .. })).unwrap();
    let mut bytes = world.bytes(&segment);
    *bytes.last_mut().unwrap() ^= 4;
    world.put(&segment, &bytes);
    let finding = one(findings(&world));
    assert_eq!((finding.volume, finding.severity), (Some(name("other")), Severity::Damage));
    assert!(finding.text.contains("checksum"), "{}", finding.text);
    assert!(run(&world, &["disk", "snap"], Repair::Nothing).findings.is_empty());
}

#[test]
fn a_damaged_header_is_told_and_not_touched_by_a_repair() {
    let mut world = branched();
    world.close("disk");
    let id = world.id("disk");
    let header = world.list(ListScope::Metadata(id)).into_iter().find(|name| matches!(name, ObjectName::Header { .. }));
    let header = header.unwrap();
    world.put(&header, b"nonsense");
    let finding = one(run(&world, &[], Repair::Safe).findings);
    assert_eq!((finding.volume, finding.severity, finding.repaired), (Some(name("disk")), Severity::Damage, None));
    assert_eq!(world.bytes(&header), b"nonsense");
}

#[test]
fn a_missing_journal_of_a_dead_holder_is_told() {
    let world = branched();
    let id = world.id("disk");
    let journal =
        world.list(ListScope::Metadata(id)).into_iter().find(|name| matches!(name, ObjectName::Journal { .. }));
    let journal = journal.unwrap();
    // The check asks an open volume for a checkpoint, which would replace it.
    let request = CheckRequest { volumes: vec![name("disk")], repair: Repair::Nothing };
    let nobody = crate::world::OpenVolumes::default();
    world.take_away(&journal);
    let report = check(&world.store, &request, &nobody, &Job::default()).unwrap();
    assert_eq!(one(report.findings).text, format!("{journal} is missing"));
}

#[test]
fn what_a_guest_discards_while_it_is_looked_for_is_no_damage() {
    for with_holder in [true, false] {
        let mut world = World::new();
        world.create("disk");
        for block in 0..BLOCKS {
            world.fill("disk", block, 1);
        }
        crate::races::checkpoint(&world.volume("disk"));
        let id = world.id("disk");
        let volume = world.volume("disk");
        let looks = move |op: &Op| matches!(op, Op::Stat { object: ObjectName::Data { volume, .. } } if *volume == id);
        world.hooks.before(nth(1, looks), move || {
            let port = Port::open(&volume).unwrap();
            crate::world::discard(&port, 2 * OBJECT, OBJECT);
            crate::races::checkpoint(&volume);
            crate::races::checkpoint(&volume);
        });
        let request = CheckRequest { volumes: Vec::new(), repair: Repair::Nothing };
        let nobody = crate::world::OpenVolumes::default();
        let holder = world.opened();
        let opened = if with_holder { &holder } else { &nobody };
        let report = check(&world.store, &request, opened, &Job::default()).unwrap();
        assert!(world.hooks.all_done());
        assert!(report.findings.iter().all(|finding| finding.severity == Severity::Leak), "{:#?}", report.findings);
    }
}

#[test]
fn what_no_volume_names_is_counted() {
    let mut world = World::new();
    world.create("disk");
    world.fill("disk", 0, 1);
    world.snapshot("disk", "snap");
    world.zero("disk", 0);
    world.close("disk");
    world.remove("snap");
    let finding = one(findings(&world));
    assert_eq!((finding.volume, finding.severity), (None, Severity::Leak));
    assert!(finding.text.contains("archvhost gc"), "{}", finding.text);
    world.collect();
    assert!(findings(&world).is_empty());
}

#[test]
fn leftovers_are_told_and_then_mended() {
    let mut world = branched();
    world.close("disk");
    world.close("clone");
    let header = world.header(world.id("snap"), 1);
    // A snapshot whose maker died, a creation and a cloning that died, and names that lead to nothing and to a removed volume.
    world.snapshots.remove(&name("snap"));
    world.put_header(&Header {
        state: HeaderState::Building,
        unfinished: Some(Unfinished { with: header.id }),
        ..header.clone()
    });
    let created = Header { id: VolumeId([3; 16]), state: HeaderState::Building, root: None, ..header.clone() };
    world.put_header(&created);
    let cloned = Header { id: VolumeId([6; 16]), state: HeaderState::Building, ..header.clone() };
    world.put_header(&cloned);
    let removed = Header { id: VolumeId([4; 16]), state: HeaderState::Removed, root: None, ..header };
    world.put_header(&removed);
    world.put(&ObjectName::Name(name("gone")), &name_record::encode(removed.id));
    world.put(&ObjectName::Name(name("nowhere")), &name_record::encode(VolumeId([5; 16])));
    let told = run(&world, &[], Repair::Nothing).findings;
    let leaks = told.iter().filter(|finding| finding.text.contains("volume")).count();
    assert_eq!(leaks, 5, "{told:#?}");
    assert!(told.iter().all(|finding| finding.severity == Severity::Leak && finding.repaired.is_none()), "{told:#?}");
    let mended = run(&world, &[], Repair::Safe).findings;
    assert_eq!(mended.iter().filter(|finding| finding.repaired.is_some()).count(), 5, "{mended:#?}");
    let names = world.list(ListScope::Names);
    assert_eq!(names, ["clone", "disk"].map(|text| ObjectName::Name(name(text))));
    world.collect();
    assert!(findings(&world).is_empty());
    world.verify();
}

#[test]
fn a_volume_in_the_making_is_nobodys_leftover() {
    let world = branched();
    let header = world.header(world.id("snap"), 1);
    let unfinished =
        Header { state: HeaderState::Building, unfinished: Some(Unfinished { with: header.id }), ..header.clone() };
    world.put_header(&unfinished);
    let _maker = world.store.lock(header.id, archvhost::store::LockMode::Exclusive, b"").unwrap();
    assert!(run(&world, &[], Repair::Safe).findings.is_empty());
    assert_eq!(world.header(header.id, 1), unfinished);
}

#[test]
fn a_volume_that_lost_its_name_gets_it_back() {
    let mut world = branched();
    world.close("disk");
    let record = ObjectName::Name(name("disk"));
    let bytes = world.bytes(&record);
    world.take_away(&record);
    let finding = one(findings(&world));
    assert_eq!((finding.severity, finding.repaired), (Severity::Damage, None));
    let finding = one(run(&world, &[], Repair::Safe).findings);
    assert!(finding.repaired.is_some(), "{finding:?}");
    assert_eq!(world.bytes(&record), bytes);
    world.verify();
}

#[test]
fn a_name_that_is_taken_is_not_given_back() {
    let mut world = branched();
    world.close("disk");
    let record = ObjectName::Name(name("disk"));
    let other = world.bytes(&ObjectName::Name(name("snap")));
    world.put(&record, &other);
    let found = run(&world, &[], Repair::Safe).findings;
    assert!(found.iter().any(|finding| finding.severity == Severity::Damage && finding.text.contains("no name leads")));
}

#[test]
fn a_name_whose_volume_lost_its_header_is_kept_while_there_are_objects() {
    let world = World::new();
    let id = VolumeId([6; 16]);
    world.put(&ObjectName::Data { volume: id, epoch: Epoch(1), block: BlockIndex(0) }, &[1; 512]);
    let record = ObjectName::Name(name("headless"));
    world.put(&record, &name_record::encode(id));
    let finding = one(run(&world, &[], Repair::Safe).findings);
    assert_eq!((finding.severity, finding.repaired), (Severity::Damage, None));
    assert!(world.list(ListScope::Names).contains(&record));
}

#[test]
fn an_object_that_was_never_reserved_is_damage() {
    let mut world = World::new();
    world.create("disk");
    world.fill("disk", 0, 1);
    world.close("disk");
    let id = world.id("disk");
    let header = world.header(id, 2);
    let low = Header { epoch: Epoch(1), shared_epoch: Epoch(0), epoch_limit: Epoch(2), ..header };
    world.put_header(&Header { generation: Generation(2), ..low });
    assert!(one(findings(&world)).text.contains("not reserved"));
}

#[test]
fn a_volume_that_is_not_there_is_refused_by_its_name() {
    let world = World::new();
    let request = CheckRequest { volumes: vec![name("nobody")], repair: Repair::Nothing };
    let error = check(&world.store, &request, &world.opened(), &Job::default()).unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::NotFound);
}
