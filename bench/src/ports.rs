//! The ports of the use cases over plain maps: each call is counted as the one call of AWS that its adapter makes,
//! and takes the time that it is given.

use async_trait::async_trait;
use claviger_app::hint_budget::HintRecord;
use claviger_app::messages::{DataKeyPage, EncryptionContext, ErasurePage, FanOut, ProbeMessage};
use claviger_app::ports::{
    Asking, Beat, CallError, Clock, ControlProbes, CustomerKeys, CustomerRoles, DataKeyChoice,
    DataKeyRegistry, FanOutQueue, HintRecords, Ids, Instances, KeyDescription, KeyError, KeyRef, NewKey,
    Page, Policies, ProbeQueue, RoleSession, StoreError, Timer, Trial, WatchList, WatchRow, WrappedDataKey,
};
use claviger_app::probe_keys::ProbeKeys;
use claviger_domain::catalogue::Mode;
use claviger_domain::decide::Decision;
use claviger_domain::effect::OutboxRow;
use claviger_domain::fence::Epoch;
use claviger_domain::ids::{InstanceId, OrganisationId, PolicyId};
use claviger_domain::instance::{AppInstance, InstanceDecision};
use claviger_domain::key_access::{CustomerRole, RoleArn};
use claviger_domain::key_policy::KeyLabel;
use claviger_domain::observation::{Observation, RefusalKind};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::{AccountId, App, KeyArn, OrganisationName, Region, ShardId, SiteName};
use claviger_testkit::builders;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;
use zeroize::Zeroizing;

/// How long calls take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latency {
    /// Of DynamoDB, SQS and STS.
    pub call: Duration,
    /// Of KMS.
    pub kms: Duration,
    /// Whether each probe assumes a customer's role first.
    pub byok: bool,
}

/// How often each service was called.
#[derive(Debug, Default)]
pub struct Calls {
    pub kms: AtomicU64,
    pub sts: AtomicU64,
    pub sqs: AtomicU64,
    pub reads: AtomicU64,
    /// Bytes that queries returned.
    pub read_bytes: AtomicU64,
    pub commits: AtomicU64,
    pub beats: AtomicU64,
}

impl Calls {
    /// What was counted so far; counting begins anew.
    pub fn taken(&self) -> Self {
        let take = |count: &AtomicU64| AtomicU64::new(count.swap(0, Ordering::Relaxed));
        Self {
            kms: take(&self.kms),
            sts: take(&self.sts),
            sqs: take(&self.sqs),
            reads: take(&self.reads),
            read_bytes: take(&self.read_bytes),
            commits: take(&self.commits),
            beats: take(&self.beats),
        }
    }
}

#[derive(Default)]
struct State {
    policies: HashMap<OrganisationName, EncryptionPolicy>,
    watched: BTreeMap<(ShardId, PolicyId), OrganisationName>,
    beats: HashMap<ShardId, Beat>,
    answers: HashMap<KeyArn, Observation>,
    /// Documents, as the table holds them: a function reads and writes each as one text, and has none of the others
    /// in its memory.
    instances: BTreeMap<InstanceId, String>,
    pages: Vec<FanOut>,
    now: Option<Timestamp>,
}

fn document(instance: &AppInstance) -> String {
    serde_json::to_string(instance).unwrap_or_default()
}

fn parsed(text: &str) -> Result<AppInstance, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt { reason: error.to_string() })
}

/// A cell of AWS.
pub struct Cloud {
    latency: Latency,
    state: Mutex<State>,
    began: tokio::time::Instant,
    epoch: Timestamp,
    pub controls_healthy: bool,
    pub calls: Calls,
}

