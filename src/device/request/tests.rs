//! Requests of every layout, and what the rules say of each.

use super::*;
use crate::device::ring::Notification;
use crate::device::test_guest::{DATA, Guest, INDIRECT, MEMORY_BYTES, NEXT, SIZE, WRITE};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

const CAPACITY: u64 = 1 << 30;
const BODY: u64 = DATA + 0x1000;
const STATUS: u64 = DATA + 0x800;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

fn parse_with(guest: &Guest, writes: Writes, stability: Stability) -> Verdict {
    let mut chain = Chain::default();
    chain.collect(&guest.ring(Notification::Flags), &guest.memory, 0).unwrap();
    let memory = Arc::clone(&guest.memory);
    let keep: Arc<dyn Any + Send + Sync> = memory;
    let serial = Serial::new("serial").unwrap();
    parse(&mut chain, &Rules { capacity_bytes: CAPACITY, writes, stability, serial: &serial, keep: &keep }).verdict
}

fn parsed(guest: &Guest) -> Verdict {
    parse_with(guest, Writes::Allowed, Stability::Cached)
}

fn answer(verdict: &Verdict) -> Option<Status> {
    match verdict {
        Verdict::Answer { status, .. } => Some(*status),
        Verdict::Submit { .. } => None,
    }
}

/// A request with `len` bytes of data in one descriptor.
fn simple(kind: u32, sector: u64, len: u32) -> Guest {
    let guest = Guest::new();
    guest.header(kind, sector);
    let direction = if kind == OUT { 0 } else { WRITE };
    guest.chain(&[(DATA, 16, 0), (BODY, len, direction), (STATUS, 1, WRITE)]);
    guest
}

fn discard_segment(kind: u32, sector: u64, sectors: u32, flags: u32) -> Guest {
    let guest = Guest::new();
    guest.header(kind, 0);
    guest.put(BODY, &sector.to_le_bytes());
    guest.put(BODY + 8, &sectors.to_le_bytes());
    guest.put(BODY + 12, &flags.to_le_bytes());
    guest.chain(&[(DATA, 16, 0), (BODY, 16, 0), (STATUS, 1, WRITE)]);
    guest
}

#[test]
fn a_read_takes_the_writable_memory_before_the_status() {
    let verdict = parsed(&simple(IN, 8, 4096));
    let Verdict::Submit { request: Request::Read { range, buffer }, written } = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!((range, buffer.len(), written), (ByteRange::new(4096, 4096), 4096, 4096));
}

#[test]
fn a_write_takes_the_readable_memory_behind_the_header() {
    let guest = simple(OUT, 1, 1024);
    guest.put(BODY, b"data");
    let verdict = parse_with(&guest, Writes::Allowed, Stability::Stable);
    let Verdict::Submit { request: Request::Write { range, buffer, stability }, written: 0 } = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!((range, stability), (ByteRange::new(512, 1024), Stability::Stable));
    assert_eq!(&buffer.to_vec()[..4], b"data");
}

#[test]
fn header_data_and_status_may_share_or_split_descriptors_anywhere() {
    let guest = Guest::new();
    guest.header(OUT, 2);
    guest.put(DATA + 16, &[7; 512]);
    guest.chain(&[(DATA, 5, 0), (DATA + 5, 20, 0), (DATA + 25, 503, 0), (STATUS, 3, WRITE)]);
    let verdict = parsed(&guest);
    let Verdict::Submit { request: Request::Write { range, buffer, .. }, .. } = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!((range, buffer.to_vec()), (ByteRange::new(1024, 512), vec![7; 512]));

    guest.header(IN, 2);
    guest.chain(&[(DATA, 16, 0), (BODY, 500, WRITE), (BODY + 500, 13, WRITE)]);
    let verdict = parsed(&guest);
    let Verdict::Submit { request: Request::Read { buffer, .. }, written: 512 } = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(buffer.len(), 512);
}

#[test]
fn overlapping_segments_are_the_guests_own_affair() {
    let guest = Guest::new();
    guest.header(IN, 0);
    guest.chain(&[(DATA, 16, 0), (BODY, 512, WRITE), (BODY + 256, 512, WRITE), (STATUS, 1, WRITE)]);
    assert!(matches!(parsed(&guest), Verdict::Submit { written: 1024, .. }));
}

#[test]
fn ranges_that_leave_the_volume_are_errors() {
    let last = CAPACITY / 512 - 1;
    assert_eq!(answer(&parsed(&simple(IN, last, 512))), None);
    for (sector, len) in [(last, 1024), (last + 1, 512), (u64::MAX, 512), (u64::MAX / 512, 512), (1 << 55, 512)] {
        for kind in [IN, OUT] {
            assert_eq!(answer(&parsed(&simple(kind, sector, len))), Some(Status::IoError), "{kind} {sector} {len}");
        }
    }
}

