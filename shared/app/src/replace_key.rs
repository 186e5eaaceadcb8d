//! Replaces a regional key that is gone for good: every data key is wrapped under the new one through a
//! region that works, then the new key takes the old one's place (spec S2). A page of instances a message;
//! what is wrapped already is passed over, so it can be broken off and repeated at any point.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use claviger_domain::decide::{Refusal, decide};
use claviger_domain::effect::{Effect, OutboxRow};
use claviger_domain::event::{Actor, Origin, PolicyEvent};
use claviger_domain::instance::AppInstance;
use claviger_domain::policy::{EncryptionPolicy, Lifecycle, PURPOSE_CANARY, PURPOSE_DATA_KEY};
use claviger_domain::values::{KeyArn, Region};
use jiff::SignedDuration;
use zeroize::Zeroizing;

use crate::error::{ATTEMPTS, WorkError};
use crate::messages::{DataKeyPage, EncryptionContext};
use crate::ports::{
    Clock, CustomerKeys, DataKeyRegistry, FanOutQueue, Ids, Instances, KeyRef, Policies, StoreError, Wrap,
    WrappedDataKey,
};
use crate::probe_keys::ProbeKeys;
use crate::prove_permissions::given;
use crate::settings::Settings;

/// How many instances one message handles.
const PAGE: u16 = 50;

