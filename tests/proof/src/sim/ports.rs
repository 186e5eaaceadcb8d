//! Every port of one invocation: the store in memory behind a network that takes time, fails before or after it did
//! what it was asked, and a process that may die between any two calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use claviger_app::check_enrolment::{CheckEnrolment, Checked};
use claviger_app::hint_budget::HintRecord;
use claviger_app::make_replacement::MakeReplacement;
use claviger_app::messages::{
    AppOrder, DataKeyPage, EncryptionContext, ErasurePage, FanOut, NewerDataKey, ProbeAnswer, ProbeMessage,
    ProbeRequest,
};
use claviger_app::ports::{
    Asking, Beat, Bus, CallError, Clock, ControlProbes, CustomerKeys, CustomerRoles, DataKeyChoice,
    DataKeyRegistry, FanOutQueue, HintRecords, Ids, Instances, KeyDescription, KeyError, KeyRef, NewKey,
    NewerDataKeys, Outbox, OverdueOrder, OverdueOrders, Page, PendingErasure, PendingErasures, Policies,
    ProbeQueue, Prober, Proofs, RoleSession, StoreError, SupportRequest, SupportRequests, Tickets, Timer,
    Trial, Unanswered, WatchList, WatchRow, WrappedDataKey,
};
use claviger_app::probe_keys::ProbeKeys;
use claviger_app::probe_now::ProbeNow;
use claviger_app::prove_permissions::ProvePermissions;
use claviger_app::unwrap_data_keys::UnwrapDataKeys;
use claviger_domain::catalogue::Mode;
use claviger_domain::decide::Decision;
use claviger_domain::effect::{Order, OutboxRow};
use claviger_domain::ids::{EffectId, InstanceId, OrganisationId, PolicyId, TicketId};
use claviger_domain::instance::{AppInstance, InstanceDecision};
use claviger_domain::key_access::{CustomerRole, RoleArn};
use claviger_domain::key_policy::KeyLabel;
use claviger_domain::observation::{NoAnswerKind, Observation, RefusalKind};
use claviger_domain::policy::{CONTEXT_PURPOSE, EncryptionPolicy, PURPOSE_CANARY};
use claviger_domain::ticket::Ticket;
use claviger_domain::values::{AccountId, App, KeyArn, OrganisationName, Region, ShardId, SiteName};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::kms::Standing;
use super::world::{Message, World, millis};
use crate::twin::Twin;

/// What goes wrong with one call of an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails and did nothing.
    Before,
    /// It did what it should, and its answer is lost.
    After,
    /// The process dies before the call.
    DeathBefore,
    /// The process dies after the call, before it knows.
    DeathAfter,
    /// Somebody else was at the same item.
    Conflict,
    /// It takes long.
    Slow,
    /// Nothing goes wrong, and the whole is done again.
    Again,
}

/// The ports of one invocation.
pub struct Ports {
    /// The world they are in.
    pub world: Arc<World>,
    order: Order,
    /// What is invoked, and for which time.
    name: &'static str,
    number: usize,
    fault: Option<(u32, Fault)>,
    calls: AtomicU32,
    dead: AtomicBool,
    hurt: AtomicBool,
    proves: AtomicBool,
}

/// What a customer's key decrypts something for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// To see whether it works.
    Canary,
    /// To prove that every data key can be had without another region, which an org admin asked for.
    Proof,
    /// Anything else.
    Work,
}

impl Ports {
    /// Ports that may fail once: as often as the world's chaos says, or where a run that looks at every step wants it.
    pub fn new(world: &Arc<World>, order: Order, name: &'static str) -> Arc<Self> {
        const FAULTS: [Fault; 6] = [
            Fault::Before,
            Fault::After,
            Fault::DeathBefore,
            Fault::DeathAfter,
            Fault::Conflict,
            Fault::Slow,
        ];
        let mut state = world.state();
        let chaos = state.chaos;
        let planned = state.steps.as_mut().map(|steps| steps.begins(name));
        let number = planned.map_or(0, |(number, _)| number);
        let fault = if let Some((_, fault)) = planned {
            fault
        } else if state.rng.per_mille(chaos) {
            let call = u32::try_from(state.rng.between(0, 14)).unwrap_or(0);
            state.rng.one_of(&FAULTS).map(|fault| (call, *fault))
        } else {
            None
        };
        drop(state);
        let world = Arc::clone(world);
        let [dead, hurt, proves] = [(); 3].map(|()| AtomicBool::new(false));
        Arc::new(Self { world, order, name, number, fault, calls: AtomicU32::new(0), dead, hurt, proves })
    }

