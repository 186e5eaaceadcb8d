//! The prober's queue, and the queues of the suspender and the restorer.

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use claviger_app::messages::{FanOut, ProbeMessage};
use claviger_app::ports::{CallError, FanOutQueue, ProbeQueue};
use claviger_domain::effect::OutboxRow;
use jiff::SignedDuration;
use serde::Serialize;

const PROBE_QUEUE: &str = "the probe queue";
const WORK_QUEUE: &str = "the work queue";
/// SQS takes ten messages at a time.
const BATCH: usize = 10;
/// SQS delays 15 minutes at most.
const LONGEST_DELAY_SECONDS: i64 = 15 * 60;

/// Queues of SQS. A function sets those that it has.
#[derive(Debug, Clone)]
pub struct SqsQueues {
    client: Client,
    probe: Option<String>,
    work: Option<String>,
}

impl SqsQueues {
    /// No queue yet.
    pub fn new(client: Client) -> Self {
        Self { client, probe: None, work: None }
    }

    /// With the prober's queue.
    #[must_use]
    pub fn with_probe_queue(mut self, url: impl Into<String>) -> Self {
        self.probe = Some(url.into());
        self
    }

    /// With the function's own work queue, for the next page of a fan-out.
    #[must_use]
    pub fn with_work_queue(mut self, url: impl Into<String>) -> Self {
        self.work = Some(url.into());
        self
    }

    async fn send<T: Serialize + Sync>(
        &self,
        what: &'static str,
        url: Option<&String>,
        messages: &[(&T, SignedDuration)],
    ) -> Result<(), CallError> {
        let failed = |reason: String| CallError { what, reason };
        let url = url.ok_or_else(|| failed("its URL is not set".to_owned()))?;
        for batch in messages.chunks(BATCH) {
            let mut entries = Vec::new();
            for (index, (message, delay)) in batch.iter().enumerate() {
                let body = serde_json::to_string(message).map_err(|error| failed(error.to_string()))?;
                let entry = SendMessageBatchRequestEntry::builder()
                    .id(index.to_string())
                    .message_body(body)
                    .delay_seconds(delay_seconds(*delay))
                    .build()
                    .map_err(|error| failed(error.to_string()))?;
                entries.push(entry);
            }
            let answer = self
                .client
                .send_message_batch()
                .queue_url(url)
                .set_entries(Some(entries))
                .send()
                .await
                .map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
            // A batch that was taken in part is a failure: the caller sends all again, receivers are idempotent.
            if let Some(refused) = answer.failed().first() {
                let more = answer.failed().len();
                return Err(failed(format!("{more} messages were refused: {}", refused.code())));
            }
        }
        Ok(())
    }
}

/// Whole seconds, rounded up: never early.
fn delay_seconds(delay: SignedDuration) -> i32 {
    let up = i64::from(delay.subsec_nanos() > 0);
    let seconds = delay.as_secs().saturating_add(up).clamp(0, LONGEST_DELAY_SECONDS);
    i32::try_from(seconds).unwrap_or(0)
}

#[async_trait]
impl ProbeQueue for SqsQueues {
    async fn queue_probes(&self, messages: &[(ProbeMessage, SignedDuration)]) -> Result<(), CallError> {
        let messages: Vec<_> = messages.iter().map(|(message, delay)| (message, *delay)).collect();
        self.send(PROBE_QUEUE, self.probe.as_ref(), &messages).await
    }
}

#[async_trait]
impl FanOutQueue for SqsQueues {
    async fn queue_fan_out(&self, page: &FanOut, delay: SignedDuration) -> Result<(), CallError> {
        self.send(WORK_QUEUE, self.work.as_ref(), &[(page, delay)]).await
    }

    async fn queue_effect(&self, row: &OutboxRow, delay: SignedDuration) -> Result<(), CallError> {
        self.send(WORK_QUEUE, self.work.as_ref(), &[(row, delay)]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(SignedDuration::ZERO, 0)]
    #[case(SignedDuration::from_millis(1), 1)]
    #[case(SignedDuration::from_millis(2_000), 2)]
    #[case(SignedDuration::from_millis(2_500), 3)]
    #[case(SignedDuration::from_millis(-500), 0)]
    #[case(SignedDuration::from_hours(3), 900)]
    fn a_delay_is_whole_seconds_and_never_early(#[case] delay: SignedDuration, #[case] seconds: i32) {
        assert_eq!(delay_seconds(delay), seconds);
    }
}
