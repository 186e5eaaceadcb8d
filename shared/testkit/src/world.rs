//! Every port but the keys, in memory, behind one lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use claviger_app::hint_budget::HintRecord;
use claviger_app::messages::{
    AppOrder, DataKeyPage, ErasurePage, FanOut, NewerDataKey, ProbeAnswer, ProbeMessage, ProbeRequest,
};
use claviger_app::ports::{
    Audit, Backups, BackupsHead, Beat, Bus, CallError, Checkpoints, DataKeyChoice, DataKeyRegistry,
    DataKeyRemoval, FanOutQueue, HintRecords, Idempotency, Instances, KeptAnswer, NewerDataKeys,
    Organisations, Outbox, OverdueOrder, OverdueOrders, Page, PendingErasure, PendingErasures, Policies,
    ProbeQueue, Prober, Proofs, PublishedTemplate, ReencryptionQueues, Reservation, Reserve, SetAside,
    StoreError, SupportRequest, SupportRequests, Templates, Tickets, Unanswered, Undelivered, UsageRecords,
    WatchList, WatchRow, WebhookQueue, WrappedDataKey,
};
use claviger_app::reencryption::{Backup, JobProgress, JobStep, ShardCheckpoint, ShardPlace, ShardWork};
use claviger_app::usage::{DayOfUse, Tally, UsageDelta, Uses};
use claviger_app::webhooks::WebhookMessage;
use claviger_domain::access::TemplateVersion;
use claviger_domain::catalogue::Mode;
use claviger_domain::decide::Decision;
use claviger_domain::effect::{Effect, OutboxRow};
use claviger_domain::fact::Fact;
use claviger_domain::fence::Fence;
use claviger_domain::ids::{EffectId, InstanceId, OrganisationId, PolicyId, ReencryptionId, TicketId};
use claviger_domain::instance::{AppInstance, InstanceDecision, InstanceStatus};
use claviger_domain::organisation::Organisation;
use claviger_domain::policy::{EncryptionPolicy, Lifecycle};
use claviger_domain::ticket::Ticket;
use claviger_domain::values::{AccountId, App, KeyArn, OrganisationName, ShardId, SiteName};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

/// What the data plane reads of one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceItem {
    /// Whose.
    pub organisation: OrganisationId,
    /// As it was last committed.
    pub fence: Fence,
}

#[derive(Debug, Clone, Default)]
struct Account {
    exclusive: Option<OrganisationName>,
    users: BTreeSet<OrganisationName>,
}

#[derive(Debug, Clone)]
struct Reserved {
    request: String,
    holder: Uuid,
    until: Timestamp,
    forgotten_at: Timestamp,
    answer: Option<KeptAnswer>,
}

#[derive(Debug, Clone, Default)]
struct Store {
    organisations: BTreeMap<OrganisationName, Organisation>,
    policies: BTreeMap<OrganisationName, EncryptionPolicy>,
    keys: BTreeMap<KeyArn, OrganisationName>,
    accounts: BTreeMap<AccountId, Account>,
    instances: BTreeMap<InstanceId, AppInstance>,
    sites: BTreeMap<SiteName, (OrganisationName, u32)>,
    places: BTreeMap<(SiteName, App), InstanceId>,
    requests: BTreeMap<Uuid, SupportRequest>,
    overdue: BTreeMap<PolicyId, OverdueOrder>,
    tickets: BTreeMap<(OrganisationName, TicketId), Ticket>,
    /// Shared, because every change works on a copy of the store and there are many of them.
    facts: BTreeMap<(OrganisationName, Uuid, u64), Arc<Fact>>,
    /// With when each is due.
    outbox: BTreeMap<(OrganisationName, EffectId), (Timestamp, OutboxRow)>,
    watched: BTreeMap<(ShardId, PolicyId), EncryptionPolicy>,
    hints: BTreeMap<AccountId, HintRecord>,
    fences: BTreeMap<PolicyId, FenceItem>,
    beats: BTreeMap<ShardId, Beat>,
    planned_until: Option<Timestamp>,
    proofs: BTreeMap<PolicyId, Timestamp>,
    proof_claims: BTreeMap<PolicyId, Timestamp>,
    data_keys: BTreeMap<(InstanceId, String, u32), WrappedDataKey>,
    reserved: BTreeMap<String, Reserved>,
    templates: BTreeMap<TemplateVersion, PublishedTemplate>,
    jobs: BTreeMap<ReencryptionId, JobProgress>,
    shards: BTreeMap<ShardPlace, ShardCheckpoint>,
    backups: BTreeMap<(OrganisationName, String), Backup>,
    backups_heads: BTreeMap<OrganisationName, BackupsHead>,
    usage: BTreeMap<(OrganisationId, Date), Uses>,
    usage_ids: BTreeSet<Uuid>,
}

#[derive(Debug, Default)]
struct State {
    store: Store,
    store_faults: VecDeque<StoreError>,
    hints_unreadable: bool,
    /// Whether the next commit is the last thing for a while that the store does well.
    falls_ill: bool,
    ill: bool,
    call_faults: VecDeque<CallError>,
    probes: Vec<(ProbeMessage, SignedDuration)>,
    webhooks: Vec<(WebhookMessage, SignedDuration)>,
    fan_outs: Vec<(FanOut, SignedDuration)>,
    requeued: Vec<(OutboxRow, SignedDuration)>,
    data_keys: Vec<(DataKeyPage, SignedDuration)>,
    erasures: Vec<(ErasurePage, SignedDuration)>,
    newer: Vec<NewerDataKey>,
    steps: Vec<(JobStep, SignedDuration)>,
    shard_work: Vec<(ShardWork, SignedDuration)>,
    effects: Vec<OutboxRow>,
    orders: Vec<AppOrder>,
    /// What was not delivered, and whether somebody has it just now.
    undelivered: Vec<(SetAside, bool)>,
    probe_requests: Vec<ProbeRequest>,
    probe_answers: VecDeque<Result<ProbeAnswer, CallError>>,
}

/// The stores with the semantics of the DynamoDB ones; queues, bus and prober that record what they are given.
#[derive(Debug, Default)]
pub struct MemoryWorld(Mutex<State>);

