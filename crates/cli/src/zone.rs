//! Times as people here read them.

use time::{Date, OffsetDateTime, UtcOffset};

/// The time zone of this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Zone(UtcOffset);

impl Zone {
    /// If it can be found out, otherwise UTC: not once there are threads.
    pub(crate) fn here() -> Self {
        Self(UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC))
    }

    /// That of the world.
    #[cfg(test)]
    pub(crate) fn utc() -> Self {
        Self(UtcOffset::UTC)
    }

    /// The day of now.
    pub(crate) fn today(self) -> Date {
        OffsetDateTime::now_utc().to_offset(self.0).date()
    }

    /// The day of a moment in milliseconds since 1970; `None` for one that no calendar has.
    pub(crate) fn day(self, ms: u64) -> Option<Date> {
        self.moment(ms).map(OffsetDateTime::date)
    }

    /// Its time of day.
    pub(crate) fn time(self, ms: u64) -> String {
        let Some(time) = self.moment(ms) else { return "?".to_owned() };
        format!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
    }

    /// Both.
    pub(crate) fn day_and_time(self, ms: u64) -> String {
        self.day(ms).map_or_else(|| "?".to_owned(), |day| format!("{day} {}", self.time(ms)))
    }

    fn moment(self, ms: u64) -> Option<OffsetDateTime> {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
        time.ok().and_then(|time| time.checked_to_offset(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_a_day_and_a_time() {
        let (zone, ms) = (Zone(UtcOffset::from_hms(2, 0, 0).unwrap()), 1_763_764_805_000);
        assert_eq!(zone.day_and_time(ms), "2025-11-22 00:40:05");
        assert_eq!(Zone::utc().day_and_time(ms), "2025-11-21 22:40:05");
        assert_eq!((zone.time(u64::MAX), zone.day(u64::MAX)), ("?".to_owned(), None));
    }
}
