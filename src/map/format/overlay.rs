//! The bytes of an overlay, in pages and in journal records of version 2.
//!
//! | size | field |
//! |---|---|
//! | 1 | granule size as a power of two |
//! | 1 | number of layers |
//! | 2 | number of granules |
//! | 8 each | the layers' objects, as Data entry words, the top first |
//! | | the masks of all layers but the last, which has the granules that are left |
//!
//! A mask: number of runs (2), then runs of first granule (2) and count (2), ascending; or [`BITMAP`] (2), then the bitmap in
//! words of 8 bytes. The shorter form is written.

use super::FormatError;
use super::bytes::{Reader, Writer};
use crate::map::entry::{Entry, VolumeIds, Word};
use crate::map::overlay::{GranuleRange, Granules, LAYERS_MAX, Layer, Mask, Overlay};

/// In place of a number of runs.
const BITMAP: u16 = u16::MAX;

/// Bytes that the overlay takes at most: its masks as bitmaps.
pub fn bytes_max(overlay: &Overlay) -> usize {
    let mask = 2 + usize::from(overlay.granules().count()).div_ceil(64) * 8;
    4 + overlay.layers().len() * (8 + mask)
}

pub fn encode(overlay: &Overlay, writer: &mut Writer) {
    let small = |n: usize| u8::try_from(n).expect("an overlay has few layers");
    let (granules, layers) = (overlay.granules(), overlay.layers());
    writer.put(&[granules.shift(), small(layers.len())]).u16(granules.count());
    for layer in layers {
        writer.u64(Entry::Data { volume: layer.volume, epoch: layer.epoch }.word(0).0);
    }
    for layer in &layers[..layers.len() - 1] {
        encode_mask(&layer.mask, granules, writer);
    }
}

fn encode_mask(mask: &Mask, granules: Granules, writer: &mut Writer) {
    let words = usize::from(granules.count()).div_ceil(64);
    let runs: Vec<_> = mask.runs().collect();
    if runs.len() * 4 > words * 8 {
        writer.u16(BITMAP);
        mask.words()[..words].iter().for_each(|word| {
            writer.u64(*word);
        });
    } else {
        writer.u16(u16::try_from(runs.len()).expect("at most 512 runs"));
        for run in runs {
            writer.u16(run.first).u16(run.count);
        }
    }
}

/// # Errors
/// When it is not an overlay whose volumes are all in `ids`.
pub fn decode(reader: &mut Reader<'_>, ids: &VolumeIds) -> Result<Overlay, FormatError> {
    let shift = reader.u8("granule size")?;
    let count = usize::from(reader.u8("number of layers")?);
    let granules = Granules::from_parts(shift, reader.u16("number of granules")?);
    let granules = granules.ok_or_else(|| reader.error("an overlay's granules make no sense"))?;
    if !(2..=LAYERS_MAX).contains(&count) {
        return Err(reader.error("an overlay has too few or too many layers"));
    }
    let objects = (0..count).map(|_| Entry::from_word(Word(reader.u64("a layer")?), |_| None));
    let objects = objects.collect::<Result<Vec<_>, _>>()?;
    let mut left = Mask::of(granules.all());
    let mut layers = Vec::with_capacity(count);
    for (index, object) in objects.into_iter().enumerate() {
        let mask = if index + 1 == count { left } else { decode_mask(reader, granules)? };
        left = left.without(&mask);
        match object {
            Entry::Data { volume, epoch } if ids.get(volume).is_some() => layers.push(Layer { volume, epoch, mask }),
            _ => return Err(reader.error("a layer names no object of a volume in the table of ids")),
        }
    }
    Overlay::new(granules, layers).ok_or_else(|| reader.error("an overlay's masks do not fit together"))
}

fn decode_mask(reader: &mut Reader<'_>, granules: Granules) -> Result<Mask, FormatError> {
    let mut mask = Mask::EMPTY;
    let runs = reader.u16("number of runs")?;
    if runs == BITMAP {
        let mut words = *mask.words();
        for word in words.iter_mut().take(usize::from(granules.count()).div_ceil(64)) {
            *word = reader.u64("a bitmap")?;
        }
        mask = Mask::from_words(words);
    } else {
        for _ in 0..runs {
            let run = GranuleRange { first: reader.u16("a run")?, count: reader.u16("a run")? };
            let end = run.first.checked_add(run.count);
            if run.is_empty() || end.is_none_or(|end| end > granules.count()) {
                return Err(reader.error("a run of granules leaves its block"));
            }
            mask.insert(run);
        }
    }
    if mask.without(&Mask::of(granules.all())).is_empty() {
        Ok(mask)
    } else {
        Err(reader.error("a bitmap of granules leaves its block"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::entry::VolumeIndex;
    use crate::map::overlay::Step;
    use crate::units::{Epoch, ObjectSize, VolumeId};
    use std::sync::Arc;

    fn ids() -> VolumeIds {
        VolumeIds::from_vec(vec![VolumeId([1; 16]), VolumeId([2; 16])])
    }

    fn overlay(steps: &[Step]) -> Arc<Overlay> {
        let granules = Granules::new(ObjectSize::DEFAULT, 4096);
        let below = Entry::Data { volume: VolumeIndex(1), epoch: Epoch(3) };
        match steps.iter().fold(below, |entry, step| entry.after(*step, granules).unwrap()) {
            Entry::Overlay(overlay) => overlay,
            other => panic!("{other:?} is no overlay"),
        }
    }

    fn bytes(overlay: &Overlay) -> Vec<u8> {
        let mut writer = Writer::with_capacity(bytes_max(overlay));
        encode(overlay, &mut writer);
        writer.into_bytes()
    }

    fn cover(epoch: u64) -> Step {
        Step::Cover { epoch: Epoch(epoch), absorbed: None }
    }

    #[test]
    fn an_overlay_survives_its_bytes() {
        let scattered = (0..500).map(|n| Step::Fill(GranuleRange { first: n * 2, count: 1 }));
        let many: Vec<Step> = std::iter::once(cover(9)).chain(scattered).chain([cover(10)]).collect();
        for steps in [vec![cover(9)], vec![cover(9), Step::Fill(GranuleRange { first: 1000, count: 24 })], many] {
            let overlay = overlay(&steps);
            let bytes = bytes(&overlay);
            assert!(bytes.len() <= bytes_max(&overlay));
            let mut reader = Reader::new(&bytes, "a test");
            assert_eq!(decode(&mut reader, &ids()), Ok(Overlay::clone(&overlay)));
            assert!(reader.u8("nothing").is_err(), "all of it was read");
        }
    }

    #[test]
    fn no_flipped_bit_makes_an_overlay_that_breaks_its_invariants() {
        let good = bytes(&overlay(&[cover(9), Step::Fill(GranuleRange { first: 10, count: 3 })]));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(overlay) = decode(&mut Reader::new(&bad, "a test"), &ids()) {
                assert!(Overlay::new(overlay.granules(), overlay.layers().to_vec()).is_some(), "bit {bit}");
            }
        }
    }
}
