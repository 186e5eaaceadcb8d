//! `outbox`: carries effects from the control table's stream to where they take place; a schedule
//! sweeps up what the stream missed. It also sends the vendor's webhooks, and has what queues gave up
//! tried again.

use aws_lambda_events::event::dynamodb;
use aws_lambda_events::event::sqs::SqsEvent;
use claviger_app::deliver_effect::DeliverEffect;
use claviger_app::error::WorkError;
use claviger_app::ports::DeadLetters;
use claviger_app::see_to_undelivered::{SeeToUndelivered, SeenTo};
use claviger_app::webhooks::{DeliverWebhook, WebhookMessage};
use claviger_domain::effect::OutboxRow;
use claviger_lambda::batch;
use serde::Deserialize;
use serde_json::Value;

/// What the function is invoked with.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Input {
    /// New rows, from the stream.
    Stream(dynamodb::Event),
    /// Notices to send.
    Queue(SqsEvent),
    /// A schedule.
    Tick(Tick),
}

/// A schedule's tick.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Tick {
    /// Deliver what is overdue.
    Sweep,
    /// Have what queues gave up tried again: effects and orders are applied once, whatever their number.
    Redrive,
}

/// A stream record as the control table writes outbox rows.
#[derive(Debug, Deserialize)]
struct StoredRow {
    doc: String,
}

/// Why a row was not delivered.
#[derive(Debug, thiserror::Error)]
enum RowError {
    /// The record is not an outbox row.
    #[error("the record is not an outbox row")]
    Record(#[from] serde_dynamo::Error),
    /// The row's document cannot be read.
    #[error("the row's document cannot be read at line {line}, column {column}")]
    Document {
        /// Where.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// The effect failed.
    #[error("the effect failed")]
    Effect(#[from] WorkError),
}

/// The use cases of this function.
pub struct Outbox<'a> {
    /// Delivers effects.
    pub deliver: DeliverEffect<'a>,
    /// Sends webhooks; none where the vendor wants none.
    pub webhook: Option<DeliverWebhook<'a>>,
    /// What queues gave up.
    pub dead_letters: &'a dyn DeadLetters,
    /// What came to no queue.
    pub undelivered: SeeToUndelivered<'a>,
}

impl Outbox<'_> {
    /// Handles one invocation.
    ///
    /// # Errors
    /// When the outbox cannot be read; a row that cannot be delivered is a partial failure of the batch.
    pub async fn handle(&self, input: Input) -> Result<Value, lambda_runtime::Error> {
        match input {
            Input::Tick(Tick::Sweep) => {
                let delivered = self.deliver.sweep().await?;
                Ok(serde_json::json!({ "delivered": delivered }))
            }
            Input::Tick(Tick::Redrive) => {
                // The next tick tries again; there is nobody to tell but the log.
                let redriven = self.dead_letters.redrive().await;
                if let Err(error) = &redriven {
                    tracing::warn!(%error, "not every dead-letter queue could be brought back");
                }
                let seen_to = self.undelivered.run().await.unwrap_or_else(|error| {
                    tracing::warn!(?error, "what was not delivered waits for the next run");
                    SeenTo::default()
                });
                Ok(serde_json::json!({
                    "redriven": redriven.is_ok(),
                    "published": seen_to.published,
                    "dropped": seen_to.dropped,
                    "left": seen_to.left,
                }))
            }
            Input::Queue(event) => {
                let failures = batch::run_sqs(event, |message: WebhookMessage| self.send(message)).await;
                Ok(serde_json::to_value(failures)?)
            }
            Input::Stream(event) => {
                let failures = batch::run_stream(event, |item| self.row(item)).await;
                Ok(serde_json::to_value(failures)?)
            }
        }
    }

    async fn send(&self, message: WebhookMessage) -> Result<(), WorkError> {
        match &self.webhook {
            Some(webhook) => webhook.run(&message).await,
            None => Ok(()),
        }
    }

    async fn row(&self, item: serde_dynamo::Item) -> Result<(), RowError> {
        let stored: StoredRow = serde_dynamo::from_item(item)?;
        let row: OutboxRow = serde_json::from_str(&stored.doc)
            .map_err(|error| RowError::Document { line: error.line(), column: error.column() })?;
        Ok(self.deliver.run(&row).await?)
    }
}
