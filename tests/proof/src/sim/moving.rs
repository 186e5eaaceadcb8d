//! Moving to new keys: the ports of planner, worker and the API's rarer calls, and what must be true of every record at every instant.

use std::collections::BTreeMap;

use async_trait::async_trait;
use claviger_app::make_data_key::PURPOSE_RECORDS;
use claviger_app::ports::{
    Backups, BackupsHead, CallError, Checkpoints, DataKeyChoice, DataKeyRegistry, DataKeyRemoval,
    Organisations, Page, Policies, PublishedTemplate, ReencryptionQueues, StoreError, Templates,
    WrappedDataKey,
};
use claviger_app::reencryption::{Backup, JobProgress, JobStep, ShardCheckpoint, ShardPlace, ShardWork};
use claviger_domain::decide::Decision;
use claviger_domain::fence::Cause;
use claviger_domain::ids::{DataKeyId, ReencryptionId};
use claviger_domain::organisation::Organisation;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::reencryption::{Depth, Outcome};
use claviger_domain::values::{KeyArn, OrganisationName};
use claviger_envelope::Header;
use jiff::SignedDuration;

use super::checks::now_or_never;
use super::ports::Ports;
use super::world::{Message, Record, RecordPlace, World, millis, settings};
use crate::twin::Twin;

/// How long a record may be on its way from the check to the storage.
const WAY: i64 = 100;

#[async_trait]
impl Checkpoints for Ports {
    async fn progress(&self, job: ReencryptionId) -> Result<Option<JobProgress>, StoreError> {
        self.stored("progress", self.world.store.progress(job)).await
    }

    async fn save_progress(&self, progress: &JobProgress) -> Result<(), StoreError> {
        self.stored("commit_progress", Checkpoints::save_progress(&self.world.store, progress)).await
    }

    async fn shard(&self, at: ShardPlace) -> Result<Option<ShardCheckpoint>, StoreError> {
        self.stored("shard", self.world.store.shard(at)).await
    }

    async fn shards(
        &self,
        job: ReencryptionId,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<ShardCheckpoint>, StoreError> {
        // A few a page, so that lists page.
        self.stored("shards", self.world.store.shards(job, cursor, limit.min(3))).await
    }

    async fn save_shard(&self, shard: &ShardCheckpoint) -> Result<(), StoreError> {
        self.stored("commit_shard", self.world.store.save_shard(shard)).await
    }
}

#[async_trait]
impl Backups for Ports {
    async fn save_backup(&self, organisation: &OrganisationName, backup: &Backup) -> Result<(), StoreError> {
        self.stored("save_backup", self.world.store.save_backup(organisation, backup)).await
    }

    async fn backup(&self, organisation: &OrganisationName, id: &str) -> Result<Option<Backup>, StoreError> {
        self.stored("backup", self.world.store.backup(organisation, id)).await
    }

    async fn backups(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<Backup>, StoreError> {
        let mut page = self.stored("backups", self.world.store.backups(organisation, cursor, limit)).await?;
        if self.world.is(Twin::FirstExpiryOnly) {
            page.items.sort_by_key(|backup| backup.expires_at);
            page.items.truncate(1);
        }
        if self.world.is(Twin::BringsBackUnsaid) {
            page.items.iter_mut().for_each(|backup| backup.brought_back_at = None);
        }
        Ok(page)
    }
}

#[async_trait]
impl DataKeyRemoval for Ports {
    async fn backups_head(&self, organisation: &OrganisationName) -> Result<BackupsHead, StoreError> {
        self.stored("backups_head", self.world.store.backups_head(organisation)).await
    }

    async fn commit_removal(
        &self,
        previous: &EncryptionPolicy,
        decision: &Decision,
        head: &BackupsHead,
    ) -> Result<(), StoreError> {
        let commit = async {
            self.world.store.commit_removal(previous, decision, head).await?;
            self.world.policy_committed(Some(previous), decision);
            Ok(())
        };
        self.stored("commit_removal", commit).await
    }

