//! The store in memory and the one on DynamoDB give the same answers to the same operations, whatever they are.

use std::collections::BTreeMap;

use claviger_app::hint_budget::HintRecord;
use claviger_app::ports::{
    Audit, Backups, BackupsHead, Checkpoints, DataKeyChoice, DataKeyRegistry, DataKeyRemoval, HintRecords,
    Instances, Organisations, Outbox, OverdueOrder, OverdueOrders, Page, PendingErasures, Policies, Proofs,
    PublishedTemplate, StoreError, SupportRequests, Templates, Tickets, Unanswered, UsageRecords, WatchList,
    Wrap, WrappedDataKey,
};
use claviger_app::reencryption::{Backup, Counts, JobProgress, ShardCheckpoint, ShardPlace};
use claviger_app::usage::{KeyUse, Payer, Tally, UsageDelta};
use claviger_domain::access::{KeyPolicyTemplate, TemplateVersion};
use claviger_domain::closing::{self, Counted};
use claviger_domain::decide::{Decision, decide};
use claviger_domain::event::{InstanceEvent, PolicyEvent};
use claviger_domain::fence::{Cause, Epoch};
use claviger_domain::ids::{DataKeyId, InstanceId, PolicyId, ReencryptionId, TicketId};
use claviger_domain::instance::{AppInstance, InstanceDecision, decide_instance};
use claviger_domain::observation::{Observation, RefusalKind};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::reencryption::{Depth, Phase};
use claviger_domain::ticket::{Ticket, TicketStatus};
use claviger_domain::values::{ShardId, SiteName};
use claviger_domain::vendor::Ground;
use claviger_testkit::builders::{
    a_byok_enrolment, a_key, a_round, an_enrolment_decision_as, an_enrolment_with, an_instance_decision,
    an_organisation, by_admin, by_claviger, by_support, by_system, instant, parsed, rules,
};
use claviger_testkit::{MemoryWorld, SequentialIds};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::support::tables::World;

const ORGANISATIONS: [&str; 3] = ["acme", "globex", "initech"];
const ACCOUNTS: [&str; 2] = ["222222222222", "333333333333"];
const SITES: [&str; 3] = ["eng", "ops", "lab"];
const APPS: [&str; 2] = ["jira", "confluence"];

