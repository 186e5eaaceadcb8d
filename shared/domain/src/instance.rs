//! App instances: one app on one site (spec A2), and the function that decides what happens to one.

mod site;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::decide::Refusal;
use crate::effect::{Effect, Order, OutboxRow};
use crate::event::{Actor, InstanceEvent, Origin};
use crate::fact::{AuditHead, Fact, FactBody};
use crate::fence::Epoch;
use crate::ids::{InstanceId, OrganisationId, PolicyId, TicketId};
use crate::values::{App, OrganisationName, Realm, SiteName, Subject};

/// Where an instance stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum InstanceStatus {
    /// Asked for; a support agent has to approve.
    Requested {
        /// When.
        at: Timestamp,
        /// By which org admin.
        by: Subject,
        /// When it is due (spec E10).
        #[serde(rename = "dueAt")]
        due_at: Timestamp,
    },
    /// Approved; its data key is being made.
    Provisioning {
        /// Since when.
        since: Timestamp,
        /// When it is due.
        #[serde(rename = "dueAt")]
        due_at: Timestamp,
    },
    /// In use.
    Active {
        /// Since when.
        since: Timestamp,
    },
    /// Told to stop. The fence cut it off before.
    Suspended {
        /// Since when.
        since: Timestamp,
    },
    /// Added directly: never encrypted (spec A3, A5).
    NotEncrypted {
        /// Since when it is known.
        since: Timestamp,
        /// Told to stop with the encrypted family on its site (spec A6), since then. No key cuts it off, so its
        /// acknowledgement is the boundary.
        #[serde(rename = "suspendedSince", default, skip_serializing_if = "Option::is_none")]
        suspended_since: Option<Timestamp>,
    },
    /// Support refused the request.
    Rejected {
        /// When.
        at: Timestamp,
        /// Why.
        reason: String,
    },
    /// Its site was deleted, the time after that is over: its wrapped data keys are being deleted, and nobody is given
    /// one any more.
    Erasing {
        /// Since when.
        since: Timestamp,
        /// How many there are, once they were counted: before the first goes, so that no repetition counts too few.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        counted: Option<u64>,
    },
    /// Its site was deleted, and nothing is left that a key could unwrap.
    Deleted {
        /// When.
        at: Timestamp,
        /// How many data keys were deleted.
        #[serde(rename = "dataKeys")]
        data_keys: u64,
    },
}

impl InstanceStatus {
    /// Whether its data is under the customer's keys: it has been active.
    pub const fn is_encrypted(&self) -> bool {
        match self {
            Self::Active { .. } | Self::Suspended { .. } => true,
            Self::Requested { .. }
            | Self::Provisioning { .. }
            | Self::NotEncrypted { .. }
            | Self::Rejected { .. }
            | Self::Erasing { .. }
            | Self::Deleted { .. } => false,
        }
    }

    /// Whether it holds its place on its site.
    pub const fn holds_place(&self) -> bool {
        match self {
            Self::Requested { .. }
            | Self::Provisioning { .. }
            | Self::Active { .. }
            | Self::Suspended { .. }
            | Self::NotEncrypted { .. }
            | Self::Erasing { .. } => true,
            Self::Rejected { .. } | Self::Deleted { .. } => false,
        }
    }

    /// The word that is shown.
    pub const fn slug(&self) -> &'static str {
        match self {
            Self::Requested { .. } => "requested",
            Self::Provisioning { .. } => "provisioning",
            Self::Active { .. } => "active",
            Self::Suspended { .. } => "suspended",
            Self::NotEncrypted { suspended_since: None, .. } => "not-encrypted",
            Self::NotEncrypted { suspended_since: Some(_), .. } => "suspended",
            Self::Rejected { .. } => "rejected",
            Self::Erasing { .. } => "erasing",
            Self::Deleted { .. } => "deleted",
        }
    }
}

