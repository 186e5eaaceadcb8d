use claviger_app::ports::{Clock, Instances, Policies, StoreError};
use claviger_app::request_error::RequestError;
use claviger_app::support_requests::*;
use claviger_domain::decide::Refusal;
use claviger_domain::effect::Effect;
use claviger_testkit::builders::{
    self, an_enrolment, an_enrolment_decision, an_instance_decision, an_organisation, approval, by_admin,
    by_support, verification,
};
use claviger_testkit::{FakeClock, MemoryWorld, SequentialIds};

#[tokio::test]
async fn e3_a_support_agent_decides_on_policies_and_instances_once() {
    let (world, clock) = (MemoryWorld::new(), FakeClock::default());
    let (acme, now) = (an_organisation("acme"), clock.now());
    let asked = an_enrolment_decision(&acme, &an_enrolment("222222222222", "europe"), now);
    world.commit_policy(None, &asked).await.unwrap();
    let case = DecideRequests {
        requests: &world,
        policies: &world,
        instances: &world,
        clock: &clock,
        settings: builders::settings(),
    };
    let id = asked.next.id.as_uuid();
    let refused = case.decide(id, &Verdict::Approved, &by_admin()).await;
    assert!(matches!(refused, Err(RequestError::Refused(Refusal::Forbidden { .. }))));
    world.fail_changes([StoreError::Conflict]);
    for _ in 0..2 {
        let decided = case.decide(id, &Verdict::Approved, &by_support()).await.unwrap();
        assert!(matches!(decided, Decided::Policy(policy) if policy.lifecycle.slug() == "verifying"));
    }
    let verify = world.outbox().into_iter().filter(|row| row.effect == Effect::VerifyPolicy).count();
    assert_eq!(verify, 1);
    assert!(case.list(None, 10).await.unwrap().items.is_empty());

    let policy = verification(&approval(&asked.next, now).next, now).next;
    let wanted = an_instance_decision(&policy, "acme-eng", "jira", now);
    world.commit_instance(None, &wanted).await.unwrap();
    let no = Verdict::Rejected { reason: "not on this site".to_owned() };
    let id = case.list(None, 10).await.unwrap().items[0].id;
    let decided = case.decide(id, &no, &by_support()).await.unwrap();
    assert!(matches!(decided, Decided::Instance(instance) if instance.status.slug() == "rejected"));
    let late = case.decide(id, &Verdict::Approved, &by_support()).await;
    assert!(matches!(late, Err(RequestError::Refused(Refusal::IllegalForState { .. }))));
    let nothing = case.decide(SequentialIds::uuid(77), &Verdict::Approved, &by_support()).await;
    assert!(matches!(nothing, Err(RequestError::NotFound { .. })));
}
