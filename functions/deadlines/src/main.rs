//! Starts `deadlines`.

use claviger_app::pass_deadlines::PassDeadlines;
use claviger_deadlines::{Deadlines, Input};
use claviger_lambda::adapters::Adapters;
use claviger_lambda::start;
use lambda_runtime::{Error, LambdaEvent, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    start::init_tracing();
    let Adapters { settings, store, clock, ids, .. } = &Adapters::from_env().await?;
    let pass = PassDeadlines {
        policies: store,
        watch: store,
        requests: store,
        templates: store,
        overdue: store,
        instances: store,
        erasures: store,
        backups: store,
        removal: store,
        ids,
        clock,
        settings,
    };
    let deadlines = &Deadlines { pass };
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Input>| deadlines.handle(event.payload).await))
        .await
}