impl MemoryWorld {
    /// Nothing stored.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A world with the same stored state that goes its own way: nothing recorded, no faults.
    #[must_use]
    pub fn fork(&self) -> Self {
        let store = self.state().store.clone();
        Self(Mutex::new(State { store, ..State::default() }))
    }

    /// The next *changes* of the store fail like this, one each, and change nothing.
    pub fn fail_changes(&self, faults: impl IntoIterator<Item = StoreError>) {
        self.state().store_faults.extend(faults);
    }

    /// From the next commit of a policy or an instance on, what is looked up beside them cannot be read.
    pub fn falls_ill_after_a_commit(&self) {
        self.state().falls_ill = true;
    }

    /// What is remembered of accounts' hints cannot be read.
    pub fn hints_are_unreadable(&self, unreadable: bool) {
        self.state().hints_unreadable = unreadable;
    }

    /// The next calls of queues and bus fail like this, one each.
    pub fn fail_calls(&self, faults: impl IntoIterator<Item = CallError>) {
        self.state().call_faults.extend(faults);
    }

    /// What the prober answers next. Without an answer it is not available.
    pub fn prober_answers(&self, answer: Result<ProbeAnswer, CallError>) {
        self.state().probe_answers.push_back(answer);
    }

    /// Probes queued so far, taken out.
    pub fn take_queued_probes(&self) -> Vec<(ProbeMessage, SignedDuration)> {
        std::mem::take(&mut self.state().probes)
    }

    /// Notices queued so far, taken out.
    pub fn take_queued_webhooks(&self) -> Vec<(WebhookMessage, SignedDuration)> {
        std::mem::take(&mut self.state().webhooks)
    }

    /// Pages of fan-outs queued so far, taken out.
    pub fn take_queued_fan_outs(&self) -> Vec<(FanOut, SignedDuration)> {
        std::mem::take(&mut self.state().fan_outs)
    }

    /// Pages of data keys queued so far, taken out.
    pub fn take_queued_data_keys(&self) -> Vec<(DataKeyPage, SignedDuration)> {
        std::mem::take(&mut self.state().data_keys)
    }

    /// Pages of erasures queued so far, taken out.
    pub fn take_queued_erasures(&self) -> Vec<(ErasurePage, SignedDuration)> {
        std::mem::take(&mut self.state().erasures)
    }

    /// Newer data keys asked for so far, taken out.
    pub fn take_asked_for_newer(&self) -> Vec<NewerDataKey> {
        std::mem::take(&mut self.state().newer)
    }

    /// Steps of re-encryptions queued so far, taken out.
    pub fn take_queued_steps(&self) -> Vec<(JobStep, SignedDuration)> {
        std::mem::take(&mut self.state().steps)
    }

    /// Work on shards queued so far, taken out.
    pub fn take_queued_shards(&self) -> Vec<(ShardWork, SignedDuration)> {
        std::mem::take(&mut self.state().shard_work)
    }

    /// Effects queued again so far, taken out.
    pub fn take_queued_effects(&self) -> Vec<(OutboxRow, SignedDuration)> {
        std::mem::take(&mut self.state().requeued)
    }

    /// Effects published so far, taken out.
    pub fn take_published_effects(&self) -> Vec<OutboxRow> {
        std::mem::take(&mut self.state().effects)
    }

    /// Orders to apps published so far, taken out.
    pub fn take_published_orders(&self) -> Vec<AppOrder> {
        std::mem::take(&mut self.state().orders)
    }

    /// Requests to the prober so far, taken out.
    pub fn take_probe_requests(&self) -> Vec<ProbeRequest> {
        std::mem::take(&mut self.state().probe_requests)
    }

    /// Something could not be delivered.
    pub fn set_aside(&self, body: impl Into<String>) {
        let state = &mut self.state();
        let receipt = format!("receipt-{}", state.undelivered.len());
        state.undelivered.push((SetAside { body: body.into(), receipt }, false));
    }

    /// What lies undelivered; whoever had some of it has it no more.
    pub fn still_undelivered(&self) -> Vec<String> {
        let state = &mut self.state();
        for (_, taken) in &mut state.undelivered {
            *taken = false;
        }
        state.undelivered.iter().map(|(message, _)| message.body.clone()).collect()
    }

    /// The outbox as it stands, oldest first.
    pub fn outbox(&self) -> Vec<OutboxRow> {
        let mut rows: Vec<OutboxRow> =
            self.state().store.outbox.values().map(|(_, row)| row.clone()).collect();
        rows.sort_by_key(|row| (row.created_at, row.id));
        rows
    }

    /// What the data plane reads of a policy; none while its fence never changed.
    pub fn fence(&self, policy: PolicyId) -> Option<FenceItem> {
        self.state().store.fences.get(&policy).cloned()
    }

    /// Every fact of an organisation, chain by chain.
    pub fn all_facts(&self, organisation: &OrganisationName) -> Vec<Fact> {
        let state = self.state();
        let facts = state.store.facts.iter().filter(|((name, _, _), _)| name == organisation);
        facts.map(|(_, fact)| Fact::clone(fact)).collect()
    }

    /// Puts a policy there as it is, without a decision: no fact, no claims.
    pub fn seed_policy(&self, policy: EncryptionPolicy) {
        let store = &mut self.state().store;
        if policy.lifecycle.is_watched() {
            store.watched.insert((policy.shard, policy.id), policy.clone());
        }
        if policy.fence != Fence::default() {
            let item = FenceItem { organisation: policy.organisation, fence: policy.fence.clone() };
            store.fences.insert(policy.id, item);
        }
        store.policies.insert(policy.organisation_name.clone(), policy);
    }

    /// Puts an instance there as it is, with its claims, without a decision.
    pub fn seed_instance(&self, instance: AppInstance) {
        let store = &mut self.state().store;
        let site = store
            .sites
            .entry(instance.site.clone())
            .or_insert_with(|| (instance.organisation_name.clone(), 0));
        site.1 += 1;
        store.places.insert((instance.site.clone(), instance.app.clone()), instance.id);
        store.instances.insert(instance.id, instance);
    }

