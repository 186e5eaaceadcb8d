//! Items as they are written and read.

use std::collections::HashMap;
use std::fmt::Display;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::AttributeValue;
use claviger_app::ports::StoreError;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::DynamoStore;
use super::names::{DOC, Key, PK, SK};

/// A DynamoDB item.
pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) fn text(value: impl Display) -> AttributeValue {
    AttributeValue::S(value.to_string())
}

pub(super) fn number(value: impl Display) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// Exactly three decimals, whatever the instant: plain formatting drops trailing zeros and sorts wrongly.
pub(super) fn millis_text(at: Timestamp) -> String {
    let truncated = Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at);
    format!("{truncated:.3}")
}

/// The key as attributes.
pub(super) fn key_item(key: &Key) -> Item {
    Item::from([(PK.to_owned(), text(&key.pk)), (SK.to_owned(), text(&key.sk))])
}

/// An item that is nothing but its key and these attributes.
pub(super) fn item<const N: usize>(key: &Key, attributes: [(&str, AttributeValue); N]) -> Item {
    let mut item = key_item(key);
    item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
    item
}

/// An item that holds an aggregate.
pub(super) fn document<T: Serialize, const N: usize>(
    key: &Key,
    aggregate: &T,
    attributes: [(&str, AttributeValue); N],
) -> Result<Item, StoreError> {
    let json = serde_json::to_string(aggregate)
        .map_err(|error| StoreError::Corrupt { reason: format!("{}/{}: {error}", key.pk, key.sk) })?;
    let mut item = item(key, attributes);
    item.insert(DOC.to_owned(), AttributeValue::S(json));
    Ok(item)
}

fn place(item: &Item) -> String {
    let part = |name| item.get(name).and_then(|value| value.as_s().ok()).map_or("", String::as_str);
    format!("{}/{}", part(PK), part(SK))
}

/// A text attribute, which must be there.
pub(super) fn text_of<'a>(item: &'a Item, name: &str) -> Result<&'a str, StoreError> {
    item.get(name)
        .and_then(|value| value.as_s().ok())
        .map(String::as_str)
        .ok_or_else(|| StoreError::Corrupt { reason: format!("{} has no text `{name}`", place(item)) })
}

/// A number attribute, which must be there.
pub(super) fn number_of<T: std::str::FromStr>(item: &Item, name: &str) -> Result<T, StoreError> {
    item.get(name)
        .and_then(|value| value.as_n().ok())
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| StoreError::Corrupt { reason: format!("{} has no number `{name}`", place(item)) })
}

/// A text attribute, parsed.
pub(super) fn parsed_of<T>(item: &Item, name: &str) -> Result<T, StoreError>
where
    T: std::str::FromStr,
    T::Err: Display,
{
    text_of(item, name)?
        .parse()
        .map_err(|error| StoreError::Corrupt { reason: format!("{} `{name}`: {error}", place(item)) })
}

/// The aggregate in an item.
pub(super) fn aggregate<T: DeserializeOwned>(item: &Item) -> Result<T, StoreError> {
    serde_json::from_str(text_of(item, DOC)?)
        .map_err(|error| StoreError::Corrupt { reason: format!("{}: {error}", place(item)) })
}

/// What an SDK error means, where no condition was involved.
pub(super) fn unavailable<E, R>(error: &SdkError<E, R>) -> StoreError
where
    E: ProvideErrorMetadata,
{
    let reason = match error {
        SdkError::ConstructionFailure(_) => "request-not-built",
        SdkError::TimeoutError(_) => "timeout",
        SdkError::DispatchFailure(_) => "no-connection",
        SdkError::ResponseError(_) => "unreadable-answer",
        SdkError::ServiceError(service) => service.err().code().unwrap_or("no-code"),
        _ => "unknown",
    };
    match reason {
        "ConditionalCheckFailedException" | "TransactionConflictException" => StoreError::Conflict,
        _ => StoreError::Unavailable { reason: reason.to_owned() },
    }
}

/// A request that the SDK would not build: a fault of ours.
pub(super) fn unbuilt(error: impl Display) -> StoreError {
    StoreError::Corrupt { reason: format!("a request could not be built: {error}") }
}

impl DynamoStore {
    /// One item by its key, read consistently.
    pub(super) async fn get(&self, table: &str, key: &Key) -> Result<Option<Item>, StoreError> {
        let answer = self
            .client
            .get_item()
            .table_name(table)
            .set_key(Some(key_item(key)))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| unavailable(&error))?;
        Ok(answer.item)
    }

    /// One aggregate of `control` by its key, read consistently.
    pub(super) async fn load<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, StoreError> {
        self.get(&self.tables.control, key).await?.as_ref().map(aggregate).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_instant_has_exactly_three_decimals() {
        let shown =
            |nanos: i64| millis_text(Timestamp::new(1_795_000_000, i32::try_from(nanos).unwrap()).unwrap());
        assert_eq!(shown(0), "2026-11-18T11:06:40.000Z");
        assert_eq!(shown(120_000_000), "2026-11-18T11:06:40.120Z");
        assert_eq!(shown(999_999_999), "2026-11-18T11:06:40.999Z");
    }
}
