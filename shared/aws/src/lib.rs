//! The ports of `claviger-app` on AWS: DynamoDB, KMS, STS, SQS, EventBridge, Lambda.
//!
//! `store` keeps state (one conditional transaction a decision), `keys` calls customers' keys, `errors` is the one
//! table that says what an SDK error means for a key. The others hand things on. Nothing here decides anything.

pub mod bus;
pub mod clock;
pub mod errors;
pub mod ids;
pub mod keys;
pub mod prober;
pub mod queues;
pub mod store;

use aws_config::{BehaviorVersion, SdkConfig};
use tokio::sync::OnceCell;

/// The environment's AWS configuration, loaded once a process.
///
/// Endpoints are the SDK's own business: `AWS_ENDPOINT_URL` and its variants for single services are obeyed.
pub async fn sdk_config() -> &'static SdkConfig {
    static CONFIG: OnceCell<SdkConfig> = OnceCell::const_new();
    CONFIG.get_or_init(async || aws_config::load_defaults(BehaviorVersion::latest()).await).await
}
