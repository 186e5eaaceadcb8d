//! The functions: each message is worked off by production's use case, as the functions' own `main.rs` wire it.

use std::sync::PoisonError;

use async_trait::async_trait;
use claviger_app::acknowledge_order::AcknowledgeOrder;
use claviger_app::carry_reencryption::CarryReencryption;
use claviger_app::check_enrolment::CheckEnrolment;
use claviger_app::deliver_effect::DeliverEffect;
use claviger_app::describe_keys::DescribeKeys;
use claviger_app::erase_data_keys::EraseDataKeys;
use claviger_app::erase_instance::EraseInstance;
use claviger_app::error::WorkError;
use claviger_app::fan_out::CarryOrder;
use claviger_app::follow_hint::FollowHint;
use claviger_app::hear_key_event::HearKeyEvent;
use claviger_app::make_data_key::MakeDataKey;
use claviger_app::make_newer_data_key::MakeNewerDataKey;
use claviger_app::messages::{FanOut, ProbeMessage};
use claviger_app::pass_deadlines::PassDeadlines;
use claviger_app::ports::{Clock, Records};
use claviger_app::prove_restoration::ProveRestoration;
use claviger_app::provision_instance::ProvisionInstance;
use claviger_app::reencryption::{RecordBatch, RecordsError, ShardCheckpoint};
use claviger_app::remove_data_keys::RemoveDataKeys;
use claviger_app::replace_key::ReplaceKey;
use claviger_app::report_probes::{Reason, ReportProbes};
use claviger_app::request_error::RequestError;
use claviger_app::rewrite_shard::RewriteShard;
use claviger_app::see_to_undelivered::SeeToUndelivered;
use claviger_app::sweep::{PlanSweeps, Sweep};
use claviger_app::verify_policy::VerifyPolicy;
use claviger_app::webhooks::{DeliverWebhook, Webhooks};
use claviger_domain::decide::Refusal;
use claviger_domain::effect::{Effect, Order, OutboxRow};
use claviger_domain::heard::HeardChange;
use claviger_domain::values::OrganisationName;
use claviger_reencrypt::VendorRecords;
use claviger_testkit::builders;
use jiff::SignedDuration;

use super::notices::{destinations, secret};
use super::ports::{Fault, Ports};
use super::world::{Message, settings};
use crate::twin::Twin;

/// How long an invocation of the worker has for batches.
const WORKS_FOR: SignedDuration = SignedDuration::from_secs(12);

/// How long an invocation of the prober has.
const SWEEPS_FOR: SignedDuration = SignedDuration::from_secs(26);

fn sweep(ports: &Ports) -> Sweep<'_> {
    let (report, settings) = (report(ports), settings());
    Sweep { report, watch: ports, queue: ports, ids: ports, clock: ports, timer: ports, settings }
}

fn report(ports: &Ports) -> ReportProbes<'_> {
    let (probe, settings) = (ports.probe_keys(), settings());
    ReportProbes { probe, policies: ports, hints: ports, queue: ports, watch: ports, clock: ports, settings }
}

fn describe(ports: &Ports) -> DescribeKeys<'_> {
    let (keys, settings) = (ports, settings());
    let check = CheckEnrolment { keys, roles: ports, ids: ports };
    DescribeKeys {
        policies: ports,
        watch: ports,
        instances: ports,
        registry: ports,
        keys,
        queue: ports,
        check,
        clock: ports,
        settings,
    }
}

fn make(ports: &Ports) -> MakeDataKey<'_> {
    MakeDataKey { registry: ports, keys: ports, ids: ports, clock: ports }
}

fn erase(ports: &Ports) -> EraseDataKeys<'_> {
    let (registry, settings) = (ports, settings());
    EraseDataKeys { policies: ports, instances: ports, registry, queue: ports, clock: ports, settings }
}

fn remove(ports: &Ports) -> RemoveDataKeys<'_> {
    let (policies, instances, registry, removal) = (ports, ports, ports, ports);
    RemoveDataKeys {
        policies,
        instances,
        registry,
        removal,
        queue: ports,
        clock: ports,
        settings: settings(),
    }
}

fn deliver(ports: &Ports) -> DeliverEffect<'_> {
    let webhooks = Webhooks { destinations: destinations(&ports.world), queue: Some(ports) };
    DeliverEffect { outbox: ports, tickets: ports, instances: ports, bus: ports, webhooks, clock: ports }
}

/// The minute tick of the prober.
pub async fn plan(ports: &Ports) -> Result<(), WorkError> {
    PlanSweeps { queue: ports, watch: ports, clock: ports, settings: settings() }.run().await.map(|_| ())
}

/// The minute tick of the outbox.
pub async fn sweep_outbox(ports: &Ports) -> Result<(), WorkError> {
    deliver(ports).sweep().await.map(|_| ())
}

/// The schedule that sees to what came to no queue.
pub async fn see_to_undelivered(ports: &Ports) -> Result<(), WorkError> {
    SeeToUndelivered { undelivered: ports, bus: ports }.run().await.map(drop)
}