#[test]
fn lengths_that_are_no_multiple_of_a_sector_are_errors() {
    for len in [1, 511, 513] {
        assert_eq!(answer(&parsed(&simple(IN, 0, len))), Some(Status::IoError));
        assert_eq!(answer(&parsed(&simple(OUT, 0, len))), Some(Status::IoError));
    }
}

#[test]
fn requests_larger_than_advertised_are_errors() {
    let guest = Guest::new();
    guest.header(IN, 0);
    let table = DATA + 0x2000;
    guest.descriptor(0, table, 32 * 16, INDIRECT, 0);
    guest.descriptor_at(table, DATA, 16, 1, 1);
    for i in 1..32_u16 {
        let next = u16::from(i < 31);
        guest.descriptor_at(table + 16 * u64::from(i), 0x2_0000, 2 << 20, WRITE | next, i + 1);
    }
    assert_eq!(answer(&parsed(&guest)), Some(Status::IoError), "62 MiB");
}

#[test]
fn a_read_only_device_changes_nothing() {
    let changes = [simple(OUT, 0, 512), discard_segment(DISCARD, 0, 8, 0), discard_segment(WRITE_ZEROES, 0, 8, 0)];
    for guest in changes {
        assert_eq!(answer(&parse_with(&guest, Writes::Refused, Stability::Cached)), Some(Status::IoError));
    }
    assert_eq!(answer(&parse_with(&simple(IN, 0, 512), Writes::Refused, Stability::Cached)), None);
}

#[test]
fn flush_needs_no_data() {
    let guest = Guest::new();
    guest.header(FLUSH, 0);
    guest.chain(&[(DATA, 16, 0), (STATUS, 1, WRITE)]);
    assert!(matches!(parsed(&guest), Verdict::Submit { request: Request::Flush, written: 0 }));
}

#[test]
fn discards_and_zeroes_carry_one_checked_segment() {
    let verdict = parsed(&discard_segment(DISCARD, 8, 16, 0));
    assert!(matches!(verdict, Verdict::Submit { request: Request::Discard { range }, .. }
        if range == ByteRange::new(4096, 8192)));
    let space_of = |flags| match parsed(&discard_segment(WRITE_ZEROES, 8, 16, flags)) {
        Verdict::Submit { request: Request::WriteZeroes { space, .. }, .. } => Some(space),
        _ => None,
    };
    assert_eq!((space_of(0), space_of(1), space_of(2)), (Some(Space::Keep), Some(Space::Free), None));
}

#[test]
fn flags_that_a_discard_cannot_have_are_unsupported() {
    for (kind, flags) in [(DISCARD, 1), (DISCARD, 2), (DISCARD, u32::MAX), (WRITE_ZEROES, 2), (WRITE_ZEROES, 3)] {
        assert_eq!(answer(&parsed(&discard_segment(kind, 0, 8, flags))), Some(Status::Unsupported), "{kind} {flags}");
    }
}

#[test]
fn discards_outside_the_volume_or_its_limits_are_errors() {
    let end = CAPACITY / 512;
    for (sector, sectors) in [(end, 1), (end - 1, 2), (u64::MAX, 1), (0, DISCARD_SECTORS_MAX + 1), (0, u32::MAX)] {
        for kind in [DISCARD, WRITE_ZEROES] {
            let verdict = parsed(&discard_segment(kind, sector, sectors, 0));
            assert_eq!(answer(&verdict), Some(Status::IoError), "{kind} {sector} {sectors}");
        }
    }
    assert_eq!(answer(&parsed(&discard_segment(DISCARD, 0, 0, 0))), Some(Status::Ok), "nothing to do");
}

#[test]
fn two_discard_segments_are_unsupported_and_half_a_one_is_an_error() {
    for (len, status) in [(32, Status::Unsupported), (17, Status::Unsupported), (15, Status::IoError)] {
        let guest = discard_segment(DISCARD, 0, 8, 0);
        guest.chain(&[(DATA, 16, 0), (BODY, len, 0), (STATUS, 1, WRITE)]);
        assert_eq!(answer(&parsed(&guest)), Some(status), "{len}");
    }
}

#[test]
fn the_serial_number_fills_what_room_there_is() {
    for (room, expected) in [(20, 20), (8, 8), (512, 20)] {
        let guest = simple(GET_ID, 0, room);
        assert!(matches!(parsed(&guest), Verdict::Answer { status: Status::Ok, written } if written == expected));
        assert_eq!(guest.get::<8>(BODY), *b"serial\0\0");
    }
    let guest = Guest::new();
    guest.header(GET_ID, 0);
    guest.chain(&[(DATA, 16, 0), (STATUS, 1, WRITE)]);
    assert_eq!(answer(&parsed(&guest)), Some(Status::Ok), "no room at all");
}

