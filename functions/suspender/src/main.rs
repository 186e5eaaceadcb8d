//! Starts `suspender`.

use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent};
use claviger_app::fan_out::CarryOrder;
use claviger_lambda::adapters::Adapters;
use claviger_lambda::start;
use claviger_suspender::Suspender;
use lambda_runtime::{Error, LambdaEvent, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    start::init_tracing();
    let adapters = Adapters::from_env().await?;
    let queue = adapters.queues()?;
    let Adapters { settings, store, clock, .. } = &adapters;
    let carry = CarryOrder { policies: store, instances: store, queue: &queue, clock, settings };
    let suspender = &Suspender { carry };
    lambda_runtime::run(service_fn(async |event: LambdaEvent<SqsEvent>| {
        Ok::<SqsBatchResponse, Error>(suspender.handle(event.payload).await)
    }))
    .await
}