    /// What a commit does.
    fn committed(&self, change: impl FnOnce(&mut Store) -> Result<(), StoreError>) -> Result<(), StoreError> {
        self.changed(change)?;
        let mut state = self.state();
        state.ill = state.falls_ill;
        Ok(())
    }

    fn well(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.state();
        if state.ill {
            return Err(StoreError::Unavailable { reason: "ill since the last commit".to_owned() });
        }
        Ok(state)
    }

    /// A change of the store: applied whole, or not at all.
    fn changed(&self, change: impl FnOnce(&mut Store) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut state = self.state();
        if let Some(fault) = state.store_faults.pop_front() {
            return Err(fault);
        }
        let mut next = state.store.clone();
        change(&mut next)?;
        state.store = next;
        Ok(())
    }

    fn called(&self, call: impl FnOnce(&mut State)) -> Result<(), CallError> {
        let mut state = self.state();
        if let Some(fault) = state.call_faults.pop_front() {
            return Err(fault);
        }
        call(&mut state);
        Ok(())
    }
}

const fn taken(what: &'static str) -> StoreError {
    StoreError::Taken { what }
}

fn require(holds: bool, otherwise: StoreError) -> Result<(), StoreError> {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// Entries in order, after the cursor, as a page.
fn page<T: Clone>(
    entries: impl Iterator<Item = (String, T)>,
    cursor: Option<&str>,
    limit: u16,
    newest_first: bool,
) -> Page<T> {
    let limit = usize::from(limit.clamp(1, 200));
    let after = |key: &str| match cursor {
        None => true,
        Some(cursor) if newest_first => key < cursor,
        Some(cursor) => key > cursor,
    };
    let mut found: Vec<(String, T)> = entries.filter(|(key, _)| after(key)).collect();
    found.sort_by(|(a, _), (b, _)| if newest_first { b.cmp(a) } else { a.cmp(b) });
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|(key, _)| key.clone());
    Page { items: found.into_iter().map(|(_, entry)| entry).collect(), next }
}

/// What was stored is known to the millisecond.
fn to_millis(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).expect("an instant is one to the millisecond too")
}

impl Store {
    fn is_as_read(&self, policy: &EncryptionPolicy) -> bool {
        let known = self.policies.get(&policy.organisation_name);
        known.is_some_and(|known| known.id == policy.id && known.version == policy.version)
    }

    fn add_data_key(&mut self, key: &WrappedDataKey) -> Result<(), StoreError> {
        let place = (key.instance, key.purpose.clone(), key.version);
        let same_id =
            self.data_keys.values().any(|known| known.instance == key.instance && known.id == key.id);
        require(!same_id && !self.data_keys.contains_key(&place), StoreError::Conflict)?;
        self.data_keys.insert(place, key.clone());
        Ok(())
    }

    fn remove_data_key(&mut self, known: &WrappedDataKey) -> Result<(), StoreError> {
        let place = (known.instance, known.purpose.clone(), known.version);
        require(self.data_keys.get(&place) == Some(known), StoreError::Conflict)?;
        self.data_keys.remove(&place);
        Ok(())
    }

    fn record(&mut self, fact: &Fact, outbox: &[OutboxRow]) -> Result<(), StoreError> {
        let key = (fact.organisation.clone(), fact.stream, fact.seq);
        require(!self.facts.contains_key(&key), StoreError::Conflict)?;
        self.facts.insert(key, Arc::new(fact.clone()));
        for row in outbox {
            self.outbox.insert((row.organisation.clone(), row.id), (row.created_at, row.clone()));
        }
        Ok(())
    }

    fn commit_policy(
        &mut self,
        previous: Option<&EncryptionPolicy>,
        decision: &Decision,
    ) -> Result<(), StoreError> {
        let next = &decision.next;
        let stored = self.policies.get(&next.organisation_name);
        match previous {
            None => {
                let free = stored.is_none_or(|policy| matches!(policy.lifecycle, Lifecycle::Rejected { .. }));
                require(free, taken("encryption-policy"))?;
            }
            Some(known) => {
                let same =
                    stored.is_some_and(|policy| policy.version == known.version && policy.id == known.id);
                require(same, StoreError::Conflict)?;
            }
        }
        self.claims(previous, next)?;
        self.record(&decision.fact, &decision.outbox)?;
        let before = previous.map(|policy| policy.fence.clone()).unwrap_or_default();
        if before != next.fence {
            let item = FenceItem { organisation: next.organisation, fence: next.fence.clone() };
            self.fences.insert(next.id, item);
        }
        if let Some(known) = previous {
            self.watched.remove(&(known.shard, known.id));
        }
        if next.lifecycle.is_watched() {
            self.watched.insert((next.shard, next.id), next.clone());
        }
        let before = previous.and_then(SupportRequest::of_policy).map(|request| request.id);
        self.request(before, SupportRequest::of_policy(next));
        self.policies.insert(next.organisation_name.clone(), next.clone());
        Ok(())
    }

    fn claims(
        &mut self,
        previous: Option<&EncryptionPolicy>,
        next: &EncryptionPolicy,
    ) -> Result<(), StoreError> {
        let holding = |policy: &&EncryptionPolicy| {
            !matches!(policy.lifecycle, Lifecycle::Rejected { .. } | Lifecycle::Closed { .. })
        };
        let (before, after) = (previous.filter(holding), Some(next).filter(holding));
        let keys = |policy: Option<&EncryptionPolicy>| -> BTreeSet<KeyArn> {
            policy.map(EncryptionPolicy::claimed_keys).unwrap_or_default()
        };
        let (had, has) = (keys(before), keys(after));
        for arn in has.difference(&had) {
            require(!self.keys.contains_key(arn), taken("keys"))?;
            self.keys.insert(arn.clone(), next.organisation_name.clone());
        }
        for arn in had.difference(&has) {
            self.keys.remove(arn);
        }
        let account = |policy: &EncryptionPolicy| (policy.account.clone(), policy.mode());
        let (had, has) = (before.map(account), after.map(account));
        if had == has {
            return Ok(());
        }
        let name = &next.organisation_name;
        if let Some((account, _)) = &had {
            let account = self.accounts.entry(account.clone()).or_default();
            account.exclusive = account.exclusive.take().filter(|owner| owner != name);
            account.users.remove(name);
        }
        if let Some((account, mode)) = &has {
            let account = self.accounts.entry(account.clone()).or_default();
            require(account.exclusive.is_none(), taken("awsAccountId"))?;
            match mode {
                Mode::Byok => {
                    require(account.users.is_empty(), taken("awsAccountId"))?;
                    account.exclusive = Some(name.clone());
                }
                Mode::Cmk => {
                    account.users.insert(name.clone());
                }
            }
        }
        Ok(())
    }

