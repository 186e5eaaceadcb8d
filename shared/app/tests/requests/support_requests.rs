use claviger_app::ports::{Clock, Instances, Organisations, Policies, StoreError};
use claviger_app::request_error::RequestError;
use claviger_app::support_requests::*;
use claviger_domain::access::KeyPolicyTemplate;
use claviger_domain::decide::Refusal;
use claviger_domain::effect::Effect;
use claviger_domain::event::{Origin, PolicyEvent};
use claviger_domain::organisation::Organisation;
use claviger_domain::policy::EncryptionPolicy;
use claviger_testkit::builders::{
    self, an_enrolment, an_enrolment_decision, an_instance_decision, an_organisation, approval, by_admin,
    by_support, commit_active_policy, cut_off, decided, parsed, verification,
};
use claviger_testkit::{FakeClock, MemoryWorld, SequentialIds};
use jiff::SignedDuration;
use uuid::Uuid;

/// Acme asked for something, and support has not answered yet.
struct Stage {
    world: MemoryWorld,
    clock: FakeClock,
    request: Uuid,
}

impl Stage {
    async fn empty() -> Self {
        let stage =
            Self { world: MemoryWorld::new(), clock: FakeClock::default(), request: SequentialIds::uuid(77) };
        stage.world.save_organisation(&an_organisation("acme")).await.unwrap();
        stage
    }

    async fn enrolment() -> Self {
        let stage = Self::empty().await;
        let enrolment = an_enrolment("222222222222", "europe");
        let asked = an_enrolment_decision(&an_organisation("acme"), &enrolment, stage.clock.now());
        stage.world.commit_policy(None, &asked).await.unwrap();
        Self { request: asked.next.id.as_uuid(), ..stage }
    }

    async fn active() -> Self {
        let stage = Self::empty().await;
        let enrolment = an_enrolment("222222222222", "europe");
        let now = stage.clock.now();
        let policy = commit_active_policy(&stage.world, &an_organisation("acme"), &enrolment, now).await;
        stage.clock.advance(SignedDuration::from_secs(60));
        Self { request: policy.id.as_uuid(), ..stage }
    }

    async fn instance() -> Self {
        let stage = Self::active().await;
        let asked = an_instance_decision(&stage.policy().await, "acme-eng", "jira", stage.clock.now());
        stage.world.commit_instance(None, &asked).await.unwrap();
        Self { request: asked.next.id.as_uuid(), ..stage }
    }

    fn case(&self) -> DecideRequests<'_> {
        DecideRequests {
            requests: &self.world,
            organisations: &self.world,
            policies: &self.world,
            instances: &self.world,
            clock: &self.clock,
            settings: builders::settings(),
        }
    }

    async fn policy(&self) -> EncryptionPolicy {
        self.world.policy(&parsed("acme")).await.unwrap().unwrap()
    }

    /// The vendor's records say something else of acme.
    async fn is_fed(&self, change: impl FnOnce(&mut Organisation)) {
        let mut acme = an_organisation("acme");
        change(&mut acme);
        self.world.save_organisation(&acme).await.unwrap();
    }

    async fn happens(&self, event: PolicyEvent, origin: &Origin) {
        let policy = self.policy().await;
        let decision = decided(&policy, &event, origin, self.clock.now());
        self.world.commit_policy(Some(&policy), &decision).await.unwrap();
    }

    /// Support published a template, and acme met its request.
    async fn is_asked_for_access(&self) -> Uuid {
        let template = KeyPolicyTemplate {
            version: parsed("2027-01-15"),
            permissions: [parsed("kms:DescribeKey")].into(),
            decide_by: self.clock.now() + SignedDuration::from_hours(24 * 30),
            published_at: self.clock.now(),
            published_by: parsed("agent"),
        };
        self.happens(PolicyEvent::AccessRequested { template }, &by_support()).await;
        self.policy().await.access_requests[0].id
    }

    async fn approved(&self) -> Result<Decided, RequestError> {
        self.case().decide(self.request, &Verdict::Approved, &by_support()).await
    }

    /// It is not approved: why, in words.
    async fn is_not_approved(&self) -> RequestError {
        let error = self.approved().await.unwrap_err();
        let RequestError::NotApproved { why } = error else { panic!("{error:?}") };
        let waiting = self.case().list(None, 10).await.unwrap().items;
        assert!(waiting.iter().any(|request| request.id == self.request), "it waits on");
        *why
    }

    async fn can_be_rejected(&self) {
        let no = Verdict::Rejected { reason: "not allowed any more".to_owned() };
        let rejected = self.case().decide(self.request, &no, &by_support()).await.unwrap();
        match rejected {
            Decided::Policy(policy) => assert_eq!(policy.lifecycle.slug(), "rejected"),
            Decided::Instance(instance) => assert_eq!(instance.status.slug(), "rejected"),
            Decided::Closing(policy) => panic!("{policy:?}"),
        }
        assert!(self.case().list(None, 10).await.unwrap().items.is_empty());
    }
}

