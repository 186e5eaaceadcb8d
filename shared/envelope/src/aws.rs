//! The real thing: the fence in DynamoDB, and the key broker behind its Function URL.

mod broker;
mod fence_table;
#[cfg(test)]
mod fuzz;

pub use broker::{Broker, BrokerError};
pub use fence_table::FenceTable;
