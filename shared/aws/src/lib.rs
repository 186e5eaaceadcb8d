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

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::{Builder, tls};
use tokio::sync::OnceCell;

/// DynamoDB, SQS and EventBridge answer in milliseconds; one attempt that takes this long is lost, and the SDK makes
/// another.
const ATTEMPT: Duration = Duration::from_secs(2);
/// All attempts together: the caller has its own deadline, and a queue brings its work again.
const OPERATION: Duration = Duration::from_secs(7);

/// When a call is given up: the SDK by itself would wait for ever.
pub(crate) fn in_time() -> TimeoutConfig {
    TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT).operation_timeout(OPERATION).build()
}

/// A connection that was idle for so long is not used again: a function that was frozen in between does not see that the
/// other end has closed it, and calls of customers' keys are not repeated by the SDK.
const IDLE: Duration = Duration::from_secs(20);

/// The environment's AWS configuration, loaded once a process. Every client that is made from it shares one pool of
/// connections: the SDK would give each its own, with a TLS handshake and a store of root certificates, and a client is
/// made for each session of a customer's role.
///
/// Endpoints are the SDK's own business: `AWS_ENDPOINT_URL` and its variants for single services are obeyed.
pub async fn sdk_config() -> &'static SdkConfig {
    static CONFIG: OnceCell<SdkConfig> = OnceCell::const_new();
    let load = async || {
        let tls = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc);
        let http = Builder::new().pool_idle_timeout(IDLE).tls_provider(tls).build_https();
        aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await
    };
    CONFIG.get_or_init(load).await
}
