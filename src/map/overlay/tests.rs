//! Steps from entry to entry, and the invariants of what comes out.

use super::*;

const OBJECT: ObjectSize = ObjectSize::DEFAULT;

fn granules() -> Granules {
    Granules::new(OBJECT, 4096)
}

fn data(volume: u32, epoch: u64) -> Entry {
    Entry::Data { volume: VolumeIndex(volume), epoch: Epoch(epoch) }
}

fn fill(first: u16, count: u16) -> Step {
    Step::Fill(GranuleRange { first, count })
}

fn cover(epoch: u64) -> Step {
    Step::Cover { epoch: Epoch(epoch), absorbed: None }
}

fn after(entry: &Entry, steps: &[Step]) -> Entry {
    steps.iter().fold(entry.clone(), |entry, step| entry.after(*step, granules()).unwrap())
}

fn layers(entry: &Entry) -> Vec<(u64, usize)> {
    let Entry::Overlay(overlay) = entry else { panic!("{entry:?} has no layers") };
    assert!(Overlay::new(overlay.granules(), overlay.layers().to_vec()).is_some(), "{overlay:?}");
    overlay.layers().iter().map(|layer| (layer.epoch.0, layer.mask.len())).collect()
}

#[test]
fn large_objects_have_larger_granules() {
    assert_eq!(granules(), Granules { shift: 12, count: 1024 });
    assert_eq!(Granules::new(ObjectSize::new(16 << 20).unwrap(), 4096), Granules { shift: 14, count: 1024 });
    assert_eq!(Granules::new(ObjectSize::new(64 << 10).unwrap(), 4096), Granules { shift: 12, count: 16 });
}

#[test]
fn a_range_touches_and_covers_granules() {
    let range = |first, count| GranuleRange { first, count };
    assert_eq!(granules().touched(512, 4096), range(0, 2));
    assert_eq!(granules().covered(512, 4096), range(1, 0));
    assert_eq!(granules().covered(512, 8192), range(1, 1));
    assert_eq!(granules().touched(0, 4 << 20), range(0, 1024));
    assert_eq!(granules().covered(4096, 4096), range(1, 1));
}

#[test]
fn written_granules_are_in_the_top_and_the_others_below() {
    let entry = after(&data(1, 3), &[cover(9), fill(5, 2)]);
    assert_eq!(layers(&entry), [(9, 2), (3, 1022)]);
    let Entry::Overlay(overlay) = entry else { unreachable!() };
    assert_eq!(
        (overlay.layer_of(4).epoch, overlay.layer_of(5).epoch, overlay.layer_of(7).epoch),
        (Epoch(3), Epoch(9), Epoch(3))
    );
}

#[test]
fn a_full_top_is_plain_data() {
    assert_eq!(after(&data(1, 3), &[cover(9), fill(0, 1000), fill(900, 124)]), data(0, 9));
}

#[test]
fn a_layer_that_has_lost_its_last_granule_is_gone() {
    let entry = after(&data(1, 3), &[cover(5), fill(7, 1), cover(6), fill(6, 3)]);
    assert_eq!(layers(&entry), [(6, 3), (3, 1021)]);
}

#[test]
fn an_empty_top_under_a_new_one_is_gone() {
    assert_eq!(layers(&after(&data(1, 3), &[cover(5), cover(6)])), [(6, 0), (3, 1024)]);
}

#[test]
fn layers_are_bounded_by_absorbing_the_smallest() {
    let mut entry = data(1, 1);
    for epoch in 2..=8 {
        entry =
            after(&entry, &[cover(epoch), fill(u16::try_from(epoch).unwrap() * 10, if epoch == 4 { 1 } else { 2 })]);
    }
    let Entry::Overlay(overlay) = &entry else { unreachable!() };
    assert_eq!(overlay.layers().len(), LAYERS_MAX);
    assert_eq!(entry.after(cover(9), granules()), None, "there is no room for a ninth");
    let absorbed = overlay.to_absorb();
    assert_eq!(absorbed.map(|layer| overlay.layers()[usize::from(layer)].epoch), Some(Epoch(4)));
    let entry = after(&entry, &[Step::Cover { epoch: Epoch(9), absorbed }]);
    assert_eq!(layers(&entry)[0], (9, 1));
    assert!(layers(&entry).iter().all(|(epoch, _)| *epoch != 4));
}

#[test]
fn steps_that_do_not_fit_are_refused() {
    assert_eq!(Entry::Zero.after(cover(1), granules()), None);
    assert_eq!(data(0, 1).after(fill(0, 1), granules()), None);
    let entry = after(&data(1, 3), &[cover(9)]);
    assert_eq!(entry.after(fill(1020, 5), granules()), None);
    assert_eq!(entry.after(Step::Cover { epoch: Epoch(10), absorbed: Some(2) }, granules()), None);
}

#[test]
fn a_mask_has_exactly_the_granules_of_its_ranges() {
    let edges = [0, 1, 63, 64, 65, 127, 128, 1000, 1023, 1024];
    let pairs = edges.iter().flat_map(|first| edges.iter().map(move |end| (*first, *end)));
    for (first, end) in pairs.filter(|(first, end)| first <= end) {
        let range = GranuleRange { first, count: end - first };
        let mask = Mask::of(range);
        let inside: Vec<u16> = (0..1024).filter(|granule| mask.contains(*granule)).collect();
        assert_eq!(inside, (first..end).collect::<Vec<u16>>());
        assert_eq!(mask.runs().collect::<Vec<_>>(), if first == end { vec![] } else { vec![range] });
        assert!(mask.contains_all(range));
        assert!(end == 1024 || !mask.contains_all(GranuleRange { first, count: end - first + 1 }));
    }
}

#[test]
fn runs_and_masks_say_the_same() {
    let mut mask = Mask::of(GranuleRange { first: 3, count: 70 });
    mask.insert(GranuleRange { first: 1023, count: 1 });
    let again = mask.runs().fold(Mask::EMPTY, |all, run| all.union(&Mask::of(run)));
    assert_eq!((again, mask.runs().count(), mask.len()), (mask, 2, 71));
}
