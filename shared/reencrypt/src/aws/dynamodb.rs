//! Records that are attributes of a DynamoDB table's items.

use super::trouble::{refused, trouble};
use crate::names::{Named, Pattern};
use crate::store::{
    Place, RecordPage, RecordStore, RecordStoreError, Replaced, Shard, StoredRecord, header_of,
};
use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use serde::Deserialize;
use std::collections::HashMap;

/// Where in a table the records are. Keys are texts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DynamoDbLayout {
    pub table: String,
    #[serde(default = "pk")]
    pub partition_key: String,
    /// `None` where the table has no sort key.
    #[serde(default = "sk")]
    pub sort_key: Option<String>,
    /// The attribute that holds the record. An item without it is no record.
    #[serde(default = "record")]
    pub attribute: String,
    /// Where it follows from the place alone, a place is queried, and shards are ranges of sort keys; else the
    /// whole table is scanned in as many segments as there are shards.
    pub partition: Pattern,
    #[serde(default)]
    pub sort: Option<Pattern>,
    /// The data type of records whose names do not say one.
    #[serde(default)]
    pub data_type: Option<String>,
    /// The characters with which most sort keys begin, in ascending order: shards are cut between them. Sort keys
    /// that begin otherwise belong to a shard too, only less evenly.
    #[serde(default = "alphabet")]
    pub alphabet: String,
}

fn pk() -> String {
    "pk".into()
}
#[expect(clippy::unnecessary_wraps, reason = "the default of an optional field")]
fn sk() -> Option<String> {
    Some("sk".into())
}
fn record() -> String {
    "record".into()
}
fn alphabet() -> String {
    "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz".into()
}

/// A table of DynamoDB. It needs `dynamodb:Query` (or `Scan`) and `dynamodb:UpdateItem`.
#[derive(Clone)]
pub struct DynamoDbRecords {
    client: Client,
    layout: DynamoDbLayout,
}

type Item = HashMap<String, AttributeValue>;

/// Sort keys from one on, up to but without another.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    from: Option<String>,
    to: Option<String>,
}

impl DynamoDbRecords {
    #[must_use]
    pub const fn new(client: Client, layout: DynamoDbLayout) -> Self {
        Self { client, layout }
    }

    async fn query(
        &self,
        partition: String,
        range: &Range,
        cursor: Option<Item>,
        limit: i32,
    ) -> Result<(Vec<Item>, Option<Item>), RecordStoreError> {
        let mut query = self
            .client
            .query()
            .table_name(&self.layout.table)
            .consistent_read(true)
            .limit(limit)
            .set_exclusive_start_key(cursor)
            .projection_expression(self.projection())
            .set_expression_attribute_names(Some(self.names()))
            .expression_attribute_values(":pk", AttributeValue::S(partition));
        let condition = match (&range.from, &range.to) {
            (None, None) => "#pk = :pk",
            (Some(_), None) => "#pk = :pk AND #sk >= :from",
            (None, Some(_)) => "#pk = :pk AND #sk < :to",
            (Some(_), Some(_)) => "#pk = :pk AND #sk BETWEEN :from AND :to",
        };
        for (name, bound) in [(":from", &range.from), (":to", &range.to)] {
            if let Some(bound) = bound {
                query = query.expression_attribute_values(name, AttributeValue::S(bound.clone()));
            }
        }
        let answer = query
            .key_condition_expression(condition)
            .send()
            .await
            .map_err(|error| trouble("dynamodb:Query", &error))?;
        Ok((answer.items.unwrap_or_default(), answer.last_evaluated_key))
    }

    async fn scan(
        &self,
        prefix: String,
        shard: Shard,
        cursor: Option<Item>,
        limit: i32,
    ) -> Result<(Vec<Item>, Option<Item>), RecordStoreError> {
        let number = |number: u32| i32::try_from(number).map_err(|_| refused("there are too many shards"));
        let mut scan = self
            .client
            .scan()
            .table_name(&self.layout.table)
            .consistent_read(true)
            .limit(limit)
            .segment(number(shard.index)?)
            .total_segments(number(shard.of)?)
            .set_exclusive_start_key(cursor)
            .projection_expression(self.projection())
            .set_expression_attribute_names(Some(self.names()));
        if !prefix.is_empty() {
            scan = scan
                .filter_expression("begins_with(#pk, :pk)")
                .expression_attribute_values(":pk", AttributeValue::S(prefix));
        }
        let answer = scan.send().await.map_err(|error| trouble("dynamodb:Scan", &error))?;
        Ok((answer.items.unwrap_or_default(), answer.last_evaluated_key))
    }