    /// Whether the process died.
    pub fn died(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Whether all of it is to be done again.
    pub fn again(&self) -> bool {
        self.was_hurt() && self.fault.is_some_and(|(_, fault)| fault == Fault::Again)
    }

    /// Whether something was injected.
    pub fn was_hurt(&self) -> bool {
        self.hurt.load(Ordering::SeqCst)
    }

    pub(super) async fn die<T>(&self) -> T {
        self.dead.store(true, Ordering::SeqCst);
        std::future::pending().await
    }

    async fn on_the_way(&self) {
        let wait = self.world.between(1, 25);
        self.world.pause(wait).await;
    }

    pub(super) async fn enter(&self, what: &'static str) -> Option<Fault> {
        self.enter_with(what, "").await
    }

    async fn enter_with(&self, what: &'static str, which: &str) -> Option<Fault> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if let Some(steps) = self.world.state().steps.as_mut() {
            steps.called(self.name, self.number, call, what, which);
        }
        let fault = self.fault.filter(|(at, _)| *at == call).map(|(_, fault)| fault);
        if let Some(fault) = fault {
            self.hurt.store(true, Ordering::SeqCst);
            if let Some(steps) = self.world.state().steps.as_mut() {
                steps.struck = true;
            }
            self.world.fault(|| format!("{fault:?} at {what}"));
        }
        self.on_the_way().await;
        match fault {
            Some(Fault::DeathBefore) => self.die().await,
            Some(Fault::Slow) => {
                let wait = self.world.between(500, 8_000);
                self.world.pause(wait).await;
            }
            _ => {}
        }
        fault
    }

    /// A call of the store.
    pub async fn stored<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.stored_as(what, "", call).await
    }

    /// The same, of a call that is for something that has a name.
    async fn stored_as<T>(
        &self,
        what: &'static str,
        which: &str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let unavailable = || StoreError::Unavailable { reason: "injected".to_owned() };
        let fault = self.enter_with(what, which).await;
        if fault == Some(Fault::Before) {
            return Err(unavailable());
        }
        if fault == Some(Fault::Conflict) {
            // No transaction touches a checkpoint: who meets somebody there meets what is stored, be it by the client's own
            // repetition of a call. Where transactions are under way, a conflict may leave nothing behind.
            if what == "commit_shard" {
                call.await?;
            }
            return Err(if is_conditional(what) { StoreError::Conflict } else { unavailable() });
        }
        let result = call.await;
        match fault {
            Some(Fault::After) => return Err(unavailable()),
            Some(Fault::DeathAfter) => return self.die().await,
            _ => {}
        }
        self.on_the_way().await;
        result
    }

    /// A call of a queue or the bus.
    pub async fn called(&self, what: &'static str, call: impl FnOnce()) -> Result<(), CallError> {
        let failed = || CallError { what: "a queue", reason: "injected".to_owned() };
        let fault = self.enter(what).await;
        if matches!(fault, Some(Fault::Before | Fault::Conflict)) {
            return Err(failed());
        }
        call();
        match fault {
            Some(Fault::After) => Err(failed()),
            Some(Fault::DeathAfter) => self.die().await,
            _ => Ok(()),
        }
    }

    /// A call of KMS: what it met.
    async fn kms(&self, what: &'static str, way: KeyRef<'_>) -> (Observation, Standing) {
        let key = way.arn;
        let fault = self.enter(what).await;
        let slow = self.world.chance(30).then(|| self.world.between(50, 900));
        self.world.pause(slow.unwrap_or(10)).await;
        let now = self.world.now();
        let failing = match fault {
            Some(Fault::Before | Fault::Conflict) => Some(NoAnswerKind::Throttled),
            Some(Fault::After) => Some(NoAnswerKind::Unreachable),
            _ => self.world.kms.no_answer(key.region(), now),
        };
        let stale = self.world.chance(500);
        let kept = way.session == RoleSession::Kept && self.world.chance(500);
        let (seen, standing) = self.world.kms.meets(key, now, stale, kept);
        let Some(kind) = failing else {
            return (seen, standing);
        };
        self.world.troubled(0);
        if kind == NoAnswerKind::Unreachable {
            let patience = self.world.between(100, 5_000);
            self.world.pause(patience).await;
        }
        let seen = if self.world.is(Twin::ThrottlingIsRefusal) && kind == NoAnswerKind::Throttled {
            Observation::Refused(RefusalKind::KeyDisabled)
        } else {
            Observation::NoAnswer(kind)
        };
        (seen, standing)
    }

    /// One probe of a policy's keys.
    pub fn probe_keys(&self) -> ProbeKeys<'_> {
        ProbeKeys { keys: self, controls: self, registry: self, clock: self }
    }
}

