//! Streams survive their bytes, and what is broken, cut off or of another version is told as such.

use super::*;

impl Source for &[u8] {
    fn read(&mut self, len: usize, bytes: &mut Vec<u8>) -> Result<(), TransferError> {
        let (taken, rest) = self.split_at(len.min(self.len()));
        bytes.extend_from_slice(taken);
        *self = rest;
        Ok(())
    }
}

fn head(from: Option<Base>, position: u64) -> Head {
    Head {
        object_size: ObjectSize::DEFAULT,
        to: VolumeId([2; 16]),
        name: VolumeName::new("web1-tue").unwrap(),
        from,
        size: VolumeSize::new(1 << 20).unwrap(),
        position,
        created: 1_700_000_000,
    }
}

fn base() -> Option<Base> {
    Some(Base { id: VolumeId([1; 16]), name: VolumeName::new("web1-mon").unwrap() })
}

fn data(offset: u64, len: usize) -> Record {
    Record::Data { offset, bytes: vec![7; len] }
}

fn encode(head: &Head, records: &[Record]) -> Vec<u8> {
    let (mut encoder, mut bytes) = Encoder::new(head);
    records.iter().for_each(|record| bytes.extend(encoder.record(record)));
    bytes
}

fn decode(bytes: &[u8]) -> Result<(Head, Vec<Record>), String> {
    let (mut decoder, head) = Decoder::new(bytes).map_err(|error| error.to_string())?;
    let mut records = Vec::new();
    loop {
        let record = decoder.record().map_err(|error| error.to_string())?;
        let last = matches!(record, Record::End { .. });
        records.push(record);
        if last {
            return Ok((head, records));
        }
    }
}

fn small() -> (Head, Vec<Record>) {
    let zero = Record::Zero(ByteRange::new(4096, 8192));
    (head(base(), 512), vec![data(512, 1024), zero, data(1 << 19, 512), Record::End { data: 1536, zero: 8192 }])
}

#[test]
fn a_stream_survives_its_bytes() {
    let (with_base, records) = small();
    for head in [with_base, head(None, 0)] {
        assert_eq!(decode(&encode(&head, &records)), Ok((head, records.clone())));
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (head, records) = small();
    let bytes = encode(&head, &records);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn a_stream_that_ends_anywhere_before_its_end_is_noticed() {
    let (head, records) = small();
    let bytes = encode(&head, &records);
    for len in 0..bytes.len() {
        let error = decode(&bytes[..len]).unwrap_err();
        assert!(error.contains("ends before"), "{len}: {error}");
    }
    assert!(decode(&[&bytes[..], b"and more"].concat()).is_ok());
}

#[test]
fn a_record_of_another_stream_or_place_is_noticed() {
    let (head, records) = small();
    let bytes = encode(&head, &records);
    let other = encode(&Head { created: 1, ..head.clone() }, &records);
    let first_len = RECORD_HEAD_BYTES + 1024 + DIGEST_BYTES;
    let spliced = [&bytes[..HEAD_BYTES], &other[HEAD_BYTES..]].concat();
    let left_out = [&bytes[..HEAD_BYTES], &bytes[HEAD_BYTES + first_len..]].concat();
    let repeated = [&bytes[..HEAD_BYTES + first_len], &bytes[HEAD_BYTES..]].concat();
    for (damaged, record) in [(spliced, 1), (left_out, 1), (repeated, 2)] {
        let error = decode(&damaged).unwrap_err();
        assert!(error.contains(&format!("record {record} ")) && error.contains("digest"), "{error}");
    }
}

#[test]
fn records_that_cannot_be_are_refused_even_with_a_good_digest() {
    let cases = [
        (data(0, 512), "comes after"),
        (data(512, 0), "not sectors"),
        (data(512, 100), "not sectors"),
        (data(700, 512), "not sectors"),
        (data((1 << 20) - 512, 1024), "not sectors"),
        (data(512, DATA_BYTES_MAX + 512), "more than a record"),
        (Record::Zero(ByteRange::new(u64::MAX - 511, 1024)), "not sectors"),
        (Record::Zero(ByteRange::new(512, 1 << 40)), "not sectors"),
        (Record::End { data: 1, zero: 0 }, "counts"),
    ];
    for (record, problem) in cases {
        let error = decode(&encode(&head(None, 512), std::slice::from_ref(&record))).unwrap_err();
        assert!(error.contains("record 1 ") && error.contains(problem), "{record:?}: {error}");
    }
    let twice = encode(&head(None, 0), &[data(4096, 4096), data(4096, 4096)]);
    assert!(decode(&twice).unwrap_err().contains("record 2 "));
}

/// A head whose fields were changed and whose digest is right.
fn changed_head(change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut bytes = Encoder::new(&head(base(), 0)).1;
    change(&mut bytes);
    let digest = *blake3::hash(&bytes[..HEAD_BYTES - DIGEST_BYTES]).as_bytes();
    bytes[HEAD_BYTES - DIGEST_BYTES..].copy_from_slice(&digest);
    bytes
}

#[test]
fn heads_that_cannot_be_are_refused_even_with_a_good_digest() {
    let cases: [(usize, u8, &str); 11] = [
        (0, b'X', "magic"),
        (8, 2, "version 2"),
        (12, 40, "object size"),
        (49, 1, "multiple of 512"),
        (55, 0xff, "too large"),
        (56, 1, "position"),
        (62, 1, "position"),
        (72, 0, "behind a name"),
        (73, 9, "too long"),
        (74, b'/', "not a volume's"),
        (470, 1, "not zero"),
    ];
    for (at, value, problem) in cases {
        let error = decode(&changed_head(|bytes| bytes[at] = value)).unwrap_err();
        assert!(error.contains(problem), "byte {at}: {error}");
    }
    for id in [16..32, 32..48] {
        let error = decode(&changed_head(|bytes| bytes[id.clone()].fill(0))).unwrap_err();
        assert!(error.contains("the head"), "{error}");
    }
}

#[test]
fn absurd_lengths_read_and_allocate_nothing() {
    struct Metered<'a>(&'a [u8], usize);
    impl Source for Metered<'_> {
        fn read(&mut self, len: usize, bytes: &mut Vec<u8>) -> Result<(), TransferError> {
            self.1 = self.1.max(len);
            assert!(self.1 <= DATA_BYTES_MAX + DIGEST_BYTES, "{len} bytes asked for");
            self.0.read(len, bytes)
        }
    }
    for len in [DATA_BYTES_MAX as u64 + 1, 1 << 40, u64::MAX] {
        let (_, mut bytes) = Encoder::new(&head(None, 0));
        let mut writer = Writer::with_capacity(RECORD_HEAD_BYTES);
        writer.u32(KIND_DATA).u32(0).u64(0).u64(len);
        bytes.extend(writer.into_bytes());
        let (mut decoder, _) = Decoder::new(Metered(&bytes, 0)).unwrap();
        assert!(decoder.record().unwrap_err().to_string().contains("more than a record"), "{len}");
    }
}