    async fn remove_former(
        &self,
        organisation: &OrganisationName,
        known: &WrappedDataKey,
    ) -> Result<(), StoreError> {
        let remove = async {
            self.world.store.remove_former(organisation, known).await?;
            self.world.state().removed += 1;
            self.world
                .note(|| format!("data key {} of generation {} is removed", known.id, known.generation));
            self.world.data_key_changed(known.id);
            Ok(())
        };
        self.stored("remove_former", remove).await
    }
}

#[async_trait]
impl Organisations for Ports {
    async fn organisation(&self, name: &OrganisationName) -> Result<Option<Organisation>, StoreError> {
        self.stored("organisation", self.world.store.organisation(name)).await
    }

    async fn save_organisation(&self, organisation: &Organisation) -> Result<(), StoreError> {
        self.stored("commit_organisation", self.world.store.save_organisation(organisation)).await
    }
}

#[async_trait]
impl Templates for Ports {
    async fn templates(&self) -> Result<Vec<PublishedTemplate>, StoreError> {
        self.stored("templates", self.world.store.templates()).await
    }

    async fn add_template(&self, template: &PublishedTemplate) -> Result<(), StoreError> {
        self.stored("commit_template", self.world.store.add_template(template)).await
    }

    async fn save_progress(&self, template: &PublishedTemplate) -> Result<(), StoreError> {
        self.stored("commit_progress", Templates::save_progress(&self.world.store, template)).await
    }
}

#[async_trait]
impl ReencryptionQueues for Ports {
    async fn queue_step(&self, step: &JobStep, delay: SignedDuration) -> Result<(), CallError> {
        let message = Message::Step(Box::new(step.clone()));
        self.called("queue_step", || self.world.send(message, millis(delay))).await
    }

    async fn queue_shards(&self, work: &[ShardWork], delay: SignedDuration) -> Result<(), CallError> {
        self.called("queue_shards", || {
            for one in work {
                self.world.send(Message::Shard(Box::new(one.clone())), millis(delay));
            }
        })
        .await
    }
}

/// A future of the stores in memory, which never fails here.
fn known<T>(future: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
    now_or_never(future)?.ok()
}

impl World {
    fn policy_of(&self, org: usize) -> Option<EncryptionPolicy> {
        let name = self.state().orgs.get(org)?.name.clone();
        known(Policies::policy(&self.store, &name))?
    }

    /// An app's record reaches the storage, and its writer is told so.
    pub fn stores(&self, place: RecordPlace, record: Record) {
        let org = place.0;
        if let (Some(policy), Ok(header)) = (self.policy_of(org), Header::parse(&record.sealed)) {
            let since = policy.former_keys.last().map(|former| former.replaced_at.as_millisecond());
            let late = since.is_some_and(|at| self.now() > at + millis(settings().lease) + WAY);
            let stale = u64::from(header.generation) < policy.generation;
            self.checked("I6", !(late && stale), || {
                format!("a record of generation {} was stored long after the switch", header.generation)
            });
        }
        self.state().records.insert(place.clone(), record.clone());
        self.record_is_sound(&place, &record);
    }

    /// A worker's record takes the place of the one that it read.
    pub fn rewrites(&self, place: RecordPlace, record: Record) {
        self.note(|| format!("{place:?} was sealed anew"));
        self.state().records.insert(place.clone(), record.clone());
        self.record_is_sound(&place, &record);
    }

    /// The vendor's storage is as a backup was: every record of it can still be read.
    pub fn brings_back(&self, org: usize, records: BTreeMap<RecordPlace, Record>) {
        {
            let mut state = self.state();
            state.records.retain(|(whose, ..), _| *whose != org);
            state.records.extend(records);
        }
        self.records_are_sound(org, None);
    }

    /// A newer version was made: nothing names it yet, and from now on anything may.
    pub fn data_key_made(&self, key: &WrappedDataKey) {
        self.state().newer_keys += u64::from(key.version > 1);
        let owner = self.state().data_keys.get(&key.id).map(|(_, owner)| *owner);
        let org = self.state().orgs.iter().position(|org| Some(org.id) == owner);
        if let Some(policy) = org.and_then(|org| self.policy_of(org)) {
            self.is_wrapped(&policy, key.id);
        }
    }

    /// I6, of one data key.
    pub fn data_key_changed(&self, id: DataKeyId) {
        let owner = self.state().data_keys.get(&id).map(|(_, owner)| *owner);
        let org = self.state().orgs.iter().position(|org| Some(org.id) == owner);
        if let Some(org) = org {
            self.records_are_sound(org, Some(id));
        }
    }