/// Whether a call of the store fails where somebody else was at the same item: as the ports' own words say.
pub fn is_conditional(what: &str) -> bool {
    const OTHERS: [&str; 8] = [
        "save_backup",
        "save_ticket",
        "save_hints",
        "add_data_key",
        "rewrap_data_key",
        "rewrap_data_key_of",
        "remove_data_key",
        "remove_former",
    ];
    what.starts_with("commit") || OTHERS.contains(&what)
}

fn failed(observation: Observation) -> KeyError {
    KeyError { observation, code: format!("{observation:?}"), request_id: None }
}

impl Clock for Ports {
    fn now(&self) -> Timestamp {
        self.world.clock.now()
    }
}

#[async_trait]
impl Timer for Ports {
    async fn after(&self, wait: SignedDuration) {
        self.world.pause(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)).await;
    }
}

impl Ids for Ports {
    fn random(&self) -> Uuid {
        self.world.ids.random()
    }
}

#[async_trait]
impl CustomerKeys for Ports {
    async fn decrypt(
        &self,
        key: KeyRef<'_>,
        ciphertext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let (seen, _) = self.kms("Decrypt", key).await;
        if seen != Observation::Usable {
            self.on_the_way().await;
            return Err(failed(seen));
        }
        let plain = self.world.kms.vault.decrypt(key, ciphertext, context).await;
        self.world.kms.vault.forget_calls();
        if plain.is_ok() {
            let canary = context.get(CONTEXT_PURPOSE).is_some_and(|purpose| purpose == PURPOSE_CANARY);
            let why = if canary {
                Use::Canary
            } else if self.proves.load(Ordering::SeqCst) {
                Use::Proof
            } else {
                Use::Work
            };
            self.world.key_used(key.arn, why);
        }
        self.on_the_way().await;
        plain
    }

