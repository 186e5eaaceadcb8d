//! The vendor's storage: records that apps write, that a re-encryption writes anew, and that a backup brings back.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use claviger_envelope::{Context, Envelope, EnvelopeError};
use claviger_reencrypt::VendorRecords;
use claviger_reencrypt::{
    Place, RecordPage, RecordStore, RecordStoreError, Replaced, Rewriter, Shard, StoredRecord, header_of,
};
use claviger_testkit::builders;

use super::world::{ROLES, Record, RecordPlace, World};
use crate::twin::Twin;

/// What every record here is.
pub const NOTE: &str = "note";
/// Records of a page, however many are asked for: so that shards have several.
const PAGE: usize = 3;

/// The storage as the worker reaches it, with a rewriter an app as the function has them.
pub fn vendor_records(world: &Arc<World>, library: &Envelope) -> VendorRecords {
    let storage: Arc<dyn RecordStore> = Arc::new(Storage { world: Arc::clone(world) });
    let rewriter = |(_, app): (&str, &str)| {
        (builders::parsed(app), Rewriter::new(library.clone(), Arc::clone(&storage)))
    };
    VendorRecords::new(ROLES.map(rewriter).into())
}

/// An app seals a record and stores it, as the library asks it to: whether it may be stored is asked right before.
///
/// # Errors
/// As the library's: nothing is acknowledged then.
pub async fn write(
    world: &Arc<World>,
    library: &Envelope,
    place: RecordPlace,
    written: String,
) -> Result<(), EnvelopeError> {
    let (org, site, app, id) = place.clone();
    let name = world.state().orgs[org].name.to_string();
    let instance = library.instance(&name, &site, &app);
    let sealed = instance.encrypt(&Context::new(NOTE, &id), written.as_bytes()).await?;
    world.gave_out(org, "a record was sealed");
    // Now and then it waits in a queue of the app's.
    let wait = if world.chance(50) { world.between(1_000, 50_000) } else { world.between(1, 40) };
    world.pause(wait).await;
    instance.may_store(&sealed).await?;
    world.gave_out(org, "a record was taken");
    let way = world.between(1, 40);
    world.pause(way).await;
    world.stores(place, Record { written, sealed });
    Ok(())
}

/// An app reads a record.
///
/// # Errors
/// As the library's.
pub async fn read(
    world: &Arc<World>,
    library: &Envelope,
    place: &RecordPlace,
) -> Result<Option<(String, Vec<u8>)>, EnvelopeError> {
    let way = world.between(1, 40);
    world.pause(way).await;
    let found = world.state().records.get(place).cloned();
    let Some(record) = found else { return Ok(None) };
    let (org, site, app, id) = place;
    let name = world.state().orgs[*org].name.to_string();
    let plain = library.instance(&name, site, app).decrypt(&Context::new(NOTE, id), &record.sealed).await?;
    Ok(Some((record.written, plain)))
}

struct Storage {
    world: Arc<World>,
}

impl Storage {
    fn org(&self, of: &Place) -> Option<usize> {
        self.world.state().orgs.iter().position(|org| org.name.as_str() == of.organisation)
    }

    fn place(&self, record: &StoredRecord) -> Result<RecordPlace, RecordStoreError> {
        serde_json::from_str(&record.key)
            .map_err(|error| RecordStoreError::Refused { reason: error.to_string() })
    }

    /// Time passes, and now and then there is no answer.
    async fn way(&self, what: &'static str, longest: i64) -> Result<(), RecordStoreError> {
        let wait = self.world.between(1, longest);
        self.world.pause(wait).await;
        let chaos = self.world.state().chaos;
        if self.world.chance(chaos / 4) {
            self.world.fault(|| format!("the vendor's storage does not answer to {what}"));
            return Err(RecordStoreError::Unavailable { reason: "injected".to_owned() });
        }
        Ok(())
    }
}

fn part_of(id: &str, of: u32) -> u32 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    u32::try_from(hasher.finish() % u64::from(of.max(1))).unwrap_or(0)
}

#[async_trait]
impl RecordStore for Storage {
    async fn page(
        &self,
        of: &Place,
        shard: Shard,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<RecordPage, RecordStoreError> {
        self.way("a page", 60).await?;
        let limit = usize::try_from(limit).unwrap_or(PAGE).clamp(1, PAGE);
        let Some(org) = self.org(of) else { return Ok(RecordPage::default()) };
        let mut page = RecordPage::default();
        {
            let state = self.world.state();
            let ours = state.records.iter().filter(|((whose, site, app, id), _)| {
                *whose == org
                    && *site == of.site
                    && *app == of.app
                    && part_of(id, shard.of) == shard.index
                    && cursor.is_none_or(|after| id.as_str() > after)
            });
            for (place, record) in ours.take(limit) {
                page.records.push(StoredRecord {
                    key: serde_json::to_string(place).expect("a place is plain JSON"),
                    data_type: NOTE.to_owned(),
                    record_id: place.3.clone(),
                    bytes: record.sealed.clone(),
                    noncurrent: false,
                });
            }
        }
        if page.records.len() == limit {
            page.next = page.records.last().map(|record| record.record_id.clone());
        }
        self.way("a page", 60).await?;
        Ok(page)
    }

    async fn replace(&self, old: &StoredRecord, new: Vec<u8>) -> Result<Replaced, RecordStoreError> {
        let longest = if self.world.chance(100) { 4_000 } else { 200 };
        self.way("a conditional write", longest).await?;
        let place = self.place(old)?;
        let known = self.world.state().records.get(&place).cloned();
        let Some(known) = known else { return Ok(Replaced::Gone) };
        let same = header_of(&known.sealed) == header_of(&old.bytes);
        if !same && !self.world.is(Twin::RewritesUnconditionally) {
            return Ok(Replaced::Changed);
        }
        self.world.rewrites(place, Record { sealed: new, ..known });
        self.way("a conditional write", 60).await?;
        Ok(Replaced::Done)
    }

    async fn estimate(&self, of: &Place) -> Result<Option<u64>, RecordStoreError> {
        self.way("an estimate", 60).await?;
        let org = self.org(of);
        let state = self.world.state();
        let ours = state.records.keys().filter(|(whose, ..)| Some(*whose) == org).count();
        Ok(u64::try_from(ours).ok())
    }
}
