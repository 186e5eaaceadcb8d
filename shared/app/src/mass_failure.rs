//! Whether so many customers are refused ambiguously at once that it is more likely our fault than the will of all of
//! them (spec R4). Asked of one shard, and of all together: a cell with few customers has few in each shard.

use claviger_domain::values::ShardId;
use futures_util::future::try_join_all;
use jiff::Timestamp;

use crate::ports::{Beat, StoreError, WatchList};
use crate::settings::Settings;

/// Whether ambiguous refusals of a shard's customers wait. What the other shards saw is read only where this one alone
/// does not say so.
///
/// # Errors
/// When the beats cannot be read.
pub async fn mass_failure(
    watch: &dyn WatchList,
    settings: &Settings,
    shard: ShardId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let own = watch.last_beat(shard).await?;
    if own.as_ref().is_some_and(|beat| beat.mass_failure) {
        return Ok(true);
    }
    let others = (0..settings.shards).map(ShardId).filter(|other| *other != shard);
    let others = try_join_all(others.map(|other| watch.last_beat(other))).await?;
    Ok(of_all(settings, others.iter().chain([&own]).flatten(), now))
}

/// Whether the shards together say so.
pub fn of_all<'b>(
    settings: &Settings,
    beats: impl Iterator<Item = &'b Beat> + Clone,
    now: Timestamp,
) -> bool {
    // What nobody confirms any more says nothing about now.
    let fresh = beats.filter(|beat| beat.watched_until > now);
    let sum = |of: fn(&Beat) -> u32| {
        fresh
            .clone()
            .map(of)
            .fold(0_usize, |sum, n| sum.saturating_add(usize::try_from(n).unwrap_or(usize::MAX)))
    };
    settings.mass_failure.is(sum(|beat| beat.refused), sum(|beat| beat.open))
}
