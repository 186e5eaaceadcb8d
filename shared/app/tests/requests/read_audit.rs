use claviger_app::ports::Clock;
use claviger_app::read_audit::*;
use claviger_domain::fact::AuditHead;
use claviger_domain::fact::Fact;
use claviger_testkit::builders::{an_enrolment, an_organisation, commit_active_policy};
use claviger_testkit::{FakeClock, MemoryWorld};

#[tokio::test]
async fn k3_the_lines_form_a_chain_that_shows_what_is_missing_or_altered() {
    let (world, clock) = (MemoryWorld::new(), FakeClock::default());
    let acme = an_organisation("acme");
    commit_active_policy(&world, &acme, &an_enrolment("222222222222", "europe"), clock.now()).await;
    let page = ReadAudit { audit: &world }.run(&acme.name, None, None).await.unwrap();
    assert_eq!(page.items.len(), 3);
    assert_eq!(page.next, None);
    let mut head = AuditHead::default();
    for line in &page.items {
        let fact: Fact = serde_json::from_str(line).unwrap();
        assert!(fact.follows(&head), "fact {} breaks the chain", fact.seq);
        head = AuditHead { seq: fact.seq, hash: fact.hash };
    }
}
