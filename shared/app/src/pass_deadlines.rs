//! What comes due by the clock alone: reminders and phases of restoration windows, lapsing, and work that is
//! overdue (spec S3, E10), access requests that nobody opened (spec K1), the erasure of what was kept after its site was
//! deleted, and the removal of data keys that the last backup needed (spec X4). A reconciler: it reads the base table, finds what is due and does it; a run that is
//! missed, doubled or broken off changes nothing but the hour.

use std::collections::BTreeSet;

use claviger_domain::closing::due as due_of;
use claviger_domain::decide::{Refusal, Rules, decide, due_moment};
use claviger_domain::event::{Actor, InstanceEvent, LastBackup, Origin, PolicyEvent};
use claviger_domain::fence::Cause;
use claviger_domain::ids::{CorrelationId, PolicyId};
use claviger_domain::instance::decide_instance;
use claviger_domain::policy::{EncryptionPolicy, Lifecycle};
use claviger_domain::values::ShardId;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};

use crate::access_requests::{not_asked, opened};
use crate::error::{ATTEMPTS, WorkError};
use crate::ports::{
    Backups, BackupsHead, Clock, DataKeyRemoval, Ids, Instances, OverdueOrder, OverdueOrders, PendingErasure,
    PendingErasures, Policies, PublishedTemplate, StoreError, SupportRequest, SupportRequests, Templates,
    WatchList,
};
use crate::settings::Settings;
use crate::show_reencryption::all_backups;

/// Entries of a page of what is read.
const PAGE: u16 = 200;
/// How many policies' instances are asked for at once.
const AT_ONCE: usize = 16;
/// How many of the instances that did not answer are named.
const NAMED: usize = 20;
/// How many access requests one run opens at most; the next goes on.
const MOST_ASKED: u64 = 200;

/// What a run found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Reminders and beginnings of phases that were told.
    pub told: u64,
    /// Policies that lapsed.
    pub lapsed: u64,
    /// Policies that could not be seen to; the next run does.
    pub failed: u64,
    /// Requests that wait for support, or were approved and are not done, past their due date.
    pub overdue_requests: u64,
    /// Instances whose app has not answered an order to suspend in time, and orders that are stuck on their way.
    pub overdue_orders: u64,
    /// Instances of deleted sites that are gone, or whose data keys began to be deleted.
    pub erasures: u64,
    /// Organisations whose data keys of former generations began to be removed.
    pub removals: u64,
    /// Access requests that were opened with who has enrolled since the template was published.
    pub asked: u64,
}

