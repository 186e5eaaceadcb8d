//! Several stores of one app as one: first the records of the first, then those of the next.

use crate::store::{Place, RecordPage, RecordStore, RecordStoreError, Replaced, Shard, StoredRecord};
use async_trait::async_trait;
use std::sync::Arc;

/// Stores one after the other. Keys and cursors say which of them: `1:…`.
pub struct Together {
    stores: Vec<Arc<dyn RecordStore>>,
}

impl Together {
    #[must_use]
    pub const fn new(stores: Vec<Arc<dyn RecordStore>>) -> Self {
        Self { stores }
    }

    fn of_key<'a>(&self, key: &'a str) -> Result<(&Arc<dyn RecordStore>, &'a str), RecordStoreError> {
        let (number, rest) = split(key)?;
        Ok((self.stores.get(number).ok_or_else(nowhere)?, rest))
    }
}

fn split(key: &str) -> Result<(usize, &str), RecordStoreError> {
    let (number, rest) = key.split_once(':').ok_or_else(nowhere)?;
    Ok((number.parse().map_err(|_| nowhere())?, rest))
}

fn nowhere() -> RecordStoreError {
    RecordStoreError::Refused { reason: "the cursor or the key is of a store that is not configured".into() }
}

fn inner(record: &StoredRecord, key: &str) -> StoredRecord {
    StoredRecord { key: key.to_owned(), ..record.clone() }
}

#[async_trait]
impl RecordStore for Together {
    async fn page(
        &self,
        of: &Place,
        shard: Shard,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<RecordPage, RecordStoreError> {
        let (number, cursor) = match cursor {
            None => (0, None),
            Some(cursor) => split(cursor).map(|(number, rest)| (number, Some(rest)))?,
        };
        let Some(store) = self.stores.get(number) else {
            // No store at all has no records; a number that is not there is a mistake.
            return if self.stores.is_empty() { Ok(RecordPage::default()) } else { Err(nowhere()) };
        };
        let cursor = cursor.filter(|cursor| !cursor.is_empty());
        let mut page = store.page(of, shard, cursor, limit).await?;
        for record in &mut page.records {
            record.key.insert_str(0, &format!("{number}:"));
        }
        page.next = match page.next {
            Some(next) => Some(format!("{number}:{next}")),
            None => (number + 1 < self.stores.len()).then(|| format!("{}:", number + 1)),
        };
        Ok(page)
    }

    async fn replace(&self, old: &StoredRecord, new: Vec<u8>) -> Result<Replaced, RecordStoreError> {
        let (store, key) = self.of_key(&old.key)?;
        store.replace(&inner(old, key), new).await
    }

    async fn estimate(&self, of: &Place) -> Result<Option<u64>, RecordStoreError> {
        let mut sum = Some(0_u64);
        for store in &self.stores {
            sum = sum.zip(store.estimate(of).await?).map(|(sum, more)| sum.saturating_add(more));
        }
        Ok(sum)
    }

    async fn whole(&self, record: &StoredRecord) -> Result<Option<Vec<u8>>, RecordStoreError> {
        let (store, key) = self.of_key(&record.key)?;
        store.whole(&inner(record, key)).await
    }
}
