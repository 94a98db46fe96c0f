//! Streams that somebody broke, deliberately or not: an error, no panic, and nobody takes what came of it for whole.

use crate::scene::{OBJECT, Random, Site};
use archvhost::admin::info::list;

fn small() -> (Site, Vec<u8>, Vec<u8>) {
    let here = Site::new();
    here.create("disk", 4 * OBJECT);
    here.with("disk", |disk| disk.write(4096, &[1; 512]));
    here.snapshot("disk", "mon");
    here.with("disk", |disk| disk.write(4096, &[2; 512]));
    here.snapshot("disk", "tue");
    let full = here.stream(None, "mon", None).unwrap();
    let increment = here.stream(Some("mon"), "tue", None).unwrap();
    (here, full, increment)
}

/// Whether the volume says that it has the content of a snapshot.
fn is_whole(site: &Site, volume: &str) -> bool {
    let header = site.header(volume);
    header.content.is_some() && header.receiving.is_none()
}

/// In the head and the ends of the stream at every few bytes, elsewhere here and there.
fn cuts(stream: &[u8]) -> impl Iterator<Item = usize> {
    let end = stream.len();
    (8..640).step_by(31).chain((640..end - 160).step_by(9973)).chain((end - 160..end).step_by(7))
}

#[test]
fn a_stream_cut_off_anywhere_makes_nothing_whole() {
    let (here, full, increment) = small();
    for len in cuts(&full) {
        let there = Site::new();
        there.import("copy", &full[..len]).unwrap_err();
        assert!(list(&there.store).unwrap().iter().all(|(name, _)| name.as_str() != "copy"), "{len}");
    }
    let there = Site::new();
    there.import("copy", &full).unwrap();
    for len in cuts(&increment) {
        there.import("copy", &increment[..len]).unwrap_err();
        let header = there.header("copy");
        assert!(header.content == Some(here.id("mon")), "{len}");
    }
    there.import("copy", &increment).unwrap();
    assert!(is_whole(&there, "copy") && there.content("copy") == here.content("tue"));
}

#[test]
fn a_stream_with_a_flipped_bit_anywhere_is_refused() {
    let (_, full, _) = small();
    let mut random = Random(1);
    for _ in 0..300 {
        let bit = 64 + usize::try_from(random.below((full.len() as u64 - 8) * 8)).unwrap();
        let mut damaged = full.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let there = Site::new();
        let error = there.import("copy", &damaged).unwrap_err().to_string();
        assert!(error.contains("the stream"), "bit {bit}: {error}");
        assert!(list(&there.store).unwrap().iter().all(|(name, _)| name.as_str() != "copy"), "bit {bit}");
    }
}

#[test]
fn bytes_that_are_no_stream_are_a_raw_image() {
    let there = Site::new();
    let mut image = vec![3; 4096];
    image[..8].copy_from_slice(b"AVHSTRM0");
    there.import("raw", &image).unwrap();
    assert!(there.content("raw") == image);
    there.import("short", &[5; 3]).unwrap();
    assert_eq!(there.content("short")[..4], [5, 5, 5, 0]);
}
