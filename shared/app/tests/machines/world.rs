//! A vendor with its functions, and one enrolled organisation with an instance.

use async_trait::async_trait;
use claviger_app::check_enrolment::CheckEnrolment;
use claviger_app::deliver_effect::DeliverEffect;
use claviger_app::erase_data_keys::EraseDataKeys;
use claviger_app::erase_instance::EraseInstance;
use claviger_app::error::WorkError;
use claviger_app::fan_out::CarryOrder;
use claviger_app::follow_hint::{FollowHint, FollowedRefusals};
use claviger_app::hand_out_data_key::{HandOutDataKey, HandOutError, HandedOut, KeyRequest, UnwrappedKeys};
use claviger_app::make_data_key::MakeDataKey;
use claviger_app::make_newer_data_key::{MakeNewerDataKey, Renewal};
use claviger_app::make_replacement::MakeReplacement;
use claviger_app::messages::{FanOut, NewerDataKey, ProbeAnswer, ProbeMessage, ProbeRequest};
use claviger_app::ports::{CallError, DataKeyChoice, Instances, Organisations, Policies, Prober, Tickets};
use claviger_app::probe_keys::ProbeKeys;
use claviger_app::probe_now::ProbeNow;
use claviger_app::prove_permissions::ProvePermissions;
use claviger_app::prove_restoration::ProveRestoration;
use claviger_app::provision_instance::ProvisionInstance;
use claviger_app::remove_data_keys::RemoveDataKeys;
use claviger_app::replace_key::ReplaceKey;
use claviger_app::report_probes::{Reason, ReportProbes};
use claviger_app::settings::Settings;
use claviger_app::sweep::{Sweep, Swept};
use claviger_app::unwrap_data_keys::UnwrapDataKeys;
use claviger_app::verify_policy::VerifyPolicy;
use claviger_app::webhooks::Webhooks;
use claviger_domain::decide::decide;
use claviger_domain::effect::{Effect, Order, OutboxRow};
use claviger_domain::enrolment::Enrolment;
use claviger_domain::event::PolicyEvent;
use claviger_domain::ids::{CorrelationId, InstanceId};
use claviger_domain::instance::AppInstance;
use claviger_domain::key_access::RoleArn;
use claviger_domain::observation::{Observation, RefusalKind};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::ticket::Ticket;
use claviger_domain::values::{KeyArn, OrganisationName, Region, ShardId};
use claviger_testkit::{FakeClock, FakeKeys, MemoryWorld, SequentialIds, builders};
use jiff::SignedDuration;

pub const USABLE: Observation = Observation::Usable;
pub const DISABLED: Observation = Observation::Refused(RefusalKind::KeyDisabled);
pub const DENIED: Observation = Observation::Refused(RefusalKind::AccessDenied);
pub const NOTES_ROLE: &str = "arn:aws:iam::111111111111:role/notes-app";
const ACCOUNT: &str = "222222222222";

pub struct World {
    pub store: MemoryWorld,
    pub keys: FakeKeys,
    pub clock: FakeClock,
    pub ids: SequentialIds,
    pub cache: UnwrappedKeys,
    pub followed: FollowedRefusals,
    pub destinations: Vec<String>,
    home: Region,
}

pub fn correlation() -> CorrelationId {
    CorrelationId::from_uuid(SequentialIds::uuid(0xc1))
}

/// The prober as `api` and `restorer` reach it.
pub struct Direct<'a>(pub &'a World);

