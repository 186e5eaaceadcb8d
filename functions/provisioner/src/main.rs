//! Starts `provisioner`.

use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent};
use claviger_app::check_enrolment::CheckEnrolment;
use claviger_app::erase_data_keys::EraseDataKeys;
use claviger_app::erase_instance::EraseInstance;
use claviger_app::make_data_key::MakeDataKey;
use claviger_app::make_newer_data_key::MakeNewerDataKey;
use claviger_app::probe_keys::ProbeKeys;
use claviger_app::provision_instance::ProvisionInstance;
use claviger_app::remove_data_keys::RemoveDataKeys;
use claviger_app::replace_key::ReplaceKey;
use claviger_app::verify_policy::VerifyPolicy;
use claviger_lambda::adapters::Adapters;
use claviger_lambda::{start, usage};
use claviger_provisioner::Provisioner;
use lambda_runtime::{Error, LambdaEvent, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    start::init_tracing();
    let adapters = Adapters::from_env().await?;
    let (keys, queue) = (adapters.keys()?, adapters.queues()?);
    let Adapters { settings, store, clock, ids, .. } = &adapters;
    let probe = ProbeKeys { keys: &keys, controls: &keys, registry: store, clock };
    let make = MakeDataKey { registry: store, keys: &keys, ids, clock };
    let provisioner = Provisioner {
        verify: VerifyPolicy {
            organisations: store,
            policies: store,
            keys: &keys,
            check: CheckEnrolment { keys: &keys, roles: &keys, ids },
            probe,
            ids,
            clock,
            settings,
        },
        provision: ProvisionInstance {
            organisations: store,
            instances: store,
            policies: store,
            make,
            clock,
            settings,
        },
        newer: MakeNewerDataKey { instances: store, policies: store, make, settings },
        erase: EraseDataKeys {
            policies: store,
            instances: store,
            registry: store,
            queue: &queue,
            clock,
            settings,
        },
        erase_instance: EraseInstance { instances: store, registry: store, queue: &queue, clock },
        remove: RemoveDataKeys {
            policies: store,
            instances: store,
            registry: store,
            removal: store,
            queue: &queue,
            clock,
            settings,
        },
        replace: ReplaceKey {
            policies: store,
            instances: store,
            registry: store,
            keys: &keys,
            probe,
            queue: &queue,
            ids,
            clock,
            settings,
        },
        usage: adapters.usage(),
    };
    usage::write_before_the_end(&adapters).await;
    let provisioner = &provisioner;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<SqsEvent>| {
        Ok::<SqsBatchResponse, Error>(provisioner.handle(event.payload).await)
    }))
    .await
}
