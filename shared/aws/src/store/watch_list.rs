//! What the prober sweeps, and the shards' signs of life.

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use claviger_app::ports::{Beat, StoreError, WatchList, WatchRow};
use claviger_domain::ids::PolicyId;
use claviger_domain::values::ShardId;
use jiff::Timestamp;

use super::DynamoStore;
use super::items::{Item, aggregate, item, number, number_of, text, unavailable};
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
    async fn beat(&self, shard: ShardId, beat: &Beat) -> Result<(), StoreError> {
        let swept_at = beat.swept_at.as_millisecond();
        let unproven: Vec<AttributeValue> = beat.unproven.keys().map(text).collect();
        let proven: Vec<AttributeValue> =
            beat.unproven.values().map(|at| number(at.as_millisecond())).collect();
        let mut transaction = Transaction::default();
        for copy in 0..self.fence_copies {
            let item = Item::from([
                (COPY.to_owned(), text(copy)),
                (ITEM.to_owned(), text(names::fence_shard(shard))),
                ("sweptAt".to_owned(), number(swept_at)),
                ("watchedUntil".to_owned(), number(beat.watched_until.as_millisecond())),
                ("unproven".to_owned(), AttributeValue::L(unproven.clone())),
                ("lastProven".to_owned(), AttributeValue::L(proven.clone())),
                ("massFailure".to_owned(), AttributeValue::Bool(beat.mass_failure)),
                ("refused".to_owned(), number(beat.refused)),
                ("open".to_owned(), number(beat.open)),
            ]);
            let newer = Condition::that("attribute_not_exists(#item) OR sweptAt <= :swept")
                .naming("#item", ITEM)
                .with(":swept", number(swept_at));
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

    async fn planned_until(&self) -> Result<Option<Timestamp>, StoreError> {
        let found = self.get(&self.tables.control, &names::plan()).await?;
        let until = |item: &Item| {
            let corrupt = || StoreError::Corrupt { reason: "how far sweeps are planned".to_owned() };
            Timestamp::from_millisecond(number_of(item, PLANNED_UNTIL)?).map_err(|_| corrupt())
        };
        found.as_ref().map(until).transpose()
    }

    async fn plan_until(&self, until: Timestamp) -> Result<(), StoreError> {
        let plan = item(&names::plan(), [(PLANNED_UNTIL, number(until.as_millisecond()))]);
        let put = self.client.put_item().table_name(&self.tables.control).set_item(Some(plan));
        put.send().await.map(drop).map_err(|error| unavailable(&error))
    }
}

const PLANNED_UNTIL: &str = "plannedUntil";

/// Told apart from a race with another transaction.
const OVERTAKEN: Otherwise = Otherwise::Taken("beat");

fn beat_of(item: &Item) -> Result<Beat, StoreError> {
    let corrupt = |what: &str| StoreError::Corrupt { reason: format!("a shard's `{what}` in the fence") };
    let at = |name| {
        number_of(item, name)
            .and_then(|millis| Timestamp::from_millisecond(millis).map_err(|_| corrupt(name)))
    };
    let list = |name| item.get(name).and_then(|list| list.as_l().ok());
    let unproven = list("unproven").ok_or_else(|| corrupt("unproven"))?.iter();
    let mut unproven =
        unproven.map(|id| id.as_s().ok().and_then(|id| id.parse().ok()).ok_or_else(|| corrupt("unproven")));
    let unproven: Vec<PolicyId> = unproven.by_ref().collect::<Result<_, _>>()?;
    let swept_at = at("sweptAt")?;
    let counted = |name| item.get(name).and_then(|n| n.as_n().ok()?.parse().ok()).unwrap_or_default();
    let mut proven = list("lastProven").into_iter().flatten().map(|millis| {
        millis.as_n().ok().and_then(|millis| Timestamp::from_millisecond(millis.parse().ok()?).ok())
    });
    Ok(Beat {
        swept_at,
        watched_until: at("watchedUntil")?,
        unproven: unproven.into_iter().map(|id| (id, proven.next().flatten().unwrap_or(swept_at))).collect(),
        mass_failure: item.get("massFailure").and_then(|said| said.as_bool().ok()).copied().unwrap_or(false),
        refused: counted("refused"),
        open: counted("open"),
    })
}