#[derive(Debug, Clone)]
enum Operation {
    SaveOrganisation {
        organisation: usize,
        other_id: bool,
    },
    Enrol {
        organisation: usize,
        account: usize,
        byok: bool,
        keys: u32,
    },
    Approve {
        organisation: usize,
    },
    Reject {
        organisation: usize,
    },
    Verify {
        organisation: usize,
    },
    Probe {
        organisation: usize,
        refused: bool,
    },
    AskForRestoration {
        organisation: usize,
    },
    Restore {
        organisation: usize,
    },
    CreateInstance {
        organisation: usize,
        site: usize,
        app: usize,
    },
    ApproveInstance {
        nth: usize,
    },
    RejectInstance {
        nth: usize,
    },
    Provision {
        nth: usize,
        epoch: u64,
    },
    Order {
        nth: usize,
        restore: bool,
        epoch: u64,
    },
    RenameSite {
        organisation: usize,
        from: usize,
        to: usize,
    },
    OfItsSite {
        nth: usize,
        step: u8,
    },
    /// A decision of earlier, again.
    Replay {
        nth: usize,
    },
    SaveTicket {
        organisation: usize,
        millis: u64,
        version: u64,
    },
    Beat {
        shard: u16,
        at: i64,
        unproven: u64,
    },
    Prove {
        policy: u64,
        at: i64,
    },
    AddDataKey {
        instance: u64,
        id: u64,
        version: u32,
    },
    /// A newer version, by policy and instance as they are, or as they were before.
    AddDataKeyOf {
        nth: usize,
        id: u64,
        version: u32,
        stale_policy: bool,
        stale_instance: bool,
    },
    RemoveDataKey {
        instance: u64,
        version: u32,
        as_read: bool,
    },
    RewrapDataKey {
        instance: u64,
        version: u32,
        as_read: bool,
        second: bool,
    },
    RewrapDataKeyOf {
        instance: u64,
        version: u32,
        as_read: bool,
        organisation: usize,
        behind: bool,
    },
    EraseDataKey {
        instance: u64,
        version: u32,
    },
    /// A job to new keys, the organisation's leaving, the vendor's own suspension.
    Steer {
        organisation: usize,
        which: u8,
        keys: u32,
    },
    Weeks,
    SaveHints {
        account: usize,
        as_read: bool,
        used: u16,
    },
    AddTemplate {
        version: u8,
    },
    SaveTemplate {
        version: u8,
        shard: u16,
    },
    NoteOverdue {
        organisation: usize,
        unanswered: u64,
    },
    OverdueNoMore {
        organisation: usize,
    },
    SaveProgress {
        job: u64,
        version: u64,
    },
    SaveShard {
        job: u64,
        index: u16,
        version: u64,
    },
    SaveBackup {
        organisation: usize,
        id: u64,
        generation: u64,
        old: bool,
    },
    CommitRemoval {
        organisation: usize,
        generation: u64,
        stale: bool,
    },
    RemoveFormer {
        organisation: usize,
        instance: u64,
        version: u32,
        as_read: bool,
    },
    AddUsage {
        organisation: usize,
        id: u64,
    },
    EffectDone {
        nth: usize,
    },
    EffectFailed {
        nth: usize,
        seconds: i64,
    },
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    use Operation::*;
    let organisation = || 0..ORGANISATIONS.len();
    let nth = || 0..6_usize;
    let operation = prop_oneof![
        1 => (organisation(), any::<bool>()).prop_map(|(organisation, other_id)| SaveOrganisation { organisation, other_id }),
        6 => (organisation(), 0..2_usize, any::<bool>(), 1..4_u32)
            .prop_map(|(organisation, account, byok, keys)| Enrol { organisation, account, byok, keys }),
        5 => organisation().prop_map(|organisation| Approve { organisation }),
        3 => organisation().prop_map(|organisation| Reject { organisation }),
        5 => organisation().prop_map(|organisation| Verify { organisation }),
        6 => (organisation(), any::<bool>()).prop_map(|(organisation, refused)| Probe { organisation, refused }),
        2 => organisation().prop_map(|organisation| AskForRestoration { organisation }),
        2 => organisation().prop_map(|organisation| Restore { organisation }),
        6 => (organisation(), 0..2_usize, 0..2_usize)
            .prop_map(|(organisation, site, app)| CreateInstance { organisation, site, app }),
        4 => nth().prop_map(|nth| ApproveInstance { nth }),
        2 => nth().prop_map(|nth| RejectInstance { nth }),
        4 => (nth(), 0..3_u64).prop_map(|(nth, epoch)| Provision { nth, epoch }),
        2 => (nth(), any::<bool>(), 0..4_u64).prop_map(|(nth, restore, epoch)| Order { nth, restore, epoch }),
        4 => (organisation(), 0..3_usize, 0..3_usize)
            .prop_map(|(organisation, from, to)| RenameSite { organisation, from, to }),
        5 => (nth(), 0..5_u8).prop_map(|(nth, step)| OfItsSite { nth, step }),
        4 => (0..40_usize).prop_map(|nth| Replay { nth }),
        2 => (organisation(), 1..4_u64, 0..4_u64)
            .prop_map(|(organisation, millis, version)| SaveTicket { organisation, millis, version }),
        2 => (0..2_u16, 0..4_i64, 0..3_u64).prop_map(|(shard, at, unproven)| Beat { shard, at, unproven }),
        2 => (0..2_u64, 0..4_i64).prop_map(|(policy, at)| Prove { policy, at }),
        2 => (0..2_u64, 0..4_u64, 1..4_u32).prop_map(|(instance, id, version)| AddDataKey { instance, id, version }),
        4 => (0..4_usize, 0..4_u64, 1..4_u32, 0..4_u8).prop_map(|(nth, id, version, stale)| {
            AddDataKeyOf { nth, id, version, stale_policy: stale == 1, stale_instance: stale == 2 }
        }),
        2 => (0..2_u64, 0..4_u32, any::<bool>())
            .prop_map(|(instance, version, as_read)| RemoveDataKey { instance, version, as_read }),
        3 => (0..2_u64, 0..4_u32, any::<bool>(), any::<bool>())
            .prop_map(|(instance, version, as_read, second)| RewrapDataKey { instance, version, as_read, second }),
        3 => (0..2_u64, 0..4_u32, any::<bool>(), organisation(), any::<bool>()).prop_map(
            |(instance, version, as_read, organisation, behind)| RewrapDataKeyOf {
                instance, version, as_read, organisation, behind
            }
        ),
        1 => (0..2_u64, 0..4_u32).prop_map(|(instance, version)| EraseDataKey { instance, version }),
        12 => (organisation(), 0..14_u8, 4..7_u32)
            .prop_map(|(organisation, which, keys)| Steer { organisation, which, keys }),
        1 => Just(Weeks),
        2 => (0..2_usize, any::<bool>(), 0..3_u16)
            .prop_map(|(account, as_read, used)| SaveHints { account, as_read, used }),
        1 => (0..3_u8).prop_map(|version| AddTemplate { version }),
        1 => (0..3_u8, 0..3_u16).prop_map(|(version, shard)| SaveTemplate { version, shard }),
        1 => (organisation(), 0..3_u64).prop_map(|(organisation, unanswered)| NoteOverdue { organisation, unanswered }),
        1 => organisation().prop_map(|organisation| OverdueNoMore { organisation }),
        3 => (0..2_u64, 0..4_u64).prop_map(|(job, version)| SaveProgress { job, version }),
        4 => (0..2_u64, 0..3_u16, 0..4_u64).prop_map(|(job, index, version)| SaveShard { job, index, version }),
        3 => (organisation(), 0..3_u64, 1..3_u64, any::<bool>())
            .prop_map(|(organisation, id, generation, old)| SaveBackup { organisation, id, generation, old }),
        4 => (organisation(), 0..3_u64, any::<bool>())
            .prop_map(|(organisation, generation, stale)| CommitRemoval { organisation, generation, stale }),
        3 => (organisation(), 0..2_u64, 0..4_u32, any::<bool>()).prop_map(|(organisation, instance, version, as_read)| {
            RemoveFormer { organisation, instance, version, as_read }
        }),
        4 => (organisation(), 0..8_u64).prop_map(|(organisation, id)| AddUsage { organisation, id }),
        2 => nth().prop_map(|nth| EffectDone { nth }),
        2 => (nth(), -12..2_i64).prop_map(|(nth, seconds)| EffectFailed { nth, seconds }),
    ];
    prop::collection::vec(operation, 1..48)
}

/// Something committed before.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "a few of them, in a test")]
enum Past {
    Policy(Option<EncryptionPolicy>, Decision),
    Instance(Option<AppInstance>, InstanceDecision),
    Site(SiteName, SiteName, Vec<(AppInstance, InstanceDecision)>),
}

struct Pair {
    memory: MemoryWorld,
    dynamo: World,
    past: Vec<Past>,
    instances: Vec<InstanceId>,
    made: u64,
    now: Timestamp,
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, memory: T, dynamo: T) -> Result<(), TestCaseError> {
    common(what, memory, dynamo).map(drop)
}

fn common<T: PartialEq + std::fmt::Debug>(what: &str, memory: T, dynamo: T) -> Result<T, TestCaseError> {
    prop_assert_eq!(&memory, &dynamo, "{}: memory (left) and DynamoDB (right) differ", what);
    Ok(memory)
}

