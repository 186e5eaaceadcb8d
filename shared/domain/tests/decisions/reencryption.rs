//! A policy moves to new keys (spec X): the job from its request to its end, and whatever happens meanwhile.

use std::collections::BTreeMap;

use claviger_domain::access::KeyPermission;
use claviger_domain::catalogue::Mode;
use claviger_domain::decide::{Decision, Refusal};
use claviger_domain::effect::Effect;
use claviger_domain::event::{Origin, PolicyEvent};
use claviger_domain::fence::Cause;
use claviger_domain::ids::ReencryptionId;
use claviger_domain::key_access::KeyAccess;
use claviger_domain::observation::Observation;
use claviger_domain::reencryption::{Depth, KeyFault, Outcome, Phase};
use claviger_domain::values::{KeyArn, Region};
use claviger_domain::vendor::Ground;
use rstest::rstest;

use crate::support::{
    DENIED, DISABLED, DUBLIN, FRANKFURT, THROTTLED, USABLE, World, admin, prober, region, support as agent,
};

const DAY: i64 = 24 * 60 * 60;

fn keys(name: &str) -> BTreeMap<Region, KeyArn> {
    let arn = |of: &str| format!("arn:aws:kms:{of}:222222222222:key/{name}").parse().unwrap();
    [FRANKFURT, DUBLIN].map(|of| (region(of), arn(of))).into()
}

impl World {
    pub fn asks(&mut self, name: &str, depth: Depth, origin: &Origin) -> Result<Decision, Refusal> {
        self.happens(PolicyEvent::ReencryptionRequested { keys: keys(name), depth }, origin)
    }

    fn preparing(depth: Depth) -> (Self, ReencryptionId) {
        let mut world = Self::active();
        world.asks("cc", depth, &admin()).unwrap();
        let id = world.job();
        (world, id)
    }

    pub fn rewriting() -> (Self, ReencryptionId) {
        let (mut world, id) = Self::preparing(Depth::Rekey);
        world.switches(USABLE).unwrap();
        (world, id)
    }

    pub fn job(&self) -> ReencryptionId {
        self.policy.reencryption.as_ref().unwrap().id
    }

    fn phase(&self) -> Phase {
        self.policy.reencryption.as_ref().unwrap().phase
    }

    pub fn switches(&mut self, dublin: Observation) -> Result<Decision, Refusal> {
        self.switches_proving(dublin, &[])
    }

    fn switches_proving(
        &mut self,
        dublin: Observation,
        proven: &[KeyPermission],
    ) -> Result<Decision, Refusal> {
        self.later(60);
        let canaries = [FRANKFURT, DUBLIN].map(|of| (region(of), "QQ==".to_owned())).into();
        let round = self.round(USABLE, dublin);
        let event = PolicyEvent::ReencryptionSwitched {
            job: self.job(),
            canaries,
            data_keys: 3,
            proven: proven.iter().copied().collect(),
            round,
        };
        self.happens(event, &prober())
    }

    pub fn passes(&mut self, pass: u32, old: u64) -> Result<Decision, Refusal> {
        let job = self.job();
        self.happens(PolicyEvent::ReencryptionPassed { job, pass, old }, &prober())
    }

    pub fn ends(&mut self, job: ReencryptionId) -> Result<Decision, Refusal> {
        let ledger = "ledger".to_owned();
        let event = PolicyEvent::ReencryptionEnded { job, data_keys: 3, old_versions: Some(0), ledger };
        self.happens(event, &prober())
    }
}

pub fn said(decision: &Decision) -> Vec<&str> {
    let told = decision.outbox.iter().filter_map(|row| match &row.effect {
        Effect::OpenTicket { body, .. }
        | Effect::CommentTicket { body, .. }
        | Effect::ResolveTicket { body, .. } => Some(body.as_str()),
        _ => None,
    });
    told.collect()
}

fn taken_up(decision: &Decision) -> bool {
    decision.outbox.iter().any(|row| matches!(row.effect, Effect::Reencrypt { .. }))
}

