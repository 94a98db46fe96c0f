//! The quantities of the system, each a type of its own, so that a block index never becomes a byte offset by accident.
//!
//! Invariants: an [`ObjectSize`] is a power of two within its limits; a [`VolumeSize`] is a positive multiple of the
//! sector; a [`VolumeName`] is safe as one path component and as an object-store key. All of them are checked at
//! construction, so nobody checks again. Used by every layer; depends on nothing.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Bytes in a virtio-blk sector, whatever the device's logical block size (virtio 1.2, section 5.2.2).
pub const SECTOR_BYTES: u64 = 512;

/// Largest volume: 8 EiB less one object, so that every byte offset fits in an `i64` file offset.
pub const VOLUME_BYTES_MAX: u64 = (1 << 63) - (1 << 24);

/// Longest volume name in bytes. With a store's own prefix and suffix it stays under the 255 of every file system.
pub const NAME_BYTES_MAX: usize = 128;

/// A value that a person typed and that cannot be what they meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("{0:?} is not a size: write a number with an optional suffix, as in 512, 64KiB, 20GiB or 1PiB")]
    NotASize(String),
    #[error("the size {0:?} is too large: at most {max} fit", max = ByteSize(VOLUME_BYTES_MAX))]
    SizeTooLarge(String),
    #[error("a volume's size must be a positive multiple of 512 bytes, and {0} is not")]
    VolumeSize(u64),
    #[error("an object size must be a power of two from 64KiB to 16MiB, and {0} is not")]
    ObjectSize(ByteSize),
    #[error(
        "{0:?} is not a volume name: use 1 to {NAME_BYTES_MAX} of the characters A-Z a-z 0-9 . _ + @ : -, \
         and begin with a letter or a digit"
    )]
    VolumeName(String),
    #[error("{0:?} is not a volume id: 32 hexadecimal digits are expected")]
    VolumeId(String),
}

/// A number of bytes as people write it: `20GiB`, `64KiB`, `512`. Suffixes are powers of 1024; `K`, `KB` and `KiB` are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

const SUFFIXES: [(&str, u32); 7] =
    [("EiB", 60), ("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl fmt::Display for ByteSize {
    /// Exact when a suffix divides the number (`20GiB`), otherwise two decimals (`1.50GiB`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (suffix, shift) = SUFFIXES.into_iter().find(|(_, shift)| self.0 >> shift != 0).unwrap_or(("B", 0));
        if self.0 & ((1 << shift) - 1) == 0 {
            write!(f, "{}{suffix}", self.0 >> shift)
        } else {
            let hundredths = (u128::from(self.0) * 100) >> shift;
            write!(f, "{}.{:02}{suffix}", hundredths / 100, hundredths % 100)
        }
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let not_a_size = || UnitError::NotASize(text.to_owned());
        let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, suffix) = text.split_at(digits_end);
        let number: u64 = digits.parse().map_err(|_| not_a_size())?;
        let shift = match suffix.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            "p" | "pb" | "pib" => 50,
            "e" | "eb" | "eib" => 60,
            _ => return Err(not_a_size()),
        };
        let bytes = number.checked_shl(shift).filter(|bytes| bytes >> shift == number);
        bytes.map(ByteSize).ok_or_else(|| UnitError::SizeTooLarge(text.to_owned()))
    }
}

/// The size of a volume's objects: a power of two from 64 KiB to 16 MiB, fixed when the volume is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectSize(u8);

impl ObjectSize {
    pub const DEFAULT: ObjectSize = ObjectSize(22);
    const SHIFT_MIN: u8 = 16;
    const SHIFT_MAX: u8 = 24;

    /// # Errors
    /// When `bytes` is not a power of two from 64 KiB to 16 MiB.
    pub fn new(bytes: u64) -> Result<Self, UnitError> {
        let shift = u8::try_from(bytes.trailing_zeros()).unwrap_or(u8::MAX);
        let fits = bytes.is_power_of_two() && (Self::SHIFT_MIN..=Self::SHIFT_MAX).contains(&shift);
        if fits { Ok(Self(shift)) } else { Err(UnitError::ObjectSize(ByteSize(bytes))) }
    }

    pub const fn bytes(self) -> u64 {
        1 << self.0
    }

    pub const fn shift(self) -> u32 {
        self.0 as u32
    }

    /// The block that holds the volume's byte `offset`.
    pub const fn block_of(self, offset: u64) -> BlockIndex {
        BlockIndex(offset >> self.0)
    }

    /// Where in its block the volume's byte `offset` lies.
    pub const fn offset_in_block(self, offset: u64) -> u64 {
        offset & (self.bytes() - 1)
    }

    /// How many blocks a volume of `size` has; the last may be partly used.
    pub const fn blocks_in(self, size: VolumeSize) -> u64 {
        size.0.div_ceil(self.bytes())
    }
}

/// A volume's size in bytes: positive, a multiple of [`SECTOR_BYTES`], at most [`VOLUME_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeSize(u64);