/// What a store can answer is an outcome; that it is not there or cannot be read is a bug.
fn sound<T>(outcome: &Result<T, StoreError>) -> bool {
    !matches!(outcome, Err(StoreError::Unavailable { .. } | StoreError::Corrupt { .. }))
}

impl Pair {
    async fn commit(&mut self, past: Past) -> Result<(), TestCaseError> {
        let (memory, dynamo) = match &past {
            Past::Policy(previous, decision) => (
                self.memory.commit_policy(previous.as_ref(), decision).await,
                self.dynamo.store.commit_policy(previous.as_ref(), decision).await,
            ),
            Past::Instance(previous, decision) => (
                self.memory.commit_instance(previous.as_ref(), decision).await,
                self.dynamo.store.commit_instance(previous.as_ref(), decision).await,
            ),
            Past::Site(from, to, renamed) => (
                self.memory.commit_site(from, to, renamed).await,
                self.dynamo.store.commit_site(from, to, renamed).await,
            ),
        };
        prop_assert!(sound(&dynamo), "{dynamo:?}");
        same("commit", memory, dynamo)?;
        self.past.push(past);
        Ok(())
    }

    async fn policy(&self, organisation: usize) -> Option<EncryptionPolicy> {
        self.memory.policy(&parsed(ORGANISATIONS[organisation])).await.unwrap()
    }

    async fn policy_event(
        &mut self,
        organisation: usize,
        origin: claviger_domain::event::Origin,
        event: impl FnOnce(&EncryptionPolicy, Timestamp) -> PolicyEvent,
    ) -> Result<(), TestCaseError> {
        let Some(policy) = self.policy(organisation).await else {
            return Ok(());
        };
        let event = event(&policy, self.now);
        match decide(&rules(), &policy, &event, &origin, self.now) {
            Ok(decision) => self.commit(Past::Policy(Some(policy), decision)).await,
            Err(_) => Ok(()),
        }
    }

    async fn instance_event(
        &mut self,
        nth: usize,
        origin: claviger_domain::event::Origin,
        event: InstanceEvent,
    ) -> Result<(), TestCaseError> {
        let Some(id) = self.instances.get(nth) else {
            return Ok(());
        };
        let Some(instance) = self.memory.instance(*id).await.unwrap() else {
            return Ok(());
        };
        match decide_instance(&instance, &event, &origin, self.now) {
            Ok(decision) => self.commit(Past::Instance(Some(instance), decision)).await,
            Err(_) => Ok(()),
        }
    }

    fn data_key(&self, instance: InstanceId, id: u64, version: u32) -> WrappedDataKey {
        WrappedDataKey {
            id: DataKeyId::from_uuid(SequentialIds::uuid(id)),
            instance,
            purpose: "records".into(),
            version,
            generation: 1,
            created_at: self.now,
            wraps: BTreeMap::new(),
            second: BTreeMap::new(),
        }
    }