#[tokio::test]
async fn e3_a_support_agent_decides_on_policies_and_instances_once() {
    let stage = Stage::enrolment().await;
    let (world, case, id, now) = (&stage.world, stage.case(), stage.request, stage.clock.now());
    let asked = stage.policy().await;
    let refused = case.decide(id, &Verdict::Approved, &by_admin()).await;
    assert!(matches!(refused, Err(RequestError::Refused(Refusal::Forbidden { .. }))));
    world.fail_changes([StoreError::Conflict]);
    for _ in 0..2 {
        let decided = case.decide(id, &Verdict::Approved, &by_support()).await.unwrap();
        assert!(matches!(decided, Decided::Policy(policy) if policy.lifecycle.slug() == "verifying"));
    }
    let verify = world.outbox().into_iter().filter(|row| row.effect == Effect::VerifyPolicy).count();
    assert_eq!(verify, 1);
    let listed = case.list(None, 10).await.unwrap().items;
    assert!(matches!(&listed[..], [one] if one.approved && one.id == id), "until it is verified: {listed:?}");

    let policy = verification(&approval(&asked, now).next, now).next;
    let wanted = an_instance_decision(&policy, "acme-eng", "jira", now);
    world.commit_instance(None, &wanted).await.unwrap();
    let no = Verdict::Rejected { reason: "not on this site".to_owned() };
    let id = wanted.next.id.as_uuid();
    assert!(case.list(None, 10).await.unwrap().items.iter().any(|one| one.id == id && !one.approved));
    let decided = case.decide(id, &no, &by_support()).await.unwrap();
    assert!(matches!(decided, Decided::Instance(instance) if instance.status.slug() == "rejected"));
    let late = case.decide(id, &Verdict::Approved, &by_support()).await;
    assert!(matches!(late, Err(RequestError::Refused(Refusal::IllegalForState { .. }))));
    let nothing = case.decide(SequentialIds::uuid(77), &Verdict::Approved, &by_support()).await;
    assert!(matches!(nothing, Err(RequestError::NotFound { .. })));
}

#[tokio::test]
async fn e2_an_organisation_that_came_into_the_government_cloud_since_it_asked_does_not_enrol() {
    let stage = Stage::enrolment().await;
    stage.is_fed(|acme| acme.government = true).await;
    let why = stage.is_not_approved().await;
    let RequestError::NotEligible { reason, help } = why else { panic!("{why:?}") };
    assert!(reason.contains("government-cloud") && !help.is_empty(), "{reason}; {help}");
    assert_eq!(stage.policy().await.lifecycle.slug(), "requested");
    stage.can_be_rejected().await;
}

#[tokio::test]
async fn e1_an_organisation_whose_last_plan_ended_since_it_asked_does_not_enrol_until_it_has_one_again() {
    let stage = Stage::enrolment().await;
    stage.is_fed(|acme| acme.plans.values_mut().for_each(|plan| *plan = "standard".to_owned())).await;
    let why = stage.is_not_approved().await;
    assert!(matches!(&why, RequestError::NotEligible { reason, .. } if reason.contains("plan")), "{why:?}");
    stage.is_fed(|_| ()).await;
    stage.approved().await.unwrap();
}

#[tokio::test]
async fn e1_an_app_whose_plan_ended_since_it_was_asked_for_is_not_approved_though_another_has_one() {
    let stage = Stage::instance().await;
    stage.is_fed(|acme| drop(acme.plans.insert(parsed("jira"), "standard".to_owned()))).await;
    let why = stage.is_not_approved().await;
    assert_eq!(why.to_string(), "`jira` is on the plan `standard`");
    stage.is_fed(|acme| drop(acme.plans.remove(&parsed("jira")))).await;
    assert_eq!(stage.is_not_approved().await.to_string(), "the organisation has no plan for `jira`");
    stage.can_be_rejected().await;
}

