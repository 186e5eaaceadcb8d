//! Business days and restoration windows, in UTC.

use jiff::civil::{Date, Weekday};
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use serde::{Deserialize, Serialize};

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

/// What happens at a moment of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "kind")]
pub enum MomentKind {
    /// The org admins are reminded that the phase ends.
    Reminder {
        /// When it ends.
        ends_at: Timestamp,
    },
    /// The phase begins: the one before is over.
    PhaseBegins,
}

/// A moment of a restoration window at which somebody is told something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WindowMoment {
    /// When.
    pub at: Timestamp,
    /// The phase that it is about.
    pub phase: WindowPhase,
    /// What.
    #[serde(flatten)]
    pub kind: MomentKind,
}

/// One phase of a window with its dates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DatedPhase {
    /// The phase.
    pub phase: WindowPhase,
    /// When it begins.
    pub begins_at: Timestamp,
    /// When it ends; none for the last.
    pub ends_at: Option<Timestamp>,
}

fn days_after(from: Timestamp, days: i64) -> Option<Timestamp> {
    from.checked_add((days.saturating_mul(24)).hours()).ok()
}

/// The phases of the window that a cut-off opens, in order.
pub fn dated_phases(catalogue: &Catalogue, mode: Mode, cut_off_at: Timestamp) -> Vec<DatedPhase> {
    let windows = catalogue.modes.get(&mode).map(|rules| rules.windows.as_slice()).unwrap_or_default();
    let mut begins_at = cut_off_at;
    let mut phases = Vec::new();
    for window in windows {
        let ends_at = window.until_day.and_then(|day| days_after(cut_off_at, i64::from(day)));
        phases.push(DatedPhase { phase: window.phase, begins_at, ends_at });
        match ends_at {
            Some(end) => begins_at = end,
            None => break,
        }
    }
    phases
}

/// Every moment of the window that a cut-off opens, earliest first: the catalogue's reminders before a phase
/// ends, and the beginning of every phase but the first.
pub fn window_moments(catalogue: &Catalogue, mode: Mode, cut_off_at: Timestamp) -> Vec<WindowMoment> {
    let windows = catalogue.modes.get(&mode).map(|rules| rules.windows.as_slice()).unwrap_or_default();
    let mut moments = Vec::new();
    for (dated, window) in dated_phases(catalogue, mode, cut_off_at).iter().zip(windows) {
        if dated.begins_at > cut_off_at {
            let kind = MomentKind::PhaseBegins;
            moments.push(WindowMoment { at: dated.begins_at, phase: dated.phase, kind });
        }
        let Some(ends_at) = dated.ends_at else { continue };
        for days in &window.remind_days_before {
            let kind = MomentKind::Reminder { ends_at };
            let at = days_after(ends_at, i64::from(*days).saturating_neg());
            moments.extend(at.map(|at| WindowMoment { at, phase: dated.phase, kind }));
        }
    }
    moments.sort_by_key(|moment| moment.at);
    moments
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

    #[test]
    fn s3_every_phase_has_its_reminders_and_its_beginning_in_order() {
        let catalogue = Catalogue::shipped().unwrap();
        let cut: Timestamp = "2026-11-01T12:00:00Z".parse().unwrap();
        let told = |mode| -> Vec<(i64, WindowPhase, bool)> {
            let day = |at: Timestamp| at.duration_since(cut).as_hours() / 24;
            window_moments(&catalogue, mode, cut)
                .iter()
                .map(|moment| (day(moment.at), moment.phase, moment.kind == MomentKind::PhaseBegins))
                .collect()
        };
        assert_eq!(
            told(Mode::Byok),
            [
                (8, WindowPhase::Assured, false),
                (12, WindowPhase::Assured, false),
                (14, WindowPhase::Assured, false),
                (15, WindowPhase::Lapsed, true),
            ]
        );
        assert_eq!(
            told(Mode::Cmk),
            [
                (7, WindowPhase::Assured, false),
                (9, WindowPhase::Assured, false),
                (10, WindowPhase::BestEffort, true),
                (17, WindowPhase::BestEffort, false),
                (19, WindowPhase::BestEffort, false),
                (20, WindowPhase::NotAssured, true),
            ]
        );
    }
}