#[test]
fn x5_a_request_opens_the_ticket_of_the_documents_with_the_advice_and_starts_the_job() {
    let mut world = World::active();
    let decision = world.asks("cc", Depth::Rekey, &admin()).unwrap();
    let Effect::OpenTicket { title, body, .. } = &decision.outbox[0].effect else { panic!("no ticket") };
    assert_eq!(title, "Re-encryption for AWS account 222222222222");
    assert!(body.contains("weigh it against revocation") && body.contains("backups"), "{body}");
    assert!(taken_up(&decision));
    assert_eq!(world.phase(), Phase::Preparing);
    assert_eq!(world.policy.generation, 1, "nothing else has changed");
    assert_eq!(world.policy.fence.min_write_generation, 0);
    assert_eq!(decision.fact.slug, "reencryption-requested");
    assert_eq!(world.policy.claimed_keys().len(), 4, "nobody else may enrol the new keys");
}

#[test]
fn e3_where_the_catalogue_asks_for_two_admins_one_alone_moves_nothing_to_new_keys() {
    let mut world = World::active();
    world.catalogue.key_changes.second_approver = true;
    let ask = |world: &mut World, who: &str, name: &str, depth: Depth| {
        let by = crate::support::by(claviger_domain::event::Actor::OrgAdmin(who.parse().unwrap()));
        world.asks(name, depth, &by)
    };
    let proposed = ask(&mut world, "ada", "cc", Depth::Rekey).unwrap();
    assert!(!taken_up(&proposed) && world.policy.reencryption.is_none());
    let [Effect::OpenTicket { title, body, ticket }] =
        &proposed.outbox.iter().map(|row| row.effect.clone()).collect::<Vec<_>>()[..]
    else {
        panic!("no ticket")
    };
    assert_eq!(title, "Re-encryption for AWS account 222222222222");
    assert!(body.contains("Nothing has begun") && body.contains("weigh it against revocation"), "{body}");
    let again = ask(&mut world, "ada", "cc", Depth::Rekey).unwrap_err();
    assert_eq!(again, Refusal::Forbidden { who: "another org admin" });
    // Other keys, or another depth, are another proposal; too late is none. All are told on one ticket.
    for (who, name, depth) in
        [("bea", "dd", Depth::Rekey), ("ada", "dd", Depth::Rewrap), ("bea", "cc", Depth::Rekey)]
    {
        let other = ask(&mut world, who, name, depth).unwrap();
        assert!(!taken_up(&other));
        let Effect::CommentTicket { ticket: told, .. } = &other.outbox[0].effect else {
            panic!("no comment")
        };
        assert_eq!(told, ticket);
    }
    world.later(24 * 3600 + 1);
    assert!(!taken_up(&ask(&mut world, "ada", "cc", Depth::Rekey).unwrap()));
    let seconded = ask(&mut world, "bea", "cc", Depth::Rekey).unwrap();
    assert!(taken_up(&seconded) && said(&seconded)[0].contains("Re-encryption started"));
    assert_eq!(world.policy.reencryption_proposal, None);
    assert_eq!(world.policy.reencryption.as_ref().unwrap().ticket, *ticket);
    // The next one begins anew, on a ticket of its own.
    let job = world.job();
    let cancelled = PolicyEvent::ReencryptionCancelled { job };
    world.happens(cancelled, &admin()).unwrap();
    world.ends(job).unwrap();
    let next = ask(&mut world, "ada", "ee", Depth::Rekey).unwrap();
    assert!(matches!(&next.outbox[0].effect, Effect::OpenTicket { ticket: other, .. } if other != ticket));
    ask(&mut world, "bea", "ee", Depth::Rekey).unwrap();
    assert_ne!(world.job(), job);
}

#[test]
fn e3_the_word_of_an_admin_who_left_moves_nothing_to_new_keys_with_anothers() {
    let mut world = World::active();
    world.catalogue.key_changes.second_approver = true;
    let [ada, bea] = ["ada", "bea"]
        .map(|who| crate::support::by(claviger_domain::event::Actor::OrgAdmin(who.parse().unwrap())));
    let left = |who: &str| PolicyEvent::ProposerLeft { by: who.parse().unwrap() };
    assert_eq!(world.happens(left("ada"), &prober()).unwrap_err(), Refusal::Redundant);
    let proposed = world.asks("cc", Depth::Rekey, &ada).unwrap();
    let Effect::OpenTicket { ticket, .. } = proposed.outbox[0].effect else { panic!("no ticket") };
    assert_eq!(world.happens(left("bea"), &prober()).unwrap_err(), Refusal::Redundant);
    let dropped = world.happens(left("ada"), &prober()).unwrap();
    assert_eq!(world.policy.reencryption_proposal, None);
    assert!(matches!(dropped.outbox[0].effect, Effect::ResolveTicket { ticket: of, .. } if of == ticket));
    assert!(!taken_up(&world.asks("cc", Depth::Rekey, &bea).unwrap()), "it is a first word again");
    assert!(taken_up(&world.asks("cc", Depth::Rekey, &ada).unwrap()));
}

