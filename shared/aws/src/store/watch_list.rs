//! What the prober sweeps, and the shards' signs of life.

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use claviger_app::ports::{Beat, StoreError, WatchList, WatchRow};
use claviger_domain::ids::PolicyId;
use claviger_domain::values::ShardId;
use jiff::Timestamp;

use super::DynamoStore;
use super::items::{Item, aggregate, number, number_of, text, unavailable};
use super::names::{self, COPY, ITEM};
use super::pages::{Direction, Range};
use super::transaction::{Condition, Otherwise, Transaction};

#[async_trait]
impl WatchList for DynamoStore {
    async fn watched(&self, shard: ShardId) -> Result<Vec<WatchRow>, StoreError> {
        let range = Range {
            table: &self.tables.control,
            pk: names::shard_partition(shard),
            prefix: names::POLICY_PREFIX,
            direction: Direction::Forward,
        };
        let found = self.items(&range, None, None).await?;
        found.iter().map(|item| Ok(WatchRow { policy: aggregate(item)? })).collect()
    }

    /// A beat that is older than the stored one changes nothing: a sweep that was overtaken says nothing new.
    async fn beat(
        &self,
        shard: ShardId,
        swept_at: Timestamp,
        watched_until: Timestamp,
        unproven: &[PolicyId],
    ) -> Result<(), StoreError> {
        let unproven: Vec<AttributeValue> = unproven.iter().map(text).collect();
        let mut transaction = Transaction::default();
        for copy in 0..self.fence_copies {
            let item = Item::from([
                (COPY.to_owned(), text(copy)),
                (ITEM.to_owned(), text(names::fence_shard(shard))),
                ("sweptAt".to_owned(), number(swept_at.as_millisecond())),
                ("watchedUntil".to_owned(), number(watched_until.as_millisecond())),
                ("unproven".to_owned(), AttributeValue::L(unproven.clone())),
            ]);
            let newer = Condition::that("attribute_not_exists(#item) OR sweptAt <= :swept")
                .naming("#item", ITEM)
                .with(":swept", number(swept_at.as_millisecond()));
            transaction.put(&self.tables.fence, item, newer, OVERTAKEN)?;
        }
        match self.commit(transaction).await {
            Err(StoreError::Taken { .. }) => Ok(()),
            other => other,
        }
    }

    async fn last_beat(&self, shard: ShardId) -> Result<Option<Beat>, StoreError> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.tables.fence)
            .key(COPY, text(0))
            .key(ITEM, text(names::fence_shard(shard)))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| unavailable(&error))?;
        answer.item.as_ref().map(beat_of).transpose()
    }
}

/// Told apart from a race with another transaction.
const OVERTAKEN: Otherwise = Otherwise::Taken("beat");

fn beat_of(item: &Item) -> Result<Beat, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt { reason: format!("a shard's `{what}` in the fence") };
    let at = |name| {
        number_of(item, name)
            .and_then(|millis| Timestamp::from_millisecond(millis).map_err(|_| corrupt(name)))
    };
    let unproven = item.get("unproven").and_then(|list| list.as_l().ok());
    let unproven = unproven
        .ok_or_else(|| corrupt("unproven"))?
        .iter()
        .map(|id| id.as_s().ok().and_then(|id| id.parse().ok()).ok_or_else(|| corrupt("unproven")));
    Ok(Beat {
        swept_at: at("sweptAt")?,
        watched_until: at("watchedUntil")?,
        unproven: unproven.collect::<Result<_, _>>()?,
    })
}