    fn place(&mut self, previous: Option<&AppInstance>, next: &AppInstance) -> Result<(), StoreError> {
        let holds = |instance: &AppInstance| instance.status.holds_place();
        let place = (next.site.clone(), next.app.clone());
        match (previous.is_some_and(holds), holds(next)) {
            (false, true) => {
                let site = self
                    .sites
                    .entry(next.site.clone())
                    .or_insert_with(|| (next.organisation_name.clone(), 0));
                require(site.0 == next.organisation_name || site.1 == 0, taken("site"))?;
                *site = (next.organisation_name.clone(), site.1 + 1);
                require(!self.places.contains_key(&place), taken("app"))?;
                self.places.insert(place, next.id);
            }
            (true, false) => {
                if let Some(site) = self.sites.get_mut(&next.site) {
                    site.1 -= 1;
                }
                self.places.remove(&place);
            }
            (true, true) | (false, false) => {}
        }
        Ok(())
    }

    /// An instance becomes active at the policy's epoch of this very moment.
    fn activation(&self, previous: Option<&AppInstance>, next: &AppInstance) -> Result<(), StoreError> {
        let was = previous.map(|instance| &instance.status);
        let (Some(InstanceStatus::Provisioning { .. }), InstanceStatus::Active { .. }, Some(id)) =
            (was, &next.status, next.policy)
        else {
            return Ok(());
        };
        let policy = self.policies.get(&next.organisation_name);
        let now = policy.is_some_and(|policy| policy.id == id && policy.fence.epoch == next.epoch);
        require(now, StoreError::Conflict)
    }

    fn request(&mut self, before: Option<Uuid>, after: Option<SupportRequest>) {
        match (before, after) {
            (_, Some(request)) => {
                self.requests.insert(request.id, request);
            }
            (Some(id), None) => {
                self.requests.remove(&id);
            }
            (None, None) => {}
        }
    }
}

#[async_trait]
impl Organisations for MemoryWorld {
    async fn organisation(&self, name: &OrganisationName) -> Result<Option<Organisation>, StoreError> {
        Ok(self.state().store.organisations.get(name).cloned())
    }

    async fn save_organisation(&self, organisation: &Organisation) -> Result<(), StoreError> {
        self.changed(|store| {
            let known = store.organisations.get(&organisation.name);
            let same = |known: &Organisation| {
                known.id == organisation.id && known.external_id == organisation.external_id
            };
            require(known.is_none_or(same), StoreError::Conflict)?;
            store.organisations.insert(organisation.name.clone(), organisation.clone());
            Ok(())
        })
    }
}

#[async_trait]
impl Policies for MemoryWorld {
    async fn policy(&self, organisation: &OrganisationName) -> Result<Option<EncryptionPolicy>, StoreError> {
        Ok(self.state().store.policies.get(organisation).cloned())
    }

    async fn policy_by_id(&self, id: PolicyId) -> Result<Option<EncryptionPolicy>, StoreError> {
        Ok(self.state().store.policies.values().find(|policy| policy.id == id).cloned())
    }

    async fn commit_policy(
        &self,
        previous: Option<&EncryptionPolicy>,
        decision: &Decision,
    ) -> Result<(), StoreError> {
        self.committed(|store| store.commit_policy(previous, decision))
    }

    async fn organisations_of_account(
        &self,
        account: &AccountId,
    ) -> Result<Vec<OrganisationName>, StoreError> {
        let state = self.state();
        let Some(account) = state.store.accounts.get(account) else {
            return Ok(Vec::new());
        };
        let mut names = account.users.clone();
        names.extend(account.exclusive.clone());
        Ok(names.into_iter().collect())
    }
}

#[async_trait]
impl Instances for MemoryWorld {
    async fn instance(&self, id: InstanceId) -> Result<Option<AppInstance>, StoreError> {
        Ok(self.state().store.instances.get(&id).cloned())
    }

    async fn instance_at(&self, site: &SiteName, app: &App) -> Result<Option<AppInstance>, StoreError> {
        let state = self.well()?;
        let id = state.store.places.get(&(site.clone(), app.clone()));
        Ok(id.and_then(|id| state.store.instances.get(id)).cloned())
    }

    async fn site_owner(&self, site: &SiteName) -> Result<Option<OrganisationName>, StoreError> {
        let state = self.state();
        let owner = state.store.sites.get(site).filter(|(_, apps)| *apps > 0);
        Ok(owner.map(|(owner, _)| owner.clone()))
    }

    async fn instances_of_site(&self, site: &SiteName) -> Result<Vec<AppInstance>, StoreError> {
        let state = self.state();
        let places = state.store.places.iter().filter(|((of, _), _)| of == site);
        Ok(places.filter_map(|(_, id)| state.store.instances.get(id)).cloned().collect())
    }