    fn projection(&self) -> &'static str {
        if self.layout.sort_key.is_some() { "#pk, #sk, #record" } else { "#pk, #record" }
    }

    fn names(&self) -> HashMap<String, String> {
        let mut names = HashMap::from([
            ("#pk".to_owned(), self.layout.partition_key.clone()),
            ("#record".to_owned(), self.layout.attribute.clone()),
        ]);
        if let Some(sort_key) = &self.layout.sort_key {
            names.insert("#sk".to_owned(), sort_key.clone());
        }
        names
    }

    /// A record, if the item is one of the place's.
    fn record(
        &self,
        of: &Place,
        mut item: Item,
        range: &Range,
    ) -> Result<Option<StoredRecord>, RecordStoreError> {
        let Some(value) = item.remove(&self.layout.attribute) else { return Ok(None) };
        let key = self.key_of(&item)?;
        if range.to.is_some() && key.sort == range.to {
            // The upper bound of BETWEEN is the next shard's.
            return Ok(None);
        }
        let Some(named) = self.named(of, &key) else { return Ok(None) };
        let key = key.to_text();
        let AttributeValue::B(bytes) = value else {
            let attribute = &self.layout.attribute;
            return Err(refused(format!("`{attribute}` of {key} is not binary")));
        };
        let Some(data_type) = named.data_type.or_else(|| self.layout.data_type.clone()) else {
            return Err(refused(format!("the data type of {key} is neither in its name nor configured")));
        };
        let Some(record_id) = named.record_id else {
            return Err(refused(format!("the name of {key} says no record id")));
        };
        Ok(Some(StoredRecord { key, data_type, record_id, bytes: bytes.into_inner(), noncurrent: false }))
    }

    fn key_of(&self, item: &Item) -> Result<ItemKey, RecordStoreError> {
        let text = |name: &str| match item.get(name) {
            Some(AttributeValue::S(text)) => Ok(text.clone()),
            _ => Err(refused(format!("the key `{name}` of the table is not a text"))),
        };
        let sort = self.layout.sort_key.as_deref().map(text).transpose()?;
        Ok(ItemKey { partition: text(&self.layout.partition_key)?, sort })
    }

    fn named(&self, of: &Place, key: &ItemKey) -> Option<Named> {
        let by_partition = self.layout.partition.read(of, &key.partition)?;
        let by_sort = match (&self.layout.sort, &key.sort) {
            (Some(pattern), Some(sort)) => pattern.read(of, sort)?,
            _ => Named::default(),
        };
        Some(Named {
            data_type: by_sort.data_type.or(by_partition.data_type),
            record_id: by_sort.record_id.or(by_partition.record_id),
        })
    }

    fn item_of(&self, key: ItemKey) -> Item {
        let mut item = HashMap::from([(self.layout.partition_key.clone(), AttributeValue::S(key.partition))]);
        if let (Some(name), Some(sort)) = (&self.layout.sort_key, key.sort) {
            item.insert(name.clone(), AttributeValue::S(sort));
        }
        item
    }
}

/// An item's key, and as JSON what names the record in cursors and errors.
#[derive(Debug, PartialEq, Eq)]
struct ItemKey {
    partition: String,
    sort: Option<String>,
}

impl ItemKey {
    fn to_text(&self) -> String {
        serde_json::json!([self.partition, self.sort]).to_string()
    }

    fn parse(text: &str) -> Result<Self, RecordStoreError> {
        serde_json::from_str(text)
            .map(|(partition, sort)| Self { partition, sort })
            .map_err(|_| refused("the cursor or the key is none of this store"))
    }
}

/// Above every text that begins with what is before it.
const HIGHEST: char = '\u{10FFFF}';

impl Range {
    /// One of `shard.of` ranges of the sort keys with this prefix.
    fn of(prefix: &str, shard: Shard, alphabet: &str) -> Self {
        let between = |index: u32| boundary(alphabet, index, shard.of).map(|cut| format!("{prefix}{cut}"));
        let from = (shard.index > 0).then(|| between(shard.index)).flatten();
        let to = (shard.index + 1 < shard.of).then(|| between(shard.index + 1)).flatten();
        let named = !prefix.is_empty();
        Self {
            from: from.or_else(|| named.then(|| prefix.to_owned())),
            to: to.or_else(|| named.then(|| format!("{prefix}{HIGHEST}"))),
        }
    }
}

/// Two characters, `index` parts of `of` through all pairs of them.
fn boundary(alphabet: &str, index: u32, of: u32) -> Option<String> {
    let letters: Vec<char> = alphabet.chars().collect();
    let count = u64::try_from(letters.len()).ok()?;
    let place = u64::from(index) * count * count / u64::from(of.max(1));
    let letter = |place: u64| usize::try_from(place).ok().and_then(|place| letters.get(place));
    Some([letter(place / count)?, letter(place % count)?].into_iter().collect())
}

