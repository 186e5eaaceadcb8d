//! The prober's queue, and the queues of the suspender and the restorer.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use claviger_app::messages::{DataKeyPage, ErasurePage, FanOut, NewerDataKey, ProbeMessage};
use claviger_app::ports::{
    CallError, DeadLetters, FanOutQueue, NewerDataKeys, ProbeQueue, ReencryptionQueues, SetAside,
    Undelivered, WebhookQueue,
};
use claviger_app::reencryption::{JobStep, ShardWork};
use claviger_app::webhooks::WebhookMessage;
use claviger_domain::effect::OutboxRow;
use jiff::SignedDuration;
use serde::Serialize;

use crate::in_time;

const PROBE_QUEUE: &str = "the probe queue";
const WORK_QUEUE: &str = "the work queue";
const PROVISIONER_QUEUE: &str = "the provisioner's queue";
const SHARD_QUEUE: &str = "the queue of shards";
const WEBHOOK_QUEUE: &str = "the webhook queue";
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
    provisioner: Option<String>,
    webhooks: Option<String>,
    shards: Option<String>,
    dead_letters: Vec<String>,
    undelivered: Option<String>,
}

impl SqsQueues {
    /// No queue yet, with a client of its own, which gives up in time.
    pub fn new(config: &SdkConfig) -> Self {
        let client = aws_sdk_sqs::config::Builder::from(config).timeout_config(in_time()).build();
        let dead_letters = Vec::new();
        Self {
            client: Client::from_conf(client),
            probe: None,
            work: None,
            provisioner: None,
            webhooks: None,
            shards: None,
            dead_letters,
            undelivered: None,
        }
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

    /// With the provisioner's queue, where newer data keys are asked for.
    #[must_use]
    pub fn with_provisioner_queue(mut self, url: impl Into<String>) -> Self {
        self.provisioner = Some(url.into());
        self
    }

    /// With the queue of the workers of a re-encryption.
    #[must_use]
    pub fn with_shard_queue(mut self, url: impl Into<String>) -> Self {
        self.shards = Some(url.into());
        self
    }

    /// With the queue in which notices wait.
    #[must_use]
    pub fn with_webhook_queue(mut self, url: impl Into<String>) -> Self {
        self.webhooks = Some(url.into());
        self
    }

    /// With the dead-letter queues that are brought back, by ARN.
    #[must_use]
    pub fn with_dead_letters(mut self, arns: impl IntoIterator<Item = String>) -> Self {
        self.dead_letters = arns.into_iter().collect();
        self
    }

    /// With the queue of what was not delivered.
    #[must_use]
    pub fn with_undelivered(mut self, url: impl Into<String>) -> Self {
        self.undelivered = Some(url.into());
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

impl NewerDataKeys for SqsQueues {
    fn ask_for_newer(&self, wanted: NewerDataKey) {
        let queues = self.clone();
        // An environment that stands still between invocations sends it with the next one.
        tokio::spawn(async move {
            let url = queues.provisioner.as_ref();
            if let Err(error) = queues.send(PROVISIONER_QUEUE, url, &[(&wanted, SignedDuration::ZERO)]).await
            {
                tracing::warn!(%error, instance.id = %wanted.instance, "a newer data key was asked for in vain");
            }
        });
    }
}

#[async_trait]
impl FanOutQueue for SqsQueues {
    async fn queue_fan_out(&self, page: &FanOut, delay: SignedDuration) -> Result<(), CallError> {
        self.send(WORK_QUEUE, self.work.as_ref(), &[(page, delay)]).await
    }

    async fn queue_data_keys(&self, page: &DataKeyPage, delay: SignedDuration) -> Result<(), CallError> {
        self.send(WORK_QUEUE, self.work.as_ref(), &[(page, delay)]).await
    }

    async fn queue_erasure(&self, page: &ErasurePage, delay: SignedDuration) -> Result<(), CallError> {
        self.send(WORK_QUEUE, self.work.as_ref(), &[(page, delay)]).await
    }

    async fn queue_effect(&self, row: &OutboxRow, delay: SignedDuration) -> Result<(), CallError> {
        self.send(WORK_QUEUE, self.work.as_ref(), &[(row, delay)]).await
    }
}

#[async_trait]
impl ReencryptionQueues for SqsQueues {
    async fn queue_step(&self, step: &JobStep, delay: SignedDuration) -> Result<(), CallError> {
        self.send(WORK_QUEUE, self.work.as_ref(), &[(step, delay)]).await
    }

    async fn queue_shards(&self, work: &[ShardWork], delay: SignedDuration) -> Result<(), CallError> {
        let messages: Vec<_> = work.iter().map(|one| (one, delay)).collect();
        self.send(SHARD_QUEUE, self.shards.as_ref(), &messages).await
    }
}

#[async_trait]
impl WebhookQueue for SqsQueues {
    async fn queue_webhook(&self, message: &WebhookMessage, delay: SignedDuration) -> Result<(), CallError> {
        self.send(WEBHOOK_QUEUE, self.webhooks.as_ref(), &[(message, delay)]).await
    }
}

#[async_trait]
impl DeadLetters for SqsQueues {
    /// One move task a queue. A task that runs already is as good; one queue's failure keeps no other from it.
    async fn redrive(&self) -> Result<(), CallError> {
        let mut failed = None;
        for arn in &self.dead_letters {
            if let Err(error) = self.client.start_message_move_task().source_arn(arn).send().await {
                failed = Some(DisplayErrorContext(error).to_string());
            }
        }
        failed.map_or(Ok(()), |reason| Err(CallError { what: "a dead-letter queue", reason }))
    }
}

#[async_trait]
impl Undelivered for SqsQueues {
    async fn set_aside(&self) -> Result<Vec<SetAside>, CallError> {
        let Some(url) = &self.undelivered else {
            return Ok(Vec::new());
        };
        let answer = self.client.receive_message().queue_url(url).max_number_of_messages(10).send().await;
        let answer = answer.map_err(|error| undelivered(DisplayErrorContext(error).to_string()))?;
        let messages = answer.messages.unwrap_or_default().into_iter();
        Ok(messages
            .filter_map(|message| Some(SetAside { body: message.body?, receipt: message.receipt_handle? }))
            .collect())
    }

    async fn seen_to(&self, message: &SetAside) -> Result<(), CallError> {
        let Some(url) = &self.undelivered else {
            return Ok(());
        };
        let delete = self.client.delete_message().queue_url(url).receipt_handle(&message.receipt);
        delete.send().await.map(drop).map_err(|error| undelivered(DisplayErrorContext(error).to_string()))
    }
}

fn undelivered(reason: String) -> CallError {
    CallError { what: "the queue of what was not delivered", reason }
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
