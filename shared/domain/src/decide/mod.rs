//! The deciding function: `(policy, event, now) -> next policy, one fact, effects`, or a refusal.
//!
//! It is pure and total. The store commits state, fact, outbox rows and fence in one conditional
//! transaction, so the cut-off is one write whatever the number of instances (design, point 8).

mod access;
mod closing;
mod data_keys;
mod enrolment;
mod health;
mod mistake;
mod outlook;
mod preview;
mod records;
mod reencryption;
mod replacement;
mod restoration;
mod revocation;
mod telling;
mod vendor;
mod windows;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::catalogue::{Catalogue, ModeRules};
use crate::effect::{Effect, OutboxRow};
use crate::event::{Origin, PolicyEvent};
use crate::fact::{Fact, FactBody};
use crate::fence::Cause;
use crate::ids::TicketId;
use crate::observation::Observation;
use crate::policy::{EncryptionPolicy, Lifecycle};
use crate::values::Region;

use self::access::{access_declined, access_granted, access_requested};
pub use self::closing::advice;
use self::closing::{
    closing_approved, closing_asked, closing_cancelled, closing_moment_came, closing_rejected,
    data_keys_counted, data_keys_erased,
};
use self::data_keys::{data_keys_expired, data_keys_removed};
pub use self::enrolment::enrol;
use self::enrolment::{
    enrolment_approved, enrolment_rejected, keys_created, keys_verified, verification_failed,
};
pub use self::health::{becomes_due, is_answered, proves_access, wants_confirmation};
use self::mistake::mistake_declared;
pub use self::outlook::describes_news;
use self::outlook::keys_described;
pub use self::preview::preview;
use self::records::records_fed;
pub use self::reencryption::ADVICE;
use self::reencryption::{
    reencryption_cancelled, reencryption_ended, reencryption_hindered, reencryption_keys_created,
    reencryption_passed, reencryption_paused, reencryption_requested, reencryption_resumed,
    reencryption_scan_due, reencryption_switched,
};
use self::replacement::{key_replaced, key_replacement_asked, proposer_left};
pub use self::restoration::asked_since;
use self::restoration::{
    instances_restored, restoration_carried_out, restoration_probed, restoration_requested,
};
use self::revocation::{instances_suspended, probes_reported};
use self::vendor::{permission_proven, vendor_suspended, vendor_suspension_lifted};
use self::windows::window_moment_came;
pub use self::windows::{LAPSED_HELP, due_moment};

/// What the deciding function needs to know besides state and event.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The vendor's catalogue.
    pub catalogue: &'a Catalogue,
    /// How long an ambiguous refusal has to persist (spec R4).
    pub ambiguity: SignedDuration,
    /// How far apart the two rounds that prove a revocation, or a restoration, may start.
    pub window: SignedDuration,
    /// A probe that started longer ago than this says nothing any more.
    pub freshness: SignedDuration,
    /// How long data is in transit at most: so far apart lie the two clean scans of a re-encryption (spec X4).
    pub in_transit: SignedDuration,
}

impl Rules<'_> {
    /// A ticket's title of the policy's mode, as the catalogue words it.
    fn title(&self, policy: &EncryptionPolicy, of: impl FnOnce(&ModeRules) -> &String) -> String {
        let mode = self.catalogue.modes.get(&policy.mode());
        mode.map(|mode| of(mode).replace("{account}", policy.account.as_str())).unwrap_or_default()
    }
}

/// What was decided. All of it is committed, or none.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The policy as it is from now on.
    pub next: EncryptionPolicy,
    /// The one fact.
    pub fact: Fact,
    /// What is to be done elsewhere.
    pub outbox: Vec<OutboxRow>,
}

