//! What the vendor's own people may do to an organisation's access: suspend it (spec K1), and lift a
//! suspension that was a mistake (spec S7).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::TicketId;
use crate::values::Subject;

/// Why the vendor suspends. Each ground has its own way back, and no other lifts it (I5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "ground")]
pub enum Ground {
    /// Support ordered it for a reason of its own; support lifts it.
    Ordered,
    /// An access request was declined or ignored; it ends when the permission is proven.
    AccessRequest {
        /// Which.
        request: Uuid,
    },
}

/// A suspension by the vendor. It has no window: nothing runs out while it lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VendorSuspension {
    /// Since when.
    pub since: Timestamp,
    /// Why, and so how it ends.
    #[serde(flatten)]
    pub ground: Ground,
    /// In the words of the agent; the org admins read them.
    pub reason: String,
    /// The agent.
    pub by: Subject,
    /// Its own ticket.
    pub ticket: TicketId,
}

/// One support agent's word that a suspension is a mistake. It opens nothing: a second agent has to say
/// so too, in time, and a refusal that is seen meanwhile ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LiftProposal {
    /// The first agent.
    pub by: Subject,
    /// When.
    pub at: Timestamp,
    /// Why it is a mistake.
    pub reason: String,
}
