//! The event bus: effects for our own functions, orders for the vendor's apps.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::error::DisplayErrorContext;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use claviger_app::messages::AppOrder;
use claviger_app::ports::{Bus, CallError};
use claviger_domain::effect::{Effect, Order, OutboxRow};
use serde::Serialize;

use crate::in_time;

/// The `source` of every event of ours.
pub const SOURCE: &str = "claviger";

const BUS: &str = "the event bus";

/// A bus of EventBridge.
#[derive(Debug, Clone)]
pub struct EventBridgeBus {
    client: Client,
    name: String,
}

impl EventBridgeBus {
    /// The bus of this name or ARN, with a client of its own, which gives up in time.
    pub fn new(config: &SdkConfig, name: impl Into<String>) -> Self {
        let client = aws_sdk_eventbridge::config::Builder::from(config).timeout_config(in_time()).build();
        Self { client: Client::from_conf(client), name: name.into() }
    }

    async fn put<T: Serialize + Sync>(&self, detail_type: &str, detail: &T) -> Result<(), CallError> {
        let failed = |reason: String| CallError { what: BUS, reason };
        let detail = serde_json::to_string(detail).map_err(|error| failed(error.to_string()))?;
        let entry = PutEventsRequestEntry::builder()
            .event_bus_name(&self.name)
            .source(SOURCE)
            .detail_type(detail_type)
            .detail(detail)
            .build();
        let answer = self
            .client
            .put_events()
            .entries(entry)
            .send()
            .await
            .map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
        // PutEvents answers success even if it took nothing.
        if answer.failed_entry_count() > 0 {
            let code = answer.entries().iter().find_map(|entry| entry.error_code());
            return Err(failed(code.unwrap_or("an entry was refused").to_owned()));
        }
        Ok(())
    }
}

/// Which of our functions an effect is for; none for those that the outbox applies itself.
pub const fn detail_type(effect: &Effect) -> Option<&'static str> {
    match effect {
        Effect::VerifyPolicy
        | Effect::ProvisionInstance { .. }
        | Effect::ReplaceKey { .. }
        | Effect::EraseDataKeys
        | Effect::EraseInstance { .. }
        | Effect::RemoveDataKeys { .. } => Some("ProvisioningOrdered"),
        Effect::SuspendInstances { .. } => Some("SuspensionOrdered"),
        Effect::ProveRestoration | Effect::RestoreInstances { .. } => Some("RestorationOrdered"),
        Effect::Reencrypt { .. } => Some("ReencryptionOrdered"),
        Effect::OpenTicket { .. }
        | Effect::CommentTicket { .. }
        | Effect::ResolveTicket { .. }
        | Effect::TellApp { .. } => None,
    }
}

/// What the vendor's apps hear.
const fn order_type(order: Order) -> &'static str {
    match order {
        Order::Suspend => "AppInstanceSuspended",
        Order::Restore => "AppInstanceRestored",
    }
}

#[async_trait]
impl Bus for EventBridgeBus {
    async fn publish_effect(&self, row: &OutboxRow) -> Result<(), CallError> {
        let Some(detail_type) = detail_type(&row.effect) else {
            let reason = "the outbox applies this effect itself".to_owned();
            return Err(CallError { what: BUS, reason });
        };
        self.put(detail_type, row).await
    }

    async fn publish_order(&self, order: &AppOrder) -> Result<(), CallError> {
        let kind = match order.order.as_str() {
            "suspend" => Order::Suspend,
            "restore" => Order::Restore,
            _ => {
                let reason = "the order is neither `suspend` nor `restore`".to_owned();
                return Err(CallError { what: BUS, reason });
            }
        };
        self.put(order_type(kind), order).await
    }
}