/// Why nothing was decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The event is older than what is known: a late or reordered message.
    #[error("the event is older than what is already known")]
    Stale,
    /// The event changes nothing: a doubled message, or a probe that saw nothing new.
    #[error("the event changes nothing")]
    Redundant,
    /// The policy is not in a state in which this can happen.
    #[error("this cannot happen while the policy is {lifecycle}")]
    IllegalForState {
        /// The policy's lifecycle.
        lifecycle: &'static str,
    },
    /// The actor has no authority over this.
    #[error("only {who} may do this")]
    Forbidden {
        /// Who may.
        who: &'static str,
    },
    /// Some regions still refuse or do not answer.
    #[error("not every regional key is usable")]
    KeysNotUsable {
        /// What each of them answered.
        faults: BTreeMap<Region, Observation>,
    },
    /// The request names another ticket than the policy's.
    #[error("the ticket is not the open ticket of this revocation")]
    WrongTicket {
        /// The right one.
        expected: Option<TicketId>,
    },
    /// The window for self-service is over (spec S3).
    #[error("the restoration window is over")]
    WindowLapsed,
    /// The region has no key that is lost.
    #[error("the key of {region} is not lost")]
    KeyNotLost {
        /// Which.
        region: Region,
    },
    /// The organisation is not leaving.
    #[error("the organisation is not closing")]
    NotClosing,
    /// The organisation left: its data keys are being deleted.
    #[error("the data keys are being deleted")]
    ErasureBegan,
    /// The site is not being deleted.
    #[error("the site is not being deleted")]
    SiteNotDeleted,
    /// A re-encryption is under way (spec X2).
    #[error("a re-encryption is under way")]
    ReencryptionUnderWay,
    /// A regional key refuses, or is being replaced.
    #[error("a regional key refuses, or is being replaced")]
    Degraded,
    /// A re-encryption past its point of no return is not cancelled.
    #[error("the policy has the new keys already: there is no way back")]
    PointOfNoReturn,
    /// The access request that a suspension names gives no ground for one (spec K1).
    #[error("the access request is no ground for a suspension: {reason}")]
    NotAGround {
        /// Why.
        reason: &'static str,
    },
    /// The organisation is not suspended for this cause, so nothing is there to be lifted.
    #[error("the organisation is not suspended for this cause: {}", cause.slug())]
    NotSuspendedBy {
        /// The cause.
        cause: Cause,
    },
}

/// What an arm of the decision changes; the fact and the outbox rows are made from it.
struct Change {
    next: EncryptionPolicy,
    effects: Vec<Effect>,
}

/// Decides what an event does to a policy.
///
/// # Errors
/// A typed refusal: the policy stays as it is and nothing is recorded.
pub fn decide(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    event: &PolicyEvent,
    origin: &Origin,
    now: Timestamp,
) -> Result<Decision, Refusal> {
    let mut change = match event {
        PolicyEvent::EnrolmentApproved => enrolment_approved(policy, origin, now),
        PolicyEvent::EnrolmentRejected { reason } => enrolment_rejected(policy, reason, origin, now),
        PolicyEvent::KeysCreated { keys } => keys_created(rules, policy, keys, now),
        PolicyEvent::KeysVerified { canaries, round } => keys_verified(rules, policy, canaries, round, now),
        PolicyEvent::VerificationFailed { faults } => verification_failed(policy, faults, now),
        PolicyEvent::ProbesReported { rounds, heard } => probes_reported(rules, policy, rounds, heard, now),
        PolicyEvent::RestorationRequested { ticket, round, into_degraded } => {
            restoration_requested(rules, policy, (*ticket, *into_degraded), round, origin, now)
        }
        PolicyEvent::RestorationProbed { rounds, unwrapped_in } => {
            restoration_probed(rules, policy, rounds, unwrapped_in.as_ref(), now)
        }
        PolicyEvent::KeyReplacementAsked { region, key } => {
            key_replacement_asked(rules, policy, (region, key), origin, now)
        }
        PolicyEvent::KeyReplaced { region, key, canary, data_keys, proven, round } => {
            key_replaced(rules, policy, (region, key), (canary.as_str(), *data_keys, proven), round, now)
        }
        PolicyEvent::AccessRequested { template } => access_requested(policy, template, now),
        PolicyEvent::AccessGranted { request, proven } => {
            access_granted(policy, *request, proven, origin, now)
        }
        PolicyEvent::AccessDeclined { request } => access_declined(policy, *request, origin, now),
        PolicyEvent::InstancesRestored { epoch } => instances_restored(policy, *epoch),
        PolicyEvent::InstancesSuspended { epoch, instances } => {
            instances_suspended(policy, *epoch, *instances)
        }
        PolicyEvent::KeysDescribed { described } => keys_described(rules, policy, described, now),
        PolicyEvent::WindowMomentCame { moment } => window_moment_came(rules, policy, *moment, now),
        PolicyEvent::RestorationCarriedOut { ticket, asked_by, asked_at, into_degraded, round } => {
            let asked = (asked_by, *asked_at, *into_degraded);
            restoration_carried_out(rules, policy, *ticket, asked, round, origin, now)
        }
        PolicyEvent::VendorSuspended { ground, reason } => {
            vendor_suspended(rules, policy, *ground, reason, origin, now)
        }
        PolicyEvent::VendorSuspensionLifted => vendor_suspension_lifted(policy, origin, now),
        PolicyEvent::PermissionProven { request, round } => {
            permission_proven(rules, policy, *request, round, origin, now)
        }
        PolicyEvent::ProposerLeft { by } => proposer_left(policy, by),
        PolicyEvent::RecordsFed { plans_ended, without_admin } => {
            records_fed(rules, policy, plans_ended, *without_admin, now)
        }
        PolicyEvent::ClosingAsked => closing_asked(rules, policy, origin, now),
        PolicyEvent::ClosingApproved => closing_approved(rules, policy, origin, now),
        PolicyEvent::ClosingRejected { reason } => closing_rejected(policy, reason, origin),
        PolicyEvent::ClosingCancelled => closing_cancelled(policy, origin),
        PolicyEvent::ClosingMomentCame { moment } => closing_moment_came(rules, policy, *moment, now),
        PolicyEvent::DataKeysCounted { counted } => data_keys_counted(policy, *counted),
        PolicyEvent::DataKeysErased => data_keys_erased(policy, now),
        PolicyEvent::DataKeysExpired { generation, by, last_backup } => {
            data_keys_expired(rules, policy, (*generation, *by, last_backup.as_ref()), now)
        }
        PolicyEvent::DataKeysRemoved { generation } => data_keys_removed(policy, *generation, now),
        PolicyEvent::MistakeDeclared { reason, rounds } => {
            mistake_declared(rules, policy, reason, rounds, origin, now)
        }
        PolicyEvent::ReencryptionRequested { keys, depth } => {
            reencryption_requested(rules, policy, keys, *depth, origin, now)
        }
        PolicyEvent::ReencryptionKeysCreated { job, keys } => {
            reencryption_keys_created(rules, policy, *job, keys)
        }
        PolicyEvent::ReencryptionHindered { job, fault } => {
            reencryption_hindered(policy, *job, fault.as_ref())
        }
        PolicyEvent::ReencryptionSwitched { job, canaries, data_keys, proven, round } => {
            reencryption_switched(rules, policy, (*job, canaries, *data_keys, proven), round, now)
        }
        PolicyEvent::ReencryptionPassed { job, pass, old } => {
            reencryption_passed(rules, policy, (*job, *pass, *old), now)
        }
        PolicyEvent::ReencryptionScanDue { job } => reencryption_scan_due(rules, policy, *job, now),
        PolicyEvent::ReencryptionEnded { job, data_keys, old_versions, ledger } => {
            reencryption_ended(policy, (*job, *data_keys, *old_versions, ledger), now)
        }
        PolicyEvent::ReencryptionPaused { job } => reencryption_paused(policy, *job, origin, now),
        PolicyEvent::ReencryptionResumed { job } => reencryption_resumed(policy, *job, origin),
        PolicyEvent::ReencryptionCancelled { job } => reencryption_cancelled(policy, *job, origin),
    }?;
    access::follow_up(&mut change);
    reencryption::follow_up(policy, &mut change);
    let json = serde_json::to_value(event).unwrap_or_default();
    // What was heard was told on that ticket; the next one has its own story.
    if policy.ticket.is_some() && change.next.ticket.is_none() {
        change.next.told_heard.clear();
        change.next.told_until = Some(now);
    }
    Ok(committed(change, event.slug(), json, origin, now))
}