    async fn apply(&mut self, operation: Operation) -> Result<(), TestCaseError> {
        self.now += SignedDuration::from_millis(1_500);
        let second_ago = self.now - SignedDuration::from_secs(1);
        match operation {
            Operation::SaveOrganisation { organisation, other_id } => {
                let mut saved = an_organisation(ORGANISATIONS[organisation]);
                if other_id {
                    saved.id = an_organisation("other").id;
                }
                let memory = self.memory.save_organisation(&saved).await;
                same("save organisation", memory, self.dynamo.store.save_organisation(&saved).await)
            }
            Operation::Enrol { organisation, account, byok, keys } => {
                let account = ACCOUNTS[account];
                let enrolment = if byok {
                    a_byok_enrolment(account, "europe")
                } else {
                    an_enrolment_with(account, "europe", keys)
                };
                self.made += 1;
                let id = PolicyId::from_uuid(SequentialIds::uuid(self.made));
                let organisation = an_organisation(ORGANISATIONS[organisation]);
                let decision = an_enrolment_decision_as(id, &organisation, &enrolment, self.now);
                self.commit(Past::Policy(None, decision)).await
            }
            Operation::Approve { organisation } => {
                self.policy_event(organisation, by_support(), |_, _| PolicyEvent::EnrolmentApproved).await
            }
            Operation::Reject { organisation } => {
                let event = PolicyEvent::EnrolmentRejected { reason: "no".into() };
                self.policy_event(organisation, by_support(), |_, _| event).await
            }
            Operation::Verify { organisation } => {
                // BYOK: the first time the keys are recorded, the second time they are proven.
                self.policy_event(organisation, by_claviger(), |policy, now| {
                    if policy.keys.is_empty() {
                        let made = ["eu-central-1", "eu-west-1"]
                            .map(|region| (parsed(region), a_key(policy.account.as_str(), region, 0)));
                        return PolicyEvent::KeysCreated { keys: made.into() };
                    }
                    PolicyEvent::KeysVerified {
                        canaries: policy.keys.keys().map(|region| (region.clone(), "Yw==".into())).collect(),
                        round: a_round(policy, Observation::Usable, now),
                    }
                })
                .await
            }
            Operation::Probe { organisation, refused } => {
                let seen = if refused {
                    Observation::Refused(RefusalKind::KeyDisabled)
                } else {
                    Observation::Usable
                };
                self.policy_event(organisation, by_claviger(), |policy, now| PolicyEvent::ProbesReported {
                    rounds: [second_ago, now].map(|at| a_round(policy, seen, at)).into(),
                    heard: Vec::new(),
                })
                .await
            }
            Operation::AskForRestoration { organisation } => {
                self.policy_event(organisation, by_admin(), |policy, now| PolicyEvent::RestorationRequested {
                    ticket: policy.ticket.unwrap_or(TicketId::from_uuid(SequentialIds::uuid(1))),
                    round: a_round(policy, Observation::Usable, now),
                    into_degraded: false,
                })
                .await
            }
            Operation::Restore { organisation } => {
                self.policy_event(organisation, by_claviger(), |policy, now| PolicyEvent::RestorationProbed {
                    rounds: [second_ago, now].map(|at| a_round(policy, Observation::Usable, at)).into(),
                    unwrapped_in: None,
                })
                .await
            }
            Operation::CreateInstance { organisation, site, app } => {
                let Some(policy) = self.policy(organisation).await else {
                    return Ok(());
                };
                let mut decision = an_instance_decision(&policy, SITES[site], APPS[app], self.now);
                self.made += 1;
                let id = InstanceId::from_uuid(SequentialIds::uuid(self.made));
                decision.next.id = id;
                decision.fact.stream = id.as_uuid();
                self.instances.push(id);
                self.commit(Past::Instance(None, decision)).await
            }
            Operation::ApproveInstance { nth } => {
                self.instance_event(nth, by_support(), InstanceEvent::InstanceApproved).await
            }
            Operation::RejectInstance { nth } => {
                let event = InstanceEvent::InstanceRejected { reason: "no".into() };
                self.instance_event(nth, by_support(), event).await
            }
            Operation::Provision { nth, epoch } => {
                let event = InstanceEvent::InstanceProvisioned { epoch: Epoch(epoch) };
                self.instance_event(nth, by_claviger(), event).await
            }
            Operation::Order { nth, restore, epoch } => {
                let epoch = Epoch(epoch);
                let event = if restore {
                    InstanceEvent::RestorationOrdered { epoch }
                } else {
                    InstanceEvent::SuspensionOrdered { epoch }
                };
                self.instance_event(nth, by_claviger(), event).await
            }
            Operation::RenameSite { organisation, from, to } => {
                let (from, to): (SiteName, SiteName) = (parsed(SITES[from]), parsed(SITES[to]));
                let event = InstanceEvent::SiteRenamed { from: from.clone(), to: to.clone() };
                let here = self.memory.instances_of_site(&from).await.unwrap();
                let ours = here
                    .into_iter()
                    .filter(|one| one.organisation_name == parsed(ORGANISATIONS[organisation]));
                let decided: Result<Vec<_>, _> = ours
                    .map(|one| Ok((one.clone(), decide_instance(&one, &event, &by_system(), self.now)?)))
                    .collect();
                match decided {
                    Ok(renamed) => self.commit(Past::Site(from, to, renamed)).await,
                    Err(refusal) => {
                        let _: claviger_domain::decide::Refusal = refusal;
                        Ok(())
                    }
                }
            }
            Operation::OfItsSite { nth, step } => {
                let (origin, event) = match step {
                    0 => {
                        let (erase_at, title) = (self.now, "a site was deleted".to_owned());
                        (by_system(), InstanceEvent::SiteDeleted { erase_at, title })
                    }
                    1 => (by_system(), InstanceEvent::SiteDeletionCancelled),
                    2 => (by_claviger(), InstanceEvent::SiteDeletionDue),
                    3 => (by_claviger(), InstanceEvent::DataKeysCounted { data_keys: 2 }),
                    _ => (by_claviger(), InstanceEvent::DataKeysErased),
                };
                self.instance_event(nth, origin, event).await
            }
            Operation::Replay { nth } => match self.past.get(nth).cloned() {
                Some(past) => self.commit(past).await,
                None => Ok(()),
            },
            Operation::SaveTicket { organisation, millis, version } => {
                let id = uuid::Builder::from_unix_timestamp_millis(millis, &[7; 10]).into_uuid();
                let ticket = Ticket {
                    id: TicketId::from_uuid(id),
                    organisation: parsed(ORGANISATIONS[organisation]),
                    title: format!("version {version}"),
                    status: TicketStatus::Open,
                    opened_at: self.now,
                    resolved_at: None,
                    comments: Vec::new(),
                    version,
                };
                let memory = self.memory.save_ticket(&ticket).await;
                same("save ticket", memory, self.dynamo.store.save_ticket(&ticket).await)
            }
            Operation::Beat { shard, at, unproven } => {
                let at = instant("2026-11-22T12:00:00Z") + SignedDuration::from_secs(at);
                let mass_failure = unproven > 1;
                let unproven =
                    (0..unproven).map(|n| (PolicyId::from_uuid(SequentialIds::uuid(n)), at)).collect();
                let beat = claviger_app::ports::Beat {
                    swept_at: at,
                    watched_until: self.now,
                    unproven,
                    mass_failure,
                    refused: 3,
                    open: 40,
                };
                let memory = self.memory.beat(ShardId(shard), &beat).await;
                let dynamo = self.dynamo.store.beat(ShardId(shard), &beat).await;
                same("beat", memory, dynamo)?;
                let until = self.now + SignedDuration::from_secs(i64::from(shard));
                let memory = self.memory.plan_until(until).await;
                same("plan", memory, self.dynamo.store.plan_until(until).await)?;
                same("planned", self.memory.planned_until().await, self.dynamo.store.planned_until().await)
            }
            Operation::Prove { policy, at } => {
                let policy = PolicyId::from_uuid(SequentialIds::uuid(policy));
                let at = instant("2026-11-22T12:00:00Z") + SignedDuration::from_micros(at * 700);
                let memory = self.memory.record_proof(policy, at).await;
                same("proof", memory, self.dynamo.store.record_proof(policy, at).await)?;
                let until = at + SignedDuration::from_millis(700);
                let memory = self.memory.claim_proof(policy, at, until).await;
                same("claim", memory, self.dynamo.store.claim_proof(policy, at, until).await)
            }
            Operation::AddDataKeyOf { nth, id, version, stale_policy, stale_instance } => {
                let Some(instance) = self.instances.get(nth) else {
                    return Ok(());
                };
                let Some(mut instance) = self.memory.instance(*instance).await.unwrap() else {
                    return Ok(());
                };
                let Some(mut policy) = self.memory.policy(&instance.organisation_name).await.unwrap() else {
                    return Ok(());
                };
                policy.version -= u64::from(stale_policy);
                instance.version -= u64::from(stale_instance);
                let key = self.data_key(instance.id, id, version);
                let memory = self.memory.add_data_key_of(&key, &policy, &instance).await;
                let dynamo = self.dynamo.store.add_data_key_of(&key, &policy, &instance).await;
                same("data key of", memory, dynamo)
            }
            Operation::AddDataKey { instance, id, version } => {
                let key = self.data_key(InstanceId::from_uuid(SequentialIds::uuid(instance)), id, version);
                let memory = self.memory.add_data_key(&key).await;
                same("data key", memory, self.dynamo.store.add_data_key(&key).await)
            }
            Operation::RemoveDataKey { instance, version, as_read } => {
                let instance = InstanceId::from_uuid(SequentialIds::uuid(instance));
                let choice = DataKeyChoice::Version(version);
                let Some(mut known) = self.memory.data_key(instance, "records", choice).await.unwrap() else {
                    return Ok(());
                };
                if !as_read {
                    known.generation += 1;
                }
                let memory = self.memory.remove_data_key(&known).await;
                same("remove data key", memory, self.dynamo.store.remove_data_key(&known).await)
            }
            Operation::RewrapDataKey { instance, version, as_read, second } => {
                let instance = InstanceId::from_uuid(SequentialIds::uuid(instance));
                let choice = DataKeyChoice::Version(version);
                let Some(mut known) = self.memory.data_key(instance, "records", choice).await.unwrap() else {
                    return Ok(());
                };
                let key = a_key(ACCOUNTS[0], "eu-west-1", version + 1);
                let wraps = BTreeMap::from([(parsed("eu-west-1"), Wrap::new(&key, b"c", self.now))]);
                let next = if second {
                    WrappedDataKey { second: wraps, ..known.clone() }
                } else {
                    WrappedDataKey { wraps, second: BTreeMap::new(), ..known.clone() }
                };
                if !as_read {
                    known.generation += 1;
                }
                let memory = self.memory.rewrap_data_key(&known, &next).await;
                same("rewrap data key", memory, self.dynamo.store.rewrap_data_key(&known, &next).await)
            }
            Operation::RewrapDataKeyOf { instance, version, as_read, organisation, behind } => {
                let instance = InstanceId::from_uuid(SequentialIds::uuid(instance));
                let choice = DataKeyChoice::Version(version);
                let known = self.memory.data_key(instance, "records", choice).await.unwrap();
                let policy = self.policy(organisation).await;
                let (Some(mut known), Some(mut policy)) = (known, policy) else { return Ok(()) };
                let key = a_key(ACCOUNTS[0], "eu-central-1", version + 1);
                let wraps = BTreeMap::from([(parsed("eu-central-1"), Wrap::new(&key, b"d", self.now))]);
                let next = WrappedDataKey { wraps, ..known.clone() };
                if !as_read {
                    known.generation += 1;
                }
                if behind {
                    policy.version += 1;
                }
                let memory = self.memory.rewrap_data_key_of(&known, &next, &policy).await;
                same(
                    "rewrap data key of",
                    memory,
                    self.dynamo.store.rewrap_data_key_of(&known, &next, &policy).await,
                )
            }
            Operation::EraseDataKey { instance, version } => {
                let instance = InstanceId::from_uuid(SequentialIds::uuid(instance));
                let choice = DataKeyChoice::Version(version);
                let Some(known) = self.memory.data_key(instance, "records", choice).await.unwrap() else {
                    return Ok(());
                };
                let memory = self.memory.erase_data_key(&known).await;
                same("erase data key", memory, self.dynamo.store.erase_data_key(&known).await)
            }
            Operation::Steer { organisation, which, keys } => {
                let origin = if matches!(which, 7 | 8 | 10 | 11) { by_support() } else { by_admin() };
                self.policy_event(organisation, origin, |policy, now| steered(policy, which, keys, now)).await
            }
            Operation::Weeks => {
                self.now += SignedDuration::from_hours(24 * 31);
                Ok(())
            }
            Operation::SaveHints { account, as_read, used } => {
                let account = parsed(ACCOUNTS[account]);
                let known = self.memory.hints_of(&account).await.unwrap().filter(|_| as_read);
                let next =
                    HintRecord { planned_at: self.now, period_began: self.now, used, heard: Vec::new() };
                let memory = self.memory.save_hints(&account, known.as_ref(), &next).await;
                let dynamo = self.dynamo.store.save_hints(&account, known.as_ref(), &next).await;
                same("hints", memory, dynamo)
            }
            Operation::AddTemplate { version } => {
                let template = template(version, 0, self.now);
                let memory = self.memory.add_template(&template).await;
                same("template", memory, self.dynamo.store.add_template(&template).await)
            }
            Operation::SaveTemplate { version, shard } => {
                let known = self.memory.templates().await.unwrap();
                let Some(known) = known.into_iter().find(|one| one.template.version == name_of(version))
                else {
                    return Ok(());
                };
                let next = PublishedTemplate { shard, opened: u64::from(shard), ..known };
                let memory = Templates::save_progress(&self.memory, &next).await;
                same("template", memory, Templates::save_progress(&self.dynamo.store, &next).await)
            }
            Operation::NoteOverdue { organisation, unanswered } => {
                let Some(policy) = self.policy(organisation).await else { return Ok(()) };
                let order = OverdueOrder {
                    organisation: policy.organisation_name,
                    policy: policy.id,
                    ordered_at: self.now,
                    unanswered,
                    first: Vec::new(),
                    all_told: unanswered % 2 == 0,
                };
                let memory = self.memory.note_overdue(&order).await;
                same("overdue", memory, self.dynamo.store.note_overdue(&order).await)
            }
            Operation::OverdueNoMore { organisation } => {
                let Some(policy) = self.policy(organisation).await else { return Ok(()) };
                let memory = self.memory.overdue_no_more(policy.id).await;
                same("overdue no more", memory, self.dynamo.store.overdue_no_more(policy.id).await)
            }
            Operation::SaveProgress { job, version } => {
                let progress = progress(job, version, self.now);
                let memory = Checkpoints::save_progress(&self.memory, &progress).await;
                same("progress", memory, Checkpoints::save_progress(&self.dynamo.store, &progress).await)
            }
            Operation::SaveShard { job, index, version } => {
                let shard = shard(job, index, version, self.now);
                let memory = self.memory.save_shard(&shard).await;
                same("shard", memory, self.dynamo.store.save_shard(&shard).await)
            }
            Operation::SaveBackup { organisation, id, generation, old } => {
                let backup = Backup {
                    id: format!("backup-{id}"),
                    taken_at: if old { self.now - SignedDuration::from_hours(24 * 40) } else { self.now },
                    expires_at: self.now,
                    generation,
                    holds_wrapped_keys: generation > 1,
                    brought_back_at: old.then_some(self.now),
                };
                let name = parsed(ORGANISATIONS[organisation]);
                let memory = self.memory.save_backup(&name, &backup).await;
                same("backup", memory, self.dynamo.store.save_backup(&name, &backup).await)
            }
            Operation::CommitRemoval { organisation, generation, stale } => {
                let Some(policy) = self.policy(organisation).await else { return Ok(()) };
                let events = [PolicyEvent::ClosingAsked, PolicyEvent::ClosingCancelled];
                let decide = |event| decide(&rules(), &policy, event, &by_admin(), self.now).ok();
                let Some(decision) = events.iter().find_map(decide) else { return Ok(()) };
                let known = self.memory.backups_head(&policy.organisation_name).await.unwrap();
                let head = BackupsHead {
                    version: known.version + 1 + u64::from(stale),
                    removed_below: generation,
                    taken_from: Some(self.now - SignedDuration::from_hours(24 * 20)),
                };
                let memory = self.memory.commit_removal(&policy, &decision, &head).await;
                same("removal", memory, self.dynamo.store.commit_removal(&policy, &decision, &head).await)
            }
            Operation::RemoveFormer { organisation, instance, version, as_read } => {
                let instance = InstanceId::from_uuid(SequentialIds::uuid(instance));
                let choice = DataKeyChoice::Version(version);
                let Some(mut known) = self.memory.data_key(instance, "records", choice).await.unwrap() else {
                    return Ok(());
                };
                if !as_read {
                    known.version += 1;
                }
                let name = parsed(ORGANISATIONS[organisation]);
                let memory = self.memory.remove_former(&name, &known).await;
                same("remove former", memory, self.dynamo.store.remove_former(&name, &known).await)
            }
            Operation::AddUsage { organisation, id } => {
                let delta = usage(organisation, id);
                let memory = self.memory.add_usage(&delta).await;
                same("usage", memory, self.dynamo.store.add_usage(&delta).await)
            }
            Operation::EffectDone { nth } => {
                let Some(row) = self.memory.outbox().get(nth).cloned() else {
                    return Ok(());
                };
                let memory = self.memory.effect_done(&row.organisation, row.id).await;
                let dynamo = self.dynamo.store.effect_done(&row.organisation, row.id).await;
                same("effect done", memory, dynamo)
            }
            Operation::EffectFailed { nth, seconds } => {
                let Some(row) = self.memory.outbox().get(nth).cloned() else {
                    return Ok(());
                };
                let due = self.now + SignedDuration::from_secs(seconds);
                let memory = self.memory.effect_failed(&row.organisation, row.id, due).await;
                let dynamo = self.dynamo.store.effect_failed(&row.organisation, row.id, due).await;
                same("effect failed", memory, dynamo)
            }
        }
    }

