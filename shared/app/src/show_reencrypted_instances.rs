//! Shows how far a re-encryption is with each instance, and with each part of its records (spec X2).

use claviger_domain::ids::{InstanceId, ReencryptionId};
use claviger_domain::instance::AppInstance;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::reencryption::Reencryption;
use claviger_domain::values::{App, OrganisationName, SiteName};
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde::Serialize;

use crate::ports::{Checkpoints, Clock, Instances, Page, Policies, StoreError};
use crate::reencryption::{Counts, ShardCheckpoint, ShardPlace, estimate_by_shards};
use crate::request_error::RequestError;
use crate::show_reencryption::Speed;

/// How many checkpoints are read at once.
const AT_ONCE: usize = 32;

/// How far a job is with an instance, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceProgressView {
    /// Which.
    pub instance_id: InstanceId,
    /// Its site.
    pub site: SiteName,
    /// Its app.
    pub app: App,
    /// Records that were gone through in this pass.
    pub done: u64,
    /// Records in all; none while nobody knows.
    pub total: Option<u64>,
    /// Whether the total is an estimate: exact when the pass is through.
    pub estimated: bool,
    /// Records a second.
    pub rate_per_second: Option<f64>,
    /// About how many seconds are left of this pass.
    pub seconds_left: Option<u64>,
    /// Its parts; none before its records are worked.
    pub shards: Vec<ShardProgressView>,
}

/// How far a job is with a part of an instance's records, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardProgressView {
    /// Which part, from 0.
    pub index: u16,
    /// Whether it is through.
    pub through: bool,
    /// Records that were gone through in this pass.
    pub done: u64,
    /// Records in all; none while nobody knows.
    pub total: Option<u64>,
    /// Whether the total is an estimate.
    pub estimated: bool,
    /// Records a second.
    pub rate_per_second: Option<f64>,
    /// About how many seconds are left of this pass.
    pub seconds_left: Option<u64>,
    /// Records that were written anew in this pass.
    pub rewritten: u64,
    /// Records that the app wrote in the same moment.
    pub lost_races: u64,
    /// Records that a scan found under old data keys.
    pub old: u64,
    /// Old versions of objects under old data keys.
    pub old_versions: u64,
    /// What stands in its way.
    pub fault: Option<String>,
}

/// Shows how far a job is with each instance.
pub struct ShowReencryptedInstances<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// How far shards are.
    pub checkpoints: &'a dyn Checkpoints,
    /// The time.
    pub clock: &'a dyn Clock,
}

/// The pass that is shown.
struct Pass {
    /// None while the job is in no pass: then it is the last that there was.
    number: Option<u32>,
    /// Since when it is under way.
    since: Option<Timestamp>,
}

impl ShowReencryptedInstances<'_> {
    /// A page of the encrypted instances.
    ///
    /// # Errors
    /// When the job is not there, or the store fails.
    pub async fn run(
        &self,
        organisation: &OrganisationName,
        id: ReencryptionId,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<InstanceProgressView>, RequestError> {
        let policy = self.policies.policy(organisation).await?;
        let policy = policy.ok_or(RequestError::NotFound { what: "the encryption policy" })?;
        let pass = self.pass(&policy, id).await?;
        let found = self.instances.instances(organisation, cursor, limit).await?;
        let encrypted = found.items.iter().filter(|instance| instance.status.is_encrypted());
        let mut items = Vec::new();
        for instance in encrypted {
            items.push(self.of_instance(id, &pass, instance).await?);
        }
        Ok(Page { items, next: found.next })
    }

    async fn pass(&self, policy: &EncryptionPolicy, id: ReencryptionId) -> Result<Pass, RequestError> {
        let open: Option<&Reencryption> = policy.reencryption.as_ref().filter(|job| job.id == id);
        if open.is_none() && !policy.reencryptions.iter().any(|ended| ended.job.id == id) {
            return Err(RequestError::NotFound { what: "the re-encryption" });
        }
        let Some(job) = open else {
            return Ok(Pass { number: None, since: None });
        };
        let progress = self.checkpoints.progress(id).await?.filter(|progress| progress.of == job.phase);
        Ok(Pass { number: job.phase.pass(), since: progress.map(|progress| progress.began_at) })
    }

    async fn of_instance(
        &self,
        job: ReencryptionId,
        pass: &Pass,
        instance: &AppInstance,
    ) -> Result<InstanceProgressView, StoreError> {
        let place = |index| ShardPlace { job, instance: instance.id, index };
        let first = self.checkpoints.shard(place(0)).await?;
        let of = first.as_ref().map_or(0, |first| first.of);
        let rest = (1..of).map(|index| self.checkpoints.shard(place(index)));
        let rest: Vec<Option<ShardCheckpoint>> = stream::iter(rest).buffered(AT_ONCE).try_collect().await?;
        let parts: Vec<ShardCheckpoint> = first.into_iter().chain(rest.into_iter().flatten()).collect();
        Ok(view(instance, &parts, pass, self.clock.now()))
    }
}

