//! Starts `reencryption-planner`.

use claviger_app::carry_reencryption::CarryReencryption;
use claviger_app::check_enrolment::CheckEnrolment;
use claviger_app::probe_keys::ProbeKeys;
use claviger_lambda::adapters::Adapters;
use claviger_lambda::{start, usage};
use claviger_reencryption_planner::{Input, Planner};
use lambda_runtime::{Error, LambdaEvent, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    start::init_tracing();
    let adapters = Adapters::from_env().await?;
    let (keys, queue) = (adapters.keys()?, adapters.reencryption_queues()?);
    let Adapters { settings, store, clock, ids, .. } = &adapters;
    let planner = Planner {
        carry: CarryReencryption {
            policies: store,
            watch: store,
            instances: store,
            registry: store,
            keys: &keys,
            probe: ProbeKeys { keys: &keys, controls: &keys, registry: store, clock },
            checkpoints: store,
            backups: store,
            check: CheckEnrolment { keys: &keys, roles: &keys, ids },
            queue: &queue,
            ids,
            clock,
            settings,
        },
        usage: adapters.usage(),
    };
    usage::write_before_the_end(&adapters).await;
    let planner = &planner;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Input>| planner.handle(event.payload).await))
        .await
}
