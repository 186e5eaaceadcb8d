//! What a decision wants done elsewhere, in the imperative. Effects wait in the outbox, happen at
//! least once and are applied once: each has an identifier that repeats with the decision.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fence::Epoch;
use crate::ids::{CorrelationId, EffectId, InstanceId, PolicyId, ReencryptionId, TicketId};
use crate::values::{KeyArn, OrganisationName, Region};

/// Something to be done because of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "effect")]
pub enum Effect {
    /// Open a ticket for the registered org admins.
    OpenTicket {
        /// Its identifier.
        ticket: TicketId,
        /// Its title, as the documents have it.
        title: String,
        /// What happened, and the steps back.
        body: String,
    },
    /// Add to a ticket.
    CommentTicket {
        /// Which.
        ticket: TicketId,
        /// What.
        body: String,
    },
    /// Add to a ticket and resolve it.
    ResolveTicket {
        /// Which.
        ticket: TicketId,
        /// What.
        body: String,
    },
    /// Prove the keys of an approved policy and make its canaries.
    VerifyPolicy,
    /// Make the first data key of an approved instance.
    ProvisionInstance {
        /// Which.
        instance: InstanceId,
    },
    /// Tell every instance to stop: one root row, whatever the number of instances.
    SuspendInstances {
        /// The epoch of the cut-off.
        epoch: Epoch,
    },
    /// Probe again, and open the fence if every region answers.
    ProveRestoration,
    /// Tell every instance that it may work again: one root row.
    RestoreInstances {
        /// The epoch of the opening.
        epoch: Epoch,
    },
    /// Wrap every data key under a new regional key, then let it take the old one's place.
    ReplaceKey {
        /// Which region.
        region: Region,
        /// The new key.
        key: KeyArn,
    },
    /// Delete every wrapped data key of an organisation that leaves.
    EraseDataKeys,
    /// Delete every wrapped data key of one instance, whose site was deleted.
    EraseInstance {
        /// Which.
        instance: InstanceId,
    },
    /// Remove the data keys of a former generation, and of those before it: nothing needs them any more.
    RemoveDataKeys {
        /// Which.
        generation: u64,
    },
    /// Take up a job that moves the policy to new keys, wherever it stands.
    Reencrypt {
        /// Which.
        job: ReencryptionId,
    },
    /// Tell the vendor's app about one instance.
    TellApp {
        /// Which.
        instance: InstanceId,
        /// Of which order.
        order: Order,
        /// Its epoch.
        epoch: Epoch,
    },
}

/// What an app is told about an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Drop what you hold of it in the clear, and stop.
    Suspend,
    /// It may work again.
    Restore,
}

/// One effect as it waits in the outbox and travels: with whose it is and of which epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxRow {
    /// Repeats with the decision, so that a receiver can apply it once.
    pub id: EffectId,
    /// Whose.
    pub organisation: OrganisationName,
    /// Of which policy.
    pub policy: PolicyId,
    /// The policy's epoch when it was decided. A receiver that knows a higher one ignores it.
    pub epoch: Epoch,
    /// What is to be done.
    pub effect: Effect,
    /// What it belongs to.
    pub correlation: CorrelationId,
    /// When it was decided.
    pub created_at: Timestamp,
}
