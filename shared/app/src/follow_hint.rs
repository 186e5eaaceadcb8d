//! Follows a hint (an event, a refusal met by the broker): probes, and repeats a probe that succeeded,
//! because KMS may still be propagating the change that the hint was about.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use claviger_domain::heard::HeardChange;
use claviger_domain::ids::CorrelationId;
use claviger_domain::values::OrganisationName;
use jiff::{SignedDuration, Timestamp};

use crate::error::WorkError;
use crate::hint_budget::SPACING;
use crate::messages::ProbeMessage;
use crate::ports::ProbeQueue;
use crate::report_probes::{Reason, ReportProbes};
use crate::unwrapped_keys::first_in;

/// Waits before a hinted probe that succeeded is repeated.
const REPEATS: [SignedDuration; 3] =
    [SignedDuration::from_secs(5), SignedDuration::from_secs(15), SignedDuration::from_secs(30)];

/// Whose refusals, met by brokers, this process has followed a moment ago.
///
/// Each broker's process tells of a refusal once in five seconds; however many of them there are, the prober's own few
/// processes follow it no more often than that each, so that one customer's refusal takes no time from the sweeps of all
/// the others.
#[derive(Default)]
pub struct FollowedRefusals(Mutex<HashMap<OrganisationName, Timestamp>>);

impl FollowedRefusals {
    fn is_first(&self, organisation: &OrganisationName, now: Timestamp) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        first_in(&mut seen, SPACING, organisation.clone(), now)
    }
}

/// Follows a hint.
pub struct FollowHint<'a> {
    /// How to probe and report.
    pub report: ReportProbes<'a>,
    /// Where the repetition waits.
    pub queue: &'a dyn ProbeQueue,
    /// What was followed already.
    pub followed: &'a FollowedRefusals,
}

impl FollowHint<'_> {
    /// Probes an organisation's keys at the moment at which an ambiguous refusal becomes due. A message that
    /// comes early, by clocks that differ, waits on.
    ///
    /// # Errors
    /// When the store or the queue fails; the message is delivered again.
    pub async fn when_due(
        &self,
        organisation: &OrganisationName,
        due_at: Timestamp,
        heard: Vec<HeardChange>,
        correlation: CorrelationId,
    ) -> Result<(), WorkError> {
        let early = due_at.duration_since(self.report.clock.now());
        if early > SignedDuration::ZERO {
            let organisation = organisation.clone();
            let message = ProbeMessage::FollowUp { organisation, due_at, heard, correlation };
            return Ok(self.queue.queue_probes(&[(message, early)]).await?);
        }
        let reason = Reason { heard, ..Reason::default() };
        self.report.of_organisation(organisation, &reason, correlation).await.map(drop)
    }

    /// Probes one organisation's keys. A refusal that brokers met is followed once in a while, however many tell of it.
    ///
    /// # Errors
    /// When the store or the queue fails; the message is delivered again.
    pub async fn run(
        &self,
        organisation: &OrganisationName,
        attempt: u8,
        reason: &Reason,
        correlation: CorrelationId,
    ) -> Result<(), WorkError> {
        let of_a_broker = attempt == 0 && reason.met.is_some() && reason.heard.is_empty();
        if of_a_broker && !self.followed.is_first(organisation, self.report.clock.now()) {
            return Ok(());
        }
        let Some(report) = self.report.of_organisation(organisation, reason, correlation).await? else {
            return Ok(());
        };
        let next = REPEATS.get(usize::from(attempt)).filter(|_| report.all_usable());
        if let Some(delay) = next {
            let again = ProbeMessage::Probe {
                organisation: organisation.clone(),
                attempt: attempt.saturating_add(1),
                data_key: reason.met,
                heard: reason.heard.clone(),
                correlation,
            };
            self.queue.queue_probes(&[(again, *delay)]).await?;
        }
        Ok(())
    }
}