impl Cloud {
    pub fn new(latency: Latency) -> Self {
        Self {
            latency,
            state: Mutex::default(),
            began: tokio::time::Instant::now(),
            epoch: builders::instant("2026-11-23T09:00:00Z"),
            controls_healthy: true,
            calls: Calls::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn takes(&self, time: Duration) {
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
    }

    /// Time stands at this instant, whatever the runtime's clock says.
    pub fn at(&self, now: Timestamp) {
        self.state().now = Some(now);
    }

    /// An active policy.
    pub async fn enrol(&self, name: &str, account: &str, realm: &str) -> EncryptionPolicy {
        let organisation = builders::an_organisation(name);
        let before = self.epoch - SignedDuration::from_secs(60);
        let mut policy =
            builders::an_active_policy(&organisation, &builders::an_enrolment(account, realm), before);
        policy.id = PolicyId::from_uuid(Uuid::new_v4());
        policy.shard = builders::settings().shard_of(policy.id);
        let mut state = self.state();
        for key in policy.keys.values() {
            state.answers.insert(key.arn.clone(), Observation::Usable);
        }
        state.watched.insert((policy.shard, policy.id), policy.organisation_name.clone());
        state.policies.insert(policy.organisation_name.clone(), policy.clone());
        policy
    }

    /// Every key of a policy answers this from now on.
    pub fn answer(&self, policy: &EncryptionPolicy, answer: Observation) {
        let mut state = self.state();
        for key in policy.keys.values() {
            state.answers.insert(key.arn.clone(), answer);
        }
    }

    /// Every key of everybody, in a region or in all, answers what `answer` says.
    pub fn answer_all(&self, mut answer: impl FnMut(&KeyArn) -> Observation) {
        for (key, known) in &mut self.state().answers {
            *known = answer(key);
        }
    }

    pub async fn policy_now(&self, name: &OrganisationName) -> EncryptionPolicy {
        self.state().policies[name].clone()
    }

    pub fn closed(&self) -> usize {
        self.state().policies.values().filter(|policy| !policy.fence.is_open()).count()
    }

    pub fn add_instance(&self, instance: &AppInstance) {
        self.state().instances.insert(instance.id, document(instance));
    }

    /// How many instances an order has not reached.
    pub fn not_reached(&self, epoch: Epoch) -> usize {
        let state = self.state();
        let reached = |text: &String| parsed(text).is_ok_and(|instance| instance.epoch == epoch);
        state.instances.values().filter(|text| !reached(text)).count()
    }

    pub fn take_page(&self) -> Option<FanOut> {
        self.state().pages.pop()
    }

    pub fn probe(&self) -> ProbeKeys<'_> {
        ProbeKeys { keys: self, controls: self, registry: self, clock: self }
    }

    async fn kms(&self, key: KeyRef<'_>) -> Result<(), KeyError> {
        if self.latency.byok && key.session == RoleSession::Fresh {
            self.calls.sts.fetch_add(1, Ordering::Relaxed);
            self.takes(self.latency.call).await;
        }
        self.calls.kms.fetch_add(1, Ordering::Relaxed);
        self.takes(self.latency.kms).await;
        let answer = self.state().answers.get(key.arn).copied();
        match answer.unwrap_or(Observation::Refused(RefusalKind::KeyNotFound)) {
            Observation::Usable => Ok(()),
            observation => Err(KeyError { observation, code: "bench".to_owned(), request_id: None }),
        }
    }

    async fn read(&self) {
        self.calls.reads.fetch_add(1, Ordering::Relaxed);
        self.takes(self.latency.call).await;
    }
}

impl Clock for Cloud {
    fn now(&self) -> Timestamp {
        let stands = self.state().now;
        let passed = || SignedDuration::try_from(self.began.elapsed()).unwrap_or_default();
        stands.unwrap_or_else(|| self.epoch + passed())
    }
}

#[async_trait]
impl Timer for Cloud {
    async fn after(&self, wait: SignedDuration) {
        tokio::time::sleep(Duration::try_from(wait).unwrap_or(Duration::ZERO)).await;
    }
}

impl Ids for Cloud {
    fn random(&self) -> Uuid {
        Uuid::new_v4()
    }
}

#[async_trait]
impl CustomerKeys for Cloud {
    async fn decrypt(
        &self,
        key: KeyRef<'_>,
        _: &[u8],
        _: &EncryptionContext,
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.kms(key).await.map(|()| Zeroizing::new(vec![0; 32]))
    }

    async fn encrypt(&self, key: KeyRef<'_>, _: &[u8], _: &EncryptionContext) -> Result<Vec<u8>, KeyError> {
        self.kms(key).await.map(|()| vec![0; 64])
    }

    async fn re_encrypt(
        &self,
        _: KeyRef<'_>,
        to: KeyRef<'_>,
        _: &[u8],
        _: &EncryptionContext,
    ) -> Result<Vec<u8>, KeyError> {
        self.kms(to).await.map(|()| vec![0; 64])
    }

    async fn generate_data_key(
        &self,
        key: KeyRef<'_>,
        _: &EncryptionContext,
    ) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), KeyError> {
        self.kms(key).await.map(|()| (Zeroizing::new(vec![0; 32]), vec![0; 64]))
    }

    async fn dry_run(&self, key: KeyRef<'_>, _: Trial<'_>, _: &EncryptionContext) -> Result<(), KeyError> {
        self.kms(key).await
    }

    async fn rotates(&self, key: KeyRef<'_>) -> Result<bool, KeyError> {
        self.kms(key).await.map(|()| false)
    }

    async fn key_policy(&self, key: KeyRef<'_>) -> Result<serde_json::Value, KeyError> {
        self.kms(key).await.map(|()| serde_json::Value::Null)
    }