#[test]
fn x1_nobody_but_an_org_admin_asks() {
    let mut world = World::active();
    for origin in [agent(), prober()] {
        assert!(matches!(world.asks("cc", Depth::Rekey, &origin), Err(Refusal::Forbidden { .. })));
    }
}

#[test]
fn x2_a_second_job_is_refused_while_one_is_open() {
    let (mut world, _) = World::preparing(Depth::Rekey);
    assert_eq!(world.asks("dd", Depth::Rewrap, &admin()).unwrap_err(), Refusal::ReencryptionUnderWay);
    world.switches(USABLE).unwrap();
    assert_eq!(world.asks("dd", Depth::Rekey, &admin()).unwrap_err(), Refusal::ReencryptionUnderWay);
}

#[test]
fn x1_new_keys_are_new_in_every_region_and_of_the_same_account() {
    let mut world = World::active();
    let mut asks = |keys: BTreeMap<Region, KeyArn>| {
        world.happens(PolicyEvent::ReencryptionRequested { keys, depth: Depth::Rekey }, &admin()).unwrap_err()
    };
    let mut one = keys("cc");
    one.remove(&region(DUBLIN));
    let mut known = keys("cc");
    known.insert(region(DUBLIN), format!("arn:aws:kms:{DUBLIN}:222222222222:key/bb").parse().unwrap());
    let mut foreign = keys("cc");
    foreign.insert(region(DUBLIN), format!("arn:aws:kms:{DUBLIN}:333333333333:key/cc").parse().unwrap());
    let mut elsewhere = keys("cc");
    elsewhere.insert(region(DUBLIN), format!("arn:aws:kms:{FRANKFURT}:222222222222:key/dd").parse().unwrap());
    for wrong in [BTreeMap::new(), one, known, foreign, elsewhere] {
        assert!(matches!(asks(wrong), Refusal::KeysNotUsable { .. }));
    }
}

#[test]
fn x1_new_keys_are_one_a_region_of_the_realm_and_in_no_other() {
    let mut world = World::active();
    let elsewhere = "us-east-1";
    let arn: KeyArn = format!("arn:aws:kms:{elsewhere}:222222222222:key/cc").parse().unwrap();
    let mut more = keys("cc");
    more.insert(region(elsewhere), arn);
    let mut instead = more.clone();
    instead.remove(&region(DUBLIN));
    for keys in [more, instead] {
        let event = PolicyEvent::ReencryptionRequested { keys, depth: Depth::Rekey };
        assert!(matches!(world.happens(event, &admin()), Err(Refusal::KeysNotUsable { .. })));
    }
}

#[test]
fn x1_no_job_starts_while_degraded_or_cut_off() {
    let mut world = World::active();
    world.probed(DISABLED, USABLE).unwrap();
    assert_eq!(world.asks("cc", Depth::Rekey, &admin()).unwrap_err(), Refusal::Degraded);
    let mut world = World::suspended();
    assert!(matches!(world.asks("cc", Depth::Rekey, &admin()), Err(Refusal::IllegalForState { .. })));
    // By the vendor, with every key as it should be.
    let suspension = PolicyEvent::VendorSuspended { ground: Ground::Ordered, reason: "because".to_owned() };
    let mut world = World::active();
    world.happens(suspension.clone(), &agent()).unwrap();
    assert!(matches!(world.asks("cc", Depth::Rekey, &admin()), Err(Refusal::IllegalForState { .. })));
    let (mut world, _) = World::preparing(Depth::Rekey);
    world.happens(suspension, &agent()).unwrap();
    assert!(matches!(world.switches(USABLE), Err(Refusal::IllegalForState { .. })), "nor is there a switch");
}