/// Sees to what is due.
pub struct PassDeadlines<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Every policy in use, in the base table.
    pub watch: &'a dyn WatchList,
    /// What waits for support, or to be worked off.
    pub requests: &'a dyn SupportRequests,
    /// Where key-policy templates are.
    pub templates: &'a dyn Templates,
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// Instances that wait for an answer, and where orders that nobody answered are listed.
    pub overdue: &'a dyn OverdueOrders,
    /// Which instances wait for their erasure.
    pub erasures: &'a dyn PendingErasures,
    /// What the vendor keeps of old data.
    pub backups: &'a dyn Backups,
    /// What says that data keys of former generations go.
    pub removal: &'a dyn DataKeyRemoval,
    /// Identifiers.
    pub ids: &'a dyn Ids,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl PassDeadlines<'_> {
    /// One run over everything.
    ///
    /// # Errors
    /// When a list cannot be read. A single policy that fails is counted and left to the next run.
    pub async fn run(&self) -> Result<Passed, WorkError> {
        let origin = Origin {
            actor: Actor::Claviger("deadlines".to_owned()),
            correlation: CorrelationId::from_uuid(self.ids.random()),
        };
        let mut passed = Passed { overdue_requests: self.overdue_requests().await?, ..Passed::default() };
        let templates = self.templates.templates().await?;
        let mut overdue: BTreeSet<PolicyId> = BTreeSet::new();
        for shard in 0..self.settings.shards {
            let rows = self.watch.watched(ShardId(shard)).await?;
            for row in &rows {
                if let Err(error) = self.window(&row.policy, &origin, &mut passed).await {
                    tracing::warn!(policy.id = %row.policy.id, ?error, "a policy's window could not be seen to");
                    passed.failed = passed.failed.saturating_add(1);
                }
                if let Err(error) = self.ask(&row.policy, &templates, &origin, &mut passed).await {
                    tracing::warn!(policy.id = %row.policy.id, ?error, "an access request could not be opened");
                    passed.failed = passed.failed.saturating_add(1);
                }
                match self.remove(&row.policy, &origin).await {
                    Ok(true) => passed.removals = passed.removals.saturating_add(1),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(policy.id = %row.policy.id, ?error, "a removal of old data keys could not begin");
                        passed.failed = passed.failed.saturating_add(1);
                    }
                }
            }
            let asked = stream::iter(&rows).map(|row| self.unanswered(&row.policy)).buffer_unordered(AT_ONCE);
            let late: Vec<Option<OverdueOrder>> = asked.try_collect().await?;
            for order in late.iter().flatten() {
                // An order that is stuck is one too, though nobody was told yet.
                let overdue_here = order.unanswered.max(1);
                passed.overdue_orders = passed.overdue_orders.saturating_add(overdue_here);
                overdue.insert(order.policy);
                self.overdue.note_overdue(order).await?;
            }
        }
        self.forget_all_but(&overdue).await?;
        self.erase(&origin, &mut passed).await?;
        Ok(passed)
    }

    /// Opens the access requests that a policy has not: it was activated when the publishing had come by, or the publishing
    /// broke off.
    async fn ask(
        &self,
        policy: &EncryptionPolicy,
        templates: &[PublishedTemplate],
        origin: &Origin,
        passed: &mut Passed,
    ) -> Result<(), StoreError> {
        let name = &policy.organisation_name;
        for template in not_asked(policy, templates) {
            if passed.asked >= MOST_ASKED {
                return Ok(());
            }
            if opened(self.policies, self.settings, self.clock, name, template, origin).await? {
                passed.asked = passed.asked.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Begins the erasure of what was kept long enough after its site was deleted.
    async fn erase(&self, origin: &Origin, passed: &mut Passed) -> Result<(), WorkError> {
        let mut cursor = None;
        loop {
            let page = self.erasures.pending_erasures(cursor.as_deref(), PAGE).await?;
            for waits in page.items.iter().filter(|waits| waits.erase_at <= self.clock.now()) {
                match self.erase_one(waits, origin).await {
                    Ok(true) => passed.erasures = passed.erasures.saturating_add(1),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(instance.id = %waits.instance, ?error, "an erasure could not begin");
                        passed.failed = passed.failed.saturating_add(1);
                    }
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    async fn erase_one(&self, waits: &PendingErasure, origin: &Origin) -> Result<bool, WorkError> {
        // A job moves records by their data keys: it is through with the instance first.
        let policy = self.policies.policy(&waits.organisation).await?;
        if policy.is_some_and(|policy| policy.reencryption.is_some()) {
            return Ok(false);
        }
        for _ in 0..ATTEMPTS {
            let Some(instance) = self.instances.instance(waits.instance).await? else {
                return Ok(false);
            };
            let due = InstanceEvent::SiteDeletionDue;
            let decision = match decide_instance(&instance, &due, origin, self.clock.now()) {
                Ok(decision) => decision,
                Err(Refusal::Redundant | Refusal::Stale | Refusal::IllegalForState { .. }) => {
                    return Ok(false);
                }
                Err(other) => return Err(other.into()),
            };
            match self.instances.commit_instance(Some(&instance), &decision).await {
                Ok(()) => return Ok(true),
                Err(StoreError::Conflict) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Begins the removal of data keys that the last backup needed. Backups are asked for only where nothing of the policy's
    /// own is in the way; who was faster at any of it is left to the next run.
    async fn remove(&self, known: &EncryptionPolicy, origin: &Origin) -> Result<bool, WorkError> {
        let kept = known.former_keys.iter().filter(|former| former.data_keys.are_kept());
        if !kept.map(|former| former.generation).any(|of| known.moved_on_from(of).is_ok()) {
            return Ok(false);
        }
        // INVARIANT (I6): the head before the backups, so that whatever is registered meanwhile makes the commit fail.
        let head = self.removal.backups_head(&known.organisation_name).await?;
        let Some(policy) = self.policies.policy(&known.organisation_name).await? else {
            return Ok(false);
        };
        let backups = all_backups(self.backups, &known.organisation_name).await?;
        let (rules, now) = (self.settings.rules(), self.clock.now());
        // Newest first: what goes for one goes for every older one.
        let kept = policy.former_keys.iter().rev().filter(|former| former.data_keys.are_kept());
        let found = kept.map(|former| former.generation).find_map(|generation| {
            let freed = policy.frees_data_keys(generation, &backups, rules.in_transit, now);
            freed.ok().map(|freed| (generation, freed))
        });
        let Some((generation, freed)) = found else {
            return Ok(false);
        };
        let last_backup =
            freed.last.map(|last| LastBackup { id: last.id.clone(), expires_at: last.expires_at });
        let event = PolicyEvent::DataKeysExpired { generation, by: freed.by.job.id, last_backup };
        let decision = match decide(&rules, &policy, &event, origin, now) {
            Ok(decision) => decision,
            Err(Refusal::Redundant | Refusal::Stale | Refusal::IllegalForState { .. }) => return Ok(false),
            Err(other) => return Err(other.into()),
        };
        let next = BackupsHead {
            version: head.version.saturating_add(1),
            removed_below: head.removed_below.max(generation.saturating_add(1)),
            taken_from: head.taken_from.max(Some(freed.by.at)),
        };
        match self.removal.commit_removal(&policy, &decision, &next).await {
            Ok(()) => {
                tracing::info!(policy.id = %policy.id, generation, "nothing needs old data keys any more");
                Ok(true)
            }
            Err(StoreError::Conflict) => Ok(false),
            Err(other) => Err(other.into()),
        }
    }

    /// Tells what is due of one policy's window, on the policy as it is now.
    async fn window(
        &self,
        known: &EncryptionPolicy,
        origin: &Origin,
        passed: &mut Passed,
    ) -> Result<(), WorkError> {
        let rules = self.settings.rules();
        if due(&rules, known, self.clock.now()).is_none() {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            let Some(policy) = self.policies.policy(&known.organisation_name).await? else {
                return Ok(());
            };
            let now = self.clock.now();
            let Some(event) = due(&rules, &policy, now) else {
                return Ok(());
            };
            let decision = match decide(&rules, &policy, &event, origin, now) {
                Ok(decision) => decision,
                Err(Refusal::Redundant | Refusal::Stale | Refusal::IllegalForState { .. }) => return Ok(()),
                Err(other) => return Err(other.into()),
            };
            match self.policies.commit_policy(Some(&policy), &decision).await {
                Ok(()) => {
                    passed.told = passed.told.saturating_add(1);
                    if decision.next.lifecycle.slug() != policy.lifecycle.slug() {
                        passed.lapsed = passed.lapsed.saturating_add(1);
                        tracing::warn!(policy.id = %policy.id, "a restoration window is over");
                    }
                    if decision.next.fence.causes.len() > policy.fence.causes.len() {
                        tracing::warn!(policy.id = %policy.id, "the time for an export is over");
                    }
                    return Ok(());
                }
                Err(StoreError::Conflict) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    async fn overdue_requests(&self) -> Result<u64, WorkError> {
        let (mut cursor, mut overdue) = (None, 0_u64);
        loop {
            let page = self.requests.support_requests(cursor.as_deref(), PAGE).await?;
            let now = self.clock.now();
            for request in page.items.iter().filter(|request| request.due_at < now) {
                // Nothing is made any more for an organisation that left: nobody waits for it.
                if request.approved && self.has_left(request).await? {
                    continue;
                }
                overdue = overdue.saturating_add(1);
                tracing::warn!(request.id = %request.id, due_at = %request.due_at, "a request is overdue");
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(overdue);
            }
        }
    }

    async fn has_left(&self, request: &SupportRequest) -> Result<bool, StoreError> {
        let policy = self.policies.policy(&request.organisation).await?;
        Ok(policy.is_some_and(|policy| matches!(policy.lifecycle, Lifecycle::Closed { .. })))
    }

    /// The order to suspend of a policy that somebody has not answered in time, or that is stuck on its way.
    async fn unanswered(&self, policy: &EncryptionPolicy) -> Result<Option<OverdueOrder>, WorkError> {
        if policy.fence.is_open() || policy.fence.causes.contains(&Cause::Closing) {
            return Ok(None);
        }
        let minutes = i64::from(self.settings.catalogue.support.acknowledge_within_minutes);
        let told_before = self.clock.now() - SignedDuration::from_mins(minutes);
        let closed_at = policy.fence.changed_at.filter(|closed_at| *closed_at < told_before);
        let stuck_since = closed_at.filter(|_| policy.told < policy.fence.epoch);
        let silent = self.overdue.unanswered(&policy.organisation_name, told_before, NAMED).await?;
        let ordered_at =
            [silent.as_ref().map(|silent| silent.oldest), stuck_since].into_iter().flatten().min();
        Ok(ordered_at.map(|ordered_at| {
            let (unanswered, first) = silent.map_or((0, Vec::new()), |silent| (silent.count, silent.first));
            let all_told = stuck_since.is_none();
            let organisation = policy.organisation_name.clone();
            OverdueOrder { organisation, policy: policy.id, ordered_at, unanswered, first, all_told }
        }))
    }

    async fn forget_all_but(&self, overdue: &BTreeSet<PolicyId>) -> Result<(), WorkError> {
        let (mut cursor, mut over) = (None, Vec::new());
        loop {
            let page = self.overdue.overdue_orders(cursor.as_deref(), PAGE).await?;
            over.extend(page.items.iter().map(|order| order.policy).filter(|id| !overdue.contains(id)));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        for policy in over {
            self.overdue.overdue_no_more(policy).await?;
        }
        Ok(())
    }
}

/// What the clock alone makes happen to a policy: of its restoration window, or of the time for its export.
fn due(rules: &Rules<'_>, policy: &EncryptionPolicy, now: Timestamp) -> Option<PolicyEvent> {
    let closing = due_of(&rules.catalogue.closing, policy, now);
    let of_closing = closing.map(|moment| PolicyEvent::ClosingMomentCame { moment });
    let of_window = || due_moment(rules, policy, now).map(|moment| PolicyEvent::WindowMomentCame { moment });
    of_closing.or_else(of_window)
}
