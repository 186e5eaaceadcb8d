//! Support tickets: where the customer is told and where it answers (spec R8, S1).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{EffectId, TicketId};
use crate::values::{OrganisationName, Subject};

/// Whether a ticket waits for somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TicketStatus {
    /// It does.
    Open,
    /// It does not.
    Resolved,
}

/// What a person asks for on a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    /// That support restores access after the window (spec S3).
    Restoration,
}

/// A request that stands on a ticket, and who made it: it is carried out only while that person is an org
/// admin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TicketRequest {
    /// What for.
    pub asked: Asked,
    /// Who; never shown.
    pub by: Subject,
    /// Whether to do without keys that are gone for good (spec S2).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub into_degraded: bool,
}

/// One entry of a ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TicketComment {
    /// The effect that wrote it; absent for a person's own words. An effect writes once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<EffectId>,
    /// When.
    pub at: Timestamp,
    /// Who, as shown: `claviger`, or a role.
    pub author: String,
    /// What.
    pub body: String,
    /// What an org admin asks for with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<TicketRequest>,
}

/// A ticket for the registered org admins of one organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    /// Its identifier.
    pub id: TicketId,
    /// Whose.
    pub organisation: OrganisationName,
    /// Its title, as the documents have it.
    pub title: String,
    /// Whether it waits for somebody.
    pub status: TicketStatus,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it was resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Timestamp>,
    /// What was said, oldest first.
    pub comments: Vec<TicketComment>,
    /// Raised by every change.
    pub version: u64,
}

impl Ticket {
    /// The ticket with one more comment; `None` if that effect has written already.
    #[must_use]
    pub fn commented(&self, comment: TicketComment, status: TicketStatus) -> Option<Self> {
        let again =
            comment.effect.is_some() && self.comments.iter().any(|known| known.effect == comment.effect);
        if again {
            return None;
        }
        let mut next = self.changed(status, comment.at);
        next.comments.push(comment);
        Some(next)
    }

    /// The ticket with another status and no word more; `None` if it has it already.
    #[must_use]
    pub fn with_status(&self, status: TicketStatus, at: Timestamp) -> Option<Self> {
        (status != self.status).then(|| self.changed(status, at))
    }

    fn changed(&self, status: TicketStatus, at: Timestamp) -> Self {
        let mut next = self.clone();
        if status == TicketStatus::Resolved && self.status == TicketStatus::Open {
            next.resolved_at = Some(at);
        }
        next.status = status;
        next.version = self.version.saturating_add(1);
        next
    }
}
