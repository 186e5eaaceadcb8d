//! Starts `key-events`.

use claviger_app::hear_key_event::HearKeyEvent;
use claviger_key_events::{KeyEvent, handle};
use claviger_lambda::adapters::Adapters;
use claviger_lambda::start;
use lambda_runtime::{Error, LambdaEvent, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    start::init_tracing();
    let adapters = Adapters::from_env().await?;
    let queue = adapters.queues()?;
    let Adapters { store, ids, clock, .. } = &adapters;
    let hear = HearKeyEvent { policies: store, hints: store, queue: &queue, ids, clock };
    let hear = &hear;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<KeyEvent>| handle(hear, &event.payload).await))
        .await
}
