//! Starts `outbox`.

use claviger_app::deliver_effect::DeliverEffect;
use claviger_lambda::adapters::Adapters;
use claviger_lambda::start;
use claviger_outbox::{Input, Outbox};
use lambda_runtime::{Error, LambdaEvent, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    start::init_tracing();
    let adapters = Adapters::from_env().await?;
    let bus = adapters.bus()?;
    let Adapters { store, clock, .. } = &adapters;
    let deliver = DeliverEffect { outbox: store, tickets: store, instances: store, bus: &bus, clock };
    let outbox = &Outbox { deliver };
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Input>| outbox.handle(event.payload).await))
        .await
}
