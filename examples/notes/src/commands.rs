//! Commands from claviger's bus: an instance is told to stop, or that it may work again. The library
//! obeys the fence by itself; the command is where the app drops what it keeps, and says so.

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_sqs::types::Message;
use serde::Deserialize;
use serde_json::json;

use crate::cache::RecentNotes;

/// What the bus says about an instance.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Command {
    organisation: String,
    instance_id: String,
    site: String,
    order: String,
    epoch: u64,
}

/// An event of the bus, as the queue holds it.
#[derive(Debug, Deserialize)]
struct Event {
    detail: Command,
}

/// Why a command was not obeyed; the queue brings it again.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    /// The message is not a command.
    #[error("the message is not a command")]
    Unreadable,
    /// The acknowledgement did not arrive.
    #[error("the acknowledgement failed")]
    Acknowledgement(#[from] reqwest::Error),
}

/// The app's queue.
pub struct Commands {
    sqs: aws_sdk_sqs::Client,
    queue: String,
    api: String,
    token: String,
    http: reqwest::Client,
    recent: Arc<RecentNotes>,
}

impl Commands {
    /// Commands of this queue, acknowledged to this API.
    pub fn new(aws: &SdkConfig, queue: &str, api: &str, token: String, recent: Arc<RecentNotes>) -> Self {
        Self {
            sqs: aws_sdk_sqs::Client::new(aws),
            queue: queue.to_owned(),
            api: api.trim_end_matches('/').to_owned(),
            token,
            http: reqwest::Client::new(),
            recent,
        }
    }

    /// Obeys commands for as long as the app runs.
    pub async fn run(self) {
        loop {
            let received = self
                .sqs
                .receive_message()
                .queue_url(&self.queue)
                .max_number_of_messages(10)
                .wait_time_seconds(10)
                .send()
                .await;
            match received {
                Ok(received) => {
                    for message in received.messages.unwrap_or_default() {
                        self.message(message).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %error.into_service_error(), "the queue of commands does not answer");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn message(&self, message: Message) {
        if let Err(error) = self.obey(message.body().unwrap_or_default()).await {
            tracing::warn!(?error, "a command was not obeyed");
            return;
        }
        let Some(receipt) = message.receipt_handle() else {
            return;
        };
        let deleted = self.sqs.delete_message().queue_url(&self.queue).receipt_handle(receipt).send().await;
        if let Err(error) = deleted {
            tracing::warn!(error = %error.into_service_error(), "a command comes again");
        }
    }

    async fn obey(&self, body: &str) -> Result<(), CommandError> {
        let event: Event = serde_json::from_str(body).map_err(|_| CommandError::Unreadable)?;
        let command = event.detail;
        let evicted = match command.order.as_str() {
            "suspend" => self.recent.drop_site(&command.organisation, &command.site),
            _ => 0,
        };
        let url = format!(
            "{}/v1/organizations/{}/app-instances/{}/acknowledge",
            self.api, command.organisation, command.instance_id
        );
        let answer = self
            .http
            .post(url)
            .bearer_auth(&self.token)
            .json(&json!({ "epoch": command.epoch, "evicted": evicted }))
            .send()
            .await?;
        // 409: a newer order is known already, and this one counts for nothing.
        if answer.status() != reqwest::StatusCode::CONFLICT {
            answer.error_for_status()?;
        }
        tracing::info!(order = command.order, epoch = command.epoch, evicted, "a command was obeyed");
        Ok(())
    }
}