fn committed(
    change: Change,
    slug: &'static str,
    event: serde_json::Value,
    origin: &Origin,
    now: Timestamp,
) -> Decision {
    let Change { mut next, effects } = change;
    let body = FactBody {
        stream: next.id.as_uuid(),
        organisation: next.organisation_name.clone(),
        slug,
        event,
        state: next.standing(),
        fence: Some(next.fence.clone()),
    };
    let (head, fact) = next.audit.append(body, origin, now);
    next.audit = head;
    next.version = next.version.saturating_add(1);
    let outbox = effects
        .into_iter()
        .enumerate()
        .map(|(index, effect)| OutboxRow {
            id: fact.effect_id(index),
            organisation: next.organisation_name.clone(),
            policy: next.id,
            epoch: next.fence.epoch,
            effect,
            correlation: origin.correlation,
            created_at: now,
        })
        .collect();
    Decision { next, fact, outbox }
}

/// Data keys are unwrapped for it, so the policy has to be active and the fence open.
fn in_use(policy: &EncryptionPolicy) -> Result<(), Refusal> {
    match policy.lifecycle {
        Lifecycle::Active { .. } if policy.fence.is_open() => Ok(()),
        Lifecycle::Active { .. }
        | Lifecycle::Requested { .. }
        | Lifecycle::Verifying { .. }
        | Lifecycle::Suspended { .. }
        | Lifecycle::Restoring { .. }
        | Lifecycle::Lapsed { .. }
        | Lifecycle::Closed { .. }
        | Lifecycle::Rejected { .. } => illegal(policy),
    }
}

fn illegal<T>(policy: &EncryptionPolicy) -> Result<T, Refusal> {
    Err(Refusal::IllegalForState { lifecycle: policy.standing() })
}