fn view(
    instance: &AppInstance,
    parts: &[ShardCheckpoint],
    pass: &Pass,
    now: Timestamp,
) -> InstanceProgressView {
    let parts: Vec<Part<'_>> = parts.iter().map(|part| Part::of(part, pass)).collect();
    let through = !parts.is_empty() && parts.iter().all(|part| part.through);
    let done = parts.iter().map(|part| part.counts.seen).fold(0, u64::saturating_add);
    let by_done = parts.iter().filter(|part| part.through);
    let seen_by_done = by_done.clone().map(|part| part.counts.seen).fold(0, u64::saturating_add);
    let (count, of) = (by_done.count(), parts.len());
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let by_parts = || estimate_by_shards(seen_by_done, number(count), number(of));
    let known = parts.first().and_then(|part| part.checkpoint.estimate).or_else(by_parts);
    let total = if through { Some(done) } else { known.map(|total| total.max(done)) };
    let speed = Speed::of(pass.since.filter(|_| !through), (done, total), now);
    let a_part = known.and_then(|total| total.checked_div(number(of)));
    InstanceProgressView {
        instance_id: instance.id,
        site: instance.site.clone(),
        app: instance.app.clone(),
        done,
        total,
        estimated: !through,
        rate_per_second: speed.rate_per_second,
        seconds_left: speed.seconds_left,
        shards: parts.iter().map(|part| part.view(a_part, pass, now)).collect(),
    }
}

/// A part in the pass that is shown.
struct Part<'a> {
    checkpoint: &'a ShardCheckpoint,
    through: bool,
    counts: Counts,
}

impl<'a> Part<'a> {
    /// One that the pass has not come to yet has nothing to show of it.
    fn of(checkpoint: &'a ShardCheckpoint, pass: &Pass) -> Self {
        let begun = pass.number.is_none_or(|number| checkpoint.pass == number);
        let counts = if begun { checkpoint.counts } else { Counts::default() };
        Self { checkpoint, through: begun && checkpoint.done, counts }
    }

    fn view(&self, a_part: Option<u64>, pass: &Pass, now: Timestamp) -> ShardProgressView {
        let Self { checkpoint, through, counts } = self;
        let done = counts.seen;
        let total = if *through { Some(done) } else { a_part.map(|total| total.max(done)) };
        let speed = Speed::of(pass.since.filter(|_| !through), (done, total), now);
        ShardProgressView {
            index: checkpoint.place.index,
            through: *through,
            done,
            total,
            estimated: !through,
            rate_per_second: speed.rate_per_second,
            seconds_left: speed.seconds_left,
            rewritten: counts.rewritten,
            lost_races: counts.lost_races,
            old: counts.old,
            old_versions: counts.old_versions,
            fault: checkpoint.fault.clone().filter(|_| !through),
        }
    }
}
