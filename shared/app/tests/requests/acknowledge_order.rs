use claviger_app::acknowledge_order::*;
use claviger_app::ports::Clock;
use claviger_app::request_error::RequestError;
use claviger_domain::event::InstanceEvent;
use claviger_domain::fence::Epoch;
use claviger_testkit::builders::{
    an_active_instance, an_active_policy, an_enrolment, an_organisation, by_claviger, instance_decided,
};
use claviger_testkit::{FakeClock, MemoryWorld};

#[tokio::test]
async fn r9_an_answer_counts_once_and_only_for_the_last_order() {
    let (world, clock) = (MemoryWorld::new(), FakeClock::default());
    let now = clock.now();
    let acme = an_organisation("acme");
    let policy = an_active_policy(&acme, &an_enrolment("222222222222", "europe"), now);
    let active = an_active_instance(&policy, "acme-eng", "jira", now);
    let order = InstanceEvent::SuspensionOrdered { epoch: Epoch(3) };
    let suspended = instance_decided(&active, &order, &by_claviger(), now).next;
    world.seed_instance(suspended.clone());
    let case = AcknowledgeOrder { instances: &world, clock: &clock };
    let id = suspended.id;
    for epoch in [2, 4] {
        let refused = case.run(&acme.name, id, Epoch(epoch), 1, &by_claviger()).await;
        assert!(matches!(refused, Err(RequestError::Refused(_))), "epoch {epoch}");
    }
    for _ in 0..2 {
        let known = case.run(&acme.name, id, Epoch(3), 12, &by_claviger()).await.unwrap();
        assert_eq!(known.acknowledged.unwrap().evicted, 12);
    }
    assert_eq!(world.all_facts(&acme.name).len(), 1);
    let other = "globex".parse().unwrap();
    let refused = case.run(&other, id, Epoch(3), 12, &by_claviger()).await;
    assert!(matches!(refused, Err(RequestError::NotFound { .. })));
}