#[test]
fn i6_the_switch_is_one_decision_that_keeps_the_old_keys_known() {
    let (mut world, id) = World::preparing(Depth::Rekey);
    let old: Vec<KeyArn> = world.policy.keys.values().map(|key| key.arn.clone()).collect();
    let decision = world.switches(USABLE).unwrap();
    assert_eq!(world.phase(), Phase::Rewriting { pass: 1 });
    assert_eq!(world.policy.generation, 2);
    assert_eq!(world.policy.fence.min_write_generation, 2);
    assert!(world.policy.fence.is_open());
    assert_eq!(world.policy.fence.epoch.0, 0, "nobody was told to stop");
    for (region, arn) in keys("cc") {
        assert_eq!(world.policy.keys[&region].arn, arn);
        assert!(world.policy.keys[&region].canary.is_some());
    }
    for arn in &old {
        assert!(world.policy.access_of(arn).is_some(), "data keys are unwrapped under {arn} still");
        assert!(world.policy.claimed_keys().contains(arn));
    }
    assert_eq!(world.policy.former_keys[0].job, id);
    assert!(said(&decision)[0].contains("no way back"));
    assert_eq!(world.switches(USABLE).unwrap_err(), Refusal::Redundant, "a doubled message");
}

#[rstest]
#[case::refused(DISABLED)]
#[case::silent(THROTTLED)]
fn x3_there_is_no_switch_before_every_new_key_is_proven(#[case] dublin: Observation) {
    let (mut world, _) = World::preparing(Depth::Rekey);
    assert!(matches!(world.switches(dublin).unwrap_err(), Refusal::KeysNotUsable { .. }));
    assert_eq!(world.policy.generation, 1);
    assert_eq!(world.phase(), Phase::Preparing);
}

#[test]
fn x3_an_old_key_that_is_lost_in_one_region_does_not_keep_the_job_from_the_switch_which_heals_it() {
    let (mut world, _) = World::preparing(Depth::Rekey);
    world.probed(DISABLED, USABLE).unwrap();
    assert!(world.policy.is_degraded() && world.policy.may_reencrypt());
    let ticket = world.policy.ticket.unwrap();
    let decision = world.switches(USABLE).unwrap();
    assert!(!world.policy.is_degraded());
    let resolved = |row: &claviger_domain::effect::OutboxRow| matches!(&row.effect, Effect::ResolveTicket { ticket: of, .. } if *of == ticket);
    assert!(decision.outbox.iter().any(resolved), "the ticket of the lost key is resolved");
}

#[test]
fn x3_a_new_key_that_is_lost_before_the_switch_stops_the_job_alone_and_it_goes_on_by_itself() {
    let (mut world, job) = World::preparing(Depth::Rekey);
    let fault = Some(KeyFault { region: region(DUBLIN), saw: DISABLED });
    let stopped =
        world.happens(PolicyEvent::ReencryptionHindered { job, fault: fault.clone() }, &prober()).unwrap();
    assert!(said(&stopped)[0].contains("stopped while preparing: the new key in eu-west-1 refuses"));
    assert!(world.policy.fence.is_open() && !world.policy.is_degraded());
    let again = world.happens(PolicyEvent::ReencryptionHindered { job, fault }, &prober());
    assert_eq!(again.unwrap_err(), Refusal::Redundant);
    let goes_on = world.happens(PolicyEvent::ReencryptionHindered { job, fault: None }, &prober()).unwrap();
    assert!(taken_up(&goes_on) && said(&goes_on)[0].contains("goes on"));
}

#[test]
fn x3_a_new_key_that_is_lost_in_one_region_after_the_switch_stops_the_job_and_data_stays_readable() {
    let (mut world, _) = World::rewriting();
    world.later(60);
    let stopped = world.probed(USABLE, DISABLED).unwrap();
    assert!(world.policy.fence.is_open() && !world.policy.may_reencrypt());
    assert!(
        said(&stopped).iter().any(|body| body.contains("stopped while rewriting: the new key in eu-west-1"))
    );
    assert!(matches!(world.passes(1, 0), Err(Refusal::IllegalForState { .. })));
    world.later(60);
    let goes_on = world.probed(USABLE, USABLE).unwrap();
    assert!(taken_up(&goes_on) && world.policy.may_reencrypt());
}

