//! Reads one copy of the fence with one consistent query, paged until done.

use crate::fence::{FenceError, FenceReader, FenceSnapshot, FencedPolicy, WatchedShard};
use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

/// The fence's table. A process reads one copy, chosen at random when it starts; after a failure the next one.
pub struct FenceTable {
    client: aws_sdk_dynamodb::Client,
    table: String,
    copies: u32,
    copy: AtomicU32,
}

impl FenceTable {
    #[must_use]
    pub fn new(config: &aws_config::SdkConfig, table: impl Into<String>, copies: u32) -> Self {
        Self::with_client(aws_sdk_dynamodb::Client::new(config), table, copies)
    }

    #[must_use]
    pub fn with_client(client: aws_sdk_dynamodb::Client, table: impl Into<String>, copies: u32) -> Self {
        let mut random = [0; 4];
        // Without randomness all processes begin with copy 0, which is only slower.
        let _ = aws_lc_rs::rand::fill(&mut random);
        let copies = copies.max(1);
        let copy = AtomicU32::new(u32::from_le_bytes(random) % copies);
        Self { client, table: table.into(), copies, copy }
    }

    async fn read_copy(&self, copy: u32) -> Result<FenceSnapshot, FenceError> {
        let mut snapshot = FenceSnapshot::default();
        let mut pages = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("#copy = :copy")
            .expression_attribute_names("#copy", "copy")
            .expression_attribute_values(":copy", AttributeValue::S(copy.to_string()))
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| FenceError(Box::new(error)))?;
            for item in page.items() {
                read_item(item, &mut snapshot).map_err(|what| FenceError(what.into()))?;
            }
        }
        Ok(snapshot)
    }
}

#[async_trait]
impl FenceReader for FenceTable {
    async fn read(&self) -> Result<FenceSnapshot, FenceError> {
        let copy = self.copy.load(Ordering::Relaxed);
        let read = self.read_copy(copy).await;
        if read.is_err() {
            self.copy.store((copy + 1) % self.copies, Ordering::Relaxed);
        }
        read
    }
}

pub(super) type Item = HashMap<String, AttributeValue>;

/// INVARIANT (I1): an item that cannot be read fails the whole read: an unknown fence is not an open one.
pub(super) fn read_item(item: &Item, snapshot: &mut FenceSnapshot) -> Result<(), String> {
    let name = text(item, "item")?;
    if let Some(policy_id) = name.strip_prefix("policy#") {
        snapshot.policies.push(FencedPolicy {
            policy_id: policy_id.to_owned(),
            organisation_id: text(item, "organisation")?.to_owned(),
            epoch: number(item, "epoch")?.ok_or("`epoch` is missing")?,
            closed: !list(item, "causes")?.is_empty(),
            min_write_generation: number(item, "minWriteGeneration")?.unwrap_or(0),
        });
    } else if let Some(shard) = name.strip_prefix("shard#") {
        snapshot.shards.push(WatchedShard {
            shard: shard.parse().map_err(|_| format!("`{name}` is no shard"))?,
            watched_until: number(item, "watchedUntil")?.unwrap_or(0),
            unproven: list(item, "unproven")?,
        });
    }
    // Other items are of a later version and none of this library's business.
    Ok(())
}

fn text<'a>(item: &'a Item, name: &str) -> Result<&'a str, String> {
    match item.get(name) {
        Some(AttributeValue::S(value)) => Ok(value),
        _ => Err(format!("`{name}` is missing or not text")),
    }
}

fn number<T: std::str::FromStr>(item: &Item, name: &str) -> Result<Option<T>, String> {
    match item.get(name) {
        None => Ok(None),
        Some(AttributeValue::N(value)) => {
            value.parse().map(Some).map_err(|_| format!("`{name}` is out of range"))
        }
        Some(_) => Err(format!("`{name}` is not a number")),
    }
}

fn list(item: &Item, name: &str) -> Result<Vec<String>, String> {
    match item.get(name) {
        None | Some(AttributeValue::Null(_)) => Ok(Vec::new()),
        Some(AttributeValue::Ss(values)) => Ok(values.clone()),
        Some(AttributeValue::L(values)) => values
            .iter()
            .map(|value| {
                value.as_s().cloned().map_err(|_| format!("`{name}` holds something else than text"))
            })
            .collect(),
        Some(_) => Err(format!("`{name}` is not a list")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(parts: &[(&str, AttributeValue)]) -> Item {
        parts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn s(value: &str) -> AttributeValue {
        AttributeValue::S(value.into())
    }

    #[test]
    fn items_of_policies_and_shards_are_read_in_either_form() {
        let mut snapshot = FenceSnapshot::default();
        let n = |value: &str| AttributeValue::N(value.into());
        let closed = [
            ("item", s("policy#p1")),
            ("organisation", s("o1")),
            ("epoch", n("3")),
            ("causes", AttributeValue::Ss(vec!["key".into()])),
            ("minWriteGeneration", n("2")),
        ];
        let open = [
            ("item", s("policy#p2")),
            ("organisation", s("o2")),
            ("epoch", n("4")),
            ("causes", AttributeValue::L(Vec::new())),
        ];
        let shard = [
            ("item", s("shard#003")),
            ("watchedUntil", n("1800000000000")),
            ("unproven", AttributeValue::L(vec![s("p9")])),
        ];
        for parts in [closed.as_slice(), &open, &shard] {
            assert_eq!(read_item(&item(parts), &mut snapshot), Ok(()));
        }
        assert!(matches!(
            snapshot.policies.as_slice(),
            [
                FencedPolicy { epoch: 3, closed: true, min_write_generation: 2, .. },
                FencedPolicy { epoch: 4, closed: false, min_write_generation: 0, .. }
            ]
        ));
        assert!(matches!(snapshot.shards.as_slice(),
            [WatchedShard { shard: 3, watched_until: 1_800_000_000_000, unproven }] if unproven == &["p9"]));
    }

    #[test]
    fn i1_an_item_that_cannot_be_read_fails_the_read() {
        for parts in [
            [("item", s("policy#p1")), ("organisation", s("o1"))].as_slice(),
            &[("item", s("policy#p1")), ("organisation", s("o1")), ("epoch", s("3"))],
            &[("item", s("shard#x"))],
            &[("item", s("shard#001")), ("unproven", s("p9"))],
            &[("other", s("x"))],
        ] {
            assert!(read_item(&item(parts), &mut FenceSnapshot::default()).is_err());
        }
    }
}
