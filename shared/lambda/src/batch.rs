//! Runners of batches: each record on its own, and only those that failed are delivered again.

use std::future::Future;

use aws_lambda_events::event::dynamodb::Event as StreamEvent;
use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use aws_lambda_events::event::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_dynamo::Item;
use serde_json::Value;
use tracing::Instrument;

use crate::observe::chain;

/// How many records of a batch are worked at a time.
const CONCURRENCY: usize = 8;

/// Works every message of a batch and names those that failed, so that the queue delivers them again
/// and, after its limit, puts them aside. A body that cannot be read counts as failed: a fault that
/// nobody sees would be worse than one in the dead-letter queue.
///
/// A body is the message itself, or an event of the bus whose `detail` is the message.
pub async fn run_sqs<T, E, F, Fut>(event: SqsEvent, handle: F) -> SqsBatchResponse
where
    T: DeserializeOwned,
    E: std::error::Error,
    F: Fn(T) -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let handle = &handle;
    let work = event.records.into_iter().map(|record| async move {
        let id = record.message_id.clone().unwrap_or_default();
        let (message, correlation) = match read::<T>(&record) {
            Ok(read) => read,
            Err(reason) => {
                tracing::error!(message_id = %id, reason, "a message cannot be read");
                return Some(id);
            }
        };
        let span = tracing::info_span!("message", message_id = %id, correlation_id = correlation);
        let result = handle(message).instrument(span.clone()).await;
        match result {
            Ok(()) => None,
            Err(error) => {
                span.in_scope(|| tracing::warn!(error = chain(&error), "a message was not worked off"));
                Some(id)
            }
        }
    });
    let failed: Vec<Option<String>> = futures_util::stream::iter(work).buffered(CONCURRENCY).collect().await;
    let mut response = SqsBatchResponse::default();
    response.set_failures(failed.into_iter().flatten());
    response
}

/// The message and the correlation id that it bears, if it does.
pub(crate) fn read<T: DeserializeOwned>(record: &SqsMessage) -> Result<(T, Option<String>), String> {
    let body = record.body.as_deref().ok_or("the body is missing")?;
    // The error's text could repeat the body, so only its place and kind are kept.
    let place = |error: serde_json::Error| {
        format!("{:?} error at line {}, column {}", error.classify(), error.line(), error.column())
    };
    let mut value: Value = serde_json::from_str(body).map_err(place)?;
    if value.get("detail-type").is_some()
        && let Some(detail) = value.get_mut("detail")
    {
        value = detail.take();
    }
    let correlation = ["correlation", "correlationId"]
        .iter()
        .find_map(|name| value.get(*name).and_then(Value::as_str).map(str::to_owned));
    let message = serde_json::from_value(value).map_err(place)?;
    Ok((message, correlation))
}

/// Works the records of a table's stream in order and stops at the first that fails: the stream
/// delivers again from there, so that nothing overtakes. Records without a new image (removals) are
/// passed over.
pub async fn run_stream<E, F, Fut>(event: StreamEvent, handle: F) -> DynamoDbEventResponse
where
    E: std::error::Error,
    F: Fn(Item) -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let mut response = DynamoDbEventResponse::default();
    for record in event.records {
        let image = record.change.new_image;
        if image.is_empty() {
            continue;
        }
        let sequence = record.change.sequence_number;
        let result = handle(image).await;
        if let Err(error) = result {
            let error = chain(&error);
            tracing::warn!(sequence_number = sequence, error, "a stream record was not worked off");
            let mut failure = DynamoDbBatchItemFailure::default();
            // Without a number the empty identifier makes the stream repeat the whole batch.
            failure.item_identifier = Some(sequence.unwrap_or_default());
            response.batch_item_failures.push(failure);
            break;
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;
    use std::sync::Mutex;

    #[derive(Debug, Deserialize)]
    struct Work {
        n: u32,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("odd")]
    struct OddError;

    fn messages(bodies: &[&str]) -> SqsEvent {
        let records: Vec<Value> = bodies
            .iter()
            .enumerate()
            .map(|(n, body)| json!({ "messageId": format!("m{n}"), "body": body }))
            .collect();
        serde_json::from_value(json!({ "Records": records })).unwrap()
    }

    fn failures(response: &SqsBatchResponse) -> Vec<&str> {
        response.batch_item_failures.iter().map(|failure| failure.item_identifier.as_str()).collect()
    }

    #[tokio::test]
    async fn only_the_messages_that_failed_are_delivered_again() {
        let seen = Mutex::new(Vec::new());
        let event = messages(&[
            r#"{"n": 2}"#,
            r#"{"n": 3}"#,
            r#"{"detail-type": "X", "detail": {"n": 4}}"#,
            "{",
            r#"{"m": 1}"#,
        ]);
        let response = run_sqs(event, |work: Work| {
            seen.lock().unwrap().push(work.n);
            async move { if work.n.is_multiple_of(2) { Ok(()) } else { Err(OddError) } }
        })
        .await;
        assert_eq!(failures(&response), ["m1", "m3", "m4"]);
        assert_eq!(*seen.lock().unwrap(), [2, 3, 4]);
    }

    fn stream(numbers: &[u32]) -> StreamEvent {
        let records: Vec<Value> = numbers
            .iter()
            .map(|n| {
                json!({
                    "awsRegion": "eu-central-1", "eventID": "e", "eventName": "INSERT",
                    "dynamodb": {
                        "Keys": {}, "NewImage": { "n": { "N": n.to_string() } },
                        "SequenceNumber": format!("s{n}"), "SizeBytes": 1,
                    },
                })
            })
            .collect();
        serde_json::from_value(json!({ "Records": records })).unwrap()
    }

    #[tokio::test]
    async fn a_stream_is_repeated_from_its_first_failure() {
        let seen = Mutex::new(Vec::new());
        let response = run_stream(stream(&[2, 3, 4]), |item| {
            let work: Work = serde_dynamo::from_item(item).unwrap();
            seen.lock().unwrap().push(work.n);
            async move { if work.n.is_multiple_of(2) { Ok(()) } else { Err(OddError) } }
        })
        .await;
        let failed: Vec<_> = response.batch_item_failures.iter().map(|f| f.item_identifier.clone()).collect();
        assert_eq!(failed, [Some("s3".to_owned())]);
        assert_eq!(*seen.lock().unwrap(), [2, 3]);
    }
}
