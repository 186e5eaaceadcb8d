//! Starts `key-broker`.

use std::convert::Infallible;

use claviger_app::hand_out_data_key::{HandOutDataKey, UnwrappedKeys};
use claviger_app::probe_keys::ProbeKeys;
use claviger_app::prove_policies::ProvePolicies;
use claviger_key_broker::KeyBroker;
use claviger_lambda::adapters::Adapters;
use claviger_lambda::{env, start, usage};
use lambda_http::{Error, Request, Response, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    start::init_tracing();
    let adapters = Adapters::from_env().await?;
    let (keys, queues, cache) = (adapters.keys()?, adapters.broker_queues()?, UnwrappedKeys::new());
    let home = adapters.region()?;
    let Adapters { settings, store, clock, ids, .. } = &adapters;
    let broker = KeyBroker {
        hand_out: HandOutDataKey {
            policies: store,
            instances: store,
            registry: store,
            keys: &keys,
            hints: &queues,
            newer: &queues,
            cache: &cache,
            lifetime: env::millis_or("CLAVIGER_BROKER_LIFETIME_MS", jiff::SignedDuration::from_mins(5))?,
            home: &home,
            ids,
            clock,
            settings,
        },
        prove: ProvePolicies {
            policies: store,
            proofs: store,
            probe: ProbeKeys { keys: &keys, controls: &keys, registry: store, clock },
            clock,
            timer: clock,
            settings,
        },
    };
    usage::write_in_the_background(&adapters);
    usage::write_before_the_end(&adapters).await;
    let broker = &broker;
    lambda_http::run(service_fn(async |request: Request| {
        Ok::<Response<String>, Infallible>(broker.handle(request).await)
    }))
    .await
}
