//! When a process writes the KMS calls that it counted: after its work, beside it, and before it ends.

use std::sync::Arc;
use std::time::Duration;

use claviger_app::usage::{FlushUsage, UsageMeter};
use claviger_aws::clock::SystemClock;
use claviger_aws::ids::RandomIds;
use claviger_aws::store::DynamoStore;
use http::Method;
use lambda_runtime_api_client::body::Body;
use lambda_runtime_api_client::{Client, build_request};
use tokio::signal::unix::{SignalKind, signal};

use crate::adapters::Adapters;
use crate::env;

/// Lambda gives a process 500 ms between its word that the environment ends and the end.
const LAST_MOMENTS: Duration = Duration::from_millis(400);
const IDENTIFIER: &str = "Lambda-Extension-Identifier";
/// How long the registration may take.
const REGISTRATION: Duration = Duration::from_secs(2);
/// A process that is at work all the time looks this often whether something is due.
const LOOK: Duration = Duration::from_secs(60);

/// The counts of this process and where they go.
#[derive(Clone)]
struct Counts {
    meter: Arc<UsageMeter>,
    store: DynamoStore,
}

impl Counts {
    fn of(adapters: &Adapters) -> Self {
        Self { meter: Arc::clone(&adapters.meter), store: adapters.store.clone() }
    }

    fn flush(&self) -> FlushUsage<'_> {
        FlushUsage { meter: &self.meter, records: &self.store, ids: &RandomIds, clock: &SystemClock }
    }
}

/// Has what was counted written when Lambda ends the environment. To be told so, a process has to be an extension of
/// itself, one that wants no events, and registered before the first invocation. An environment that is killed, or that
/// Lambda does not tell, takes its last counts with it.
pub async fn write_before_the_end(adapters: &Adapters) {
    let counts = Counts::of(adapters);
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return };
    tokio::spawn(async move {
        if terminated.recv().await.is_some() {
            if tokio::time::timeout(LAST_MOMENTS, counts.flush().all()).await.is_err() {
                tracing::warn!("not every count of KMS calls was written before the end");
            }
            std::process::exit(0);
        }
    });
    if !matches!(tokio::time::timeout(REGISTRATION, register()).await, Ok(Some(()))) {
        tracing::debug!("there is nobody who says when this environment ends");
    }
}

/// Has what is due written beside the work: for a function whose callers wait for every answer. Where environments
/// stand still between invocations, it goes on with the next one.
pub fn write_in_the_background(adapters: &Adapters) {
    let counts = Counts::of(adapters);
    let every = Duration::try_from(counts.meter.every()).unwrap_or(LOOK).min(LOOK);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(every).await;
            counts.flush().due().await;
        }
    });
}

/// Registers with the Extensions API, and asks for an event that never comes: Lambda takes that for readiness.
async fn register() -> Option<()> {
    let client = Client::builder().with_endpoint(env::optional("AWS_LAMBDA_RUNTIME_API")?.parse().ok()?);
    let client = client.build().ok()?;
    let registration = build_request()
        .method(Method::POST)
        .uri("/2020-01-01/extension/register")
        .header("Lambda-Extension-Name", "claviger-last-counts")
        .body(Body::from(r#"{"events":[]}"#));
    let answer = client.call(registration.ok()?).await.ok()?;
    let identifier = answer.headers().get(IDENTIFIER)?;
    let next = build_request().uri("/2020-01-01/extension/event/next").header(IDENTIFIER, identifier);
    let next = next.body(Body::empty()).ok()?;
    tokio::spawn(async move { client.call(next).await.map(drop) });
    Some(())
}