/// An app's answer to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acknowledgement {
    /// The order's epoch.
    pub epoch: Epoch,
    /// When it came.
    pub at: Timestamp,
    /// How many cached items the app dropped.
    pub evicted: u64,
}

/// The vendor's records say that an instance's site was deleted. Everything goes on as before until the time is over, so
/// that nothing is lost by a record that was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SiteDeletion {
    /// When they said so.
    pub at: Timestamp,
    /// When the data keys go, or, of what has none, the instance itself.
    pub erase_at: Timestamp,
    /// The ticket that tells of it; none of an app that is not encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<TicketId>,
}

/// One app on one site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppInstance {
    /// Its identifier; stands in encryption contexts.
    pub id: InstanceId,
    /// Whose.
    pub organisation: OrganisationId,
    /// The vendor's name for whose.
    pub organisation_name: OrganisationName,
    /// Under which policy; none for one that is not encrypted.
    pub policy: Option<PolicyId>,
    /// On which site.
    pub site: SiteName,
    /// Which app.
    pub app: App,
    /// The realm it is pinned to (spec A7); none for one that is not encrypted.
    pub realm: Option<Realm>,
    /// Where it stands.
    pub status: InstanceStatus,
    /// The newest epoch it was told of; orders of an older one count for nothing (R9).
    pub epoch: Epoch,
    /// The app's last answer.
    pub acknowledged: Option<Acknowledgement>,
    /// Its site was deleted, and it is to go with its data keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<SiteDeletion>,
    /// What its site was called before it was last renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_site: Option<SiteName>,
    /// The end of its chain of facts.
    pub audit: AuditHead,
    /// Raised by every commit; the store compares it.
    pub version: u64,
}

impl AppInstance {
    /// Since when it waits for its app's answer to an order to suspend.
    pub fn unanswered_since(&self) -> Option<Timestamp> {
        let answered = self.acknowledged.is_some_and(|answer| answer.epoch >= self.epoch);
        match self.status {
            // Of the unencrypted family the acknowledgement is the boundary (spec A6), so it is waited for too.
            InstanceStatus::Suspended { since }
            | InstanceStatus::NotEncrypted { suspended_since: Some(since), .. }
                if !answered =>
            {
                Some(since)
            }
            InstanceStatus::Suspended { .. }
            | InstanceStatus::Requested { .. }
            | InstanceStatus::Provisioning { .. }
            | InstanceStatus::Active { .. }
            | InstanceStatus::NotEncrypted { .. }
            | InstanceStatus::Rejected { .. }
            | InstanceStatus::Erasing { .. }
            | InstanceStatus::Deleted { .. } => None,
        }
    }
}

/// What was decided about an instance.
#[derive(Debug, Clone)]
pub struct InstanceDecision {
    /// The instance as it is from now on.
    pub next: AppInstance,
    /// The one fact.
    pub fact: Fact,
    /// What is to be done elsewhere.
    pub outbox: Vec<OutboxRow>,
}

fn committed(
    mut next: AppInstance,
    policy: Option<PolicyId>,
    effects: Vec<Effect>,
    slug: &'static str,
    event: serde_json::Value,
    origin: &Origin,
    now: Timestamp,
) -> InstanceDecision {
    let body = FactBody {
        stream: next.id.as_uuid(),
        organisation: next.organisation_name.clone(),
        slug,
        event,
        state: next.status.slug(),
        fence: None,
    };
    let (head, fact) = next.audit.append(body, origin, now);
    next.audit = head;
    next.version = next.version.saturating_add(1);
    let rows = effects.into_iter().enumerate().filter_map(|(index, effect)| {
        Some(OutboxRow {
            id: fact.effect_id(index),
            organisation: next.organisation_name.clone(),
            policy: policy?,
            epoch: next.epoch,
            effect,
            correlation: origin.correlation,
            created_at: now,
        })
    });
    let outbox = rows.collect();
    InstanceDecision { next, fact, outbox }
}