#[test]
fn x3_revocation_by_the_new_keys_stops_the_job_and_restoration_lets_it_go_on() {
    let (mut world, _) = World::rewriting();
    world.later(60);
    let cut_off = world.probed_twice(DISABLED, DISABLED).unwrap();
    assert!(world.is_suspended());
    assert!(said(&cut_off).iter().any(|body| body.contains("stopped while rewriting")));
    assert!(!world.policy.may_reencrypt());
    assert_eq!(world.policy.fence.min_write_generation, 2, "the old keys do not come back");
    world.later(60);
    world.asks_for_restoration(&admin()).unwrap();
    world.later(1);
    let rounds = world.rounds(USABLE, USABLE);
    let open =
        world.happens(PolicyEvent::RestorationProbed { rounds, unwrapped_in: None }, &prober()).unwrap();
    assert!(taken_up(&open) && world.policy.may_reencrypt());
    assert_eq!(world.phase(), Phase::Rewriting { pass: 1 });
}

#[test]
fn x3_the_old_keys_suspend_before_the_switch_and_nobody_after_it() {
    let (mut world, _) = World::preparing(Depth::Rekey);
    world.probed_twice(DISABLED, DISABLED).unwrap();
    assert!(world.is_suspended(), "which keys are required is what the policy says");
    assert!(
        matches!(world.switches(USABLE), Err(Refusal::IllegalForState { .. })),
        "no way round a revocation"
    );
    let (mut world, _) = World::rewriting();
    // Probes of the old keys that were on their way during the switch.
    let mut late = world.round(DISABLED, DISABLED);
    late.started_at = world.now;
    let rounds = vec![late.clone(), late];
    let refused = world.happens(PolicyEvent::ProbesReported { rounds, heard: Vec::new() }, &prober());
    assert_eq!(refused.unwrap_err(), Refusal::Stale);
}

#[test]
fn i5_the_vendors_suspension_stops_a_job_and_a_pause_outlives_it() {
    let (mut world, job) = World::rewriting();
    world.happens(PolicyEvent::ReencryptionPaused { job }, &admin()).unwrap();
    let event = PolicyEvent::VendorSuspended { ground: Ground::Ordered, reason: "because".to_owned() };
    world.happens(event, &agent()).unwrap();
    assert!(world.policy.fence.causes.contains(&Cause::Vendor));
    let lifted = world.happens(PolicyEvent::VendorSuspensionLifted, &agent()).unwrap();
    assert!(!taken_up(&lifted), "the org admin's pause stays");
    assert!(!world.policy.may_reencrypt());
    let resumed = world.happens(PolicyEvent::ReencryptionResumed { job }, &admin()).unwrap();
    assert!(taken_up(&resumed) && world.policy.may_reencrypt());
}

#[test]
fn x3_a_job_stops_for_the_vendors_suspension_too_says_so_and_goes_on_with_its_end() {
    let (mut world, _) = World::rewriting();
    let event = PolicyEvent::VendorSuspended { ground: Ground::Ordered, reason: "because".to_owned() };
    let stopped = world.happens(event, &agent()).unwrap();
    assert!(!world.policy.may_reencrypt());
    assert!(said(&stopped).iter().any(|body| body.contains("(cause `vendor`)")), "{:?}", said(&stopped));
    let lifted = world.happens(PolicyEvent::VendorSuspensionLifted, &agent()).unwrap();
    assert!(taken_up(&lifted) && world.policy.may_reencrypt());
}

#[test]
fn x2_pause_and_resume_are_the_admins_and_are_told() {
    let (mut world, job) = World::preparing(Depth::Rekey);
    let paused = world.happens(PolicyEvent::ReencryptionPaused { job }, &admin()).unwrap();
    assert!(said(&paused)[0].contains("paused while preparing"));
    assert_eq!(
        world.happens(PolicyEvent::ReencryptionPaused { job }, &admin()).unwrap_err(),
        Refusal::Redundant
    );
    assert_eq!(world.switches(USABLE).unwrap_err(), Refusal::Stale, "it stands still");
    let by_agent = world.happens(PolicyEvent::ReencryptionResumed { job }, &agent());
    assert!(matches!(by_agent.unwrap_err(), Refusal::Forbidden { .. }));
    world.happens(PolicyEvent::ReencryptionResumed { job }, &admin()).unwrap();
    world.switches(USABLE).unwrap();
}