    async fn instances(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<AppInstance>, StoreError> {
        let state = self.state();
        let ours = state.store.instances.values().filter(|known| known.organisation_name == *organisation);
        Ok(page(ours.map(|instance| (instance.id.to_string(), instance.clone())), cursor, limit, false))
    }

    async fn commit_instance(
        &self,
        previous: Option<&AppInstance>,
        decision: &InstanceDecision,
    ) -> Result<(), StoreError> {
        let next = &decision.next;
        self.committed(|store| {
            let stored = store.instances.get(&next.id);
            let as_known = match previous {
                None => stored.is_none(),
                Some(known) => stored.is_some_and(|stored| stored.version == known.version),
            };
            require(as_known, StoreError::Conflict)?;
            store.place(previous, next)?;
            store.activation(previous, next)?;
            store.record(&decision.fact, &decision.outbox)?;
            let before = previous.and_then(SupportRequest::of_instance).map(|request| request.id);
            store.request(before, SupportRequest::of_instance(next));
            store.instances.insert(next.id, next.clone());
            Ok(())
        })
    }

    async fn commit_site(
        &self,
        from: &SiteName,
        to: &SiteName,
        renamed: &[(AppInstance, InstanceDecision)],
    ) -> Result<(), StoreError> {
        let Some((first, _)) = renamed.first() else {
            return Ok(());
        };
        self.changed(|store| {
            let whole = |(owner, apps): &(OrganisationName, u32)| {
                *owner == first.organisation_name && usize::try_from(*apps) == Ok(renamed.len())
            };
            require(store.sites.get(from).is_some_and(whole), StoreError::Conflict)?;
            require(store.sites.get(to).is_none_or(|(_, apps)| *apps == 0), taken("site"))?;
            store.sites.insert(from.clone(), (first.organisation_name.clone(), 0));
            let many = u32::try_from(renamed.len()).unwrap_or(u32::MAX);
            store.sites.insert(to.clone(), (first.organisation_name.clone(), many));
            for (previous, decision) in renamed {
                let next = &decision.next;
                let stored = store.instances.get(&next.id).map(|stored| stored.version);
                require(stored == Some(previous.version), StoreError::Conflict)?;
                let place = store.places.remove(&(from.clone(), next.app.clone()));
                require(place == Some(next.id), StoreError::Conflict)?;
                store.places.insert((to.clone(), next.app.clone()), next.id);
                store.record(&decision.fact, &decision.outbox)?;
                store.instances.insert(next.id, next.clone());
            }
            Ok(())
        })
    }
}

#[async_trait]
impl PendingErasures for MemoryWorld {
    async fn pending_erasures(
        &self,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<PendingErasure>, StoreError> {
        let state = self.state();
        let waiting = state.store.instances.values().filter_map(PendingErasure::of);
        Ok(page(waiting.map(|one| (one.instance.to_string(), one)), cursor, limit, false))
    }
}

#[async_trait]
impl SupportRequests for MemoryWorld {
    async fn support_requests(
        &self,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<SupportRequest>, StoreError> {
        let state = self.state();
        let open = state.store.requests.values();
        Ok(page(open.map(|request| (request.id.to_string(), request.clone())), cursor, limit, false))
    }

    async fn support_request(&self, id: Uuid) -> Result<Option<SupportRequest>, StoreError> {
        Ok(self.state().store.requests.get(&id).cloned())
    }
}

#[async_trait]
impl OverdueOrders for MemoryWorld {
    async fn unanswered(
        &self,
        organisation: &OrganisationName,
        told_before: Timestamp,
        named: usize,
    ) -> Result<Option<Unanswered>, StoreError> {
        let state = self.state();
        let ours = state.store.instances.values().filter(|one| one.organisation_name == *organisation);
        let waiting = ours.filter_map(|one| Some((to_millis(one.unanswered_since()?), one.id)));
        let mut late: Vec<_> = waiting.filter(|(since, _)| *since < to_millis(told_before)).collect();
        late.sort();
        Ok(late.first().map(|(oldest, _)| Unanswered {
            count: late.len() as u64,
            oldest: *oldest,
            first: late.iter().take(named).map(|(_, id)| *id).collect(),
        }))
    }

    async fn overdue_orders(
        &self,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<OverdueOrder>, StoreError> {
        let state = self.state();
        let all = state.store.overdue.values();
        Ok(page(all.map(|order| (order.policy.to_string(), order.clone())), cursor, limit, false))
    }

    async fn note_overdue(&self, order: &OverdueOrder) -> Result<(), StoreError> {
        self.changed(|store| {
            store.overdue.insert(order.policy, order.clone());
            Ok(())
        })
    }

    async fn overdue_no_more(&self, policy: PolicyId) -> Result<(), StoreError> {
        self.changed(|store| {
            store.overdue.remove(&policy);
            Ok(())
        })
    }
}

#[async_trait]
impl Tickets for MemoryWorld {
    async fn ticket(
        &self,
        organisation: &OrganisationName,
        id: TicketId,
    ) -> Result<Option<Ticket>, StoreError> {
        Ok(self.state().store.tickets.get(&(organisation.clone(), id)).cloned())
    }

    async fn tickets(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<Ticket>, StoreError> {
        let state = self.state();
        let ours = state.store.tickets.values().filter(|ticket| ticket.organisation == *organisation);
        Ok(page(ours.map(|ticket| (ticket.id.to_string(), ticket.clone())), cursor, limit, true))
    }

    async fn save_ticket(&self, ticket: &Ticket) -> Result<(), StoreError> {
        self.changed(|store| {
            let key = (ticket.organisation.clone(), ticket.id);
            let known = store.tickets.get(&key).map(|known| known.version);
            let expected = ticket.version.checked_sub(1).filter(|version| *version > 0);
            require(known == expected, StoreError::Conflict)?;
            store.tickets.insert(key, ticket.clone());
            Ok(())
        })
    }
}

#[async_trait]
impl Audit for MemoryWorld {
    async fn facts(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<Fact>, StoreError> {
        let facts = self.all_facts(organisation);
        let keyed = facts.into_iter().map(|fact| (format!("{}#{:012}", fact.stream, fact.seq), fact));
        Ok(page(keyed, cursor, limit, false))
    }
}

#[async_trait]
impl Outbox for MemoryWorld {
    async fn overdue_effects(&self, before: Timestamp, limit: u16) -> Result<Vec<OutboxRow>, StoreError> {
        let state = self.state();
        let late = |due: Timestamp| due.as_millisecond() < before.as_millisecond();
        let mut rows: Vec<_> = state.store.outbox.values().filter(|(due, _)| late(*due)).cloned().collect();
        rows.sort_by_key(|(due, row)| (due.as_millisecond(), row.id));
        rows.truncate(usize::from(limit));
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    async fn effect_done(&self, organisation: &OrganisationName, id: EffectId) -> Result<(), StoreError> {
        self.changed(|store| {
            store.outbox.remove(&(organisation.clone(), id));
            Ok(())
        })
    }

    async fn effect_failed(
        &self,
        organisation: &OrganisationName,
        id: EffectId,
        due: Timestamp,
    ) -> Result<(), StoreError> {
        self.changed(|store| {
            if let Some((known, _)) = store.outbox.get_mut(&(organisation.clone(), id)) {
                *known = due;
            }
            Ok(())
        })
    }
}

#[async_trait]
impl WatchList for MemoryWorld {
    async fn watched(&self, shard: ShardId) -> Result<Vec<WatchRow>, StoreError> {
        let state = self.state();
        let rows = state.store.watched.iter().filter(|((of, _), _)| *of == shard);
        Ok(rows.map(|(_, policy)| WatchRow { policy: policy.clone() }).collect())
    }