/// Replaces a regional key.
pub struct ReplaceKey<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// Where wrapped data keys are.
    pub registry: &'a dyn DataKeyRegistry,
    /// The customers' keys.
    pub keys: &'a dyn CustomerKeys,
    /// How to probe.
    pub probe: ProbeKeys<'a>,
    /// Where the next page waits.
    pub queue: &'a dyn FanOutQueue,
    /// Randomness.
    pub ids: &'a dyn Ids,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl ReplaceKey<'_> {
    /// Begins with the first page.
    ///
    /// # Errors
    /// As [`ReplaceKey::page`].
    pub async fn run(&self, row: &OutboxRow) -> Result<(), WorkError> {
        let Effect::ReplaceKey { region, .. } = &row.effect else {
            return Err(WorkError::NotThere { what: "a key to replace" });
        };
        self.page(&DataKeyPage { row: row.clone(), region: region.clone(), cursor: None, data_keys: 0 }).await
    }

    /// Handles one page. A replacement that is not wanted any more is left alone; one of an organisation that
    /// is cut off meanwhile goes on when its fence opens.
    ///
    /// # Errors
    /// When a key gave no answer or refused, or the store or the queue failed: to be tried again.
    pub async fn page(&self, page: &DataKeyPage) -> Result<(), WorkError> {
        let Effect::ReplaceKey { region, key: arn } = &page.row.effect else {
            return Err(WorkError::NotThere { what: "a key to replace" });
        };
        let Some(mut policy) = self.wanting(&page.row, region, arn).await? else { return Ok(()) };
        let found = self.instances.instances(&page.row.organisation, page.cursor.as_deref(), PAGE).await?;
        let mut data_keys = page.data_keys;
        for instance in &found.items {
            let mut wrapped = Err(StoreError::Conflict.into());
            for _ in 0..ATTEMPTS {
                wrapped = self.of_instance(&policy, instance, region, arn).await;
                if !matches!(wrapped, Err(WorkError::Store(StoreError::Conflict))) {
                    break;
                }
                // Something was decided meanwhile: perhaps that another key is to take the place.
                match self.wanting(&page.row, region, arn).await? {
                    Some(now) => policy = now,
                    None => return Ok(()),
                }
            }
            data_keys = data_keys.saturating_add(wrapped?);
        }
        if found.next.is_some() {
            let next = DataKeyPage { cursor: found.next, data_keys, ..page.clone() };
            return Ok(self.queue.queue_data_keys(&next, SignedDuration::ZERO).await?);
        }
        self.finish(&page.row, region, arn, data_keys).await
    }

    /// The policy, if this very key is still to take the region's place, and may now.
    async fn wanting(
        &self,
        row: &OutboxRow,
        region: &Region,
        arn: &KeyArn,
    ) -> Result<Option<EncryptionPolicy>, WorkError> {
        let policy = self.policies.policy(&row.organisation).await?;
        let policy = policy.ok_or(WorkError::NotThere { what: "the encryption policy" })?;
        Ok(Some(policy).filter(|policy| policy.id == row.policy && is_wanted(policy, region, arn)))
    }

    /// Wraps the data keys of one instance under the new key; says how many there are.
    ///
    /// INVARIANT (I6): each is stored only if the policy still is as it was read, so no key that is not to take the place
    /// any more gets its wrap in place of one that is.
    async fn of_instance(
        &self,
        policy: &EncryptionPolicy,
        instance: &AppInstance,
        region: &Region,
        arn: &KeyArn,
    ) -> Result<u64, WorkError> {
        let context = policy.encryption_context(PURPOSE_DATA_KEY, &instance.id.to_string());
        let mut count = 0_u64;
        for known in self.registry.data_keys(instance.id).await? {
            count = count.saturating_add(1);
            if known.wrap_under(arn).is_some() {
                continue;
            }
            let plain = self.unwrapped(policy, &known, region, &context).await?;
            let sealed = self.keys.encrypt(KeyRef::of(policy, arn), &plain, &context).await?;
            let wrap = Wrap::new(arn, &sealed, self.clock.now());
            let mut next = known.clone();
            // The lost key's wrap is the one that goes; while data moves to new keys there is another beside it.
            let lost = policy.keys.get(region).map(|key| &key.arn);
            let beside = next.second.get(region).map(|wrap| &wrap.key);
            let wraps = if beside.is_some() && beside == lost { &mut next.second } else { &mut next.wraps };
            wraps.insert(region.clone(), wrap);
            self.registry.rewrap_data_key_of(&known, &next, policy).await?;
        }
        Ok(count)
    }

    /// Through a region that is not the lost one.
    async fn unwrapped(
        &self,
        policy: &EncryptionPolicy,
        key: &WrappedDataKey,
        lost: &Region,
        context: &EncryptionContext,
    ) -> Result<Zeroizing<Vec<u8>>, WorkError> {
        let mut last = WorkError::NotThere { what: "a wrap in another region" };
        let usable = policy.keys.iter().filter(|(region, _)| *region != lost);
        for wrap in usable.filter_map(|(_, known)| key.wrap_under(&known.arn)) {
            let Ok(sealed) = BASE64_STANDARD.decode(&wrap.ciphertext) else {
                continue;
            };
            match self.keys.decrypt(KeyRef::of(policy, &wrap.key), &sealed, context).await {
                Ok(plain) => return Ok(plain),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    async fn finish(
        &self,
        row: &OutboxRow,
        region: &Region,
        arn: &KeyArn,
        data_keys: u64,
    ) -> Result<(), WorkError> {
        let mut canary: Option<Vec<u8>> = None;
        for _ in 0..ATTEMPTS {
            let Some(policy) = self.wanting(row, region, arn).await? else { return Ok(()) };
            let context = policy.encryption_context(PURPOSE_CANARY, &policy.id.to_string());
            let new = KeyRef::of(&policy, arn);
            let sealed = match canary.take() {
                Some(sealed) => sealed,
                None => self.keys.encrypt(new, self.ids.random().as_bytes(), &context).await?,
            };
            let made = BASE64_STANDARD.encode(&sealed);
            let mut replaced = policy.clone();
            if let Some(key) = replaced.keys.get_mut(region) {
                key.arn = arn.clone();
                key.canary = Some(made.clone());
            }
            let round = self.probe.round(&replaced).await;
            let wanted = policy.granted_permissions();
            let proven = given(self.keys, new, &sealed, &context, &wanted).await?;
            let event = PolicyEvent::KeyReplaced {
                region: region.clone(),
                key: arn.clone(),
                canary: made,
                data_keys,
                proven,
                round,
            };
            let actor = Actor::Claviger("provisioner".to_owned());
            let origin = Origin { actor, correlation: row.correlation };
            let decision = match decide(&self.settings.rules(), &policy, &event, &origin, self.clock.now()) {
                Ok(decision) => decision,
                Err(Refusal::Redundant) => return Ok(()),
                Err(other) => return Err(other.into()),
            };
            match self.policies.commit_policy(Some(&policy), &decision).await {
                Ok(()) => return Ok(()),
                Err(StoreError::Conflict) => canary = Some(sealed),
                Err(other) => return Err(other.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }
}

/// Whether this very key is to take the region's place, and may now.
fn is_wanted(policy: &EncryptionPolicy, region: &Region, arn: &KeyArn) -> bool {
    let wanted = policy.keys.get(region).and_then(|key| key.replacement.as_ref());
    wanted.is_some_and(|wanted| wanted.arn == *arn)
        && policy.fence.is_open()
        && matches!(policy.lifecycle, Lifecycle::Active { .. })
}