/// Records a new instance: requested, or (added directly) not encrypted. An instance that was approved
/// by the catalogue's self-service switch starts in provisioning.
pub fn create(instance: AppInstance, origin: &Origin, now: Timestamp) -> InstanceDecision {
    let effects = match instance.status {
        InstanceStatus::Provisioning { .. } => vec![Effect::ProvisionInstance { instance: instance.id }],
        InstanceStatus::Requested { .. }
        | InstanceStatus::Active { .. }
        | InstanceStatus::Suspended { .. }
        | InstanceStatus::NotEncrypted { .. }
        | InstanceStatus::Rejected { .. }
        | InstanceStatus::Erasing { .. }
        | InstanceStatus::Deleted { .. } => Vec::new(),
    };
    let event = serde_json::json!({
        "event": "instance-requested", "site": instance.site, "app": instance.app,
    });
    let policy = instance.policy;
    committed(instance, policy, effects, "instance-requested", event, origin, now)
}

/// Decides what an event does to an instance.
///
/// # Errors
/// A typed refusal: the instance stays as it is and nothing is recorded.
pub fn decide_instance(
    instance: &AppInstance,
    event: &InstanceEvent,
    origin: &Origin,
    now: Timestamp,
) -> Result<InstanceDecision, Refusal> {
    let mut next = instance.clone();
    let mut policy = instance.policy;
    let effects = match event {
        InstanceEvent::InstanceApproved => approved(&mut next, origin, now)?,
        InstanceEvent::InstanceRejected { reason } => {
            let (Actor::Support(_), InstanceStatus::Requested { .. }) = (&origin.actor, &instance.status)
            else {
                return illegal(instance);
            };
            next.status = InstanceStatus::Rejected { at: now, reason: reason.clone() };
            site::nothing_left(&mut next)
        }
        InstanceEvent::InstanceProvisioned { epoch } => {
            match instance.status {
                InstanceStatus::Provisioning { .. } => {}
                InstanceStatus::Active { .. } => return Err(Refusal::Redundant),
                InstanceStatus::Requested { .. }
                | InstanceStatus::Suspended { .. }
                | InstanceStatus::NotEncrypted { .. }
                | InstanceStatus::Rejected { .. }
                | InstanceStatus::Erasing { .. }
                | InstanceStatus::Deleted { .. } => return illegal(instance),
            }
            next.status = InstanceStatus::Active { since: now };
            next.epoch = (*epoch).max(instance.epoch);
            Vec::new()
        }
        InstanceEvent::SuspensionOrdered { epoch } => {
            ordered(&mut next, Order::Suspend, *epoch, InstanceStatus::Suspended { since: now })?
        }
        InstanceEvent::RestorationOrdered { epoch } => {
            ordered(&mut next, Order::Restore, *epoch, InstanceStatus::Active { since: now })?
        }
        InstanceEvent::FamilySuspensionOrdered { epoch, policy: family } => {
            policy = Some(*family);
            sibling_ordered(&mut next, Order::Suspend, *epoch, now)?
        }
        InstanceEvent::FamilyRestorationOrdered { epoch, policy: family } => {
            policy = Some(*family);
            sibling_ordered(&mut next, Order::Restore, *epoch, now)?
        }
        InstanceEvent::OrderAcknowledged { epoch, evicted } => {
            if *epoch < instance.epoch {
                return Err(Refusal::Stale);
            }
            if instance.acknowledged.is_some_and(|known| known.epoch >= *epoch) {
                return Err(Refusal::Redundant);
            }
            if *epoch > instance.epoch {
                return illegal(instance);
            }
            next.acknowledged = Some(Acknowledgement { epoch: *epoch, at: now, evicted: *evicted });
            Vec::new()
        }
        InstanceEvent::SiteRenamed { from, to } => site::renamed(&mut next, from, to, origin)?,
        InstanceEvent::SiteDeleted { erase_at, title } => {
            site::deleted(&mut next, *erase_at, title, origin, now)?
        }
        InstanceEvent::SiteDeletionCancelled => site::deletion_cancelled(&mut next, origin)?,
        InstanceEvent::SiteDeletionDue => site::deletion_due(&mut next, now)?,
        InstanceEvent::DataKeysCounted { data_keys } => site::data_keys_counted(&mut next, *data_keys)?,
        InstanceEvent::DataKeysErased => site::data_keys_erased(&mut next, now)?,
    };
    let json = serde_json::to_value(event).unwrap_or_default();
    Ok(committed(next, policy, effects, event.slug(), json, origin, now))
}

