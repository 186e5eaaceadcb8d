//! Tickets.

use async_trait::async_trait;
use claviger_app::ports::{Page, StoreError, Tickets};
use claviger_domain::ids::TicketId;
use claviger_domain::ticket::Ticket;
use claviger_domain::values::OrganisationName;

use super::items::{document, number, unavailable};
use super::names::VERSION;
use super::pages::{Direction, Range};
use super::{DynamoStore, names};

#[async_trait]
impl Tickets for DynamoStore {
    async fn ticket(
        &self,
        organisation: &OrganisationName,
        id: TicketId,
    ) -> Result<Option<Ticket>, StoreError> {
        self.load(&names::ticket(organisation, id)).await
    }

    async fn tickets(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<Ticket>, StoreError> {
        let range = Range {
            table: &self.tables.control,
            pk: names::organisation_partition(organisation),
            prefix: names::TICKET_PREFIX,
            // The identifiers begin with their time.
            direction: Direction::Backward,
        };
        self.page(&range, cursor, limit).await
    }

    async fn save_ticket(&self, ticket: &Ticket) -> Result<(), StoreError> {
        let key = names::ticket(&ticket.organisation, ticket.id);
        let item = document(&key, ticket, [(VERSION, number(ticket.version))])?;
        let put = self.client.put_item().table_name(&self.tables.control).set_item(Some(item));
        let put = match ticket.version.checked_sub(1) {
            None | Some(0) => put.condition_expression("attribute_not_exists(pk)"),
            Some(known) => put
                .condition_expression("#version = :version")
                .expression_attribute_names("#version", VERSION)
                .expression_attribute_values(":version", number(known)),
        };
        put.send().await.map(drop).map_err(|error| unavailable(&error))
    }
}
