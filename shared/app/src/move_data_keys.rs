//! Moves data keys to other regional keys, an instance at a time: wraps under the new keys beside the others, a data
//! key that the old keys never wrapped, and in the end one kind of wraps less. Each write is conditional on what was
//! read and each step passes over what is done, so all of it can be broken off and repeated (spec X3).

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use claviger_domain::ids::DataKeyId;
use claviger_domain::instance::AppInstance;
use claviger_domain::key_access::KeyAccess;
use claviger_domain::observation::Observation;
use claviger_domain::policy::{EncryptionPolicy, KeyHealth, PURPOSE_DATA_KEY};
use claviger_domain::reencryption::{KeyFault, Reencryption};
use claviger_domain::values::{KeyArn, Region};
use zeroize::Zeroizing;

use crate::error::WorkError;
use crate::explain_refusal::explained;
use crate::messages::EncryptionContext;
use crate::ports::{
    Clock, CustomerKeys, DataKeyRegistry, Ids, KeyError, KeyRef, RoleSession, StoreError, Wrap,
    WrappedDataKey,
};

/// The keys to which data keys move.
pub(crate) struct Target<'a> {
    /// One a region.
    pub keys: BTreeMap<Region, KeyArn>,
    /// How they are reached.
    pub access: &'a KeyAccess,
    /// The generation of data keys that no other key ever wrapped.
    pub generation: u64,
}

impl<'a> Target<'a> {
    /// Before the switch the job's keys, afterwards the policy's own: one of them may have been replaced since.
    pub fn of(policy: &'a EncryptionPolicy, job: &'a Reencryption) -> Self {
        if job.phase.is_switched() {
            let keys = policy.keys.iter().map(|(region, key)| (region.clone(), key.arn.clone())).collect();
            Self { keys, access: &policy.access, generation: policy.generation }
        } else {
            Self { keys: job.keys.clone(), access: &job.access, generation: job.generation }
        }
    }
}

/// What was done for an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// How many data keys it has.
    pub data_keys: u64,
    /// How many of them were changed.
    pub changed: u64,
}

impl Moved {
    const fn one(self, changed: bool) -> Self {
        Self {
            data_keys: self.data_keys.saturating_add(1),
            changed: if changed { self.changed.saturating_add(1) } else { self.changed },
        }
    }

    /// The sum of both.
    pub const fn plus(self, other: Self) -> Self {
        Self {
            data_keys: self.data_keys.saturating_add(other.data_keys),
            changed: self.changed.saturating_add(other.changed),
        }
    }
}

/// Why an instance's data keys were not moved.
#[derive(Debug)]
pub(crate) enum MoveError {
    /// A key to which they move refuses.
    Refused(KeyFault),
    /// To be tried again.
    Work(WorkError),
}

impl From<StoreError> for MoveError {
    fn from(error: StoreError) -> Self {
        Self::Work(error.into())
    }
}

/// Moves data keys.
#[derive(Clone, Copy)]
pub(crate) struct MoveDataKeys<'a> {
    pub registry: &'a dyn DataKeyRegistry,
    pub keys: &'a dyn CustomerKeys,
    pub ids: &'a dyn Ids,
    pub clock: &'a dyn Clock,
}

