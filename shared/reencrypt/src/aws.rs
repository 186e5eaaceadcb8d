//! The stores that most vendors have: tables of DynamoDB, buckets of S3.

mod config;
mod dynamodb;
#[cfg(feature = "s3")]
mod s3;
mod trouble;

pub use config::{ConfigError, StoreConfig, StoreKind, open};
pub use dynamodb::{DynamoDbLayout, DynamoDbRecords};
#[cfg(feature = "s3")]
pub use s3::{S3Layout, S3Records, client as s3_client};