    async fn encrypt(
        &self,
        key: KeyRef<'_>,
        plaintext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Vec<u8>, KeyError> {
        let (seen, _) = self.kms("Encrypt", key).await;
        if seen != Observation::Usable {
            return Err(failed(seen));
        }
        self.world.kms.vault.encrypt(key, plaintext, context).await
    }

    async fn re_encrypt(
        &self,
        from: KeyRef<'_>,
        to: KeyRef<'_>,
        ciphertext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Vec<u8>, KeyError> {
        for key in [from, to] {
            let (seen, _) = self.kms("ReEncrypt", key).await;
            if seen != Observation::Usable {
                return Err(failed(seen));
            }
        }
        let moved = self.world.kms.vault.re_encrypt(from, to, ciphertext, context).await;
        self.world.kms.vault.forget_calls();
        if moved.is_ok() {
            self.world.key_used(from.arn, Use::Work);
        }
        moved
    }

    async fn generate_data_key(
        &self,
        key: KeyRef<'_>,
        context: &EncryptionContext,
    ) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), KeyError> {
        let (seen, _) = self.kms("GenerateDataKey", key).await;
        if seen != Observation::Usable {
            return Err(failed(seen));
        }
        self.world.kms.vault.generate_data_key(key, context).await
    }

    async fn dry_run(
        &self,
        key: KeyRef<'_>,
        trial: Trial<'_>,
        context: &EncryptionContext,
    ) -> Result<(), KeyError> {
        let (seen, _) = self.kms("DryRun", key).await;
        if seen != Observation::Usable {
            return Err(failed(seen));
        }
        self.world.kms.vault.dry_run(key, trial, context).await
    }

    async fn rotates(&self, key: KeyRef<'_>) -> Result<bool, KeyError> {
        let (seen, _) = self.kms("GetKeyRotationStatus", key).await;
        if seen == Observation::Usable { Ok(true) } else { Err(failed(seen)) }
    }

    async fn key_policy(&self, key: KeyRef<'_>) -> Result<serde_json::Value, KeyError> {
        self.world.kms.vault.key_policy(key).await
    }

    async fn describe(&self, key: KeyRef<'_>) -> Result<KeyDescription, KeyError> {
        let (seen, standing) = self.kms("DescribeKey", key).await;
        if matches!(seen, Observation::NoAnswer(_)) {
            return Err(failed(seen));
        }
        let state = match standing {
            Standing::Denied { blind: true } => {
                return Err(failed(Observation::Refused(RefusalKind::AccessDenied)));
            }
            Standing::RoleDenied => {
                return Err(failed(Observation::Refused(RefusalKind::RoleDenied)));
            }
            Standing::Deleted => return Err(failed(Observation::Refused(RefusalKind::KeyNotFound))),
            Standing::Usable | Standing::Denied { blind: false } => "Enabled",
            Standing::Disabled => "Disabled",
            Standing::PendingDeletion => "PendingDeletion",
        };
        let material = Some(self.world.kms.material());
        Ok(KeyDescription { state: state.to_owned(), material, ..claviger_testkit::a_description() })
    }
}

impl Ports {
    /// A call on the way through the key-management role of an account. What becomes of its answer is left to the
    /// caller.
    async fn role(
        &self,
        what: &'static str,
        role: &RoleArn,
        region: &Region,
    ) -> Result<Option<Fault>, KeyError> {
        let fault = self.enter(what).await;
        let now = self.world.now();
        let failing = match fault {
            Some(Fault::Before | Fault::Conflict) => Some(NoAnswerKind::Throttled),
            _ => self.world.kms.no_answer(region, now),
        };
        if let Some(kind) = failing {
            self.world.troubled(0);
            return Err(failed(Observation::NoAnswer(kind)));
        }
        if self.world.kms.is_untrusting(role.account()) {
            return Err(failed(Observation::Refused(RefusalKind::RoleDenied)));
        }
        Ok(fault)
    }

