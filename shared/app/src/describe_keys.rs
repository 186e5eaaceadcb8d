//! Asks KMS what it says of every key besides whether it works (spec K2, K4), and once a day whether key and role still
//! refuse what does not come for the organisation (spec E12). It changes no key's health: that is for probes alone.

use std::collections::BTreeMap;

use claviger_domain::decide::{Refusal, decide, describes_news};
use claviger_domain::event::{Actor, Origin, PolicyEvent};
use claviger_domain::ids::{CorrelationId, OrganisationId};
use claviger_domain::key_access::KeyAccess;
use claviger_domain::observation::{Observation, RefusalKind};
use claviger_domain::outlook::{Described, Loophole, MaterialShare};
use claviger_domain::policy::{EncryptionPolicy, PURPOSE_CANARY, encryption_context};
use claviger_domain::values::{KeyArn, OrganisationName, Region, ShardId};
use futures_util::future::{join, join_all};
use futures_util::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};

use crate::check_enrolment::{CheckEnrolment, Checked};
use crate::error::{ATTEMPTS, WorkError};
use crate::messages::{CheckResult, ProbeMessage};
use crate::ports::{
    Clock, CustomerKeys, DataKeyRegistry, Instances, KeyRef, Policies, ProbeQueue, RoleSession, StoreError,
    Trial, WatchList,
};
use crate::settings::Settings;

/// How many policies of a shard are described at once: it competes with sweeps for the customers' quotas.
const AT_ONCE: usize = 16;
/// How many instances are read at a time when data keys are counted.
const PAGE: u16 = 100;
/// Over how long the shards of a run are spread.
const SPREAD: SignedDuration = SignedDuration::from_mins(10);