    async fn describe(&self, key: KeyRef<'_>) -> Result<KeyDescription, KeyError> {
        self.calls.kms.fetch_add(1, Ordering::Relaxed);
        self.takes(self.latency.kms).await;
        let answer = self.state().answers.get(key.arn).copied().unwrap_or(Observation::Usable);
        match answer {
            Observation::NoAnswer(_) => {
                Err(KeyError { observation: answer, code: "bench".to_owned(), request_id: None })
            }
            Observation::Usable | Observation::Refused(_) => Ok(claviger_testkit::a_description()),
        }
    }
}

/// Nobody here has a key-management role of a customer's.
fn no_role() -> KeyError {
    let observation = Observation::Refused(RefusalKind::RoleDenied);
    KeyError { observation, code: "bench".to_owned(), request_id: None }
}

#[async_trait]
impl CustomerRoles for Cloud {
    async fn assume(
        &self,
        _: &RoleArn,
        _: Asking<'_>,
        _: OrganisationId,
        _: &Region,
    ) -> Result<(), KeyError> {
        Err(no_role())
    }

    async fn find_key(
        &self,
        _: &CustomerRole,
        _: &Region,
        _: OrganisationId,
        _: KeyLabel,
    ) -> Result<Option<KeyArn>, KeyError> {
        Err(no_role())
    }

    async fn make_key(&self, _: &CustomerRole, _: &Region, _: &NewKey) -> Result<KeyArn, KeyError> {
        Err(no_role())
    }
}

#[async_trait]
impl ControlProbes for Cloud {
    async fn control_is_healthy(&self, _: &Region, _: Mode, _: &str) -> bool {
        self.calls.kms.fetch_add(1, Ordering::Relaxed);
        self.takes(self.latency.kms).await;
        self.controls_healthy
    }
}

#[async_trait]
impl Policies for Cloud {
    async fn policy(&self, organisation: &OrganisationName) -> Result<Option<EncryptionPolicy>, StoreError> {
        self.read().await;
        Ok(self.state().policies.get(organisation).cloned())
    }

    async fn policy_by_id(&self, id: PolicyId) -> Result<Option<EncryptionPolicy>, StoreError> {
        self.read().await;
        Ok(self.state().policies.values().find(|policy| policy.id == id).cloned())
    }

    async fn commit_policy(
        &self,
        previous: Option<&EncryptionPolicy>,
        decision: &Decision,
    ) -> Result<(), StoreError> {
        self.calls.commits.fetch_add(1, Ordering::Relaxed);
        self.takes(self.latency.call).await;
        let mut state = self.state();
        let known = state.policies.get(&decision.next.organisation_name).map(|policy| policy.version);
        if known != previous.map(|policy| policy.version) {
            return Err(StoreError::Conflict);
        }
        state.policies.insert(decision.next.organisation_name.clone(), decision.next.clone());
        Ok(())
    }

    async fn organisations_of_account(&self, _: &AccountId) -> Result<Vec<OrganisationName>, StoreError> {
        self.read().await;
        Ok(Vec::new())
    }
}

#[async_trait]
impl HintRecords for Cloud {
    async fn hints_of(&self, _: &AccountId) -> Result<Option<HintRecord>, StoreError> {
        self.read().await;
        Ok(None)
    }

    async fn save_hints(
        &self,
        _: &AccountId,
        _: Option<&HintRecord>,
        _: &HintRecord,
    ) -> Result<(), StoreError> {
        self.takes(self.latency.call).await;
        Ok(())
    }
}

#[async_trait]
impl WatchList for Cloud {
    async fn watched(&self, shard: ShardId) -> Result<Vec<WatchRow>, StoreError> {
        let rows: Vec<WatchRow> = {
            let state = self.state();
            let of_shard = state.watched.iter().filter(|((of, _), _)| *of == shard);
            of_shard.map(|(_, name)| WatchRow { policy: state.policies[name].clone() }).collect()
        };
        let bytes: usize = rows.iter().map(|row| serde_json::to_vec(row).map_or(0, |text| text.len())).sum();
        self.calls.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        // A query gives a megabyte at a time.
        for _ in 0..=bytes / 1_048_576 {
            self.read().await;
        }
        Ok(rows)
    }

    async fn beat(&self, shard: ShardId, beat: &Beat) -> Result<(), StoreError> {
        self.calls.beats.fetch_add(1, Ordering::Relaxed);
        self.takes(self.latency.call).await;
        self.state().beats.insert(shard, beat.clone());
        Ok(())
    }

    async fn last_beat(&self, shard: ShardId) -> Result<Option<Beat>, StoreError> {
        self.read().await;
        Ok(self.state().beats.get(&shard).cloned())
    }