/// The minute tick of the re-encryption's planner.
pub async fn take_up_jobs(ports: &Ports) -> Result<(), WorkError> {
    carry_job(ports).tick().await.map(drop)
}

/// The schedule of the deadlines.
pub async fn pass_deadlines(ports: &Ports) -> Result<(), WorkError> {
    let pass = PassDeadlines {
        policies: ports,
        watch: ports,
        requests: ports,
        templates: ports,
        instances: ports,
        overdue: ports,
        erasures: ports,
        backups: ports,
        removal: ports,
        ids: ports,
        clock: ports,
        settings: settings(),
    };
    pass.run().await.map(drop)
}

/// Works a message off.
pub async fn work(ports: &Ports, message: &Message) -> Result<(), WorkError> {
    match message {
        Message::Probe(ProbeMessage::Sweep { shard, due_at }) => {
            sweep(ports).run(*shard, *due_at, Clock::now(ports) + SWEEPS_FOR).await.map(|_| ())
        }
        Message::Probe(ProbeMessage::SweepRest(rest)) => {
            sweep(ports).rest(rest, Clock::now(ports) + SWEEPS_FOR).await.map(|_| ())
        }
        Message::Probe(ProbeMessage::Probe { organisation, attempt, data_key, heard, correlation }) => {
            let follow = FollowHint { report: report(ports), queue: ports, followed: &ports.world.followed };
            let reason = Reason { met: *data_key, heard: heard.clone(), mass_failure: None };
            follow.run(organisation, *attempt, &reason, *correlation).await
        }
        Message::Probe(ProbeMessage::FollowUp { organisation, due_at, heard, correlation }) => {
            let follow = FollowHint { report: report(ports), queue: ports, followed: &ports.world.followed };
            follow.when_due(organisation, *due_at, heard.clone(), *correlation).await
        }
        Message::Probe(ProbeMessage::Describe { shard }) => describe(ports).shard(*shard).await.map(drop),
        Message::Probe(ProbeMessage::DescribeKeys { organisation, correlation }) => {
            describe(ports).of_organisation(organisation, *correlation).await.map(drop)
        }
        Message::Stream(row) => deliver(ports).run(row).await,
        Message::Effect(row) => effect(ports, row).await,
        Message::Page(order, page) => carry(ports, *order, page).await,
        Message::DataKeys(page) => match &page.row.effect {
            Effect::ReplaceKey { .. } => replace(ports).page(page).await,
            _ => prove(ports).page(page).await,
        },
        Message::Erasure(page) => match &page.row.effect {
            Effect::RemoveDataKeys { .. } => remove(ports).page(page).await,
            _ => erase(ports).page(page).await,
        },
        Message::Newer(wanted) => {
            let (instances, policies, make) = (ports, ports, make(ports));
            let newer = MakeNewerDataKey { instances, policies, make, settings: settings() };
            newer.run(wanted).await.map(drop)
        }
        Message::Order(order) => take_order(ports, order).await,
        Message::KeyEvent(account) => {
            let heard =
                HeardChange { slug: "key-disabled".to_owned(), by: None, at: None, key: None, role: None };
            let hear = HearKeyEvent { policies: ports, hints: ports, queue: ports, ids: ports, clock: ports };
            hear.run(account, &heard).await.map(drop)
        }
        Message::Step(step) => carry_job(ports).step(step).await,
        Message::Shard(shard) => {
            let worker = ports.world.worker.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let records = worker.ok_or(WorkError::NotNow { reason: "the worker does not run" })?;
            let records = Worker { ports, records: &records };
            let rewrite = RewriteShard {
                policies: ports,
                instances: ports,
                checkpoints: ports,
                records: &records,
                queue: ports,
                ids: ports,
                clock: ports,
            };
            rewrite.run(shard, WORKS_FOR).await
        }
        Message::Notice(notice) => {
            let secret = secret();
            let destinations = destinations(&ports.world);
            let (sender, queue, clock) = (ports, ports, ports);
            DeliverWebhook { destinations, secret: &secret, sender, queue, clock }.run(notice).await
        }
    }
}

/// The vendor's records, on the way to which the worker's calls fail like any others.
struct Worker<'a> {
    ports: &'a Ports,
    records: &'a VendorRecords,
}

impl Worker<'_> {
    async fn called<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, RecordsError>>,
    ) -> Result<T, RecordsError> {
        let fault = self.ports.enter(what).await;
        if matches!(fault, Some(Fault::Before | Fault::Conflict)) {
            return Err(RecordsError::TemporarilyUnavailable);
        }
        let answer = call.await;
        match fault {
            Some(Fault::After) => Err(RecordsError::TemporarilyUnavailable),
            Some(Fault::DeathAfter) => self.ports.die().await,
            _ => answer,
        }
    }
}

