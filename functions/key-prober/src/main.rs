//! Starts `key-prober`.

use claviger_app::check_enrolment::CheckEnrolment;
use claviger_app::describe_keys::DescribeKeys;
use claviger_app::follow_hint::{FollowHint, FollowedRefusals};
use claviger_app::make_replacement::MakeReplacement;
use claviger_app::probe_keys::ProbeKeys;
use claviger_app::probe_now::ProbeNow;
use claviger_app::prove_permissions::ProvePermissions;
use claviger_app::report_probes::ReportProbes;
use claviger_app::sweep::{PlanSweeps, Sweep};
use claviger_app::unwrap_data_keys::UnwrapDataKeys;
use claviger_key_prober::{Input, KeyProber};
use claviger_lambda::adapters::Adapters;
use claviger_lambda::{start, usage};
use jiff::Timestamp;
use lambda_runtime::{Error, LambdaEvent, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    start::init_tracing();
    let adapters = Adapters::from_env().await?;
    let (keys, queue) = (adapters.keys()?, adapters.queues()?);
    let Adapters { settings, store, clock, ids, .. } = &adapters;
    let probe = ProbeKeys { keys: &keys, controls: &keys, registry: store, clock };
    let report =
        ReportProbes { probe, policies: store, hints: store, queue: &queue, watch: store, clock, settings };
    let followed = FollowedRefusals::default();
    let prober = KeyProber {
        plan: PlanSweeps { queue: &queue, watch: store, clock, settings },
        sweep: Sweep { report, watch: store, queue: &queue, ids, clock, timer: clock, settings },
        follow: FollowHint { report, queue: &queue, followed: &followed },
        now: ProbeNow { probe, policies: store },
        permissions: ProvePermissions { policies: store, keys: &keys },
        describe: DescribeKeys {
            policies: store,
            watch: store,
            instances: store,
            registry: store,
            keys: &keys,
            queue: &queue,
            check: CheckEnrolment { keys: &keys, roles: &keys, ids },
            clock,
            settings,
        },
        unwrap: UnwrapDataKeys { probe, policies: store, instances: store, registry: store },
        replacement: MakeReplacement {
            policies: store,
            check: CheckEnrolment { keys: &keys, roles: &keys, ids },
        },
        check: CheckEnrolment { keys: &keys, roles: &keys, ids },
        usage: adapters.usage(),
    };
    usage::write_before_the_end(&adapters).await;
    let prober = &prober;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Input>| {
        let until = i64::try_from(event.context.deadline).map(Timestamp::from_millisecond)??;
        prober.handle(event.payload, until).await
    }))
    .await
}
