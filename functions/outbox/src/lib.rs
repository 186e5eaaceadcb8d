//! `outbox`: carries effects from the control table's stream to where they take place; a schedule
//! sweeps up what the stream missed.

use aws_lambda_events::event::dynamodb;
use claviger_app::deliver_effect::DeliverEffect;
use claviger_app::error::WorkError;
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
    /// The schedule.
    Sweep(Sweep),
}

/// The sweep's tick.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Sweep {
    /// Deliver what is overdue.
    Sweep,
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

/// The use case of this function.
pub struct Outbox<'a> {
    /// Delivers effects.
    pub deliver: DeliverEffect<'a>,
}

impl Outbox<'_> {
    /// Handles one invocation.
    ///
    /// # Errors
    /// When the outbox cannot be read; a row that cannot be delivered is a partial failure of the batch.
    pub async fn handle(&self, input: Input) -> Result<Value, lambda_runtime::Error> {
        match input {
            Input::Sweep(Sweep::Sweep) => {
                let delivered = self.deliver.sweep().await?;
                Ok(serde_json::json!({ "delivered": delivered }))
            }
            Input::Stream(event) => {
                let failures = batch::run_stream(event, |item| self.row(item)).await;
                Ok(serde_json::to_value(failures)?)
            }
        }
    }

    async fn row(&self, item: serde_dynamo::Item) -> Result<(), RowError> {
        let stored: StoredRow = serde_dynamo::from_item(item)?;
        let row: OutboxRow = serde_json::from_str(&stored.doc)
            .map_err(|error| RowError::Document { line: error.line(), column: error.column() })?;
        Ok(self.deliver.run(&row).await?)
    }
}