#[test]
fn unknown_types_are_unsupported_and_short_headers_errors() {
    assert_eq!(answer(&parsed(&simple(99, 0, 512))), Some(Status::Unsupported));
    let guest = Guest::new();
    guest.chain(&[(DATA, 15, 0), (STATUS, 1, WRITE)]);
    assert_eq!(answer(&parsed(&guest)), Some(Status::IoError));
}

#[test]
fn broken_chains_are_errors_whatever_they_ask_for() {
    let guest = Guest::new();
    guest.header(FLUSH, 0);
    guest.chain(&[(DATA, 16, 0), (u64::MAX, 512, WRITE), (STATUS, 1, WRITE)]);
    assert_eq!(answer(&parsed(&guest)), Some(Status::IoError));
}

/// Descriptors near enough to sense that many of them get far: address, length, flags, and how far ahead the next one is.
fn any_descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![
        16 => DATA..DATA + 0x4000,
        1 => MEMORY_BYTES - 64..MEMORY_BYTES + 64,
        1 => any::<u64>(),
        1 => 0_u64..0x3000,
    ];
    let len = prop_oneof![
        16 => prop::sample::select(vec![512_u32, 512, 1024, 4096]),
        2 => prop::sample::select(vec![0_u32, 1, 15, 16, 17, 32, 513]),
        1 => any::<u32>(),
    ];
    let flags = prop_oneof![
        16 => prop::sample::select(vec![NEXT, WRITE | NEXT, WRITE | NEXT]),
        2 => 0_u16..8,
        1 => any::<u16>(),
    ];
    (address, len, flags, prop_oneof![16 => Just(1_u16), 1 => any::<u16>()])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Whatever the guest writes, nothing panics, and no request touches a byte outside its memory or its volume.
    #[test]
    fn whatever_a_guest_writes_stays_within_its_memory_and_its_volume(
        direct in prop::collection::vec(any_descriptor(), usize::from(SIZE)),
        indirect in prop::collection::vec(any_descriptor(), 16),
        kind in prop_oneof![4 => prop::sample::select(vec![IN, OUT, DISCARD, WRITE_ZEROES, GET_ID]), 1 => any::<u32>()],
        sector in prop_oneof![4 => 0_u64..64, 1 => any::<u64>()],
        starts_well in prop::bool::weighted(0.9),
        last in 1..5_u16,
        in_table in prop::bool::weighted(0.2),
    ) {
        let guest = Guest::new();
        let table = DATA + 0x5000;
        for (index, (address, len, flags, ahead)) in (0_u16..).zip(direct) {
            guest.descriptor(index, address, len, flags, index.wrapping_add(ahead));
        }
        for (index, (address, len, flags, ahead)) in (0_u16..).zip(indirect) {
            let place = table + 16 * u64::from(index);
            guest.descriptor_at(place, address, len, flags, index.wrapping_add(ahead));
        }
        if starts_well && in_table {
            guest.descriptor(0, table, 16 * 16, INDIRECT, 0);
            guest.descriptor_at(table, DATA, 16, NEXT, 1);
            guest.descriptor_at(table + 16 * u64::from(last), STATUS, 1, WRITE, 0);
        } else if starts_well {
            guest.descriptor(0, DATA, 16, NEXT, 1);
            guest.descriptor(last, STATUS, 1, WRITE, 0);
        }
        guest.header(kind, sector);
        let mut chain = Chain::default();
        let start = guest.memory.contiguous(0, MEMORY_BYTES).unwrap().addr();
        let inside = |address: usize, len: usize| address >= start && address + len <= start + (4 << 20);
        if let Ok(status) = chain.collect(&guest.ring(Notification::Flags), &guest.memory, 0) {
            prop_assert!(inside(status.addr(), 1));
            let memory = Arc::clone(&guest.memory);
            let keep: Arc<dyn Any + Send + Sync> = memory;
            let serial = Serial::new("serial").unwrap();
            let (capacity_bytes, stability) = (CAPACITY, Stability::Cached);
            let rules = Rules { capacity_bytes, writes: Writes::Allowed, stability, serial: &serial, keep: &keep };
            if let Verdict::Submit { request, written } = parse(&mut chain, &rules).verdict {
                let (range, buffer) = match request {
                    Request::Read { range, buffer } => {
                        prop_assert_eq!(u64::from(written), range.len);
                        (range, Some(buffer))
                    }
                    Request::Write { range, buffer, .. } => (range, Some(buffer)),
                    Request::Discard { range } | Request::WriteZeroes { range, .. } => (range, None),
                    Request::Flush => (ByteRange::new(0, 512), None),
                };
                prop_assert!(range.fits(CAPACITY) && range.len != 0 && range.len % 512 == 0);
                for segment in buffer.iter().flat_map(|buffer| buffer.segments()) {
                    prop_assert!(inside(segment.iov_base.addr(), segment.iov_len));
                }
                prop_assert!(buffer.is_none_or(|buffer| buffer.len() as u64 == range.len));
            }
        }
    }
}
