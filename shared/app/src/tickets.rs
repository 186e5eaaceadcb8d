//! Shows tickets and takes people's comments on them (spec R8, S1).

use claviger_domain::authorisation::Role;
use claviger_domain::ids::TicketId;
use claviger_domain::ticket::{Ticket, TicketComment, TicketRequest};
use claviger_domain::values::OrganisationName;

use crate::ports::{Clock, Page, StoreError, Tickets};
use crate::request_error::{ATTEMPTS, RequestError};

/// All comments of a ticket together as JSON, in bytes, while people may add to them: it is one item of the store, and
/// one answer. What claviger itself has to say has room above that.
const FULL: usize = 200_000;

/// Tickets and people.
pub struct PeoplesTickets<'a> {
    /// Where tickets are.
    pub tickets: &'a dyn Tickets,
    /// The time.
    pub clock: &'a dyn Clock,
}

impl PeoplesTickets<'_> {
    /// One page of an organisation's tickets, newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<Ticket>, RequestError> {
        Ok(self.tickets.tickets(organisation, cursor, limit).await?)
    }

    /// Adds a person's words, and what it asks for with them. They are shown by role, never by name.
    ///
    /// # Errors
    /// When there is no such ticket of the organisation, or it is full.
    pub async fn comment(
        &self,
        organisation: &OrganisationName,
        id: TicketId,
        body: &str,
        role: Role,
        request: Option<TicketRequest>,
    ) -> Result<Ticket, RequestError> {
        let missing = || RequestError::NotFound { what: "the ticket" };
        for _ in 0..ATTEMPTS {
            let ticket = self.tickets.ticket(organisation, id).await?.ok_or_else(missing)?;
            if json_length(&ticket.comments).saturating_add(json_length(&body)) > FULL {
                return Err(RequestError::NotNow {
                    reason: "the ticket is full".to_owned(),
                    help: "reach support another way".to_owned(),
                });
            }
            let comment = TicketComment {
                effect: None,
                at: self.clock.now(),
                author: author(role).to_owned(),
                body: body.to_owned(),
                request: request.clone(),
            };
            let next = ticket.commented(comment, ticket.status).ok_or_else(missing)?;
            match self.tickets.save_ticket(&next).await {
                Ok(()) => return Ok(next),
                Err(StoreError::Conflict) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }
}

/// Its length as JSON, in bytes.
pub(crate) fn json_length(value: &impl serde::Serialize) -> usize {
    serde_json::to_string(value).map_or(FULL, |text| text.len())
}

const fn author(role: Role) -> &'static str {
    match role {
        Role::OrgAdmin => "org-admin",
        Role::Auditor => "auditor",
        Role::Support => "support",
        Role::System => "system",
        Role::Stranger => "stranger",
    }
}
