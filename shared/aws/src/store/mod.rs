//! The store ports on three DynamoDB tables.
//!
//! `control` (pk, sk) holds aggregates, claims, the outbox and the audit log; `registry` (pk, sk) wrapped data keys;
//! `fence` (copy, item) what the data plane reads. An aggregate is JSON in the attribute `doc`; beside it stand only
//! the attributes that conditions and indexes need. The layout is in [`names`].
//!
//! INVARIANT (I4): a decision is one `TransactWriteItems`: state, fact, outbox rows, claims, every copy of the fence.
//! Its conditions are on what was read, so it is right to repeat it: the second time it says `Conflict`.

mod audit;
mod fence;
mod instances;
mod items;
pub mod names;
mod organisations;
mod outbox;
mod pages;
mod policies;
mod proofs;
mod registry;
mod support_requests;
mod tickets;
mod transaction;
mod watch_list;

use aws_sdk_dynamodb::Client;

/// The tables' names.
#[derive(Debug, Clone)]
pub struct Tables {
    /// State, outbox, audit log.
    pub control: String,
    /// Wrapped data keys.
    pub registry: String,
    /// What the data plane reads.
    pub fence: String,
}

/// Every store port.
#[derive(Debug, Clone)]
pub struct DynamoStore {
    client: Client,
    tables: Tables,
    fence_copies: u16,
}

impl DynamoStore {
    /// A store over these tables; the fence is written in `fence_copies` copies (at least one).
    pub fn new(client: Client, tables: Tables, fence_copies: u16) -> Self {
        Self { client, tables, fence_copies: fence_copies.max(1) }
    }
}