fn illegal<T>(instance: &AppInstance) -> Result<T, Refusal> {
    Err(Refusal::IllegalForState { lifecycle: instance.status.slug() })
}

fn approved(next: &mut AppInstance, origin: &Origin, now: Timestamp) -> Result<Vec<Effect>, Refusal> {
    let Actor::Support(_) = origin.actor else {
        return Err(Refusal::Forbidden { who: "a support agent" });
    };
    match next.status {
        InstanceStatus::Requested { due_at, .. } => {
            next.status = InstanceStatus::Provisioning { since: now, due_at };
            Ok(vec![Effect::ProvisionInstance { instance: next.id }])
        }
        InstanceStatus::Provisioning { .. } => Err(Refusal::Redundant),
        InstanceStatus::Active { .. }
        | InstanceStatus::Suspended { .. }
        | InstanceStatus::NotEncrypted { .. }
        | InstanceStatus::Rejected { .. }
        | InstanceStatus::Erasing { .. }
        | InstanceStatus::Deleted { .. } => illegal(next),
    }
}

/// An unencrypted member of the family is told too (spec A6). It stays unencrypted (spec A3).
fn sibling_ordered(
    next: &mut AppInstance,
    order: Order,
    epoch: Epoch,
    now: Timestamp,
) -> Result<Vec<Effect>, Refusal> {
    let InstanceStatus::NotEncrypted { since, suspended_since } = next.status else {
        return illegal(next);
    };
    newer(next, epoch)?;
    next.epoch = epoch;
    let suspended_since = match (order, suspended_since) {
        (Order::Suspend, _) => Some(now),
        (Order::Restore, Some(_)) => None,
        // INVARIANT (R9): nobody told it to stop, and from here on nobody does who comes too late. Its app has
        // nothing to do.
        (Order::Restore, None) => return Ok(Vec::new()),
    };
    next.status = InstanceStatus::NotEncrypted { since, suspended_since };
    Ok(vec![Effect::TellApp { instance: next.id, order, epoch }])
}

fn newer(instance: &AppInstance, epoch: Epoch) -> Result<(), Refusal> {
    if epoch < instance.epoch {
        return Err(Refusal::Stale);
    }
    if epoch == instance.epoch {
        return Err(Refusal::Redundant);
    }
    Ok(())
}

/// INVARIANT (R9): an order of an epoch that is not newer than the last one changes nothing, so a
/// suspension that arrives after a restoration stops nobody.
fn ordered(
    next: &mut AppInstance,
    order: Order,
    epoch: Epoch,
    status: InstanceStatus,
) -> Result<Vec<Effect>, Refusal> {
    newer(next, epoch)?;
    match next.status {
        InstanceStatus::Active { .. } | InstanceStatus::Suspended { .. } => {}
        InstanceStatus::Requested { .. }
        | InstanceStatus::Provisioning { .. }
        | InstanceStatus::NotEncrypted { .. }
        | InstanceStatus::Rejected { .. }
        | InstanceStatus::Erasing { .. }
        | InstanceStatus::Deleted { .. } => return illegal(next),
    }
    next.status = status;
    next.epoch = epoch;
    Ok(vec![Effect::TellApp { instance: next.id, order, epoch }])
}
