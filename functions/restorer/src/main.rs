//! Starts `restorer`.

use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent};
use claviger_app::fan_out::CarryOrder;
use claviger_app::prove_restoration::ProveRestoration;
use claviger_lambda::adapters::Adapters;
use claviger_lambda::start;
use claviger_restorer::Restorer;
use lambda_runtime::{Error, LambdaEvent, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    start::init_tracing();
    let adapters = Adapters::from_env().await?;
    let (queue, prober) = (adapters.queues()?, adapters.prober()?);
    let Adapters { settings, store, clock, .. } = &adapters;
    let restorer = Restorer {
        prove: ProveRestoration { policies: store, prober: &prober, queue: &queue, clock, settings },
        carry: CarryOrder { policies: store, instances: store, queue: &queue, clock, settings },
    };
    let restorer = &restorer;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<SqsEvent>| {
        Ok::<SqsBatchResponse, Error>(restorer.handle(event.payload).await)
    }))
    .await
}