    /// Every question that the ports know.
    async fn compare(&self) -> Result<(), TestCaseError> {
        let (memory, dynamo) = (&self.memory, &self.dynamo.store);
        for name in ORGANISATIONS {
            let name = parsed(name);
            same("organisation", memory.organisation(&name).await, dynamo.organisation(&name).await)?;
            let policy = common("policy", memory.policy(&name).await, dynamo.policy(&name).await)?;
            if let Ok(Some(policy)) = policy {
                self.compare_fence(&policy).await?;
            }
            same("head", memory.backups_head(&name).await, dynamo.backups_head(&name).await)?;
            for id in 0..3 {
                let id = format!("backup-{id}");
                same("backup", memory.backup(&name, &id).await, dynamo.backup(&name, &id).await)?;
            }
            for before in [self.now, self.now - SignedDuration::from_secs(9)] {
                let memory = memory.unanswered(&name, before, 100).await.map(in_order);
                same("unanswered", memory, dynamo.unanswered(&name, before, 100).await.map(in_order))?;
            }
            let (mut facts, mut instances, mut tickets) = (None, None, None);
            for _ in 0..100 {
                let facts_page = common(
                    "facts",
                    memory.facts(&name, cursor(&facts), 3).await,
                    dynamo.facts(&name, cursor(&facts), 3).await,
                )?;
                let instances_page = common(
                    "instances",
                    memory.instances(&name, cursor(&instances), 2).await,
                    dynamo.instances(&name, cursor(&instances), 2).await,
                )?;
                let tickets_page = common(
                    "tickets",
                    memory.tickets(&name, cursor(&tickets), 2).await,
                    dynamo.tickets(&name, cursor(&tickets), 2).await,
                )?;
                (facts, instances, tickets) =
                    (Some(next(facts_page)), Some(next(instances_page)), Some(next(tickets_page)));
                if [&facts, &instances, &tickets].into_iter().flatten().all(Option::is_none) {
                    break;
                }
            }
        }
        for account in ACCOUNTS.map(parsed) {
            let memory = memory.organisations_of_account(&account).await;
            same("account", memory, dynamo.organisations_of_account(&account).await)?;
            same("hints", self.memory.hints_of(&account).await, dynamo.hints_of(&account).await)?;
        }
        same("templates", memory.templates().await, dynamo.templates().await)?;
        for limit in [1, 200] {
            let in_memory = memory.overdue_orders(None, limit).await;
            same("overdue", in_memory, dynamo.overdue_orders(None, limit).await)?;
        }
        for site in SITES.map(parsed) {
            same("site", memory.site_owner(&site).await, dynamo.site_owner(&site).await)?;
            let on_site = memory.instances_of_site(&site).await;
            same("on site", on_site, dynamo.instances_of_site(&site).await)?;
            for app in APPS.map(parsed) {
                same("place", memory.instance_at(&site, &app).await, dynamo.instance_at(&site, &app).await)?;
            }
        }
        for number in 0..=self.made {
            let uuid = SequentialIds::uuid(number);
            let (policy, instance) = (PolicyId::from_uuid(uuid), InstanceId::from_uuid(uuid));
            same("policy by id", memory.policy_by_id(policy).await, dynamo.policy_by_id(policy).await)?;
            same("instance", memory.instance(instance).await, dynamo.instance(instance).await)?;
            same("request", memory.support_request(uuid).await, dynamo.support_request(uuid).await)?;
            same("proof", memory.proven_at(policy).await, dynamo.proven_at(policy).await)?;
        }
        for limit in [1, 200] {
            let waiting = memory.pending_erasures(None, limit).await;
            same("erasures", waiting, dynamo.pending_erasures(None, limit).await)?;
        }
        same("requests", memory.support_requests(None, 2).await, dynamo.support_requests(None, 2).await)?;
        for shard in (0..8).map(ShardId) {
            same("watched", memory.watched(shard).await, dynamo.watched(shard).await)?;
            same("beat", memory.last_beat(shard).await, dynamo.last_beat(shard).await)?;
        }
        for (before, limit) in
            [(self.now, 100), (self.now, 2), (self.now - SignedDuration::from_secs(9), 100)]
        {
            let memory = memory.overdue_effects(before, limit).await;
            same("outbox", memory, dynamo.overdue_effects(before, limit).await)?;
        }
        for job in (0..2).map(job_id) {
            same("progress", memory.progress(job).await, dynamo.progress(job).await)?;
            let mut cursor = None;
            loop {
                let in_memory = memory.shards(job, cursor.as_deref(), 2).await;
                let page = common("shards", in_memory, dynamo.shards(job, cursor.as_deref(), 2).await)?;
                let page = page.unwrap();
                for shard in &page.items {
                    same("shard", memory.shard(shard.place).await, dynamo.shard(shard.place).await)?;
                }
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
        }
        for name in ORGANISATIONS.map(parsed) {
            for limit in [1, 200] {
                same(
                    "backups",
                    memory.backups(&name, None, limit).await,
                    dynamo.backups(&name, None, limit).await,
                )?;
            }
        }
        for name in ORGANISATIONS {
            let id = an_organisation(name).id;
            for (from, to) in [(20, 20), (20, 22), (21, 28)] {
                let [from, to] = [from, to].map(|day| jiff::civil::date(2026, 11, day));
                same("usage", memory.usage(id, from, to).await, dynamo.usage(id, from, to).await)?;
            }
        }
        let named = (0..2).map(|n| InstanceId::from_uuid(SequentialIds::uuid(n)));
        for instance in named.chain(self.instances.iter().copied()) {
            let all = |keys: Result<Vec<WrappedDataKey>, StoreError>| {
                let mut keys = keys.unwrap();
                keys.sort_by_key(|key| key.version);
                keys
            };
            let in_memory = all(memory.data_keys(instance).await);
            same("data keys", in_memory, all(dynamo.data_keys(instance).await))?;
            let ids = (0..4).map(|n| DataKeyChoice::Id(DataKeyId::from_uuid(SequentialIds::uuid(n))));
            let versions = (0..4).map(DataKeyChoice::Version);
            for choice in ids.chain(versions).chain([DataKeyChoice::Current]) {
                let memory = memory.data_key(instance, "records", choice).await;
                same("data key", memory, dynamo.data_key(instance, "records", choice).await)?;
            }
        }
        Ok(())
    }

    async fn compare_fence(&self, policy: &EncryptionPolicy) -> Result<(), TestCaseError> {
        let expected = self.memory.fence(policy.id).map(|item| {
            let causes: Vec<&str> = item.fence.causes.iter().copied().map(Cause::slug).collect();
            (item.organisation.to_string(), item.fence.epoch.0.to_string(), causes.join(" "))
        });
        for copy in self.dynamo.fence(&format!("policy#{}", policy.id)).await {
            let found = copy.map(|copy| {
                let causes = copy.get("causes").map(|causes| causes.as_ss().unwrap().join(" "));
                let epoch = copy["epoch"].as_n().unwrap().clone();
                (copy["organisation"].as_s().unwrap().clone(), epoch, causes.unwrap_or_default())
            });
            same("fence", expected.clone(), found)?;
        }
        Ok(())
    }
}

/// What is told apart by its id is the same wherever it says the same.
fn usage(organisation: usize, id: u64) -> UsageDelta {
    let key = (!id.is_multiple_of(3)).then(|| a_key(ACCOUNTS[0], "eu-central-1", 1));
    let what = |operation: &str, purpose: Option<&str>| KeyUse {
        operation: operation.to_owned(),
        purpose: purpose.map(str::to_owned),
        region: key.as_ref().map_or_else(|| parsed("eu-west-1"), |key| key.region().clone()),
        key: key.clone(),
        payer: if id.is_multiple_of(2) { Payer::Vendor } else { Payer::Customer },
    };
    let calls = i64::try_from(id % 4).unwrap();
    let tally = Tally { calls, denied: calls / 2, throttled: 0, unanswered: 1 - calls };
    let uses =
        [(what("Decrypt", Some("canary")), tally), (what("DescribeKey", None), Tally { calls: 1, ..tally })];
    UsageDelta {
        id: SequentialIds::uuid(100 * u64::try_from(organisation).unwrap() + id),
        organisation: an_organisation(ORGANISATIONS[organisation]).id,
        day: jiff::civil::date(2026, 11, 20 + i8::try_from(id % 3).unwrap()),
        uses: uses.into(),
    }
}

/// One step of what an organisation or support begins, so that sequences of them go far.
fn steered(policy: &EncryptionPolicy, which: u8, keys: u32, now: Timestamp) -> PolicyEvent {
    let job = policy.reencryption.as_ref().map_or_else(|| job_id(9), |job| job.id);
    let of = |policy: &EncryptionPolicy| -> BTreeMap<_, _> {
        let key = |region: &str| (parsed(region), a_key(policy.account.as_str(), region, keys));
        ["eu-central-1", "eu-west-1"].map(key).into()
    };
    match which {
        0 => PolicyEvent::ReencryptionRequested { keys: of(policy), depth: Depth::Rekey },
        1 => PolicyEvent::ReencryptionCancelled { job },
        2 => PolicyEvent::ReencryptionEnded { job, data_keys: 1, old_versions: None, ledger: String::new() },
        3 => PolicyEvent::ReencryptionPaused { job },
        4 => PolicyEvent::ReencryptionResumed { job },
        5 => PolicyEvent::ReencryptionSwitched {
            job,
            canaries: of(policy).into_keys().map(|region| (region, "Yw==".to_owned())).collect(),
            data_keys: 1,
            proven: [].into(),
            round: a_round(policy, Observation::Usable, now),
        },
        6 => PolicyEvent::ClosingAsked,
        7 => PolicyEvent::ClosingApproved,
        8 => PolicyEvent::ClosingRejected { reason: "no".to_owned() },
        9 => PolicyEvent::ClosingCancelled,
        10 => PolicyEvent::VendorSuspended { ground: Ground::Ordered, reason: "unpaid".to_owned() },
        11 => PolicyEvent::VendorSuspensionLifted,
        12 => closing::due(&rules().catalogue.closing, policy, now)
            .map_or(PolicyEvent::DataKeysErased, |moment| PolicyEvent::ClosingMomentCame { moment }),
        _ => PolicyEvent::DataKeysCounted { counted: Counted { data_keys: 1, instances: 1 } },
    }
}

fn name_of(version: u8) -> TemplateVersion {
    parsed(&format!("2027-01-0{}", version + 1))
}

fn template(version: u8, shard: u16, now: Timestamp) -> PublishedTemplate {
    let template = KeyPolicyTemplate {
        version: name_of(version),
        permissions: [parsed("kms:DescribeKey")].into(),
        decide_by: now,
        published_at: now,
        published_by: parsed("agent"),
    };
    PublishedTemplate { template, shard, after: None, opened: 0, done: false }
}

fn job_id(job: u64) -> ReencryptionId {
    ReencryptionId::from_uuid(SequentialIds::uuid(job))
}

fn progress(job: u64, version: u64, now: Timestamp) -> JobProgress {
    JobProgress {
        job: job_id(job),
        of: Phase::Scanning { pass: 2, clean_since: Some(now) },
        began_at: now,
        listed: version > 1,
        cursor: Some(version.to_string()),
        data_keys: version,
        changed: 0,
        shards: 4,
        shards_done: 1,
        counts: Counts { seen: version, ..Counts::default() },
        seen_by_done: 1,
        rewritten_before: 3,
        estimate: None,
        scanned: None,
        fault: None,
        token: SequentialIds::uuid(version),
        token_until: now,
        version,
    }
}

fn shard(job: u64, index: u16, version: u64, now: Timestamp) -> ShardCheckpoint {
    ShardCheckpoint {
        place: ShardPlace {
            job: job_id(job),
            instance: InstanceId::from_uuid(SequentialIds::uuid(u64::from(index % 2))),
            index,
        },
        site: parsed("eng"),
        app: parsed("jira"),
        of: 4,
        pass: 1,
        cursor: None,
        done: false,
        counts: Counts { seen: version, ..Counts::default() },
        estimate: Some(version),
        fault: None,
        token: SequentialIds::uuid(version),
        token_until: now,
        version,
    }
}

/// Of those that were told in the same millisecond nobody is the first.
fn in_order(found: Option<Unanswered>) -> Option<Unanswered> {
    found.map(|mut found| {
        found.first.sort();
        found
    })
}

#[expect(clippy::option_option, reason = "not read yet; read to the end; more to read")]
fn cursor(seen: &Option<Option<String>>) -> Option<&str> {
    seen.as_ref().and_then(Option::as_deref)
}

fn next<T>(page: Result<Page<T>, StoreError>) -> Option<String> {
    page.ok().and_then(|page| page.next)
}

/// Few cases each time, for they are long; `PROPTEST_CASES` says how many more.
fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(24), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn memory_and_dynamodb_behave_alike(operations in operations()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut pair = Pair {
                memory: MemoryWorld::new(),
                dynamo: World::new().await,
                past: Vec::new(),
                instances: Vec::new(),
                made: 0,
                now: instant("2026-11-22T12:00:00.123456Z"),
            };
            for operation in operations {
                pair.apply(operation).await?;
            }
            pair.compare().await
        })?;
    }
}
