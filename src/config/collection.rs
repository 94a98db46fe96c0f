//! When the daemon collects by itself, and what a collection may use.

use crate::units::ByteSize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Space comes back the same day, and a large store is not listed all the time.
pub const GC_INTERVAL_DEFAULT: Interval = Interval::Every(Duration::from_secs(6 * 3600));

/// The marks of some 60 million objects before any of them go to files.
pub const GC_MEMORY_DEFAULT: ByteSize = ByteSize(256 << 20);

/// Less is all spilling.
pub const GC_MEMORY_MIN: ByteSize = ByteSize(1 << 20);

/// A collection reads every map of the store: more often than this is a mistake.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Where marks go that do not fit in memory: not to a directory in memory.
pub fn gc_spill_dir(given: Option<&Path>) -> PathBuf {
    let default = || std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    given.map_or_else(default, Path::to_owned)
}

/// How often the daemon collects by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    Never,
    Every(Duration),
}

const UNITS: [(&str, u64); 4] = [("min", 60), ("s", 1), ("h", 3600), ("d", 86_400)];

impl FromStr for Interval {
    type Err = String;

    /// `90s`, `15min`, `6h`, `1d`, or `never`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Never);
        }
        let refused =
            || format!("{text:?} is not an interval: write \"never\", or a number with s, min, h or d, as in 6h");
        let unit = |(suffix, seconds)| Some((text.strip_suffix(suffix)?.trim_end(), seconds));
        let (number, seconds) = UNITS.into_iter().find_map(unit).ok_or_else(refused)?;
        let number: u64 = number.parse().map_err(|_| refused())?;
        let interval = Duration::from_secs(number.checked_mul(seconds).ok_or_else(refused)?);
        if interval < INTERVAL_MIN { Err(refused()) } else { Ok(Self::Every(interval)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_written_with_their_unit() {
        let every = |seconds| Ok(Interval::Every(Duration::from_secs(seconds)));
        let cases = [("90s", every(90)), ("15min", every(900)), ("6h", every(21_600)), ("1 d", every(86_400))];
        for (text, interval) in cases {
            assert_eq!(text.parse(), interval, "{text}");
        }
        assert_eq!("never".parse(), Ok(Interval::Never));
        for text in ["", "6", "h", "0s", "-1h", "1.5h", "6 hours", "99999999999999999999d", "9999999999999999999d"] {
            assert!(text.parse::<Interval>().is_err(), "{text}");
        }
    }
}