    /// I6, of every record of an organisation, those of every backup included that has not expired.
    pub fn records_are_sound(&self, org: usize, only: Option<DataKeyId>) {
        let Some(policy) = self.policy_of(org) else { return };
        let mut named: Vec<DataKeyId> = {
            let now = self.now();
            let state = self.state();
            let there = state.backups.iter().filter(|backup| backup.org == org && now < backup.expires_at);
            let stored = state.records.iter().chain(there.flat_map(|backup| &backup.records));
            let ours = stored.filter(|((whose, ..), _)| *whose == org);
            ours.filter_map(|(_, record)| data_key_of(record)).collect()
        };
        named.sort();
        named.dedup();
        for id in named.into_iter().filter(|id| only.is_none_or(|only| only == *id)) {
            self.is_wrapped(&policy, id);
        }
    }

    fn record_is_sound(&self, place: &RecordPlace, record: &Record) {
        match (self.policy_of(place.0), data_key_of(record)) {
            (Some(policy), Some(id)) => self.is_wrapped(&policy, id),
            _ => self.violated("I6", format!("{place:?} names no data key")),
        }
    }

    /// INVARIANT (I6): the data key is there, every wrap of it is under a key that is known, and each key that the
    /// policy stands on wraps it. An organisation that leaves has it erased.
    fn is_wrapped(&self, policy: &EncryptionPolicy, id: DataKeyId) {
        if policy.fence.causes.contains(&Cause::Closing) || policy.erasure.is_some() {
            return;
        }
        let instance = self.state().data_keys.get(&id).map(|(instance, _)| *instance);
        let found: Option<WrappedDataKey> = instance.and_then(|instance| {
            known(self.store.data_key(instance, PURPOSE_RECORDS, DataKeyChoice::Id(id)))?
        });
        let name = &policy.organisation_name;
        self.checked("I6", found.is_some(), || {
            format!("records of {name} name data key {id}, which is gone")
        });
        let Some(key) = found else { return };
        // A key that takes a lost one's place is known from when it was asked for; its wraps take the lost one's place.
        // If another one is named meanwhile, what is wrapped under the first is wrapped anew before that one stands.
        let replaces = |arn: &KeyArn| {
            let under_way = policy.keys.get(arn.region()).is_some_and(|key| key.replacement.is_some());
            under_way && self.state().orgs.iter().any(|org| org.named.contains(arn))
        };
        let strange =
            key.every_wrap().find(|wrap| policy.access_of(&wrap.key).is_none() && !replaces(&wrap.key));
        self.checked("I6", strange.is_none(), || {
            format!(
                "data key {id} of {name} is wrapped under a key that nobody knows: {:?}",
                strange.map(|it| &it.key)
            )
        });
        let mut under = 0;
        for regional in policy.keys.values().filter(|key| !key.given_up && key.replacement.is_none()) {
            under += 1;
            self.checked("I6", key.wrap_under(&regional.arn).is_some(), || {
                format!("data key {id} of {name}, which records name, is not wrapped under {}", regional.arn)
            });
        }
        self.checked("I6", under > 0, || format!("records of {name} depend on keys that are to be replaced"));
    }

    /// A job ended: after one that moved every record, none is under an old data key, and no data key under an old key.
    pub fn job_ended(&self, org: usize, policy: &EncryptionPolicy) {
        self.state().moved += 1;
        let Some(ended) = policy.reencryptions.last() else { return };
        if ended.outcome != Outcome::Completed || self.state().brought_back.contains(&org) {
            return;
        }
        let least = match ended.job.depth {
            Depth::Rekey => ended.job.generation,
            Depth::Rewrap => 0,
        };
        let state = self.state();
        let ours = state.records.iter().filter(|((whose, ..), _)| *whose == org);
        let old = ours.filter(|(_, record)| {
            Header::parse(&record.sealed).is_ok_and(|header| u64::from(header.generation) < least)
        });
        let old: Vec<RecordPlace> = old.map(|(place, _)| place.clone()).collect();
        drop(state);
        let name = &policy.organisation_name;
        self.checked("I6", old.is_empty(), || {
            format!("the re-encryption of {name} ended, and {old:?} are under old data keys")
        });
    }
}

fn data_key_of(record: &Record) -> Option<DataKeyId> {
    Header::parse(&record.sealed).ok().map(|header| DataKeyId::from_uuid(header.data_key_id))
}
