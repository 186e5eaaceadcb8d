//! Sees to what neither a rule of the bus nor an invocation could finish. SQS moves no message back that came from
//! elsewhere than a queue, so it is done here, by what the message is:
//!
//! | what | why it lies there | what becomes of it |
//! |---|---|---|
//! | an order of ours | a rule could not put it into its queue | it is published again; receivers apply it once |
//! | an event of a customer's account | `key-events` failed, or could not be invoked | dropped: the sweep has probed the keys since |
//! | a tick | a scheduled invocation failed | dropped: the next tick did its work |
//! | a batch of the stream | the outbox failed on it | dropped: its rows are in the outbox still, and are swept |
//! | anything else | nobody knows | it stays, and with it the alarm |

use claviger_domain::effect::OutboxRow;
use serde::Deserialize;
use serde_json::Value;

use crate::error::WorkError;
use crate::ports::{Bus, SetAside, Undelivered};

/// How often a run asks for more. What is left is for the next run.
const ROUNDS: usize = 20;

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SeenTo {
    /// Orders that were published again.
    pub published: u64,
    /// Messages whose work was done by others since.
    pub dropped: u64,
    /// Messages that stay for somebody to look at.
    pub left: u64,
}

/// Sees to what was not delivered.
pub struct SeeToUndelivered<'a> {
    /// Where it lies.
    pub undelivered: &'a dyn Undelivered,
    /// Where orders go.
    pub bus: &'a dyn Bus,
}

/// What a message is.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// An effect on its way to one of our functions.
    Order(Box<OutboxRow>),
    /// Its work is done by others, with this reason.
    MadeUpFor(&'static str),
    /// Nobody knows.
    Unknown,
}

impl SeeToUndelivered<'_> {
    /// One run over what lies there.
    ///
    /// # Errors
    /// When the queue cannot be read. An order that cannot be published stays.
    pub async fn run(&self) -> Result<SeenTo, WorkError> {
        let mut done = SeenTo::default();
        for _ in 0..ROUNDS {
            let messages = self.undelivered.set_aside().await?;
            if messages.is_empty() {
                break;
            }
            for message in &messages {
                match kind_of(&message.body) {
                    Kind::Order(row) => self.publish(message, &row, &mut done).await,
                    Kind::MadeUpFor(reason) => {
                        tracing::info!(reason, "an undelivered message is dropped");
                        self.take_away(message).await;
                        done.dropped = done.dropped.saturating_add(1);
                    }
                    Kind::Unknown => {
                        tracing::warn!("an undelivered message is of a kind that nobody knows; it stays");
                        done.left = done.left.saturating_add(1);
                    }
                }
            }
        }
        Ok(done)
    }

    async fn publish(&self, message: &SetAside, row: &OutboxRow, done: &mut SeenTo) {
        match self.bus.publish_effect(row).await {
            Ok(()) => {
                tracing::warn!(effect.id = %row.id, policy.id = %row.policy, "an undelivered order is published again");
                self.take_away(message).await;
                done.published = done.published.saturating_add(1);
            }
            Err(error) => {
                tracing::warn!(effect.id = %row.id, %error, "an undelivered order could not be published again");
                done.left = done.left.saturating_add(1);
            }
        }
    }

    /// What stays comes again, and is seen to again: nothing is lost by that.
    async fn take_away(&self, message: &SetAside) {
        if let Err(error) = self.undelivered.seen_to(message).await {
            tracing::warn!(%error, "an undelivered message that was seen to comes again");
        }
    }
}

/// The parts by which messages are told apart.
#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    detail: Option<Value>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default, rename = "DDBStreamBatchInfo")]
    stream_batch: Option<Value>,
}

fn kind_of(body: &str) -> Kind {
    let Ok(parts) = serde_json::from_str::<Parts>(body) else {
        return Kind::Unknown;
    };
    match (parts.source.as_deref(), parts.kind.as_deref()) {
        (Some("claviger"), _) => match parts.detail.map(serde_json::from_value::<OutboxRow>) {
            Some(Ok(row)) => Kind::Order(Box::new(row)),
            Some(Err(_)) | None => Kind::Unknown,
        },
        (Some("aws.kms" | "aws.iam"), _) => Kind::MadeUpFor("a hint: the sweep has probed since"),
        (None, Some("tick" | "sweep" | "redrive" | "describe")) => {
            Kind::MadeUpFor("a tick: the next one did its work")
        }
        (None, None) if parts.stream_batch.is_some() => {
            Kind::MadeUpFor("a batch of the stream: its rows are swept")
        }
        (Some(_) | None, _) => Kind::Unknown,
    }
}
