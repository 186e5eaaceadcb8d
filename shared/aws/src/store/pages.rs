//! Lists, a page at a time.

use aws_sdk_dynamodb::types::AttributeValue;
use claviger_app::ports::{Page, StoreError};
use serde::de::DeserializeOwned;

use super::DynamoStore;
use super::items::{Item, aggregate, item, text, text_of, unavailable};
use super::names::{Key, PK, SK};

/// In which order a list is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// By sort key, rising.
    Forward,
    /// By sort key, falling.
    Backward,
}

/// Part of a partition.
pub(super) struct Range<'a> {
    pub(super) table: &'a str,
    pub(super) pk: String,
    /// What the sort keys begin with; empty is the whole partition.
    pub(super) prefix: &'a str,
    pub(super) direction: Direction,
}

impl DynamoStore {
    /// The items of a range after `cursor`, `limit` at most, read consistently.
    ///
    /// A cursor is the rest of a sort key after the prefix, so it can lead nowhere but into the same range.
    pub(super) async fn items(
        &self,
        range: &Range<'_>,
        cursor: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Vec<Item>, StoreError> {
        let mut start = cursor
            .map(|cursor| item(&Key { pk: range.pk.clone(), sk: format!("{}{cursor}", range.prefix) }, []));
        let mut found: Vec<Item> = Vec::new();
        loop {
            let wanted = limit.map(|limit| limit.saturating_sub(found.len()));
            let mut query = self
                .client
                .query()
                .table_name(range.table)
                .consistent_read(true)
                .scan_index_forward(range.direction == Direction::Forward)
                .set_limit(wanted.map(|wanted| i32::try_from(wanted).unwrap_or(i32::MAX)))
                .set_exclusive_start_key(start.take())
                .expression_attribute_names("#pk", PK)
                .expression_attribute_values(":pk", text(&range.pk));
            query = if range.prefix.is_empty() {
                query.key_condition_expression("#pk = :pk")
            } else {
                query
                    .key_condition_expression("#pk = :pk AND begins_with(#sk, :prefix)")
                    .expression_attribute_names("#sk", SK)
                    .expression_attribute_values(":prefix", AttributeValue::S(range.prefix.to_owned()))
            };
            let answer = query.send().await.map_err(|error| unavailable(&error))?;
            found.extend(answer.items.unwrap_or_default());
            start = answer.last_evaluated_key;
            if start.is_none() || limit.is_some_and(|limit| found.len() >= limit) {
                return Ok(found);
            }
        }
    }

    /// A page of aggregates. One more is read than asked for: a page that is exactly full is the last one if nothing
    /// follows.
    pub(super) async fn page<T: DeserializeOwned>(
        &self,
        range: &Range<'_>,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<T>, StoreError> {
        let limit = usize::from(limit.clamp(1, 200));
        let mut found = self.items(range, cursor, Some(limit.saturating_add(1))).await?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = match found.last().filter(|_| more) {
            Some(last) => {
                let sk = text_of(last, SK)?;
                Some(sk.strip_prefix(range.prefix).unwrap_or(sk).to_owned())
            }
            None => None,
        };
        let items = found.iter().map(aggregate).collect::<Result<_, _>>()?;
        Ok(Page { items, next })
    }
}