    async fn beat(&self, shard: ShardId, beat: &Beat) -> Result<(), StoreError> {
        self.changed(|store| {
            let beat = Beat {
                swept_at: to_millis(beat.swept_at),
                watched_until: to_millis(beat.watched_until),
                unproven: beat.unproven.iter().map(|(id, at)| (*id, to_millis(*at))).collect(),
                ..*beat
            };
            if store.beats.get(&shard).is_none_or(|known| known.swept_at <= beat.swept_at) {
                store.beats.insert(shard, beat);
            }
            Ok(())
        })
    }

    async fn last_beat(&self, shard: ShardId) -> Result<Option<Beat>, StoreError> {
        Ok(self.state().store.beats.get(&shard).cloned())
    }

    async fn planned_until(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.state().store.planned_until)
    }

    async fn plan_until(&self, until: Timestamp) -> Result<(), StoreError> {
        self.changed(|store| {
            store.planned_until = Some(to_millis(until));
            Ok(())
        })
    }
}

#[async_trait]
impl HintRecords for MemoryWorld {
    async fn hints_of(&self, account: &AccountId) -> Result<Option<HintRecord>, StoreError> {
        let state = self.state();
        if state.hints_unreadable {
            return Err(StoreError::Unavailable { reason: "hints".to_owned() });
        }
        Ok(state.store.hints.get(account).cloned())
    }

    async fn save_hints(
        &self,
        account: &AccountId,
        previous: Option<&HintRecord>,
        next: &HintRecord,
    ) -> Result<(), StoreError> {
        self.changed(|store| {
            if store.hints.get(account) != previous {
                return Err(StoreError::Conflict);
            }
            store.hints.insert(account.clone(), next.clone());
            Ok(())
        })
    }
}

#[async_trait]
impl Proofs for MemoryWorld {
    async fn proven_at(&self, policy: PolicyId) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.state().store.proofs.get(&policy).copied())
    }

    async fn record_proof(&self, policy: PolicyId, at: Timestamp) -> Result<(), StoreError> {
        self.changed(|store| {
            let at = to_millis(at);
            let known = store.proofs.entry(policy).or_insert(at);
            *known = at.max(*known);
            Ok(())
        })
    }

    async fn claim_proof(
        &self,
        policy: PolicyId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let changed = self.changed(|store| {
            if store.proof_claims.get(&policy).is_some_and(|claimed| *claimed > to_millis(now)) {
                return Err(StoreError::Conflict);
            }
            store.proof_claims.insert(policy, to_millis(until));
            Ok(())
        });
        match changed {
            Ok(()) => Ok(true),
            Err(StoreError::Conflict) => Ok(false),
            Err(other) => Err(other),
        }
    }
}

#[async_trait]
impl DataKeyRegistry for MemoryWorld {
    async fn data_key(
        &self,
        instance: InstanceId,
        purpose: &str,
        choice: DataKeyChoice,
    ) -> Result<Option<WrappedDataKey>, StoreError> {
        let state = self.state();
        let mut keys =
            state.store.data_keys.values().filter(|key| key.instance == instance && key.purpose == purpose);
        let found = match choice {
            DataKeyChoice::Current => keys.max_by_key(|key| key.version),
            DataKeyChoice::Id(id) => keys.find(|key| key.id == id),
            DataKeyChoice::Version(version) => keys.find(|key| key.version == version),
        };
        Ok(found.cloned())
    }

    async fn data_keys(&self, instance: InstanceId) -> Result<Vec<WrappedDataKey>, StoreError> {
        let state = self.state();
        let ours = state.store.data_keys.values().filter(|key| key.instance == instance);
        Ok(ours.cloned().collect())
    }

    async fn rewrap_data_key(&self, known: &WrappedDataKey, next: &WrappedDataKey) -> Result<(), StoreError> {
        self.changed(|store| {
            let place = (known.instance, known.purpose.clone(), known.version);
            require(store.data_keys.get(&place) == Some(known), StoreError::Conflict)?;
            store.data_keys.insert(place, next.clone());
            Ok(())
        })
    }

    async fn rewrap_data_key_of(
        &self,
        known: &WrappedDataKey,
        next: &WrappedDataKey,
        policy: &EncryptionPolicy,
    ) -> Result<(), StoreError> {
        self.changed(|store| {
            require(store.is_as_read(policy), StoreError::Conflict)?;
            let place = (known.instance, known.purpose.clone(), known.version);
            require(store.data_keys.get(&place) == Some(known), StoreError::Conflict)?;
            store.data_keys.insert(place, next.clone());
            Ok(())
        })
    }

    async fn erase_data_key(&self, key: &WrappedDataKey) -> Result<(), StoreError> {
        self.changed(|store| {
            store.data_keys.remove(&(key.instance, key.purpose.clone(), key.version));
            Ok(())
        })
    }

    async fn add_data_key(&self, key: &WrappedDataKey) -> Result<(), StoreError> {
        self.changed(|store| store.add_data_key(key))
    }