#[test]
fn x2_a_job_is_cancelled_before_the_switch_and_never_after_it() {
    let (mut world, job) = World::preparing(Depth::Rekey);
    let cancelled = world.happens(PolicyEvent::ReencryptionCancelled { job }, &admin()).unwrap();
    assert!(taken_up(&cancelled));
    assert_eq!(world.switches(USABLE).unwrap_err(), Refusal::Stale, "a message that was on its way");
    world.ends(job).unwrap();
    assert!(world.policy.reencryption.is_none());
    assert_eq!(world.policy.reencryptions[0].outcome, Outcome::Cancelled);
    assert_eq!(world.policy.generation, 1);
    assert_eq!(world.policy.claimed_keys().len(), 2, "the new keys are anybody's again");
    assert_eq!(world.ends(job).unwrap_err(), Refusal::Redundant);
    // The next job's data keys are told apart from what a late message of this one makes.
    world.asks("dd", Depth::Rekey, &admin()).unwrap();
    assert_eq!(world.policy.reencryption.as_ref().unwrap().generation, 3);

    let (mut world, job) = World::rewriting();
    let refused = world.happens(PolicyEvent::ReencryptionCancelled { job }, &admin());
    assert_eq!(refused.unwrap_err(), Refusal::PointOfNoReturn);
}

#[test]
fn x3_what_is_said_of_another_job_than_the_open_one_changes_nothing() {
    let other = ReencryptionId::from_uuid(uuid::Uuid::from_u128(9));
    let ended = |job| PolicyEvent::ReencryptionEnded {
        job,
        data_keys: 3,
        old_versions: Some(0),
        ledger: String::new(),
    };
    let (mut world, job) = World::preparing(Depth::Rekey);
    for (event, origin) in [
        (PolicyEvent::ReencryptionPaused { job: other }, admin()),
        (PolicyEvent::ReencryptionCancelled { job: other }, admin()),
        (PolicyEvent::ReencryptionHindered { job: other, fault: None }, prober()),
        (PolicyEvent::ReencryptionPassed { job: other, pass: 1, old: 0 }, prober()),
        (PolicyEvent::ReencryptionScanDue { job: other }, prober()),
        (ended(other), prober()),
    ] {
        assert_eq!(world.happens(event, &origin).unwrap_err(), Refusal::Stale);
    }
    world.happens(PolicyEvent::ReencryptionCancelled { job }, &admin()).unwrap();
    world.happens(ended(job), &prober()).unwrap();
    for (of, expected) in [(job, Refusal::Redundant), (other, Refusal::Stale)] {
        assert_eq!(world.happens(ended(of), &prober()).unwrap_err(), expected);
        let paused = world.happens(PolicyEvent::ReencryptionPaused { job: of }, &admin());
        assert_eq!(paused.unwrap_err(), Refusal::Stale, "none is open");
    }
}

#[test]
fn x4_it_completes_only_after_two_clean_scans_that_lie_the_in_transit_period_apart() {
    let (mut world, job) = World::rewriting();
    world.passes(1, 0).unwrap();
    assert_eq!(world.phase(), Phase::Scanning { pass: 2, clean_since: None });
    assert_eq!(world.passes(1, 0).unwrap_err(), Refusal::Stale, "a doubled message");
    world.passes(2, 5).unwrap();
    assert_eq!(world.phase(), Phase::Rewriting { pass: 3 }, "a scan that finds something goes back");
    world.passes(3, 0).unwrap();
    world.passes(4, 0).unwrap();
    assert!(matches!(world.phase(), Phase::Waiting { .. }));
    assert_eq!(world.ends(job).unwrap_err(), Refusal::Stale);
    let due = PolicyEvent::ReencryptionScanDue { job };
    world.later(29 * DAY);
    assert_eq!(world.happens(due.clone(), &prober()).unwrap_err(), Refusal::Stale);
    world.later(DAY);
    world.happens(due.clone(), &prober()).unwrap();
    assert_eq!(world.happens(due, &prober()).unwrap_err(), Refusal::Redundant);
    world.passes(5, 0).unwrap();
    assert_eq!(world.phase(), Phase::Finishing);
    let ended = world.ends(job).unwrap();
    assert!(said(&ended)[0].contains("completed") && said(&ended)[0].contains("ledger"));
    assert!(matches!(ended.outbox[0].effect, Effect::ResolveTicket { .. }));
    assert_eq!(world.policy.reencryptions[0].outcome, Outcome::Completed);
    assert_eq!(world.policy.fence.min_write_generation, 2, "for good");
    // The next one may begin.
    world.asks("dd", Depth::Rekey, &admin()).unwrap();
    assert_eq!(world.policy.reencryption.as_ref().unwrap().generation, 3);
}