#[async_trait]
impl Prober for Direct<'_> {
    async fn probe(&self, request: &ProbeRequest) -> Result<ProbeAnswer, CallError> {
        let store = &self.0.store;
        let answer = match request {
            ProbeRequest::ProbeNow { organisation, rounds } => {
                let now = ProbeNow { probe: self.0.probe(), policies: store };
                now.run(organisation, *rounds).await.map(|rounds| ProbeAnswer::Probed { rounds })
            }
            ProbeRequest::UnwrapDataKeys { organisation, region, cursor } => {
                let probe = self.0.probe();
                let unwrap = UnwrapDataKeys { probe, policies: store, instances: store, registry: store };
                unwrap.run(organisation, region, cursor.as_deref()).await
            }
            ProbeRequest::ProvePermissions { organisation, permissions } => {
                let prove = ProvePermissions { policies: store, keys: &self.0.keys };
                let checks = prove.run(organisation, permissions).await;
                checks.map(|checks| ProbeAnswer::Checked { checks })
            }
            ProbeRequest::MakeReplacement { organisation, region } => {
                let check = CheckEnrolment { keys: &self.0.keys, roles: &self.0.keys, ids: &self.0.ids };
                MakeReplacement { policies: store, check }.run(organisation, region).await
            }
            ProbeRequest::Check { .. } => panic!("nobody enrols here"),
        };
        answer.map_err(|error| CallError { what: "key-prober", reason: error.to_string() })
    }
}

impl World {
    /// `acme` in realm Europe, active, with Jira on `acme-eng`, provisioned by the functions themselves.
    pub async fn with_acme() -> Self {
        let world = Self::empty();
        let organisation = builders::an_organisation("acme");
        for region in ["eu-central-1", "eu-west-1"] {
            let key = builders::a_key(ACCOUNT, region, 1);
            world.keys.create(&key);
            world.keys.bind(&key, organisation.id);
        }
        world.approved(&builders::an_enrolment(ACCOUNT, "europe")).await;
        world.settled().await
    }

    /// The same with a key-management role in place of keys: the functions make them.
    pub async fn with_byok_acme() -> Self {
        let world = Self::byok_approved().await;
        world.drain().await;
        world.settled().await
    }

    /// Approved, and nothing made yet.
    pub async fn byok_approved() -> Self {
        let world = Self::empty();
        let organisation = builders::an_organisation("acme");
        world.keys.create_role(&world.role(), Some(&organisation.external_id));
        world.approved(&builders::a_byok_enrolment(ACCOUNT, "europe")).await;
        world
    }

    pub fn role(&self) -> RoleArn {
        builders::a_role(ACCOUNT)
    }

    fn empty() -> Self {
        Self {
            store: MemoryWorld::new(),
            keys: FakeKeys::new(),
            clock: FakeClock::at("2026-11-23T09:00:00Z"),
            ids: SequentialIds::default(),
            cache: UnwrappedKeys::new(),
            followed: FollowedRefusals::default(),
            destinations: Vec::new(),
            home: builders::parsed("eu-central-1"),
        }
    }

    async fn approved(&self, enrolment: &Enrolment) {
        let organisation = builders::an_organisation("acme");
        self.store.save_organisation(&organisation).await.unwrap();
        let asked = builders::an_enrolment_decision(&organisation, enrolment, self.now());
        self.store.commit_policy(None, &asked).await.unwrap();
        let approved = builders::approval(&asked.next, self.now());
        self.store.commit_policy(Some(&asked.next), &approved).await.unwrap();
    }

    async fn settled(self) -> Self {
        let world = self;
        world.drain().await;
        let policy = world.policy().await;
        let asked = builders::an_instance_decision(&policy, "acme-eng", "jira", world.now());
        world.store.commit_instance(None, &asked).await.unwrap();
        let event = claviger_domain::event::InstanceEvent::InstanceApproved;
        let approved = builders::instance_decided(&asked.next, &event, &builders::by_support(), world.now());
        world.store.commit_instance(Some(&asked.next), &approved).await.unwrap();
        world.drain().await;
        world.later(60);
        world
    }

