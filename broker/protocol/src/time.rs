//! A moment, in milliseconds of UTC; on the wire RFC 3339 text. Reading a clock is the caller's.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use crate::ids::serde_as_text;

/// Milliseconds since 1970-01-01T00:00:00Z. **Source:** RFC 3339 §5.6 for the text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

/// A text that is not an RFC 3339 time between 1970 and 9999.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time such as 2026-11-23T08:00:00Z")]
pub struct BadTimestamp;

impl Timestamp {
    /// The last moment this type writes: jiff's last, a day before the end of the year 9999.
    const MAX_MS: u64 = 253_402_207_200_000;

    /// From milliseconds since 1970; later than the year 9999 becomes its end.
    pub fn from_ms(ms: u64) -> Self {
        Self(ms.min(Self::MAX_MS))
    }
    /// Milliseconds since 1970.
    pub fn as_ms(self) -> u64 {
        self.0
    }
    /// Whole seconds since 1970.
    pub fn as_secs(self) -> u64 {
        self.0 / 1000
    }
    /// What a clock read; before 1970 counts as 1970.
    pub fn from_system(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::from_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
    /// How long after `earlier` this is; zero when it is not after.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self::from_ms(self.0.saturating_add(ms))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0).expect("limited to the year 9999");
        let moment = jiff::Timestamp::from_millisecond(ms).expect("limited to the year 9999");
        write!(f, "{moment:.3}")
    }
}
impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for Timestamp {
    type Err = BadTimestamp;
    fn from_str(text: &str) -> Result<Self, BadTimestamp> {
        let moment: jiff::Timestamp = text.parse().map_err(|_| BadTimestamp)?;
        Ok(Self::from_ms(u64::try_from(moment.as_millisecond()).map_err(|_| BadTimestamp)?))
    }
}
serde_as_text!(Timestamp, "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9:]+)$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_rfc_3339_and_read_back() {
        let moment = Timestamp::from_ms(1_795_400_000_123);
        assert_eq!(moment.to_string(), "2026-11-23T02:13:20.123Z");
        assert_eq!(moment.to_string().parse(), Ok(moment));
        assert_eq!("2026-11-23T04:13:20.123+02:00".parse(), Ok(moment));
        assert_eq!("yesterday".parse::<Timestamp>(), Err(BadTimestamp));
        assert_eq!("1969-12-31T00:00:00Z".parse::<Timestamp>(), Err(BadTimestamp));
        assert!(Timestamp::from_ms(u64::MAX).to_string().starts_with("9999"));
    }
}