    async fn add_data_key_of(
        &self,
        key: &WrappedDataKey,
        policy: &EncryptionPolicy,
        instance: &AppInstance,
    ) -> Result<(), StoreError> {
        self.changed(|store| {
            let known = store.is_as_read(policy);
            let of = store.instances.get(&instance.id).filter(|of| of.version == instance.version);
            let of = of.is_some_and(|of| of.organisation_name == instance.organisation_name);
            require(known && of, StoreError::Conflict)?;
            store.add_data_key(key)
        })
    }

    async fn remove_data_key(&self, known: &WrappedDataKey) -> Result<(), StoreError> {
        self.changed(|store| store.remove_data_key(known))
    }
}

/// Whether a checkpoint of this version may follow the stored one.
fn follows(known: Option<u64>, version: u64) -> Result<(), StoreError> {
    require(known == version.checked_sub(1).filter(|before| *before > 0), StoreError::Conflict)
}

#[async_trait]
impl Checkpoints for MemoryWorld {
    async fn progress(&self, job: ReencryptionId) -> Result<Option<JobProgress>, StoreError> {
        Ok(self.well()?.store.jobs.get(&job).cloned())
    }

    async fn save_progress(&self, progress: &JobProgress) -> Result<(), StoreError> {
        self.changed(|store| {
            follows(store.jobs.get(&progress.job).map(|known| known.version), progress.version)?;
            store.jobs.insert(progress.job, progress.clone());
            Ok(())
        })
    }

    async fn shard(&self, at: ShardPlace) -> Result<Option<ShardCheckpoint>, StoreError> {
        Ok(self.state().store.shards.get(&at).cloned())
    }

    async fn shards(
        &self,
        job: ReencryptionId,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<ShardCheckpoint>, StoreError> {
        let state = self.state();
        let ours = state.store.shards.values().filter(|shard| shard.place.job == job);
        let name = |at: ShardPlace| format!("{}#{:03}", at.instance, at.index);
        Ok(page(ours.map(|shard| (name(shard.place), shard.clone())), cursor, limit, false))
    }

    async fn save_shard(&self, shard: &ShardCheckpoint) -> Result<(), StoreError> {
        self.changed(|store| {
            follows(store.shards.get(&shard.place).map(|known| known.version), shard.version)?;
            store.shards.insert(shard.place, shard.clone());
            Ok(())
        })
    }
}

#[async_trait]
impl Backups for MemoryWorld {
    async fn save_backup(&self, organisation: &OrganisationName, backup: &Backup) -> Result<(), StoreError> {
        self.changed(|store| {
            let head = store.backups_heads.entry(organisation.clone()).or_default();
            let from = head.taken_from.map(|from| from.as_millisecond());
            let in_time = from.is_none_or(|from| from <= backup.taken_at.as_millisecond());
            require(in_time, StoreError::DataKeysGone)?;
            head.version += 1;
            store.backups.insert((organisation.clone(), backup.id.clone()), backup.clone());
            Ok(())
        })
    }

    async fn backup(&self, organisation: &OrganisationName, id: &str) -> Result<Option<Backup>, StoreError> {
        Ok(self.state().store.backups.get(&(organisation.clone(), id.to_owned())).cloned())
    }

    async fn backups(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<Backup>, StoreError> {
        let state = self.well()?;
        let ours = state.store.backups.iter().filter(|((of, _), _)| of == organisation);
        Ok(page(ours.map(|((_, id), backup)| (id.clone(), backup.clone())), cursor, limit, false))
    }
}

#[async_trait]
impl DataKeyRemoval for MemoryWorld {
    async fn backups_head(&self, organisation: &OrganisationName) -> Result<BackupsHead, StoreError> {
        Ok(self.state().store.backups_heads.get(organisation).copied().unwrap_or_default())
    }

    async fn commit_removal(
        &self,
        previous: &EncryptionPolicy,
        decision: &Decision,
        head: &BackupsHead,
    ) -> Result<(), StoreError> {
        self.changed(|store| {
            store.commit_policy(Some(previous), decision)?;
            let known = store.backups_heads.entry(previous.organisation_name.clone()).or_default();
            require(known.version + 1 == head.version, StoreError::Conflict)?;
            *known = BackupsHead { taken_from: head.taken_from.map(to_millis), ..*head };
            Ok(())
        })
    }

    async fn remove_former(
        &self,
        organisation: &OrganisationName,
        known: &WrappedDataKey,
    ) -> Result<(), StoreError> {
        self.changed(|store| {
            let goes = store.backups_heads.get(organisation);
            require(goes.is_some_and(|head| head.removed_below > known.generation), StoreError::Conflict)?;
            store.remove_data_key(known)
        })
    }
}

#[async_trait]
impl UsageRecords for MemoryWorld {
    async fn add_usage(&self, delta: &UsageDelta) -> Result<(), StoreError> {
        self.changed(|store| {
            let mut uses = delta.uses.iter().filter(|(_, tally)| !tally.is_nothing()).peekable();
            if uses.peek().is_some() && store.usage_ids.insert(delta.id) {
                let day = store.usage.entry((delta.organisation, delta.day)).or_default();
                for (what, tally) in uses {
                    let known = day.entry(what.clone()).or_default();
                    *known = Tally::plus(*known, *tally);
                }
            }
            Ok(())
        })
    }

    async fn usage(
        &self,
        organisation: OrganisationId,
        from: Date,
        to: Date,
    ) -> Result<Vec<DayOfUse>, StoreError> {
        let state = self.state();
        let days = state.store.usage.range((organisation, from)..=(organisation, to));
        Ok(days.map(|((_, day), uses)| DayOfUse { day: *day, uses: uses.clone() }).collect())
    }
}

#[async_trait]
impl ReencryptionQueues for MemoryWorld {
    async fn queue_step(&self, step: &JobStep, delay: SignedDuration) -> Result<(), CallError> {
        self.called(|state| state.steps.push((step.clone(), delay)))
    }

