//! What a person or the export layer may choose about a device.

use crate::units::VolumeId;
use std::time::Duration;

/// Virtqueues offered unless told otherwise: enough for one per virtual CPU of most guests, which is what QEMU asks for when
/// nothing is said on its side. Those that are not started cost nothing.
pub const QUEUES_DEFAULT: u16 = 16;

/// Most virtqueues of one device. Each is a thread with a ring of its own; guests use one per virtual CPU.
pub const QUEUES_MAX: u16 = 64;

/// Length of the serial number that a guest can ask for (virtio 1.2, section 5.2.6: `VIRTIO_BLK_T_GET_ID`).
pub const SERIAL_BYTES: usize = 20;

/// How long a queue is watched after its last work before its thread sleeps, at most.
pub const POLL_DEFAULT: Duration = Duration::from_micros(32);

/// Settings of a device, fixed for its life.
#[derive(Debug, Clone)]
pub struct DeviceOptions {
    /// Virtqueues offered, 1 to [`QUEUES_MAX`].
    pub queues: u16,
    /// Whether the guest may write. A volume that is open read-only makes its device read-only whatever this says.
    pub writes: Writes,
    /// The upper bound of the adaptive polling time; zero means never to poll.
    pub poll_max: Duration,
    pub request_timeout: RequestTimeout,
    /// What `GET_ID` answers; `None` for the first 20 digits of the volume's id.
    pub serial: Option<Serial>,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self {
            queues: QUEUES_DEFAULT,
            writes: Writes::Allowed,
            poll_max: POLL_DEFAULT,
            request_timeout: RequestTimeout::Never,
            serial: None,
        }
    }
}

/// How long a guest's request waits for a store that does not answer, before it is answered with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequestTimeout {
    #[default]
    Never,
    After(Duration),
}

impl RequestTimeout {
    /// From a person's number of seconds, where 0 means never.
    ///
    /// # Errors
    /// When it is more than a day.
    pub fn from_seconds(seconds: u64) -> Result<Self, TooLong> {
        match seconds {
            0 => Ok(Self::Never),
            1..=REQUEST_TIMEOUT_SECONDS_MAX => Ok(Self::After(Duration::from_secs(seconds))),
            _ => Err(TooLong(seconds)),
        }
    }

    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::After(time) => Some(time),
        }
    }
}

/// No store comes back within this that would not have come back sooner: more is a mistake in the unit.
const REQUEST_TIMEOUT_SECONDS_MAX: u64 = 24 * 60 * 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a request waits for the store for at most {REQUEST_TIMEOUT_SECONDS_MAX} seconds, or for ever (0), and {0} is neither"
)]
pub struct TooLong(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    Allowed,
    /// Offers `VIRTIO_BLK_F_RO` and answers every change with an error.
    Refused,
}

/// A serial number: at most 20 bytes of printable ASCII, padded with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serial([u8; SERIAL_BYTES]);

impl Serial {
    /// `None` when the text is too long or has other than printable ASCII characters.
    pub fn new(text: &str) -> Option<Self> {
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        let mut bytes = [0; SERIAL_BYTES];
        bytes.get_mut(..text.len()).filter(|_| printable)?.copy_from_slice(text.as_bytes());
        Some(Self(bytes))
    }

    /// The first 20 hexadecimal digits of the id: 80 random bits, so two volumes do not meet.
    pub fn of(volume: VolumeId) -> Self {
        let text = volume.to_string();
        let mut bytes = [0; SERIAL_BYTES];
        bytes.copy_from_slice(&text.as_bytes()[..SERIAL_BYTES]);
        Self(bytes)
    }

    pub fn bytes(&self) -> &[u8; SERIAL_BYTES] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_twenty_bytes_padded_with_zeros() {
        assert_eq!(Serial::new("web1").map(|serial| *serial.bytes()), Some(*b"web1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"));
        assert!(Serial::new(&"x".repeat(20)).is_some());
        assert!(Serial::new(&"x".repeat(21)).is_none());
        assert!(Serial::new("a\nb").is_none());
    }

    #[test]
    fn a_time_out_is_seconds_up_to_a_day_or_never() {
        assert_eq!(RequestTimeout::from_seconds(0), Ok(RequestTimeout::Never));
        assert_eq!(RequestTimeout::from_seconds(30).unwrap().duration(), Some(Duration::from_secs(30)));
        assert!(RequestTimeout::from_seconds(86_400).is_ok());
        let too_long = RequestTimeout::from_seconds(86_401).unwrap_err().to_string();
        assert!(too_long.contains("86401 is neither"), "{too_long}");
    }

    #[test]
    fn the_default_serial_comes_from_the_volumes_id() {
        let serial = Serial::of(VolumeId([0xab; 16]));
        assert_eq!(serial.bytes(), b"abababababababababab");
    }
}
