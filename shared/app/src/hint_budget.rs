//! How often an account's events make the prober work: a forged event costs one probe, and a flood of them no
//! more than this, whoever sends it (design, point 7).

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Hinted probes of an account start at least this far apart.
pub const SPACING: SignedDuration = SignedDuration::from_secs(5);
/// In which time an account has its budget.
pub const PERIOD: SignedDuration = SignedDuration::from_secs(60);
/// How many hinted probes an account gets in a period; what comes then waits for the next one.
pub const BUDGET: u16 = 8;

/// What is remembered of an account's hints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HintRecord {
    /// When the last probe that a hint asked for starts, or started.
    pub planned_at: Timestamp,
    /// When the period began.
    pub period_began: Timestamp,
    /// Probes planned in it.
    pub used: u16,
}

/// What a hint leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planned {
    /// A probe that is still to come will see what the hint is about.
    Covered,
    /// A probe after this wait, once the record is stored.
    After(SignedDuration, HintRecord),
}

/// Plans a hint's probe: at once, or deferred, never dropped without one that comes later.
pub fn plan(known: Option<&HintRecord>, now: Timestamp) -> Planned {
    let Some(known) = known else {
        return Planned::After(
            SignedDuration::ZERO,
            HintRecord { planned_at: now, period_began: now, used: 1 },
        );
    };
    if known.planned_at > now {
        return Planned::Covered;
    }
    let renews = known.period_began + PERIOD;
    let spaced = (known.planned_at + SPACING).max(now);
    let at = if known.used >= BUDGET { spaced.max(renews) } else { spaced };
    let next = if at >= renews {
        HintRecord { planned_at: at, period_began: at, used: 1 }
    } else {
        HintRecord { planned_at: at, period_began: known.period_began, used: known.used.saturating_add(1) }
    };
    Planned::After(at.duration_since(now), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_795_000_000_000 + millis).unwrap()
    }

    #[test]
    fn r9_a_second_hint_within_five_seconds_is_deferred_and_a_third_is_covered_by_it() {
        let Planned::After(wait, first) = plan(None, at(0)) else { panic!() };
        assert_eq!(wait, SignedDuration::ZERO);
        let Planned::After(wait, second) = plan(Some(&first), at(1_200)) else { panic!("dropped") };
        assert_eq!(wait, SignedDuration::from_millis(3_800));
        assert_eq!(plan(Some(&second), at(1_300)), Planned::Covered);
        let Planned::After(wait, _) = plan(Some(&second), at(60_000)) else { panic!() };
        assert_eq!(wait, SignedDuration::ZERO);
    }

    #[test]
    fn r9_a_flood_costs_its_account_the_budget_and_no_more_and_every_hint_is_followed_by_a_probe() {
        let (mut known, mut starts) = (None, Vec::new());
        for step in 0..600_000 / 50 {
            let now = at(step * 50);
            match plan(known.as_ref(), now) {
                Planned::Covered => {}
                Planned::After(wait, next) => {
                    starts.push(now + wait);
                    known = Some(next);
                }
            }
            assert!(starts.last().unwrap() >= &now, "a hint that no probe follows");
        }
        assert!(starts.windows(2).all(|two| two[1].duration_since(two[0]) >= SPACING));
        for from in &starts {
            let within = starts.iter().filter(|at| *at >= from && at.duration_since(*from) < PERIOD).count();
            assert!(within <= usize::from(BUDGET) + 4, "{within} probes in a minute");
        }
        assert!(starts.len() <= 10 * usize::from(BUDGET) + 10, "{}", starts.len());
    }
}