impl MoveDataKeys<'_> {
    /// Sees to it that each data key of an instance is wrapped under every key of the target, and that there is one
    /// that no other key ever wrapped.
    pub async fn wrap_all(
        &self,
        policy: &EncryptionPolicy,
        target: &Target<'_>,
        instance: &AppInstance,
    ) -> Result<Moved, MoveError> {
        let context = policy.encryption_context(PURPOSE_DATA_KEY, &instance.id.to_string());
        let mut moved = Moved::default();
        let mut latest: BTreeMap<String, u32> = BTreeMap::new();
        let mut fresh: BTreeSet<String> = BTreeSet::new();
        for known in self.registry.data_keys(instance.id).await? {
            let version = latest.entry(known.purpose.clone()).or_default();
            *version = known.version.max(*version);
            // Left by a job that was cancelled while this was being made: nobody was ever given it.
            if known.generation > policy.generation && known.generation != target.generation {
                self.registry.remove_data_key(&known).await?;
                moved.changed = moved.changed.saturating_add(1);
                continue;
            }
            if known.generation == target.generation {
                fresh.insert(known.purpose.clone());
            }
            let whole = known.is_under(target.keys.values());
            if !whole {
                self.wrap(policy, target, &known, &context).await?;
            }
            moved = moved.one(!whole);
        }
        for (purpose, version) in latest {
            if !fresh.contains(&purpose) {
                self.make(policy, target, instance, &purpose, version.saturating_add(1), &context).await?;
                moved = moved.one(true);
            }
        }
        Ok(moved)
    }

    /// Leaves the wraps under the target's keys and no others.
    pub async fn keep_target(
        &self,
        policy: &EncryptionPolicy,
        target: &Target<'_>,
        instance: &AppInstance,
    ) -> Result<Moved, MoveError> {
        let mut moved = self.wrap_all(policy, target, instance).await?;
        for known in self.registry.data_keys(instance.id).await? {
            let kept: BTreeMap<Region, Wrap> = target
                .keys
                .iter()
                .filter_map(|(region, arn)| Some((region.clone(), known.wrap_under(arn)?.clone())))
                .collect();
            // INVARIANT (I6): no wrap goes before every new one is there.
            if kept.len() != target.keys.len() || (kept == known.wraps && known.second.is_empty()) {
                continue;
            }
            let next = WrappedDataKey { wraps: kept, second: BTreeMap::new(), ..known.clone() };
            self.registry.rewrap_data_key(&known, &next).await?;
            moved.changed = moved.changed.saturating_add(1);
        }
        Ok(moved)
    }

    /// Takes away what a job did for an instance before its switch.
    pub async fn forget(
        &self,
        policy: &EncryptionPolicy,
        instance: &AppInstance,
    ) -> Result<Moved, MoveError> {
        let mut moved = Moved::default();
        for known in self.registry.data_keys(instance.id).await? {
            if known.generation > policy.generation {
                self.registry.remove_data_key(&known).await?;
                moved.changed = moved.changed.saturating_add(1);
                continue;
            }
            let twice = !known.second.is_empty();
            if twice {
                let next = WrappedDataKey { second: BTreeMap::new(), ..known.clone() };
                self.registry.rewrap_data_key(&known, &next).await?;
            }
            moved = moved.one(twice);
        }
        Ok(moved)
    }

    async fn wrap(
        &self,
        policy: &EncryptionPolicy,
        target: &Target<'_>,
        known: &WrappedDataKey,
        context: &EncryptionContext,
    ) -> Result<(), MoveError> {
        let mut next = known.clone();
        let mut plain: Option<Zeroizing<Vec<u8>>> = None;
        for (region, arn) in &target.keys {
            if known.wrap_under(arn).is_some() {
                continue;
            }
            let wrap = match self.moved(policy, target, known, arn, context).await {
                Some(wrap) => wrap,
                None => {
                    let plain = match &plain {
                        Some(plain) => plain,
                        None => plain.insert(self.unwrapped(policy, known, context).await?),
                    };
                    self.wrapped(policy, target, arn, plain, context).await?
                }
            };
            // A data key of the target's own generation has no other wraps beside which these could stand.
            let wraps = if known.generation < target.generation { &mut next.second } else { &mut next.wraps };
            wraps.insert(region.clone(), wrap);
        }
        Ok(self.registry.rewrap_data_key(known, &next).await?)
    }

    /// By ReEncrypt, where there is a wrap under a key of the same region that works and is reached the same way: the
    /// data key does not come into the clear. None where that is not so, or not allowed; then it is unwrapped in
    /// whichever region will do, and what that answers says which key is at fault.
    async fn moved(
        &self,
        policy: &EncryptionPolicy,
        target: &Target<'_>,
        known: &WrappedDataKey,
        arn: &KeyArn,
        context: &EncryptionContext,
    ) -> Option<Wrap> {
        let beside = known.every_wrap().find(|wrap| {
            let same_way = policy.access_of(&wrap.key) == Some(target.access);
            wrap.key.region() == arn.region() && same_way && works(policy, wrap)
        })?;
        let sealed = BASE64_STANDARD.decode(&beside.ciphertext).ok()?;
        let (from, to) = (key_of(policy, &beside.key, target.access), key_of(policy, arn, target.access));
        match self.keys.re_encrypt(from, to, &sealed, context).await {
            Ok(sealed) => Some(Wrap::new(arn, &sealed, self.clock.now())),
            Err(error) => {
                tracing::info!(%error, key.arn = %arn, "no ReEncrypt: the data key is unwrapped instead");
                None
            }
        }
    }

    /// Through any key that is known: those that work first.
    async fn unwrapped(
        &self,
        policy: &EncryptionPolicy,
        known: &WrappedDataKey,
        context: &EncryptionContext,
    ) -> Result<Zeroizing<Vec<u8>>, MoveError> {
        let mut wraps: Vec<(&Wrap, &KeyAccess)> =
            known.every_wrap().filter_map(|wrap| Some((wrap, policy.access_of(&wrap.key)?))).collect();
        wraps.sort_by_key(|(wrap, _)| !works(policy, wrap));
        let mut last = WorkError::NotThere { what: "a wrap under a known key" };
        for (wrap, access) in wraps {
            let Ok(sealed) = BASE64_STANDARD.decode(&wrap.ciphertext) else {
                continue;
            };
            match self.keys.decrypt(key_of(policy, &wrap.key, access), &sealed, context).await {
                Ok(plain) => return Ok(plain),
                Err(error) => last = error.into(),
            }
        }
        Err(MoveError::Work(last))
    }

    async fn wrapped(
        &self,
        policy: &EncryptionPolicy,
        target: &Target<'_>,
        arn: &KeyArn,
        plain: &[u8],
        context: &EncryptionContext,
    ) -> Result<Wrap, MoveError> {
        let key = key_of(policy, arn, target.access);
        let sealed = match self.keys.encrypt(key, plain, context).await {
            Ok(sealed) => sealed,
            Err(error) => return Err(self.failed(key, error).await),
        };
        Ok(Wrap::new(arn, &sealed, self.clock.now()))
    }

    async fn make(
        &self,
        policy: &EncryptionPolicy,
        target: &Target<'_>,
        instance: &AppInstance,
        purpose: &str,
        version: u32,
        context: &EncryptionContext,
    ) -> Result<(), MoveError> {
        let mut keys = target.keys.iter();
        let first = keys.next().ok_or(MoveError::Work(WorkError::NotThere { what: "a new key" }))?;
        let key = key_of(policy, first.1, target.access);
        let (plain, sealed) = match self.keys.generate_data_key(key, context).await {
            Ok(made) => made,
            Err(error) => return Err(self.failed(key, error).await),
        };
        let wrap = Wrap::new(first.1, &sealed, self.clock.now());
        let mut wraps = BTreeMap::from([(first.0.clone(), wrap)]);
        for (region, arn) in keys {
            let wrap = self.wrapped(policy, target, arn, &plain, context).await?;
            wraps.insert(region.clone(), wrap);
        }
        let key = WrappedDataKey {
            id: DataKeyId::from_uuid(self.ids.random()),
            instance: instance.id,
            purpose: purpose.to_owned(),
            version,
            generation: target.generation,
            created_at: self.clock.now(),
            wraps,
            second: BTreeMap::new(),
        };
        Ok(self.registry.add_data_key(&key).await?)
    }

    /// A key that refuses is named with what it says; no answer is an error, to be tried again.
    async fn failed(&self, key: KeyRef<'_>, error: KeyError) -> MoveError {
        let saw = explained(self.keys, key, &error).await;
        match saw {
            Observation::Refused(_) => MoveError::Refused(KeyFault { region: key.region().clone(), saw }),
            Observation::NoAnswer(_) | Observation::Usable => MoveError::Work(error.into()),
        }
    }
}

/// Whether a wrap is under a key of the policy's that is believed to work.
fn works(policy: &EncryptionPolicy, wrap: &Wrap) -> bool {
    let key = policy.keys.values().find(|key| key.arn == wrap.key);
    key.is_some_and(|key| key.health == KeyHealth::Usable)
}

fn key_of<'a>(policy: &EncryptionPolicy, arn: &'a KeyArn, access: &'a KeyAccess) -> KeyRef<'a> {
    KeyRef { arn, access, organisation: policy.organisation, session: RoleSession::Kept }
}
