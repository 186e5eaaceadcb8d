//! Starts `outbox`.

use claviger_app::deliver_effect::DeliverEffect;
use claviger_app::see_to_undelivered::SeeToUndelivered;
use claviger_app::webhooks::{DeliverWebhook, WebhookSecret, Webhooks};
use claviger_lambda::adapters::Adapters;
use claviger_lambda::webhooks::{HttpWebhooks, destinations_from_env};
use claviger_lambda::{env, start};
use claviger_outbox::{Input, Outbox};
use lambda_runtime::{Error, LambdaEvent, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    start::init_tracing();
    let adapters = Adapters::from_env().await?;
    let (bus, queues) = (adapters.bus()?, adapters.outbox_queues()?);
    let (destinations, sender) = (destinations_from_env()?, HttpWebhooks::new()?);
    let wanted = !destinations.is_empty();
    let secret = if wanted { Some(env::parsed::<WebhookSecret>("CLAVIGER_WEBHOOK_SECRET")?) } else { None };
    let Adapters { store, clock, .. } = &adapters;
    let webhooks = Webhooks { destinations: &destinations, queue: wanted.then_some(&queues) };
    let deliver =
        DeliverEffect { outbox: store, tickets: store, instances: store, bus: &bus, webhooks, clock };
    let webhook = secret.as_ref().map(|secret| DeliverWebhook {
        destinations: &destinations,
        secret,
        sender: &sender,
        queue: &queues,
        clock,
    });
    let undelivered = SeeToUndelivered { undelivered: &queues, bus: &bus };
    let outbox = &Outbox { deliver, webhook, dead_letters: &queues, undelivered };
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Input>| outbox.handle(event.payload).await))
        .await
}