    async fn queue_shards(&self, work: &[ShardWork], delay: SignedDuration) -> Result<(), CallError> {
        self.called(|state| state.shard_work.extend(work.iter().map(|one| (one.clone(), delay))))
    }
}

#[async_trait]
impl Idempotency for MemoryWorld {
    async fn reserve(&self, reserve: &Reserve<'_>) -> Result<Reservation, StoreError> {
        let mut outcome = Reservation::Granted;
        self.changed(|store| {
            if let Some(known) = store.reserved.get(reserve.place) {
                let forgotten = known.forgotten_at.as_second() <= reserve.now.as_second();
                let in_vain = known.answer.is_none() && known.until <= reserve.now;
                if !forgotten && !in_vain {
                    outcome = match &known.answer {
                        _ if known.request != reserve.request => Reservation::OtherRequest,
                        Some(answer) => Reservation::Answered(answer.clone()),
                        None => Reservation::InProgress,
                    };
                    return Ok(());
                }
            }
            let reserved = Reserved {
                request: reserve.request.to_owned(),
                holder: reserve.holder,
                until: to_millis(reserve.until),
                forgotten_at: reserve.forgotten_at,
                answer: None,
            };
            store.reserved.insert(reserve.place.to_owned(), reserved);
            Ok(())
        })?;
        Ok(outcome)
    }

    async fn keep_answer(&self, place: &str, holder: Uuid, answer: &KeptAnswer) -> Result<(), StoreError> {
        self.changed(|store| {
            let known = store.reserved.get_mut(place).filter(|known| known.holder == holder);
            known.ok_or(StoreError::Conflict)?.answer = Some(answer.clone());
            Ok(())
        })
    }

    async fn give_back(&self, place: &str, holder: Uuid) -> Result<(), StoreError> {
        self.changed(|store| {
            let ours = |known: &Reserved| known.holder == holder && known.answer.is_none();
            if store.reserved.get(place).is_some_and(ours) {
                store.reserved.remove(place);
            }
            Ok(())
        })
    }
}

#[async_trait]
impl Templates for MemoryWorld {
    async fn templates(&self) -> Result<Vec<PublishedTemplate>, StoreError> {
        Ok(self.state().store.templates.values().cloned().collect())
    }

    async fn add_template(&self, template: &PublishedTemplate) -> Result<(), StoreError> {
        self.changed(|store| {
            let version = &template.template.version;
            require(!store.templates.contains_key(version), StoreError::Conflict)?;
            store.templates.insert(version.clone(), template.clone());
            Ok(())
        })
    }

    async fn save_progress(&self, template: &PublishedTemplate) -> Result<(), StoreError> {
        self.changed(|store| {
            store.templates.insert(template.template.version.clone(), template.clone());
            Ok(())
        })
    }
}

#[async_trait]
impl ProbeQueue for MemoryWorld {
    async fn queue_probes(&self, messages: &[(ProbeMessage, SignedDuration)]) -> Result<(), CallError> {
        self.called(|state| state.probes.extend_from_slice(messages))
    }
}

#[async_trait]
impl WebhookQueue for MemoryWorld {
    async fn queue_webhook(&self, message: &WebhookMessage, delay: SignedDuration) -> Result<(), CallError> {
        self.called(|state| state.webhooks.push((message.clone(), delay)))
    }
}

impl NewerDataKeys for MemoryWorld {
    fn ask_for_newer(&self, wanted: NewerDataKey) {
        let _ = self.called(|state| state.newer.push(wanted));
    }
}

#[async_trait]
impl FanOutQueue for MemoryWorld {
    async fn queue_fan_out(&self, page: &FanOut, delay: SignedDuration) -> Result<(), CallError> {
        self.called(|state| state.fan_outs.push((page.clone(), delay)))
    }

    async fn queue_data_keys(&self, page: &DataKeyPage, delay: SignedDuration) -> Result<(), CallError> {
        self.called(|state| state.data_keys.push((page.clone(), delay)))
    }

    async fn queue_erasure(&self, page: &ErasurePage, delay: SignedDuration) -> Result<(), CallError> {
        self.called(|state| state.erasures.push((page.clone(), delay)))
    }

    async fn queue_effect(&self, row: &OutboxRow, delay: SignedDuration) -> Result<(), CallError> {
        self.called(|state| state.requeued.push((row.clone(), delay)))
    }
}

#[async_trait]
impl Bus for MemoryWorld {
    async fn publish_effect(&self, row: &OutboxRow) -> Result<(), CallError> {
        match row.effect {
            Effect::VerifyPolicy
            | Effect::ProvisionInstance { .. }
            | Effect::SuspendInstances { .. }
            | Effect::ProveRestoration
            | Effect::ReplaceKey { .. }
            | Effect::EraseDataKeys
            | Effect::EraseInstance { .. }
            | Effect::RemoveDataKeys { .. }
            | Effect::Reencrypt { .. }
            | Effect::RestoreInstances { .. } => self.called(|state| state.effects.push(row.clone())),
            Effect::OpenTicket { .. }
            | Effect::CommentTicket { .. }
            | Effect::ResolveTicket { .. }
            | Effect::TellApp { .. } => {
                let reason = "the outbox applies this effect itself".to_owned();
                Err(CallError { what: "the event bus", reason })
            }
        }
    }

    async fn publish_order(&self, order: &AppOrder) -> Result<(), CallError> {
        self.called(|state| state.orders.push(order.clone()))
    }
}

#[async_trait]
impl Undelivered for MemoryWorld {
    async fn set_aside(&self) -> Result<Vec<SetAside>, CallError> {
        let mut found = Vec::new();
        self.called(|state| {
            for (message, taken) in state.undelivered.iter_mut().filter(|(_, taken)| !taken).take(10) {
                *taken = true;
                found.push(message.clone());
            }
        })?;
        Ok(found)
    }

    async fn seen_to(&self, message: &SetAside) -> Result<(), CallError> {
        self.called(|state| state.undelivered.retain(|(known, _)| known.receipt != message.receipt))
    }
}

#[async_trait]
impl Prober for MemoryWorld {
    async fn probe(&self, request: &ProbeRequest) -> Result<ProbeAnswer, CallError> {
        let mut state = self.state();
        state.probe_requests.push(request.clone());
        state.probe_answers.pop_front().unwrap_or_else(|| {
            let reason = "the test gave it no answer".to_owned();
            Err(CallError { what: "the prober", reason })
        })
    }
}