    /// The answer gets lost on its way back, or nobody is there any more to take it.
    async fn answered(&self, fault: Option<Fault>) -> Result<(), KeyError> {
        match fault {
            Some(Fault::After) => {
                self.world.troubled(0);
                Err(failed(Observation::NoAnswer(NoAnswerKind::Unreachable)))
            }
            Some(Fault::DeathAfter) => self.die().await,
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl CustomerRoles for Ports {
    async fn assume(
        &self,
        role: &RoleArn,
        asking: Asking<'_>,
        organisation: OrganisationId,
        region: &Region,
    ) -> Result<(), KeyError> {
        let fault = self.role("AssumeRole", role, region).await?;
        let answer = self.world.kms.vault.assume(role, asking, organisation, region).await;
        self.answered(fault).await?;
        answer
    }

    async fn find_key(
        &self,
        role: &CustomerRole,
        region: &Region,
        organisation: OrganisationId,
        label: KeyLabel,
    ) -> Result<Option<KeyArn>, KeyError> {
        let fault = self.role("ListAliases", &role.arn, region).await?;
        let found = self.world.kms.vault.find_key(role, region, organisation, label).await;
        self.answered(fault).await?;
        found
    }

    async fn make_key(
        &self,
        role: &CustomerRole,
        region: &Region,
        wanted: &NewKey,
    ) -> Result<KeyArn, KeyError> {
        let fault = self.role("CreateKey", &role.arn, region).await?;
        let made = self.world.kms.vault.make_key(role, region, wanted).await?;
        self.world.kms.exists(&made);
        {
            let mut state = self.world.state();
            let owner = state.orgs.iter().position(|org| org.id == wanted.organisation);
            state.owners.extend(owner.map(|owner| (made.clone(), owner)));
        }
        self.answered(fault).await?;
        Ok(made)
    }
}

#[async_trait]
impl ControlProbes for Ports {
    async fn control_is_healthy(&self, region: &Region, _mode: Mode, _template: &str) -> bool {
        let hurt = matches!(self.enter("control").await, Some(Fault::Before | Fault::After));
        let now = self.world.now();
        let down = hurt || self.world.kms.no_answer(region, now).is_some();
        if down {
            self.world.troubled(0);
        }
        !down && self.world.kms.control_is_healthy(region, now)
    }
}

#[async_trait]
impl Policies for Ports {
    async fn policy(&self, organisation: &OrganisationName) -> Result<Option<EncryptionPolicy>, StoreError> {
        self.stored("policy", self.world.store.policy(organisation)).await
    }

    async fn policy_by_id(&self, id: PolicyId) -> Result<Option<EncryptionPolicy>, StoreError> {
        self.stored("policy_by_id", self.world.store.policy_by_id(id)).await
    }

    async fn commit_policy(
        &self,
        previous: Option<&EncryptionPolicy>,
        decision: &Decision,
    ) -> Result<(), StoreError> {
        let commit = async {
            self.world.store.commit_policy(previous, decision).await?;
            self.world.policy_committed(previous, decision);
            Ok(())
        };
        self.stored_as("commit_policy", &decision.fact.slug, commit).await
    }

    async fn organisations_of_account(
        &self,
        account: &AccountId,
    ) -> Result<Vec<OrganisationName>, StoreError> {
        self.stored("organisations_of_account", self.world.store.organisations_of_account(account)).await
    }
}

#[async_trait]
impl Instances for Ports {
    async fn instance(&self, id: InstanceId) -> Result<Option<AppInstance>, StoreError> {
        self.stored("instance", self.world.store.instance(id)).await
    }

    async fn instance_at(&self, site: &SiteName, app: &App) -> Result<Option<AppInstance>, StoreError> {
        self.stored("instance_at", self.world.store.instance_at(site, app)).await
    }

    async fn site_owner(&self, site: &SiteName) -> Result<Option<OrganisationName>, StoreError> {
        self.stored("site_owner", self.world.store.site_owner(site)).await
    }

    async fn instances_of_site(&self, site: &SiteName) -> Result<Vec<AppInstance>, StoreError> {
        self.stored("instances_of_site", self.world.store.instances_of_site(site)).await
    }

    async fn instances(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<AppInstance>, StoreError> {
        // Two instances a page, so that fan-outs page.
        let limit = limit.min(2);
        self.stored("instances", self.world.store.instances(organisation, cursor, limit)).await
    }

    async fn commit_instance(
        &self,
        previous: Option<&AppInstance>,
        decision: &InstanceDecision,
    ) -> Result<(), StoreError> {
        let commit = async {
            self.world.store.commit_instance(previous, decision).await?;
            self.world.instance_committed(previous, decision);
            Ok(())
        };
        self.stored_as("commit_instance", &decision.fact.slug, commit).await
    }

    async fn commit_site(
        &self,
        from: &SiteName,
        to: &SiteName,
        renamed: &[(AppInstance, InstanceDecision)],
    ) -> Result<(), StoreError> {
        let commit = async {
            self.world.store.commit_site(from, to, renamed).await?;
            for (previous, decision) in renamed {
                self.world.instance_committed(Some(previous), decision);
            }
            Ok(())
        };
        self.stored("commit_site", commit).await
    }
}

#[async_trait]
impl SupportRequests for Ports {
    async fn support_requests(
        &self,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<SupportRequest>, StoreError> {
        self.stored("support_requests", self.world.store.support_requests(cursor, limit)).await
    }

    async fn support_request(&self, id: Uuid) -> Result<Option<SupportRequest>, StoreError> {
        self.stored("support_request", self.world.store.support_request(id)).await
    }
}

#[async_trait]
impl PendingErasures for Ports {
    async fn pending_erasures(
        &self,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<PendingErasure>, StoreError> {
        self.stored("pending_erasures", self.world.store.pending_erasures(cursor, limit)).await
    }
}

#[async_trait]
impl OverdueOrders for Ports {
    async fn unanswered(
        &self,
        organisation: &OrganisationName,
        told_before: Timestamp,
        named: usize,
    ) -> Result<Option<Unanswered>, StoreError> {
        let asked = self.world.store.unanswered(organisation, told_before, named);
        self.stored("unanswered", asked).await
    }

    async fn overdue_orders(
        &self,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<OverdueOrder>, StoreError> {
        self.stored("overdue_orders", self.world.store.overdue_orders(cursor, limit)).await
    }

    async fn note_overdue(&self, order: &OverdueOrder) -> Result<(), StoreError> {
        self.stored("note_overdue", self.world.store.note_overdue(order)).await
    }

    async fn overdue_no_more(&self, policy: PolicyId) -> Result<(), StoreError> {
        self.stored("overdue_no_more", self.world.store.overdue_no_more(policy)).await
    }
}

#[async_trait]
impl Tickets for Ports {
    async fn ticket(
        &self,
        organisation: &OrganisationName,
        id: TicketId,
    ) -> Result<Option<Ticket>, StoreError> {
        self.stored("ticket", self.world.store.ticket(organisation, id)).await
    }

    async fn tickets(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<Ticket>, StoreError> {
        self.stored("tickets", self.world.store.tickets(organisation, cursor, limit)).await
    }

    async fn save_ticket(&self, ticket: &Ticket) -> Result<(), StoreError> {
        let mut ticket = ticket.clone();
        if self.world.is(Twin::TicketForgetsEffects) {
            let ours = ticket.comments.iter_mut().filter(|comment| comment.effect.is_some());
            ours.for_each(|comment| comment.effect = Some(EffectId::from_uuid(self.world.ids.random())));
        }
        let ticket = &ticket;
        let save = async {
            self.world.store.save_ticket(ticket).await?;
            self.world.ticket_saved(ticket);
            Ok(())
        };
        self.stored("save_ticket", save).await
    }
}

#[async_trait]
impl Outbox for Ports {
    async fn overdue_effects(&self, before: Timestamp, limit: u16) -> Result<Vec<OutboxRow>, StoreError> {
        let found = self.stored("overdue_effects", self.world.store.overdue_effects(before, limit)).await?;
        // An index lags: rows that are done are still in it, new ones are not yet.
        let mut state = self.world.state();
        let as_before = std::mem::replace(&mut state.index_before, found.clone());
        let chaos = state.chaos;
        let stale = state.rng.per_mille(chaos * 4) && as_before != found;
        drop(state);
        if stale {
            self.world.fault(|| "the index of the outbox is from before".to_owned());
            return Ok(as_before);
        }
        Ok(found)
    }

    async fn effect_done(&self, organisation: &OrganisationName, id: EffectId) -> Result<(), StoreError> {
        self.stored("effect_done", self.world.store.effect_done(organisation, id)).await
    }

    async fn effect_failed(
        &self,
        organisation: &OrganisationName,
        id: EffectId,
        due: Timestamp,
    ) -> Result<(), StoreError> {
        self.stored("effect_failed", self.world.store.effect_failed(organisation, id, due)).await
    }
}

#[async_trait]
impl WatchList for Ports {
    async fn watched(&self, shard: ShardId) -> Result<Vec<WatchRow>, StoreError> {
        self.stored("watched", self.world.store.watched(shard)).await
    }

    async fn beat(&self, shard: ShardId, beat: &Beat) -> Result<(), StoreError> {
        let stored = async {
            self.world.store.beat(shard, beat).await?;
            self.world.beaten(shard, beat);
            Ok(())
        };
        self.stored("beat", stored).await
    }

    async fn last_beat(&self, shard: ShardId) -> Result<Option<Beat>, StoreError> {
        self.stored("last_beat", self.world.store.last_beat(shard)).await
    }

    async fn planned_until(&self) -> Result<Option<Timestamp>, StoreError> {
        self.stored("planned_until", self.world.store.planned_until()).await
    }

    async fn plan_until(&self, until: Timestamp) -> Result<(), StoreError> {
        self.stored("plan_until", self.world.store.plan_until(until)).await
    }
}

#[async_trait]
impl HintRecords for Ports {
    async fn hints_of(&self, account: &AccountId) -> Result<Option<HintRecord>, StoreError> {
        self.stored("hints_of", self.world.store.hints_of(account)).await
    }

    async fn save_hints(
        &self,
        account: &AccountId,
        previous: Option<&HintRecord>,
        next: &HintRecord,
    ) -> Result<(), StoreError> {
        self.stored("save_hints", self.world.store.save_hints(account, previous, next)).await
    }
}

#[async_trait]
impl Proofs for Ports {
    async fn proven_at(&self, policy: PolicyId) -> Result<Option<Timestamp>, StoreError> {
        self.stored("proven_at", self.world.store.proven_at(policy)).await
    }

    async fn record_proof(&self, policy: PolicyId, at: Timestamp) -> Result<(), StoreError> {
        self.stored("record_proof", self.world.store.record_proof(policy, at)).await
    }

    async fn claim_proof(
        &self,
        policy: PolicyId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        self.stored("claim_proof", self.world.store.claim_proof(policy, now, until)).await
    }
}

#[async_trait]
impl DataKeyRegistry for Ports {
    async fn data_key(
        &self,
        instance: InstanceId,
        purpose: &str,
        choice: DataKeyChoice,
    ) -> Result<Option<WrappedDataKey>, StoreError> {
        self.stored("data_key", self.world.store.data_key(instance, purpose, choice)).await
    }

    async fn data_keys(&self, instance: InstanceId) -> Result<Vec<WrappedDataKey>, StoreError> {
        self.stored("data_keys", self.world.store.data_keys(instance)).await
    }

    async fn rewrap_data_key(&self, known: &WrappedDataKey, next: &WrappedDataKey) -> Result<(), StoreError> {
        let mut next = next.clone();
        if self.world.is(Twin::NewWrapsInPlaceOfOld) && !next.second.is_empty() {
            next.wraps = std::mem::take(&mut next.second);
        }
        let rewrap = async {
            self.world.store.rewrap_data_key(known, &next).await?;
            self.world.data_key_changed(known.id);
            Ok(())
        };
        self.stored("rewrap_data_key", rewrap).await
    }

    async fn rewrap_data_key_of(
        &self,
        known: &WrappedDataKey,
        next: &WrappedDataKey,
        policy: &EncryptionPolicy,
    ) -> Result<(), StoreError> {
        let rewrap = async {
            self.world.store.rewrap_data_key_of(known, next, policy).await?;
            self.world.data_key_changed(known.id);
            Ok(())
        };
        self.stored("rewrap_data_key_of", rewrap).await
    }

    async fn erase_data_key(&self, key: &WrappedDataKey) -> Result<(), StoreError> {
        let erase = async {
            self.world.store.erase_data_key(key).await?;
            self.world.data_key_changed(key.id);
            Ok(())
        };
        self.stored("erase_data_key", erase).await
    }

    async fn add_data_key(&self, key: &WrappedDataKey) -> Result<(), StoreError> {
        let add = async {
            self.world.store.add_data_key(key).await?;
            let owner = self.world.store.instance(key.instance).await?.map(|instance| instance.organisation);
            if let Some(owner) = owner {
                self.world.state().data_keys.insert(key.id, (key.instance, owner));
            }
            Ok(())
        };
        self.stored("add_data_key", add).await
    }

    async fn add_data_key_of(
        &self,
        key: &WrappedDataKey,
        policy: &EncryptionPolicy,
        instance: &AppInstance,
    ) -> Result<(), StoreError> {
        let add = async {
            self.world.store.add_data_key_of(key, policy, instance).await?;
            self.world.state().data_keys.insert(key.id, (key.instance, instance.organisation));
            self.world.data_key_made(key);
            Ok(())
        };
        self.stored("add_data_key_of", add).await
    }

    async fn remove_data_key(&self, known: &WrappedDataKey) -> Result<(), StoreError> {
        let remove = async {
            self.world.store.remove_data_key(known).await?;
            self.world.data_key_changed(known.id);
            Ok(())
        };
        self.stored("remove_data_key", remove).await
    }
}

#[async_trait]
impl ProbeQueue for Ports {
    async fn queue_probes(&self, messages: &[(ProbeMessage, SignedDuration)]) -> Result<(), CallError> {
        self.called("queue_probes", || {
            for (message, delay) in messages {
                self.world.send(Message::Probe(message.clone()), millis(*delay));
            }
        })
        .await
    }
}

impl NewerDataKeys for Ports {
    fn ask_for_newer(&self, wanted: NewerDataKey) {
        self.world.note(|| format!("a newer version than {} was asked for", wanted.newer_than));
        self.world.send(Message::Newer(wanted), 0);
    }
}

#[async_trait]
impl FanOutQueue for Ports {
    async fn queue_fan_out(&self, page: &FanOut, delay: SignedDuration) -> Result<(), CallError> {
        let message = Message::Page(self.order, Box::new(page.clone()));
        self.called("queue_fan_out", || self.world.send(message, millis(delay))).await
    }

    async fn queue_data_keys(&self, page: &DataKeyPage, delay: SignedDuration) -> Result<(), CallError> {
        let message = Message::DataKeys(Box::new(page.clone()));
        self.called("queue_data_keys", || self.world.send(message, millis(delay))).await
    }

    async fn queue_erasure(&self, page: &ErasurePage, delay: SignedDuration) -> Result<(), CallError> {
        let message = Message::Erasure(Box::new(page.clone()));
        self.called("queue_erasure", || self.world.send(message, millis(delay))).await
    }

    async fn queue_effect(&self, row: &OutboxRow, delay: SignedDuration) -> Result<(), CallError> {
        let message = Message::Effect(Box::new(row.clone()));
        self.called("queue_effect", || self.world.send(message, millis(delay))).await
    }
}

#[async_trait]
impl Bus for Ports {
    async fn publish_effect(&self, row: &OutboxRow) -> Result<(), CallError> {
        let message = Message::Effect(Box::new(row.clone()));
        let publish = || {
            if std::mem::take(&mut self.world.state().comes_to_no_queue) {
                self.world.comes_to_no_queue(row);
            } else {
                self.world.send(message, 0);
            }
        };
        self.called("publish_effect", publish).await
    }

    async fn publish_order(&self, order: &AppOrder) -> Result<(), CallError> {
        let message = Message::Order(Box::new(order.clone()));
        self.called("publish_order", || self.world.send(message, 0)).await
    }
}

#[async_trait]
impl Prober for Ports {
    async fn probe(&self, request: &ProbeRequest) -> Result<ProbeAnswer, CallError> {
        let failed = |reason: String| CallError { what: "the prober", reason };
        if matches!(self.enter("probe").await, Some(Fault::Before | Fault::Conflict)) {
            return Err(failed("injected".to_owned()));
        }
        match request {
            ProbeRequest::ProbeNow { organisation, rounds } => {
                let now = ProbeNow { probe: self.probe_keys(), policies: self };
                let rounds = now.run(organisation, *rounds).await;
                Ok(ProbeAnswer::Probed { rounds: rounds.map_err(|error| failed(error.to_string()))? })
            }
            ProbeRequest::ProvePermissions { organisation, permissions } => {
                let prove = ProvePermissions { policies: self, keys: self };
                let checks = prove.run(organisation, permissions).await;
                Ok(ProbeAnswer::Checked { checks: checks.map_err(|error| failed(error.to_string()))? })
            }
            ProbeRequest::UnwrapDataKeys { organisation, region, cursor } => {
                let (probe, policies) = (self.probe_keys(), self);
                let unwrap = UnwrapDataKeys { probe, policies, instances: self, registry: self };
                self.proves.store(true, Ordering::SeqCst);
                let unwrapped = unwrap.run(organisation, region, cursor.as_deref()).await;
                self.proves.store(false, Ordering::SeqCst);
                unwrapped.map_err(|error| failed(error.to_string()))
            }
            ProbeRequest::MakeReplacement { organisation, region } => {
                let check = CheckEnrolment { keys: self, roles: self, ids: self };
                let made = MakeReplacement { policies: self, check }.run(organisation, region).await;
                made.map_err(|error| failed(error.to_string()))
            }
            ProbeRequest::Check { organisation, external_id, regions, enrolment, granted } => {
                let check = CheckEnrolment { keys: self, roles: self, ids: self };
                let whose = Checked { organisation: *organisation, external_id, regions };
                Ok(ProbeAnswer::Checked { checks: check.run(whose, enrolment, granted).await })
            }
        }
    }
}

/// What comes of work; nothing if the process that did it died.
pub async fn alive<T>(ports: &Ports, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| match work.as_mut().poll(context) {
        std::task::Poll::Ready(value) => std::task::Poll::Ready(Some(value)),
        std::task::Poll::Pending if ports.died() => std::task::Poll::Ready(None),
        std::task::Poll::Pending => std::task::Poll::Pending,
    })
    .await
}