#[test]
fn x4_a_second_scan_that_finds_something_begins_the_whole_again() {
    let (mut world, job) = World::rewriting();
    for pass in [1, 2] {
        world.passes(pass, 0).unwrap();
    }
    world.later(30 * DAY);
    world.happens(PolicyEvent::ReencryptionScanDue { job }, &prober()).unwrap();
    world.passes(3, 1).unwrap();
    world.passes(4, 0).unwrap();
    assert_eq!(world.phase(), Phase::Scanning { pass: 5, clean_since: None });
}

#[test]
fn x4_a_second_scan_that_ends_too_early_by_another_machines_clock_waits_and_counts_from_the_first() {
    let (mut world, job) = World::rewriting();
    world.passes(1, 0).unwrap();
    world.passes(2, 0).unwrap();
    let clean_since = world.now;
    world.later(30 * DAY);
    world.happens(PolicyEvent::ReencryptionScanDue { job }, &prober()).unwrap();
    world.later(-1);
    world.passes(3, 0).unwrap();
    assert_eq!(world.phase(), Phase::Waiting { pass: 3, clean_since });
    world.later(1);
    world.happens(PolicyEvent::ReencryptionScanDue { job }, &prober()).unwrap();
    world.passes(4, 0).unwrap();
    assert_eq!(world.phase(), Phase::Finishing);
}

#[test]
fn x1_a_rewrap_touches_no_record_and_ends_with_the_data_keys() {
    let (mut world, job) = World::preparing(Depth::Rewrap);
    world.switches(USABLE).unwrap();
    assert_eq!(world.phase(), Phase::Finishing);
    world.ends(job).unwrap();
    assert_eq!(world.policy.reencryptions[0].outcome, Outcome::Completed);
}

impl World {
    fn byok_active() -> Self {
        let mut world = Self::byok_approved();
        world.happens(PolicyEvent::KeysCreated { keys: keys("aa") }, &prober()).unwrap();
        let canaries = [FRANKFURT, DUBLIN].map(|of| (region(of), "QQ==".to_owned())).into();
        let round = world.round(USABLE, USABLE);
        world.happens(PolicyEvent::KeysVerified { canaries, round }, &prober()).unwrap();
        world.later(60);
        world
    }
}

#[test]
fn x1_a_byok_policy_moves_to_keys_that_are_made_through_its_role() {
    let mut world = World::byok_active();
    world
        .happens(PolicyEvent::ReencryptionRequested { keys: BTreeMap::new(), depth: Depth::Rekey }, &admin())
        .unwrap();
    let job = world.job();
    assert!(
        matches!(world.switches(USABLE).unwrap_err(), Refusal::KeysNotUsable { .. }),
        "there are none yet"
    );
    let made = PolicyEvent::ReencryptionKeysCreated { job, keys: keys("cc") };
    let told = world.happens(made.clone(), &prober()).unwrap();
    assert!(said(&told)[0].contains("key/cc"));
    assert_eq!(world.happens(made, &prober()).unwrap_err(), Refusal::Redundant);
    world.switches(USABLE).unwrap();
    assert!(matches!(world.policy.access, KeyAccess::Role(_)));
    assert_eq!(world.policy.mode(), Mode::Byok);
}

