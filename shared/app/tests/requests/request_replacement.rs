use claviger_app::messages::{Check, CheckResult, ProbeAnswer, ProbeRequest};
use claviger_app::ports::{Clock, Policies};
use claviger_app::request_error::RequestError;
use claviger_app::request_replacement::RequestReplacement;
use claviger_domain::access::{AccessAnswer, AccessRequest, KeyPermission, KeyPolicyTemplate};
use claviger_domain::ids::TicketId;
use claviger_domain::observation::RefusalKind;
use claviger_domain::policy::{EncryptionPolicy, KeyHealth};
use claviger_domain::values::Region;
use claviger_testkit::builders::{
    self, a_key, an_enrolment, an_organisation, by_admin, commit_active_policy, parsed,
};
use claviger_testkit::{FakeClock, MemoryWorld, SequentialIds};

const DUBLIN: &str = "eu-west-1";

/// Dublin's key is lost, and a permission was accepted since the enrolment.
async fn stage() -> (MemoryWorld, FakeClock) {
    let (world, clock) = (MemoryWorld::new(), FakeClock::default());
    let enrolment = an_enrolment("222222222222", "europe");
    let mut policy = commit_active_policy(&world, &an_organisation("acme"), &enrolment, clock.now()).await;
    let now = clock.now();
    policy.keys.get_mut(&parsed::<Region>(DUBLIN)).unwrap().health =
        KeyHealth::Refused { kind: RefusalKind::KeyPendingDeletion, refused_since: Some(now), stands: true };
    let template = KeyPolicyTemplate {
        version: parsed("2027-01-15"),
        permissions: [KeyPermission::DescribeKey].into(),
        decide_by: now,
        published_at: now,
        published_by: parsed("sam"),
    };
    let asked = AccessRequest::new(&template, TicketId::from_uuid(SequentialIds::uuid(5)), now);
    policy.access_requests.push(AccessRequest { answer: AccessAnswer::Granted { at: now }, ..asked });
    world.seed_policy(policy);
    (world, clock)
}

fn checked(result: CheckResult) -> ProbeAnswer {
    let check = Check {
        id: "granted-permissions".to_owned(),
        region: Some(parsed(DUBLIN)),
        result,
        observed: String::new(),
        help: String::new(),
    };
    ProbeAnswer::Checked { checks: vec![check] }
}

async fn asks(world: &MemoryWorld, clock: &FakeClock) -> Result<EncryptionPolicy, RequestError> {
    let settings = builders::settings();
    let key = a_key("222222222222", DUBLIN, 9);
    RequestReplacement { policies: world, prober: world, clock, settings }
        .run(&an_organisation("acme"), &parsed(DUBLIN), Some(key), &by_admin())
        .await
}

#[tokio::test]
async fn k1_a_key_that_is_to_take_a_lost_ones_place_is_tried_for_what_was_accepted() {
    let (world, clock) = stage().await;
    for (result, asked) in [(CheckResult::Fail, false), (CheckResult::Pass, true)] {
        world.prober_answers(Ok(checked(result)));
        let answer = asks(&world, &clock).await;
        assert_eq!(answer.is_ok(), asked, "{answer:?}");
        assert_eq!(matches!(answer, Err(RequestError::NotVerified(_))), !asked);
        let policy = world.policy(&parsed("acme")).await.unwrap().unwrap();
        assert_eq!(policy.keys[&parsed::<Region>(DUBLIN)].replacement.is_some(), asked);
        let requests = world.take_probe_requests();
        let [ProbeRequest::Check { granted, .. }] = requests.as_slice() else { panic!("{requests:?}") };
        assert_eq!(*granted, [KeyPermission::DescribeKey].into());
    }
}
