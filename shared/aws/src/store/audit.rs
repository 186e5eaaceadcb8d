//! The audit log, and what a transaction leaves in it and in the outbox.

use async_trait::async_trait;
use claviger_app::ports::{Audit, Page, StoreError};
use claviger_domain::effect::OutboxRow;
use claviger_domain::fact::Fact;
use claviger_domain::values::OrganisationName;

use super::DynamoStore;
use super::items::{document, millis_text, text};
use super::names::{self, DUE_AT, DUE_SHARD};
use super::pages::{Direction, Range};
use super::transaction::{Condition, Otherwise, Transaction};

#[async_trait]
impl Audit for DynamoStore {
    async fn facts(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<Fact>, StoreError> {
        let range = Range {
            table: &self.tables.facts,
            pk: names::organisation_partition(organisation),
            prefix: names::FACT_PREFIX,
            direction: Direction::Forward,
        };
        self.page(&range, cursor, limit).await
    }
}

impl DynamoStore {
    /// INVARIANT (I4): one fact a decision, put and never updated, and one row an effect.
    pub(super) fn record(
        &self,
        transaction: &mut Transaction,
        fact: &Fact,
        outbox: &[OutboxRow],
    ) -> Result<(), StoreError> {
        let control = &self.tables.control;
        let key = names::fact(&fact.organisation, fact.stream, fact.seq);
        let row = document(&key, fact, [])?;
        transaction.put(&self.tables.facts, row, Condition::absent(), Otherwise::Conflict)?;
        for row in outbox {
            let due =
                [(DUE_SHARD, text(names::due_shard(row.id))), (DUE_AT, text(millis_text(row.created_at)))];
            let row = document(&names::outbox(&row.organisation, row.id), row, due)?;
            transaction.put(control, row, Condition::none(), Otherwise::Conflict)?;
        }
        Ok(())
    }
}