    async fn planned_until(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read().await;
        Ok(None)
    }

    async fn plan_until(&self, _: Timestamp) -> Result<(), StoreError> {
        self.takes(self.latency.call).await;
        Ok(())
    }
}

#[async_trait]
impl DataKeyRegistry for Cloud {
    async fn data_key(
        &self,
        _: InstanceId,
        _: &str,
        _: DataKeyChoice,
    ) -> Result<Option<WrappedDataKey>, StoreError> {
        self.read().await;
        Ok(None)
    }

    async fn data_keys(&self, _: InstanceId) -> Result<Vec<WrappedDataKey>, StoreError> {
        self.read().await;
        Ok(Vec::new())
    }

    async fn rewrap_data_key(&self, _: &WrappedDataKey, _: &WrappedDataKey) -> Result<(), StoreError> {
        Ok(())
    }

    async fn rewrap_data_key_of(
        &self,
        _: &WrappedDataKey,
        _: &WrappedDataKey,
        _: &EncryptionPolicy,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    async fn erase_data_key(&self, _: &WrappedDataKey) -> Result<(), StoreError> {
        Ok(())
    }

    async fn add_data_key(&self, _: &WrappedDataKey) -> Result<(), StoreError> {
        Ok(())
    }

    async fn add_data_key_of(
        &self,
        _: &WrappedDataKey,
        _: &EncryptionPolicy,
        _: &AppInstance,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    async fn remove_data_key(&self, _: &WrappedDataKey) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl ProbeQueue for Cloud {
    async fn queue_probes(&self, messages: &[(ProbeMessage, SignedDuration)]) -> Result<(), CallError> {
        self.calls.sqs.fetch_add(messages.len() as u64, Ordering::Relaxed);
        self.takes(self.latency.call).await;
        Ok(())
    }
}

#[async_trait]
impl FanOutQueue for Cloud {
    async fn queue_fan_out(&self, page: &FanOut, _: SignedDuration) -> Result<(), CallError> {
        self.calls.sqs.fetch_add(1, Ordering::Relaxed);
        self.state().pages.push(page.clone());
        Ok(())
    }

    async fn queue_data_keys(&self, _: &DataKeyPage, _: SignedDuration) -> Result<(), CallError> {
        Ok(())
    }

    async fn queue_erasure(&self, _: &ErasurePage, _: SignedDuration) -> Result<(), CallError> {
        Ok(())
    }

    async fn queue_effect(&self, _: &OutboxRow, _: SignedDuration) -> Result<(), CallError> {
        Ok(())
    }
}

#[async_trait]
impl Instances for Cloud {
    async fn instance(&self, id: InstanceId) -> Result<Option<AppInstance>, StoreError> {
        self.read().await;
        self.state().instances.get(&id).map(|text| parsed(text)).transpose()
    }

    async fn instance_at(&self, _: &SiteName, _: &App) -> Result<Option<AppInstance>, StoreError> {
        Ok(None)
    }

    async fn site_owner(&self, _: &SiteName) -> Result<Option<OrganisationName>, StoreError> {
        Ok(None)
    }

    async fn instances_of_site(&self, _: &SiteName) -> Result<Vec<AppInstance>, StoreError> {
        Ok(Vec::new())
    }

    async fn commit_site(
        &self,
        _: &SiteName,
        _: &SiteName,
        _: &[(AppInstance, InstanceDecision)],
    ) -> Result<(), StoreError> {
        Ok(())
    }

    async fn instances(
        &self,
        _: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<AppInstance>, StoreError> {
        self.read().await;
        let after = cursor.and_then(|cursor| cursor.parse::<InstanceId>().ok());
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.state();
        let found = state.instances.range((from, Bound::Unbounded)).take(usize::from(limit) + 1);
        let mut items: Vec<AppInstance> = found.map(|(_, text)| parsed(text)).collect::<Result<_, _>>()?;
        let more = items.len() > usize::from(limit);
        items.truncate(usize::from(limit));
        let next = items.last().filter(|_| more).map(|last| last.id.to_string());
        Ok(Page { items, next })
    }

    async fn commit_instance(
        &self,
        _: Option<&AppInstance>,
        decision: &InstanceDecision,
    ) -> Result<(), StoreError> {
        self.calls.commits.fetch_add(1, Ordering::Relaxed);
        // The whole transaction is written, and one item of it is kept here.
        black_box(serde_json::to_string(&decision.fact).is_ok());
        for row in &decision.outbox {
            black_box(serde_json::to_string(row).is_ok());
        }
        self.state().instances.insert(decision.next.id, document(&decision.next));
        Ok(())
    }
}
