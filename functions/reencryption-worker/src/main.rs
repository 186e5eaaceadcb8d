//! Starts `reencryption-worker`.

use std::time::Duration;

use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent};
use claviger_app::ports::Clock;
use claviger_app::rewrite_shard::RewriteShard;
use claviger_envelope::aws::{Broker, FenceTable};
use claviger_envelope::{Config, Envelope};
use claviger_lambda::adapters::Adapters;
use claviger_lambda::{env, start};
use claviger_reencrypt::VendorRecords;
use claviger_reencryption_worker::{Worker, rewriters};
use jiff::{SignedDuration, Timestamp};
use lambda_runtime::{Error, LambdaEvent, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    start::init_tracing();
    let adapters = Adapters::from_env().await?;
    let (queue, sdk) = (adapters.reencryption_queues()?, adapters.sdk());
    let Adapters { settings, store, clock, ids, .. } = &adapters;
    let poll = env::millis_or("CLAVIGER_POLL_MS", SignedDuration::from_secs(5))?;
    let config = Config {
        lease: Duration::try_from(settings.lease)?,
        poll: Duration::try_from(poll)?,
        ..Config::default()
    };
    let copies = env::parsed_or("CLAVIGER_FENCE_COPIES", 4)?;
    let envelope = Envelope::builder()
        .fence(FenceTable::new(sdk, &env::required("CLAVIGER_FENCE_TABLE")?, copies))
        .keys(Broker::new(sdk, env::required("CLAVIGER_BROKER_URL")?)?)
        .config(config)
        .start()?;
    let stores = env::optional("CLAVIGER_RECORD_STORES").unwrap_or_default();
    let records = VendorRecords::new(rewriters(&stores, &envelope, sdk)?);
    let rewrite = RewriteShard {
        policies: store,
        instances: store,
        checkpoints: store,
        records: &records,
        queue: &queue,
        ids,
        clock,
    };
    let (worker, envelope) = (&Worker { rewrite }, &envelope);
    lambda_runtime::run(service_fn(async |event: LambdaEvent<SqsEvent>| {
        let deadline = i64::try_from(event.context.deadline).unwrap_or(i64::MAX);
        envelope.observe_invocation_deadline(deadline);
        // Half of the time is for batches, the rest for the one that is under way when it is over.
        let ends = Timestamp::from_millisecond(deadline).unwrap_or_else(|_| clock.now());
        let works_for = ends.duration_since(clock.now()).checked_div(2).unwrap_or_default();
        Ok::<SqsBatchResponse, Error>(worker.handle(event.payload, works_for).await)
    }))
    .await
}