#[async_trait]
impl Records for Worker<'_> {
    async fn batch(
        &self,
        of: &ShardCheckpoint,
        organisation: &OrganisationName,
        generation: u32,
        scan: bool,
    ) -> Result<RecordBatch, RecordsError> {
        self.called("batch", self.records.batch(of, organisation, generation, scan)).await
    }

    async fn estimate(
        &self,
        of: &ShardCheckpoint,
        organisation: &OrganisationName,
    ) -> Result<Option<u64>, RecordsError> {
        self.called("estimate", self.records.estimate(of, organisation)).await
    }
}

fn carry_job(ports: &Ports) -> CarryReencryption<'_> {
    CarryReencryption {
        policies: ports,
        watch: ports,
        instances: ports,
        registry: ports,
        keys: ports,
        probe: ports.probe_keys(),
        checkpoints: ports,
        backups: ports,
        check: CheckEnrolment { keys: ports, roles: ports, ids: ports },
        queue: ports,
        ids: ports,
        clock: ports,
        settings: settings(),
    }
}

fn prove(ports: &Ports) -> ProveRestoration<'_> {
    let (clock, settings) = (ports, settings());
    ProveRestoration { policies: ports, prober: ports, queue: ports, clock, settings }
}

fn replace(ports: &Ports) -> ReplaceKey<'_> {
    ReplaceKey {
        policies: ports,
        instances: ports,
        registry: ports,
        keys: ports,
        probe: ports.probe_keys(),
        queue: ports,
        ids: ports,
        clock: ports,
        settings: settings(),
    }
}

async fn effect(ports: &Ports, row: &OutboxRow) -> Result<(), WorkError> {
    let settings = settings();
    match &row.effect {
        Effect::VerifyPolicy => {
            let probe = ports.probe_keys();
            let check = CheckEnrolment { keys: ports, roles: ports, ids: ports };
            let verify = VerifyPolicy {
                organisations: ports,
                policies: ports,
                keys: ports,
                check,
                probe,
                ids: ports,
                clock: ports,
                settings,
            };
            verify.run(&row.organisation, row.correlation).await
        }
        Effect::ProvisionInstance { instance } => {
            let (organisations, instances, policies, make) = (ports, ports, ports, make(ports));
            let provision =
                ProvisionInstance { organisations, instances, policies, make, clock: ports, settings };
            provision.run(*instance, row.correlation).await
        }
        Effect::SuspendInstances { epoch } => carry(ports, Order::Suspend, &FanOut::root(row, *epoch)).await,
        Effect::RestoreInstances { epoch } => carry(ports, Order::Restore, &FanOut::root(row, *epoch)).await,
        Effect::ProveRestoration => prove(ports).run(row).await,
        Effect::ReplaceKey { .. } => replace(ports).run(row).await,
        Effect::EraseDataKeys => erase(ports).run(row).await,
        Effect::RemoveDataKeys { .. } => remove(ports).run(row).await,
        Effect::Reencrypt { .. } => carry_job(ports).run(row).await,
        Effect::EraseInstance { .. } => {
            let (registry, clock) = (ports, ports);
            EraseInstance { instances: ports, registry, queue: ports, clock }.run(row).await
        }
        // The outbox applies the others itself; replayed by somebody, they reach no function.
        Effect::OpenTicket { .. }
        | Effect::CommentTicket { .. }
        | Effect::ResolveTicket { .. }
        | Effect::TellApp { .. } => Ok(()),
    }
}

async fn carry(ports: &Ports, order: Order, page: &FanOut) -> Result<(), WorkError> {
    let (clock, settings) = (ports, settings());
    let carry = CarryOrder { policies: ports, instances: ports, queue: ports, clock, settings };
    let mut page = page.clone();
    if ports.world.is(Twin::EpochIgnored)
        && let Some(policy) =
            claviger_app::ports::Policies::policy(&ports.world.store, &page.organisation).await?
    {
        page.epoch = page.epoch.max(policy.fence.epoch.next());
    }
    carry.run(order, &page).await
}

/// An app of the vendor's: it ignores what is not newer than what it knows, and answers.
async fn take_order(ports: &Ports, order: &claviger_app::messages::AppOrder) -> Result<(), WorkError> {
    {
        let mut state = ports.world.state();
        let app = state.apps.entry(order.instance_id).or_default();
        if order.epoch.0 > app.epoch {
            app.epoch = order.epoch.0;
            app.stopped = order.order == "suspend";
        }
    }
    let acknowledge = AcknowledgeOrder { instances: ports, clock: ports };
    let origin = builders::by_claviger();
    match acknowledge.run(&order.organisation, order.instance_id, order.epoch, 0, &origin).await {
        // Overtaken by the next order, or a forged one.
        Ok(_) | Err(RequestError::Refused(Refusal::Stale | Refusal::IllegalForState { .. })) => Ok(()),
        Err(RequestError::Store(error)) => Err(error.into()),
        Err(_) => Err(WorkError::NotNow { reason: "the answer was not taken" }),
    }
}