/// Describes keys.
pub struct DescribeKeys<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Every policy in use.
    pub watch: &'a dyn WatchList,
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// Where wrapped data keys are.
    pub registry: &'a dyn DataKeyRegistry,
    /// The customers' keys.
    pub keys: &'a dyn CustomerKeys,
    /// The prober's own queue.
    pub queue: &'a dyn ProbeQueue,
    /// Tries roles as an enrolment does, and has randomness.
    pub check: CheckEnrolment<'a>,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl DescribeKeys<'_> {
    /// Queues one message a shard, spread over ten minutes; says how many.
    ///
    /// # Errors
    /// When the queue fails.
    pub async fn plan(&self) -> Result<usize, WorkError> {
        let shards = i32::from(self.settings.shards).max(1);
        let messages: Vec<(ProbeMessage, SignedDuration)> = (0..self.settings.shards)
            .map(|shard| {
                let wait = SPREAD.saturating_mul(i32::from(shard)).checked_div(shards).unwrap_or(SPREAD);
                (ProbeMessage::Describe { shard: ShardId(shard) }, SignedDuration::from_secs(wait.as_secs()))
            })
            .collect();
        self.queue.queue_probes(&messages).await?;
        Ok(messages.len())
    }

    /// Describes every key of a shard; says for how many policies something is new.
    ///
    /// # Errors
    /// When the shard cannot be read. A single policy that fails is left to the next run.
    pub async fn shard(&self, shard: ShardId) -> Result<u64, WorkError> {
        let correlation = CorrelationId::from_uuid(self.check.ids.random());
        let now = self.clock.now();
        let rows = self.watch.watched(shard).await?;
        let described = stream::iter(&rows).map(|row| async {
            let retest = retest_due(&row.policy, now);
            self.of_policy(&row.policy, retest, correlation).await.unwrap_or_else(|error| {
                tracing::warn!(policy.id = %row.policy.id, ?error, "keys could not be described");
                false
            })
        });
        let news: Vec<bool> = described.buffer_unordered(AT_ONCE).collect().await;
        Ok(u64::try_from(news.into_iter().filter(|new| *new).count()).unwrap_or(u64::MAX))
    }

    /// Describes the keys of one organisation, of which a probe saw that there is something to tell.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn of_organisation(
        &self,
        organisation: &OrganisationName,
        correlation: CorrelationId,
    ) -> Result<bool, WorkError> {
        match self.policies.policy(organisation).await? {
            Some(policy) if policy.lifecycle.is_watched() => {
                self.of_policy(&policy, false, correlation).await
            }
            Some(_) | None => Ok(false),
        }
    }

    async fn of_policy(
        &self,
        known: &EncryptionPolicy,
        retest: bool,
        correlation: CorrelationId,
    ) -> Result<bool, WorkError> {
        // Behind a closed fence no key is used for this either.
        let retest = retest && known.fence.is_open();
        let role_open = if retest { self.role_lets_others_in(known).await } else { None };
        let described = known.keys.iter().map(|(region, key)| async move {
            let key = KeyRef { session: RoleSession::Kept, ..KeyRef::of(known, &key.arn) };
            // What we may not describe is not warned of; what is known of it stays.
            let (found, rotates) = join(self.keys.describe(key), self.keys.rotates(key)).await;
            let found = found.ok()?;
            // AWS does not renew imported material, and answers as if that were a fault.
            let rotates = if found.origin == "EXTERNAL" { Some(false) } else { rotates.ok() };
            let said = Described {
                rotates,
                material: found.material,
                deleted_at: found.deletion_date,
                material_expires_at: found.material_expires,
                loopholes: match role_open {
                    Some(role_open) => self.key_lets_others_in(known, key).await.map(|key_open| {
                        let role = role_open.then_some(Loophole::ExternalIdEnforced);
                        let key = key_open.then_some(Loophole::ContextCondition);
                        role.into_iter().chain(key).collect()
                    }),
                    None => None,
                },
                share: None,
            };
            Some((region.clone(), said))
        });
        let mut described: BTreeMap<Region, Described> =
            join_all(described).await.into_iter().flatten().collect();
        self.count(known, &mut described).await?;
        let rules = self.settings.rules();
        if !describes_news(&rules, known, &described, self.clock.now()) {
            return Ok(false);
        }
        let event = PolicyEvent::KeysDescribed { described };
        let origin = Origin { actor: Actor::Claviger("key-prober".to_owned()), correlation };
        for _ in 0..ATTEMPTS {
            let Some(policy) = self.policies.policy(&known.organisation_name).await? else {
                return Ok(false);
            };
            // A key that was replaced meanwhile is another one.
            let same = |(region, key): (&Region, &claviger_domain::policy::RegionalKey)| {
                known.keys.get(region).is_some_and(|known| known.arn == key.arn)
            };
            if policy.id != known.id || !policy.keys.iter().all(same) {
                return Ok(false);
            }
            let decision = match decide(&rules, &policy, &event, &origin, self.clock.now()) {
                Ok(decision) => decision,
                Err(Refusal::Redundant | Refusal::IllegalForState { .. }) => return Ok(false),
                Err(other) => return Err(other.into()),
            };
            match self.policies.commit_policy(Some(&policy), &decision).await {
                Ok(()) => return Ok(true),
                Err(StoreError::Conflict) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Whether the key works for who does not come for the organisation, as a dry run (spec E12). None where it cannot be
    /// told: of a key that refuses the organisation too, or for another reason, a refusal says nothing.
    async fn key_lets_others_in(&self, policy: &EncryptionPolicy, key: KeyRef<'_>) -> Option<bool> {
        let context = |organisation| {
            encryption_context(organisation, PURPOSE_CANARY, "binding-check", &policy.context_tag)
        };
        self.keys.dry_run(key, Trial::Encrypt, &context(policy.organisation)).await.ok()?;
        let stranger = OrganisationId::from_uuid(self.check.ids.random());
        let tried = self.keys.dry_run(key, Trial::Encrypt, &context(stranger)).await;
        match tried.map_err(|error| error.observation) {
            Ok(()) => Some(true),
            Err(Observation::Refused(RefusalKind::AccessDenied)) => Some(false),
            Err(Observation::Refused(_) | Observation::NoAnswer(_) | Observation::Usable) => None,
        }
    }

    /// The same of the organisation's role, once for all its keys.
    async fn role_lets_others_in(&self, policy: &EncryptionPolicy) -> Option<bool> {
        let KeyAccess::Role(role) = &policy.access else {
            return Some(false);
        };
        let (region, _) = policy.keys.first_key_value()?;
        let regions = std::slice::from_ref(region);
        let whose = Checked { organisation: policy.organisation, external_id: &role.external_id, regions };
        let trust = self.check.trust(whose, &role.arn).await;
        let enforced = trust.all.iter().find(|check| check.id == Loophole::ExternalIdEnforced.slug())?;
        (!trust.some_unanswered()).then_some(enforced.result == CheckResult::Fail)
    }

    /// After a rotation: how many data keys each key still wraps under its older material (spec K2).
    async fn count(
        &self,
        known: &EncryptionPolicy,
        described: &mut BTreeMap<Region, Described>,
    ) -> Result<(), WorkError> {
        let now = self.clock.now();
        let since = known.keys.iter().filter_map(|(region, key)| {
            let rotated_at = key.outlook.as_ref()?.count_since(now)?;
            described.contains_key(region).then_some((region, &key.arn, rotated_at))
        });
        let since: Vec<(&Region, &KeyArn, Timestamp)> = since.collect();
        if since.is_empty() {
            return Ok(());
        }
        let mut shares = vec![MaterialShare { data_keys: 0, under_old: 0, counted_at: now }; since.len()];
        let mut cursor: Option<String> = None;
        loop {
            let page = self.instances.instances(&known.organisation_name, cursor.as_deref(), PAGE).await?;
            for instance in &page.items {
                for data_key in self.registry.data_keys(instance.id).await? {
                    for ((_, arn, rotated_at), share) in since.iter().zip(&mut shares) {
                        let Some(wrap) = data_key.wrap_under(arn) else {
                            continue;
                        };
                        let old = wrap.made_at.unwrap_or(data_key.created_at) < *rotated_at;
                        share.data_keys = share.data_keys.saturating_add(1);
                        share.under_old = share.under_old.saturating_add(u64::from(old));
                    }
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        for ((region, ..), share) in since.into_iter().zip(shares) {
            if let Some(said) = described.get_mut(region) {
                said.share = Some(share);
            }
        }
        Ok(())
    }
}

/// Once a day, each policy at an hour of its own: customers see these refusals in their CloudTrail, and more of them would
/// look like an attack.
fn retest_due(policy: &EncryptionPolicy, now: Timestamp) -> bool {
    let own = policy.id.as_uuid().as_u128() % 24;
    u128::try_from(now.as_second().div_euclid(3600).rem_euclid(24)).is_ok_and(|hour| hour == own)
}
