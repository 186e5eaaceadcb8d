//! How often an account's events make the prober work: a forged event costs one probe, and a flood of them no
//! more than this, whoever sends it (design, point 7).

use claviger_domain::heard::HeardChange;
use claviger_domain::policy::{EncryptionPolicy, KeyHealth};
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
    /// What events said of keys that are watched, oldest first: probes are saved, what is told of them is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heard: Vec<Remembered>,
}

/// What an event said, until it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remembered {
    /// What.
    pub change: HeardChange,
    /// When it was heard.
    pub at: Timestamp,
}

/// How much is remembered of an account; what is older than the newest of them goes first.
const MOST: usize = 16;
/// How long it is remembered: an ambiguous refusal waits as long as control probes fail.
const KEPT: SignedDuration = SignedDuration::from_hours(24);
/// How long before a refusal is first seen its cause may have been heard of.
const BEFORE: SignedDuration = SignedDuration::from_mins(15);

impl HintRecord {
    /// What else is stored if this was heard; none if it is known, or if the account has said as much as it may in
    /// this period. A flood costs no more writes than this.
    pub fn remembering(&self, change: &HeardChange, now: Timestamp) -> Option<Self> {
        let in_period = self.heard.iter().filter(|known| now.duration_since(known.at) < PERIOD).count();
        if in_period >= MOST || self.heard.iter().any(|known| known.change == *change) {
            return None;
        }
        let mut next = self.clone();
        next.heard.retain(|known| now.duration_since(known.at) < KEPT);
        next.heard.push(Remembered { change: change.clone(), at: now });
        let too_many = next.heard.len().saturating_sub(MOST);
        next.heard.drain(..too_many);
        Some(next)
    }

    /// What is to be told of a policy whose keys refuse: what concerns it, was not told, and was heard since about
    /// the time of the refusal.
    pub fn untold(&self, policy: &EncryptionPolicy, now: Timestamp) -> Vec<HeardChange> {
        let refused = policy.keys.values().filter(|key| match key.health {
            KeyHealth::Refused { .. } | KeyHealth::NoAnswer { refused_since: Some(_), .. } => true,
            KeyHealth::NoAnswer { refused_since: None, .. } | KeyHealth::Unknown | KeyHealth::Usable => false,
        });
        let since = refused.map(|key| key.since).min().unwrap_or(now);
        let is_news = |known: &&Remembered| {
            // What gives access is no cause of its loss.
            let from = if known.change.gives() { since } else { since - BEFORE };
            known.at >= from
                && policy.told_until.is_none_or(|until| known.at > until)
                && !policy.told_heard.contains(&known.change)
                && known.change.concerns(policy)
        };
        self.heard.iter().filter(is_news).map(|known| known.change.clone()).collect()
    }
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
            HintRecord { planned_at: now, period_began: now, used: 1, heard: Vec::new() },
        );
    };
    if known.planned_at > now {
        return Planned::Covered;
    }
    let renews = known.period_began + PERIOD;
    let spaced = (known.planned_at + SPACING).max(now);
    let at = if known.used >= BUDGET { spaced.max(renews) } else { spaced };
    let (period_began, used) =
        if at >= renews { (at, 1) } else { (known.period_began, known.used.saturating_add(1)) };
    let next = HintRecord { planned_at: at, period_began, used, heard: known.heard.clone() };
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

    #[test]
    fn a_record_that_is_stored_already_reads_as_one_that_heard_nothing_and_is_compared_as_it_stands() {
        let stored = r#"{"plannedAt":"2026-11-22T12:00:00Z","periodBegan":"2026-11-22T12:00:00Z","used":3}"#;
        let read: HintRecord = serde_json::from_str(stored).unwrap();
        assert!(read.heard.is_empty());
        assert_eq!(serde_json::to_string(&read).unwrap(), stored);
    }

    #[test]
    fn r9_what_is_remembered_of_an_account_is_bounded_and_a_doubled_event_is_remembered_once() {
        let change = |number: i64| HeardChange {
            slug: "key-disabled".to_owned(),
            by: None,
            at: Some(at(number)),
            key: None,
            role: None,
        };
        let Planned::After(_, first) = plan(None, at(0)) else { panic!() };
        let once = first.remembering(&change(1), at(1)).unwrap();
        assert_eq!(once.remembering(&change(1), at(2)), None, "doubled");
        let mut record = once;
        let mut writes = 0;
        for number in 2..500 {
            if let Some(next) = record.remembering(&change(number), at(number)) {
                record = next;
                writes += 1;
            }
        }
        assert_eq!(
            (writes, record.heard.len()),
            (MOST - 1, MOST),
            "a flood costs no more than that in a period"
        );
        let later = record.remembering(&change(9_999_999), at(61_000)).unwrap();
        assert_eq!(later.heard.len(), MOST);
        assert_eq!(later.heard.last().unwrap().change, change(9_999_999));
    }
}
