//! What leaves for the vendor's own machines, and what comes to no queue.

use std::sync::LazyLock;

use async_trait::async_trait;
use claviger_app::ports::{CallError, SetAside, Undelivered, WebhookQueue, WebhookSender};
use claviger_app::webhooks::{SignedRequest, WebhookMessage, WebhookSecret};
use claviger_domain::effect::OutboxRow;
use jiff::SignedDuration;
use serde_json::json;

use super::ports::{Fault, Ports};
use super::world::{Message, World, millis};

static DESTINATIONS: LazyLock<[String; 1]> = LazyLock::new(|| ["https://vendor.example/claviger".to_owned()]);

/// Who wants to know: a machine of the vendor's, in a run that looks at every step.
pub fn destinations(world: &World) -> &'static [String] {
    if world.state().steps.is_some() { &*DESTINATIONS } else { &[] }
}

/// What notices are signed with.
pub fn secret() -> WebhookSecret {
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().expect("the published example")
}

impl World {
    /// No rule of the bus could put an order into its queue: it lies with what is set aside, as EventBridge writes it.
    pub fn comes_to_no_queue(&self, row: &OutboxRow) {
        self.fault(|| format!("comes to no queue: {:?}", row.effect));
        self.store.set_aside(json!({ "source": "claviger", "detail": row }).to_string());
    }
}

#[async_trait]
impl WebhookQueue for Ports {
    async fn queue_webhook(&self, message: &WebhookMessage, delay: SignedDuration) -> Result<(), CallError> {
        let notice = Message::Notice(Box::new(message.clone()));
        self.called("queue_webhook", || self.world.send(notice, millis(delay))).await
    }
}

#[async_trait]
impl WebhookSender for Ports {
    async fn send(&self, request: &SignedRequest) -> Result<u16, CallError> {
        let told = || {
            let known = self.world.state().notices.insert(request.id.clone(), request.body.clone());
            let same = known.is_none_or(|known| known == request.body);
            self.world.checked("I4", same, || format!("notice {} says something else now", request.id));
        };
        self.called("send_webhook", told).await.map(|()| 204)
    }
}

#[async_trait]
impl Undelivered for Ports {
    async fn set_aside(&self) -> Result<Vec<SetAside>, CallError> {
        let failed = || CallError { what: "a queue", reason: "injected".to_owned() };
        let fault = self.enter("receive_undelivered").await;
        if matches!(fault, Some(Fault::Before | Fault::Conflict)) {
            return Err(failed());
        }
        let found = Undelivered::set_aside(&self.world.store).await?;
        match fault {
            Some(Fault::After) => Err(failed()),
            Some(Fault::DeathAfter) => self.die().await,
            _ => Ok(found),
        }
    }

    async fn seen_to(&self, message: &SetAside) -> Result<(), CallError> {
        let failed = || CallError { what: "a queue", reason: "injected".to_owned() };
        let fault = self.enter("delete_undelivered").await;
        if matches!(fault, Some(Fault::Before | Fault::Conflict)) {
            return Err(failed());
        }
        self.world.store.seen_to(message).await?;
        match fault {
            Some(Fault::After) => Err(failed()),
            Some(Fault::DeathAfter) => self.die().await,
            _ => Ok(()),
        }
    }
}