    pub fn settings(&self) -> &'static Settings {
        builders::settings()
    }

    pub fn now(&self) -> jiff::Timestamp {
        claviger_app::ports::Clock::now(&self.clock)
    }

    pub fn later(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
    }

    pub fn name(&self) -> OrganisationName {
        builders::parsed("acme")
    }

    pub fn key(&self, region: &str) -> KeyArn {
        builders::a_key(ACCOUNT, region, 1)
    }

    /// Both keys answer this from now on.
    pub fn keys_answer(&self, answer: Observation) {
        for region in ["eu-central-1", "eu-west-1"] {
            let key = self.key(region);
            if self.keys.has(&key) {
                self.keys.answer(&key, answer);
            }
        }
    }

    pub async fn policy(&self) -> EncryptionPolicy {
        self.store.policy(&self.name()).await.unwrap().unwrap()
    }

    pub async fn instances(&self) -> Vec<AppInstance> {
        Instances::instances(&self.store, &self.name(), None, 200).await.unwrap().items
    }

    pub async fn tickets(&self) -> Vec<Ticket> {
        Tickets::tickets(&self.store, &self.name(), None, 200).await.unwrap().items
    }

    pub fn probe(&self) -> ProbeKeys<'_> {
        ProbeKeys { keys: &self.keys, controls: &self.keys, registry: &self.store, clock: &self.clock }
    }

    pub fn report(&self) -> ReportProbes<'_> {
        let settings = self.settings();
        ReportProbes {
            probe: self.probe(),
            policies: &self.store,
            hints: &self.store,
            queue: &self.store,
            watch: &self.store,
            clock: &self.clock,
            settings,
        }
    }

    pub async fn sweep(&self) -> Result<Swept, WorkError> {
        self.sweep_shard(self.policy().await.shard).await
    }

    pub async fn sweep_shard(&self, shard: ShardId) -> Result<Swept, WorkError> {
        self.sweep_due(shard, self.now()).await
    }

    pub async fn sweep_due(&self, shard: ShardId, due_at: jiff::Timestamp) -> Result<Swept, WorkError> {
        let sweep = Sweep {
            report: self.report(),
            watch: &self.store,
            queue: &self.store,
            ids: &self.ids,
            clock: &self.clock,
            timer: &self.clock,
            settings: self.settings(),
        };
        sweep.run(shard, due_at, self.now() + SignedDuration::from_secs(30)).await
    }

    pub async fn hinted(&self) -> Result<(), WorkError> {
        self.hinted_by(&Reason::default()).await
    }

    pub async fn hinted_by(&self, reason: &Reason) -> Result<(), WorkError> {
        let follow = FollowHint { report: self.report(), queue: &self.store, followed: &self.followed };
        follow.run(&self.name(), 0, reason, correlation()).await
    }

    /// Another organisation, with an account of its own.
    pub async fn enrol_globex(&self, account: &str) {
        let (globex, enrolment) =
            (builders::an_organisation("globex"), builders::an_enrolment(account, "germany"));
        let decision = builders::an_enrolment_decision(&globex, &enrolment, self.now());
        self.store.commit_policy(None, &decision).await.unwrap();
    }

    pub async fn follow_up(&self, due_at: jiff::Timestamp) -> Result<(), WorkError> {
        self.follow_up_of(&self.name(), due_at).await
    }

    pub async fn follow_up_of(
        &self,
        organisation: &OrganisationName,
        due_at: jiff::Timestamp,
    ) -> Result<(), WorkError> {
        let follow = FollowHint { report: self.report(), queue: &self.store, followed: &self.followed };
        follow.when_due(organisation, due_at, Vec::new(), correlation()).await
    }

    /// The follow-up as it was queued.
    pub async fn follow_up_as_queued(&self, message: &ProbeMessage) -> Result<(), WorkError> {
        let ProbeMessage::FollowUp { organisation, due_at, heard, correlation } = message else {
            panic!("{message:?} is no follow-up");
        };
        let follow = FollowHint { report: self.report(), queue: &self.store, followed: &self.followed };
        follow.when_due(organisation, *due_at, heard.clone(), *correlation).await
    }

    pub fn carry(&self) -> CarryOrder<'_> {
        CarryOrder {
            policies: &self.store,
            instances: &self.store,
            queue: &self.store,
            clock: &self.clock,
            settings: self.settings(),
        }
    }

    pub fn deliver(&self) -> DeliverEffect<'_> {
        DeliverEffect {
            outbox: &self.store,
            tickets: &self.store,
            instances: &self.store,
            bus: &self.store,
            webhooks: Webhooks { destinations: &self.destinations, queue: Some(&self.store) },
            clock: &self.clock,
        }
    }

    pub async fn work(&self, row: &OutboxRow) -> Result<(), WorkError> {
        let settings = self.settings();
        match &row.effect {
            Effect::VerifyPolicy => {
                let verify = VerifyPolicy {
                    organisations: &self.store,
                    policies: &self.store,
                    keys: &self.keys,
                    check: CheckEnrolment { keys: &self.keys, roles: &self.keys, ids: &self.ids },
                    probe: self.probe(),
                    ids: &self.ids,
                    clock: &self.clock,
                    settings,
                };
                verify.run(&row.organisation, row.correlation).await
            }
            Effect::ProvisionInstance { instance } => self.provision(*instance).await,
            Effect::SuspendInstances { epoch } => {
                self.carry().run(Order::Suspend, &FanOut::root(row, *epoch)).await
            }
            Effect::RestoreInstances { epoch } => {
                self.carry().run(Order::Restore, &FanOut::root(row, *epoch)).await
            }
            Effect::ProveRestoration => {
                let prober = Direct(self);
                let prove = ProveRestoration {
                    policies: &self.store,
                    prober: &prober,
                    queue: &self.store,
                    clock: &self.clock,
                    settings,
                };
                prove.run(row).await
            }
            Effect::EraseDataKeys => self.erase().run(row).await,
            Effect::EraseInstance { .. } => self.erase_instance().run(row).await,
            Effect::RemoveDataKeys { .. } => self.remove().run(row).await,
            Effect::ReplaceKey { .. } => {
                let replace = ReplaceKey {
                    policies: &self.store,
                    instances: &self.store,
                    registry: &self.store,
                    keys: &self.keys,
                    probe: self.probe(),
                    queue: &self.store,
                    ids: &self.ids,
                    clock: &self.clock,
                    settings,
                };
                replace.run(row).await
            }
            other => panic!("{other:?} is not worked off by a function"),
        }
    }

    pub fn erase_instance(&self) -> EraseInstance<'_> {
        EraseInstance {
            instances: &self.store,
            registry: &self.store,
            queue: &self.store,
            clock: &self.clock,
        }
    }

    pub fn remove(&self) -> RemoveDataKeys<'_> {
        RemoveDataKeys {
            policies: &self.store,
            instances: &self.store,
            registry: &self.store,
            removal: &self.store,
            queue: &self.store,
            clock: &self.clock,
            settings: self.settings(),
        }
    }

    pub fn erase(&self) -> EraseDataKeys<'_> {
        EraseDataKeys {
            policies: &self.store,
            instances: &self.store,
            registry: &self.store,
            queue: &self.store,
            clock: &self.clock,
            settings: self.settings(),
        }
    }

    pub async fn provision(&self, instance: InstanceId) -> Result<(), WorkError> {
        let provision = ProvisionInstance {
            organisations: &self.store,
            instances: &self.store,
            policies: &self.store,
            make: self.make(),
            clock: &self.clock,
            settings: self.settings(),
        };
        provision.run(instance, correlation()).await
    }

    pub fn make(&self) -> MakeDataKey<'_> {
        MakeDataKey { registry: &self.store, keys: &self.keys, ids: &self.ids, clock: &self.clock }
    }

    pub async fn makes_newer(&self, wanted: &NewerDataKey) -> Result<Renewal, WorkError> {
        let newer = MakeNewerDataKey {
            instances: &self.store,
            policies: &self.store,
            make: self.make(),
            settings: self.settings(),
        };
        newer.run(wanted).await
    }

    /// Delivers and works off everything that waits, until nothing does. What fails is tried again.
    pub async fn drain(&self) {
        let mut waiting: Vec<OutboxRow> = Vec::new();
        for _ in 0..200 {
            for row in self.store.outbox() {
                let _ = self.deliver().run(&row).await;
            }
            waiting.extend(self.store.take_published_effects());
            let mut failed = Vec::new();
            for row in waiting.drain(..) {
                if self.work(&row).await.is_err() {
                    failed.push(row);
                }
            }
            waiting = failed;
            waiting.extend(self.store.take_queued_effects().into_iter().map(|(row, _)| row));
            let order = |policy: &EncryptionPolicy| {
                if policy.fence.is_open() { Order::Restore } else { Order::Suspend }
            };
            for (page, _) in self.store.take_queued_fan_outs() {
                self.carry().run(order(&self.policy().await), &page).await.unwrap();
            }
            if waiting.is_empty() && self.store.outbox().is_empty() {
                return;
            }
            self.later(1);
        }
        panic!("it never comes to rest: {waiting:?}");
    }

    /// The customer disables both keys and the sweep finds it.
    pub async fn cut_off(&self) {
        self.keys_answer(DISABLED);
        self.sweep().await.unwrap();
        self.drain().await;
        assert!(!self.policy().await.fence.is_open());
        self.later(60);
    }

    /// The customer gives both keys back and an org admin asks for restoration.
    pub async fn ask_for_restoration(&self) {
        self.keys_answer(USABLE);
        let policy = self.policy().await;
        let round = self.probe().round(&policy).await;
        let event =
            PolicyEvent::RestorationRequested { ticket: policy.ticket.unwrap(), round, into_degraded: false };
        let decision =
            decide(&builders::rules(), &policy, &event, &builders::by_admin(), self.now()).unwrap();
        self.store.commit_policy(Some(&policy), &decision).await.unwrap();
        self.later(1);
    }

    pub async fn restore(&self) {
        self.ask_for_restoration().await;
        self.drain().await;
        assert!(self.policy().await.fence.is_open());
    }

    pub async fn asks_for_key(&self) -> Result<HandedOut, HandOutError> {
        self.asks_for_key_as(NOTES_ROLE, "acme", DataKeyChoice::Current).await
    }

    /// As the library does that has used this version for long or often.
    pub async fn asks_for_newer(&self, than: u32) -> Result<HandedOut, HandOutError> {
        self.asks(NOTES_ROLE, "acme", DataKeyChoice::Current, Some(than)).await
    }

    pub async fn asks_for_key_as(
        &self,
        role: &str,
        organisation: &str,
        choice: DataKeyChoice,
    ) -> Result<HandedOut, HandOutError> {
        self.asks(role, organisation, choice, None).await
    }

    async fn asks(
        &self,
        role: &str,
        organisation: &str,
        choice: DataKeyChoice,
        newer_than: Option<u32>,
    ) -> Result<HandedOut, HandOutError> {
        let broker = HandOutDataKey {
            policies: &self.store,
            instances: &self.store,
            registry: &self.store,
            keys: &self.keys,
            hints: &self.store,
            newer: &self.store,
            cache: &self.cache,
            lifetime: SignedDuration::from_mins(5),
            home: &self.home,
            ids: &self.ids,
            clock: &self.clock,
            settings: self.settings(),
        };
        let request = KeyRequest {
            caller_role: role.to_owned(),
            organisation: builders::parsed(organisation),
            site: builders::parsed("acme-eng"),
            app: builders::parsed("jira"),
            choice,
            newer_than,
        };
        broker.run(&request).await
    }
}