impl VolumeSize {
    /// # Errors
    /// When `bytes` is zero, not a multiple of 512, or too large.
    pub fn new(bytes: u64) -> Result<Self, UnitError> {
        if bytes > VOLUME_BYTES_MAX {
            return Err(UnitError::SizeTooLarge(bytes.to_string()));
        }
        if bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES) {
            Err(UnitError::VolumeSize(bytes))
        } else {
            Ok(Self(bytes))
        }
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }

    pub const fn sectors(self) -> u64 {
        self.0 / SECTOR_BYTES
    }
}

/// Index of one object-sized slot in a volume's address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockIndex(pub u64);

/// The counter in the names of a volume's objects. Grows for ever; at most [`Epoch::MAX`], because a map entry gives it 40 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    pub const MAX: Epoch = Epoch((1 << 40) - 1);
}

/// Raised at each acquisition of a volume's lease; part of the names of its headers, journals and segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    pub fn next(self) -> Generation {
        Generation(self.0 + 1)
    }
}

/// A run of bytes in a volume or in an object. Its end never overflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByteRange {
    pub offset: u64,
    pub len: u64,
}

impl ByteRange {
    pub const fn new(offset: u64, len: u64) -> Self {
        Self { offset, len }
    }

    /// First byte behind the range, or `None` when it would pass `u64::MAX`.
    pub const fn end(self) -> Option<u64> {
        self.offset.checked_add(self.len)
    }

    /// Whether the whole range lies within `size` bytes.
    pub fn fits(self, size: u64) -> bool {
        self.end().is_some_and(|end| end <= size)
    }
}

/// A volume's permanent identity: 128 random bits (names change, ids do not).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub [u8; 16]);

impl VolumeId {
    /// A fresh id from the operating system's random numbers.
    pub fn random() -> Self {
        match SEQUENCE.get() {
            None => Self(*uuid::Uuid::new_v4().as_bytes()),
            Some(last) => {
                SEQUENCE.set(Some(last.wrapping_add(1)));
                // Odd, so different numbers give different ids, in no order.
                Self((u128::from(last) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
            }
        }
    }

    /// From now on this thread's fresh ids are a function of `seed`: for simulations, which must replay exactly.
    pub fn seed_thread(seed: u64) {
        SEQUENCE.set(Some(seed));
    }
}

thread_local! {
    /// Absent but in simulations.
    static SEQUENCE: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VolumeId {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let valid = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let number = valid.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(|n| Self(n.to_be_bytes())).ok_or_else(|| UnitError::VolumeId(text.to_owned()))
    }
}

/// A volume's name as people type it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName(Arc<str>);

impl VolumeName {
    /// # Errors
    /// When the text is empty, longer than [`NAME_BYTES_MAX`], begins with anything but a letter or digit, or has other
    /// characters than letters, digits and `. _ + @ : -`.
    pub fn new(text: &str) -> Result<Self, UnitError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._+@:-".contains(&b);
        let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if starts_well && text.len() <= NAME_BYTES_MAX && text.bytes().all(legal) {
            Ok(Self(text.into()))
        } else {
            Err(UnitError::VolumeName(text.chars().take(NAME_BYTES_MAX + 1).collect()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VolumeName {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_binary_suffixes() {
        let cases =
            [("512", 512), ("64KiB", 65536), ("20GiB", 20 << 30), ("1P", 1 << 50), ("3 MiB", 3 << 20), ("4kb", 4096)];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_not_a_size() {
        for text in ["", "GiB", "-1", "1.5GiB", "12XiB", "1 2"] {
            assert_eq!(text.parse::<ByteSize>(), Err(UnitError::NotASize(text.to_owned())));
        }
        assert!(matches!("16EiB".parse::<ByteSize>(), Err(UnitError::SizeTooLarge(_))));
    }

    #[test]
    fn sizes_print_exactly_or_with_two_decimals() {
        assert_eq!(ByteSize(20 << 30).to_string(), "20GiB");
        assert_eq!(ByteSize(1536).to_string(), "1.50KiB");
        assert_eq!(ByteSize(0).to_string(), "0B");
    }

    #[test]
    fn object_sizes_are_powers_of_two_within_limits() {
        assert_eq!(ObjectSize::new(4 << 20), Ok(ObjectSize::DEFAULT));
        for bytes in [0, 1, 32 << 10, 3 << 20, 32 << 20] {
            assert!(ObjectSize::new(bytes).is_err(), "{bytes}");
        }
    }

    #[test]
    fn volume_sizes_are_positive_multiples_of_a_sector() {
        assert_eq!(VolumeSize::new(1024).map(VolumeSize::sectors), Ok(2));
        for bytes in [0, 511, 513, u64::MAX] {
            assert!(VolumeSize::new(bytes).is_err(), "{bytes}");
        }
    }

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for text in ["", ".", "..", "a/b", "-x", ".hidden", "a b", "a\n", "ü", &"x".repeat(300)] {
            assert!(VolumeName::new(text).is_err(), "{text}");
        }
        for text in ["web1", "a.b_c+d@e:f-g", &"x".repeat(128)] {
            assert!(VolumeName::new(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn ids_survive_a_round_trip_through_text() {
        let id = VolumeId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("0123".parse::<VolumeId>().is_err());
    }
}
