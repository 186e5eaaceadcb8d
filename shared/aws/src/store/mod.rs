//! The store ports on three DynamoDB tables.
//!
//! `control` (pk, sk) holds aggregates, claims, the outbox and the audit log; `registry` (pk, sk) wrapped data keys;
//! `fence` (copy, item) what the data plane reads. An aggregate is JSON in the attribute `doc`; beside it stand only
//! the attributes that conditions and indexes need. The layout is in [`names`].
//!
//! INVARIANT (I4): a decision is one `TransactWriteItems`: state, fact, outbox rows, claims, every copy of the fence.
//! Its conditions are on what was read, so it is right to repeat it: the second time it says `Conflict`.

mod audit;
mod backups;
mod checkpoints;
mod fence;
mod hints;
mod idempotency;
mod instances;
mod items;
pub mod names;
mod organisations;
mod outbox;
mod overdue_orders;
mod pages;
mod policies;
mod proofs;
mod registry;
mod support_requests;
mod templates;
mod tickets;
mod transaction;
mod usage;
mod watch_list;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;

use crate::in_time;

/// The tables' names.
#[derive(Debug, Clone)]
pub struct Tables {
    /// State and outbox.
    pub control: String,
    /// The audit log: nothing in it is ever updated or deleted, and no role may.
    pub facts: String,
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
    /// A store with a client of its own, which gives up in time.
    pub fn from_config(config: &SdkConfig, tables: Tables, fence_copies: u16) -> Self {
        let client = aws_sdk_dynamodb::config::Builder::from(config).timeout_config(in_time()).build();
        Self::new(Client::from_conf(client), tables, fence_copies)
    }

    /// A store over these tables; the fence is written in `fence_copies` copies (at least one).
    pub fn new(client: Client, tables: Tables, fence_copies: u16) -> Self {
        Self { client, tables, fence_copies: fence_copies.max(1) }
    }
}
