//! Business days and restoration windows, in UTC.

use jiff::civil::{Date, Weekday};
use jiff::{Timestamp, ToSpan, tz::TimeZone};

use crate::catalogue::{Catalogue, DueRules, Mode, WindowPhase};

fn is_business_day(rules: &DueRules, day: Date) -> bool {
    !matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday) && !rules.holidays.contains(&day)
}

/// The end of the `days`-th business day after `from` (spec E10, S5). Falls back to `from` only past
/// the end of the calendar.
pub fn business_days_after(rules: &DueRules, from: Timestamp, days: u16) -> Timestamp {
    let mut day = from.to_zoned(TimeZone::UTC).date();
    let mut left = days;
    while left > 0 {
        let Ok(next) = day.checked_add(1.day()) else {
            return from;
        };
        day = next;
        if is_business_day(rules, day) {
            left -= 1;
        }
    }
    day.at(23, 59, 59, 0).to_zoned(TimeZone::UTC).map_or(from, |zoned| zoned.timestamp())
}

/// The phase in which a restoration asked for at `now` falls, and when it ends (spec S3).
pub fn window_phase(
    catalogue: &Catalogue,
    mode: Mode,
    cut_off_at: Timestamp,
    now: Timestamp,
) -> (WindowPhase, Option<Timestamp>) {
    let windows = catalogue.modes.get(&mode).map(|rules| rules.windows.as_slice()).unwrap_or_default();
    for window in windows {
        let Some(day) = window.until_day else {
            return (window.phase, None);
        };
        let ends = cut_off_at.checked_add((i64::from(day) * 24).hours()).ok();
        if ends.is_none_or(|ends| now < ends) {
            return (window.phase, ends);
        }
    }
    (WindowPhase::Lapsed, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::within_the_week("2026-11-23T09:00:00Z", "2026-11-25T23:59:59Z")]
    #[case::over_a_weekend("2026-11-20T09:00:00Z", "2026-11-24T23:59:59Z")]
    #[case::over_a_holiday("2026-12-24T09:00:00Z", "2026-12-29T23:59:59Z")]
    fn e10_two_business_days_skip_weekends_and_holidays(#[case] from: &str, #[case] due: &str) {
        let rules = Catalogue::shipped().unwrap().due;
        let at = business_days_after(&rules, from.parse().unwrap(), 2);
        assert_eq!(at, due.parse().unwrap());
    }

    #[rstest]
    #[case(Mode::Byok, 14, WindowPhase::Assured)]
    #[case(Mode::Byok, 15, WindowPhase::Lapsed)]
    #[case(Mode::Cmk, 9, WindowPhase::Assured)]
    #[case(Mode::Cmk, 10, WindowPhase::BestEffort)]
    #[case(Mode::Cmk, 20, WindowPhase::NotAssured)]
    fn s3_windows_count_from_the_cut_off(#[case] mode: Mode, #[case] days: i64, #[case] phase: WindowPhase) {
        let catalogue = Catalogue::shipped().unwrap();
        let cut: Timestamp = "2026-11-01T12:00:00Z".parse().unwrap();
        let now = cut + (days * 24).hours();
        assert_eq!(window_phase(&catalogue, mode, cut, now).0, phase);
    }
}
