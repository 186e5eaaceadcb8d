//! Notices as signed webhooks.

use std::sync::Mutex;

use async_trait::async_trait;
use claviger_app::ports::{CallError, WebhookSender};
use claviger_app::webhooks::{DeliverWebhook, SignedRequest, WebhookSecret};

use crate::world::World;

const HOOK: &str = "https://hooks.example.com/claviger";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A receiver that answers what it is told to, and keeps what it got.
#[derive(Default)]
struct Receiver {
    statuses: Mutex<Vec<u16>>,
    got: Mutex<Vec<SignedRequest>>,
}

#[async_trait]
impl WebhookSender for Receiver {
    async fn send(&self, request: &SignedRequest) -> Result<u16, CallError> {
        self.got.lock().unwrap().push(request.clone());
        let status = self.statuses.lock().unwrap().pop();
        status.ok_or_else(|| CallError { what: "the receiver", reason: "no connection".to_owned() })
    }
}

#[tokio::test]
async fn r9_a_cut_off_is_told_by_signed_webhooks_that_bear_the_epoch() {
    let mut world = World::with_acme().await;
    world.destinations = vec![HOOK.to_owned()];
    world.cut_off().await;
    let queued = world.store.take_queued_webhooks();
    let kinds: Vec<String> = queued
        .iter()
        .map(|(message, _)| serde_json::from_str::<serde_json::Value>(&message.body).unwrap())
        .inspect(|body| {
            assert_eq!(body["data"]["epoch"], 1, "{body}");
            assert_eq!(body["data"]["organisation"], "acme");
        })
        .map(|body| body["type"].as_str().unwrap().to_owned())
        .collect();
    for kind in ["ticket.opened", "organisation.suspended", "app-instance.suspended"] {
        assert!(kinds.iter().any(|one| one == kind), "{kinds:?}");
    }
    let (receiver, secret): (_, WebhookSecret) = (Receiver::default(), SECRET.parse().unwrap());
    receiver.statuses.lock().unwrap().push(204);
    let deliver = DeliverWebhook {
        destinations: &world.destinations,
        secret: &secret,
        sender: &receiver,
        queue: &world.store,
        clock: &world.clock,
    };
    let (message, _) = &queued[0];
    deliver.run(message).await.unwrap();
    let got = receiver.got.lock().unwrap().remove(0);
    assert_eq!(got.signature, secret.sign(&got.id, world.now().as_second(), &message.body));
    assert_eq!(got.id, format!("msg_{}", message.id));
}

#[tokio::test]
async fn r9_a_webhook_that_is_not_taken_is_tried_again_ever_later_with_the_same_id_and_body_and_then_set_aside()
 {
    let mut world = World::with_acme().await;
    world.destinations = vec![HOOK.to_owned()];
    world.cut_off().await;
    let (mut message, _) = world.store.take_queued_webhooks().remove(0);
    let (receiver, secret): (_, WebhookSecret) = (Receiver::default(), SECRET.parse().unwrap());
    // A redirect is a failure as much as an error, and no answer is one.
    receiver.statuses.lock().unwrap().extend([500, 302, 429]);
    let deliver = DeliverWebhook {
        destinations: &world.destinations,
        secret: &secret,
        sender: &receiver,
        queue: &world.store,
        clock: &world.clock,
    };
    let mut waits = Vec::new();
    loop {
        if deliver.run(&message).await.is_err() {
            break;
        }
        let (next, wait) = world.store.take_queued_webhooks().remove(0);
        assert_eq!((next.id, &next.body), (message.id, &message.body));
        waits.push(wait.as_secs());
        message = next;
    }
    assert_eq!(waits, [5, 30, 120, 300, 900, 900, 900, 900]);
    receiver.statuses.lock().unwrap().push(410);
    deliver.run(&message).await.unwrap();
    assert!(world.store.take_queued_webhooks().is_empty(), "who is gone is left alone");
    let elsewhere = claviger_app::webhooks::WebhookMessage {
        destination: "https://old.example.com".to_owned(),
        ..message
    };
    receiver.got.lock().unwrap().clear();
    deliver.run(&elsewhere).await.unwrap();
    assert!(receiver.got.lock().unwrap().is_empty(), "a destination of the past gets nothing");
}