#[test]
fn x6_a_byok_policy_moves_to_keys_of_its_own_making_and_its_mode_switches_when_that_is_through() {
    let mut world = World::byok_active();
    let asked = world.asks("cc", Depth::Rekey, &admin()).unwrap();
    let Effect::OpenTicket { title, .. } = &asked.outbox[0].effect else { panic!("no ticket") };
    assert_eq!(title, "BYOK re-encryption for AWS account 222222222222");
    let job = world.job();
    world.switches(USABLE).unwrap();
    assert_eq!(world.policy.access, KeyAccess::KeyPolicy, "the new keys are reached by their policies");
    assert_eq!(world.policy.mode(), Mode::Byok, "until it is through");
    let old = &world.policy.former_keys[0];
    assert!(matches!(old.access, KeyAccess::Role(_)), "and the old ones through the role");
    for pass in [1, 2] {
        world.passes(pass, 0).unwrap();
    }
    world.later(30 * DAY);
    world.happens(PolicyEvent::ReencryptionScanDue { job }, &prober()).unwrap();
    world.passes(3, 0).unwrap();
    world.ends(job).unwrap();
    assert_eq!(world.policy.mode(), Mode::Cmk);
}

#[test]
fn i6_every_key_is_reached_as_it_was_when_it_came_and_an_unknown_one_not_at_all() {
    let mut world = World::byok_active();
    let of = |name: &str| keys(name).into_values().next().unwrap();
    world.asks("cc", Depth::Rewrap, &admin()).unwrap();
    let job = world.job();
    assert_eq!(world.policy.access_of(&of("cc")), Some(&KeyAccess::KeyPolicy), "the job's");
    world.switches(USABLE).unwrap();
    world.ends(job).unwrap();
    world.asks("dd", Depth::Rewrap, &admin()).unwrap();
    world.switches(USABLE).unwrap();
    for (name, through_role) in [("aa", true), ("cc", false), ("dd", false)] {
        let access = world.policy.access_of(&of(name)).unwrap();
        assert_eq!(matches!(access, KeyAccess::Role(_)), through_role, "{name}");
    }
    assert_eq!(world.policy.access_of(&of("ee")), None);
}

#[test]
fn s2_a_key_is_not_replaced_while_a_job_prepares_and_may_be_afterwards() {
    let (mut world, _) = World::preparing(Depth::Rekey);
    world.probed(USABLE, DISABLED).unwrap();
    let key: KeyArn = format!("arn:aws:kms:{DUBLIN}:222222222222:key/dd").parse().unwrap();
    let event = PolicyEvent::KeyReplacementAsked { region: region(DUBLIN), key };
    assert_eq!(world.happens(event.clone(), &admin()).unwrap_err(), Refusal::ReencryptionUnderWay);
    let (mut world, _) = World::rewriting();
    world.later(60);
    world.probed(USABLE, DISABLED).unwrap();
    world.happens(event, &admin()).unwrap();
}

#[test]
fn i8_a_policy_that_was_stored_before_there_were_jobs_is_read_as_one_without() {
    let world = World::active();
    let mut stored = serde_json::to_value(&world.policy).unwrap();
    let fields = stored.as_object_mut().unwrap();
    for field in ["reencryption", "formerKeys", "reencryptions"] {
        fields.remove(field);
    }
    let read: claviger_domain::policy::EncryptionPolicy = serde_json::from_value(stored).unwrap();
    assert_eq!(read, world.policy);
    let (world, _) = World::rewriting();
    let text = serde_json::to_string(&world.policy).unwrap();
    assert_eq!(
        serde_json::from_str::<claviger_domain::policy::EncryptionPolicy>(&text).unwrap(),
        world.policy
    );
}

#[test]
fn k1_the_policy_gets_no_key_that_does_not_give_what_was_accepted() {
    let (mut world, request) = World::asked();
    world.asks("cc", Depth::Rekey, &admin()).unwrap();
    // Accepted when the new keys had been checked already.
    world.grants(request, &[FRANKFURT, DUBLIN], &admin()).unwrap();
    let refusal = world.switches(USABLE).unwrap_err();
    let faults = [FRANKFURT, DUBLIN].map(|of| (region(of), DENIED)).into();
    assert_eq!(refusal, Refusal::KeysNotUsable { faults });
    assert_eq!(world.phase(), Phase::Preparing);
    world.switches_proving(USABLE, &[KeyPermission::DescribeKey]).unwrap();
    assert!(world.policy.access_requests[0].is_granted());
}