#[tokio::test]
async fn e3_what_somebody_asked_for_who_is_no_org_admin_any_more_is_not_approved() {
    for stage in [Stage::enrolment().await, Stage::instance().await] {
        stage.is_fed(|acme| acme.admins = [parsed("eve")].into()).await;
        let why = stage.is_not_approved().await;
        let RequestError::NotNow { reason, help } = why else { panic!("{why:?}") };
        assert_eq!(reason, "who asked for it is no org admin any more");
        assert!(help.contains("another org admin asks anew"), "{help}");
        stage.can_be_rejected().await;
    }
}

#[tokio::test]
async fn e3_an_approval_that_is_said_again_is_done_once_whatever_the_organisation_has_become() {
    for stage in [Stage::enrolment().await, Stage::instance().await] {
        stage.approved().await.unwrap();
        stage
            .is_fed(|acme| {
                acme.government = true;
                acme.plans.clear();
                acme.admins.clear();
            })
            .await;
        stage.approved().await.unwrap();
    }
}

#[tokio::test]
async fn e11_an_app_is_not_approved_while_its_organisation_leaves() {
    let stage = Stage::instance().await;
    stage.happens(PolicyEvent::ClosingAsked, &by_admin()).await;
    let why = stage.is_not_approved().await;
    assert!(matches!(&why, RequestError::NotNow { .. }), "{why:?}");
    assert_eq!(why.to_string(), "the organisation is closing");
    stage.happens(PolicyEvent::ClosingCancelled, &by_admin()).await;
    stage.approved().await.unwrap();
}

#[tokio::test]
async fn e11_leaving_is_approved_whatever_the_organisation_has_become() {
    let stage = Stage::active().await;
    stage.happens(PolicyEvent::ClosingAsked, &by_admin()).await;
    stage
        .is_fed(|acme| {
            acme.government = true;
            acme.plans.clear();
            acme.admins.insert(parsed("ada"));
        })
        .await;
    let approved = stage.approved().await.unwrap();
    assert!(matches!(approved, Decided::Closing(policy) if policy.closing.is_some()));
}

#[tokio::test]
async fn e3_leaving_is_not_approved_in_the_name_of_somebody_who_is_no_org_admin_any_more() {
    for admins in [vec![], vec!["ada"]] {
        let stage = Stage::active().await;
        stage.happens(PolicyEvent::ClosingAsked, &by_admin()).await;
        stage.is_fed(|acme| acme.admins = admins.into_iter().map(parsed).collect()).await;
        let why = stage.is_not_approved().await;
        assert_eq!(why.to_string(), "who asked for it is no org admin any more");
        assert!(matches!(&stage.policy().await.closing, Some(closing) if closing.slug() == "asked"));
        let no = Verdict::Rejected { reason: "ask anew".to_owned() };
        stage.case().decide(stage.request, &no, &by_support()).await.unwrap();
        assert_eq!(stage.policy().await.closing, None);
    }
}

#[tokio::test]
async fn k1_an_app_is_not_approved_after_an_access_request_was_declined_or_ignored() {
    let stage = Stage::instance().await;
    let id = stage.is_asked_for_access().await;
    stage.clock.advance(SignedDuration::from_hours(24 * 30));
    let why = stage.is_not_approved().await;
    assert!(matches!(why, RequestError::AccessNotGranted { request } if request == id), "{why:?}");

    let stage = Stage::instance().await;
    let id = stage.is_asked_for_access().await;
    stage.happens(PolicyEvent::AccessDeclined { request: id }, &by_admin()).await;
    let why = stage.is_not_approved().await;
    assert!(matches!(why, RequestError::AccessNotGranted { request } if request == id), "{why:?}");
    let proven = stage.policy().await.keys.keys().cloned().collect();
    stage.happens(PolicyEvent::AccessGranted { request: id, proven }, &by_admin()).await;
    stage.approved().await.unwrap();
}

#[tokio::test]
async fn k1_an_app_is_approved_while_an_access_request_may_still_be_answered() {
    let stage = Stage::instance().await;
    stage.is_asked_for_access().await;
    stage.approved().await.unwrap();
}

#[tokio::test]
async fn e3_an_app_is_not_approved_while_access_is_cut_off() {
    let stage = Stage::instance().await;
    let policy = stage.policy().await;
    let decision = cut_off(&policy, stage.clock.now());
    stage.world.commit_policy(Some(&policy), &decision).await.unwrap();
    let why = stage.is_not_approved().await;
    assert!(matches!(why, RequestError::Suspended), "{why:?}");
    stage.can_be_rejected().await;
}