#[async_trait]
impl RecordStore for DynamoDbRecords {
    async fn page(
        &self,
        of: &Place,
        shard: Shard,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<RecordPage, RecordStoreError> {
        if shard.index >= shard.of {
            return Err(refused("there is no such shard"));
        }
        let limit = i32::try_from(limit.max(1)).unwrap_or(i32::MAX);
        let start = cursor.map(ItemKey::parse).transpose()?.map(|key| self.item_of(key));
        let sorts = self.layout.sort.as_ref().map(|sort| sort.prefix(of)).unwrap_or_default();
        let (items, last, range) = match self.layout.partition.whole(of) {
            Some(partition) => {
                let range = Range::of(&sorts, shard, &self.layout.alphabet);
                let (items, last) = self.query(partition, &range, start, limit).await?;
                (items, last, range)
            }
            None => {
                let prefix = self.layout.partition.prefix(of);
                let (items, last) = self.scan(prefix, shard, start, limit).await?;
                (items, last, Range { from: None, to: None })
            }
        };
        let records = items.into_iter().filter_map(|item| self.record(of, item, &range).transpose());
        let next = last.map(|item| self.key_of(&item)).transpose()?.map(|key| key.to_text());
        Ok(RecordPage { records: records.collect::<Result<_, _>>()?, next })
    }

    /// INVARIANT (I8): one conditional update of one attribute. The header has a random nonce, so an item whose
    /// record begins with it holds the very record that was read.
    async fn replace(&self, old: &StoredRecord, new: Vec<u8>) -> Result<Replaced, RecordStoreError> {
        let update = self
            .client
            .update_item()
            .table_name(&self.layout.table)
            .set_key(Some(self.item_of(ItemKey::parse(&old.key)?)))
            .update_expression("SET #record = :new")
            .condition_expression("begins_with(#record, :header)")
            .expression_attribute_names("#record", &self.layout.attribute)
            .expression_attribute_values(":new", AttributeValue::B(Blob::new(new)))
            .expression_attribute_values(":header", AttributeValue::B(Blob::new(header_of(&old.bytes))))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let error = match update.send().await {
            Ok(_) => return Ok(Replaced::Done),
            Err(error) => error,
        };
        if let SdkError::ServiceError(answer) = &error
            && let UpdateItemError::ConditionalCheckFailedException(failed) = answer.err()
        {
            return Ok(if failed.item().is_some() { Replaced::Changed } else { Replaced::Gone });
        }
        Err(trouble("dynamodb:UpdateItem", &error))
    }

    /// A table counts all of its items, not those of one place.
    async fn estimate(&self, _: &Place) -> Result<Option<u64>, RecordStoreError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(range: &Range, sort: &str) -> bool {
        range.from.as_deref().is_none_or(|from| sort >= from)
            && range.to.as_deref().is_none_or(|to| sort < to)
    }

    #[test]
    fn x2_every_sort_key_lies_in_one_shard_and_one_only() {
        let keys =
            ["", "!", "-", "0", "00", "7f", "9z", "Z", "_", "note", "z", "zz", "zzz", "{", "é", "\u{10FFFE}"];
        for of in [1, 2, 3, 7, 64, 1000, 5000] {
            for prefix in ["", "note#"] {
                for key in keys {
                    let key = format!("{prefix}{key}");
                    let shards = (0..of).filter(|index| {
                        within(&Range::of(prefix, Shard { index: *index, of }, &alphabet()), &key)
                    });
                    assert_eq!(shards.count(), 1, "{key:?} in {of} shards");
                }
            }
        }
    }

    #[test]
    fn x2_identifiers_in_hexadecimal_are_cut_evenly_if_the_layout_says_so() {
        for of in [2, 4, 16, 256] {
            let mut counts = vec![0; of as usize];
            for n in 0..4096_u32 {
                let key = format!("{n:03x}");
                for (index, count) in (0..).zip(&mut counts) {
                    *count +=
                        u32::from(within(&Range::of("", Shard { index, of }, "0123456789abcdef"), &key));
                }
            }
            assert!(counts.iter().all(|count| *count == 4096 / of), "{counts:?}");
        }
    }

    #[test]
    fn a_key_comes_back_from_its_text() {
        for sort in [None, Some("n\"1\\ä".to_owned())] {
            let key = ItemKey { partition: "acme/acme-eng".into(), sort };
            assert_eq!(ItemKey::parse(&key.to_text()), Ok(key));
        }
        assert!(ItemKey::parse("7").is_err());
    }
}
