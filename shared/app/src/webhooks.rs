//! Notices for the vendor's own machines, as signed webhooks (Standard Webhooks): what happened to an organisation,
//! with the epoch, so that a receiver can ignore what is older than what it knows.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use claviger_domain::effect::{Effect, Order, OutboxRow};
use claviger_domain::ids::EffectId;
use claviger_domain::invalid::Invalid;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::WorkError;
use crate::ports::{CallError, Clock, WebhookQueue, WebhookSender};

/// Waits before the tries after the first. After the last, the message counts as failed and its queue sets it aside.
const BACK_OFF: [i64; 8] = [5, 30, 120, 300, 900, 900, 900, 900];

/// One notice on its way to one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookMessage {
    /// Where to.
    pub destination: String,
    /// Repeats with the decision: receivers apply it once.
    pub id: EffectId,
    /// The body, the same at every try.
    pub body: String,
    /// How many tries came before.
    #[serde(default)]
    pub attempt: u8,
}

/// What an effect is called outside, and what is told of it; none for what only our own functions do.
fn told(effect: &Effect) -> Option<(&'static str, Value)> {
    let told = match effect {
        Effect::OpenTicket { ticket, title, body } => {
            ("ticket.opened", json!({ "ticketId": ticket, "title": title, "body": body }))
        }
        Effect::CommentTicket { ticket, body } => {
            ("ticket.commented", json!({ "ticketId": ticket, "body": body }))
        }
        Effect::ResolveTicket { ticket, body } => {
            ("ticket.resolved", json!({ "ticketId": ticket, "body": body }))
        }
        Effect::SuspendInstances { .. } => ("organisation.suspended", json!({})),
        Effect::RestoreInstances { .. } => ("organisation.restored", json!({})),
        Effect::TellApp { instance, order, .. } => {
            let kind = match order {
                Order::Suspend => "app-instance.suspended",
                Order::Restore => "app-instance.restored",
            };
            (kind, json!({ "instanceId": instance }))
        }
        Effect::VerifyPolicy
        | Effect::ProvisionInstance { .. }
        | Effect::ProveRestoration
        | Effect::ReplaceKey { .. }
        | Effect::EraseDataKeys
        | Effect::EraseInstance { .. }
        | Effect::RemoveDataKeys { .. }
        | Effect::Reencrypt { .. } => return None,
    };
    Some(told)
}

/// The notice of an effect, as JSON.
pub fn notice(row: &OutboxRow) -> Option<String> {
    let (kind, mut data) = told(&row.effect)?;
    if let Some(data) = data.as_object_mut() {
        data.insert("organisation".to_owned(), json!(row.organisation));
        data.insert("policyId".to_owned(), json!(row.policy));
        data.insert("epoch".to_owned(), json!(row.epoch));
        data.insert("correlationId".to_owned(), json!(row.correlation));
    }
    Some(json!({ "type": kind, "timestamp": row.created_at, "data": data }).to_string())
}

/// The secret that webhooks are signed with. It is never shown.
pub struct WebhookSecret(hmac::Key);

impl std::str::FromStr for WebhookSecret {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = BASE64_STANDARD.decode(text.trim().trim_start_matches("whsec_")).unwrap_or_default();
        // Standard Webhooks: 24 to 64 bytes.
        if !(24..=64).contains(&bytes.len()) {
            return Err(Invalid::new(
                "it is no webhook secret",
                "give `whsec_` and 24 to 64 bytes in base64",
            ));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }
}

impl WebhookSecret {
    /// The value of `webhook-signature`.
    pub fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        let tag = hmac::sign(&self.0, format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", BASE64_STANDARD.encode(tag.as_ref()))
    }
}

/// Whom notices go to. Without a destination nothing is queued.
#[derive(Clone, Copy)]
pub struct Webhooks<'a> {
    /// The vendor's destinations.
    pub destinations: &'a [String],
    /// Where notices wait.
    pub queue: Option<&'a dyn WebhookQueue>,
}

impl Webhooks<'_> {
    /// Nobody wants to know.
    pub const fn none() -> Self {
        Self { destinations: &[], queue: None }
    }

    /// Queues the notice of an effect for each destination.
    ///
    /// # Errors
    /// When the queue fails; the effect is delivered again, and receivers know the notice by its identifier.
    pub async fn queue(&self, row: &OutboxRow) -> Result<(), CallError> {
        let (Some(queue), Some(body)) = (self.queue, notice(row)) else {
            return Ok(());
        };
        for destination in self.destinations {
            let message = WebhookMessage {
                destination: destination.clone(),
                id: row.id,
                body: body.clone(),
                attempt: 0,
            };
            queue.queue_webhook(&message, SignedDuration::ZERO).await?;
        }
        Ok(())
    }
}

/// A request that is ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRequest {
    /// Where to.
    pub url: String,
    /// `webhook-id`.
    pub id: String,
    /// `webhook-timestamp`: when this try was signed.
    pub timestamp: i64,
    /// `webhook-signature`.
    pub signature: String,
    /// The body.
    pub body: String,
}

/// Delivers one notice.
pub struct DeliverWebhook<'a> {
    /// The vendor's destinations.
    pub destinations: &'a [String],
    /// What it is signed with.
    pub secret: &'a WebhookSecret,
    /// Who sends it.
    pub sender: &'a dyn WebhookSender,
    /// Where the next try waits.
    pub queue: &'a dyn WebhookQueue,
    /// The time.
    pub clock: &'a dyn Clock,
}

impl DeliverWebhook<'_> {
    /// Tries once. A failure waits for the next try, longer each time.
    ///
    /// # Errors
    /// When the last try failed, or the next one cannot be queued.
    pub async fn run(&self, message: &WebhookMessage) -> Result<(), WorkError> {
        if !self.destinations.contains(&message.destination) {
            tracing::info!(effect.id = %message.id, "a notice for a destination of the past is dropped");
            return Ok(());
        }
        let request = self.signed(message, self.clock.now());
        let reason = match self.sender.send(&request).await {
            Ok(200..=299) => return Ok(()),
            // The receiver says that it is gone and wants nothing more.
            Ok(410) => {
                tracing::warn!(effect.id = %message.id, "a webhook's receiver is gone; correct WebhookUrls");
                return Ok(());
            }
            Ok(status) => format!("status {status}"),
            Err(error) => error.reason,
        };
        tracing::warn!(effect.id = %message.id, attempt = message.attempt, reason, "a webhook was not taken");
        let Some(wait) = BACK_OFF.get(usize::from(message.attempt)) else {
            return Err(CallError { what: "the webhook's receiver", reason }.into());
        };
        let next = WebhookMessage { attempt: message.attempt.saturating_add(1), ..message.clone() };
        Ok(self.queue.queue_webhook(&next, SignedDuration::from_secs(*wait)).await?)
    }

    fn signed(&self, message: &WebhookMessage, now: Timestamp) -> SignedRequest {
        let (id, timestamp) = (format!("msg_{}", message.id), now.as_second());
        let signature = self.secret.sign(&id, timestamp, &message.body);
        SignedRequest {
            url: message.destination.clone(),
            id,
            timestamp,
            signature,
            body: message.body.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_example_of_standard_webhooks_has_the_published_signature() {
        let secret: WebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_that_is_too_short_or_no_base64_is_refused() {
        for text in ["", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!"] {
            assert!(text.parse::<WebhookSecret>().is_err(), "{text}");
        }
    }
}
