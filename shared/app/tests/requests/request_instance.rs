use claviger_app::add_instance_directly::AddInstanceDirectly;
use claviger_app::ports::{Clock, Policies};
use claviger_app::request_error::RequestError;
use claviger_app::request_instance::*;
use claviger_domain::event::PolicyEvent;
use claviger_domain::instance::{AppInstance, InstanceStatus};
use claviger_domain::observation::{Observation, RefusalKind};
use claviger_domain::organisation::Organisation;
use claviger_domain::policy::EncryptionPolicy;
use claviger_testkit::builders::{
    self, a_round, an_enrolment, an_organisation, by_admin, by_claviger, commit_active_policy, cut_off,
    decided, parsed,
};
use claviger_testkit::{FakeClock, MemoryWorld, SequentialIds};
use rstest::rstest;

struct Stage {
    world: MemoryWorld,
    clock: FakeClock,
    ids: SequentialIds,
    acme: Organisation,
    policy: EncryptionPolicy,
}

async fn stage() -> Stage {
    let (world, clock) = (MemoryWorld::new(), FakeClock::default());
    let acme = an_organisation("acme");
    let enrolment = an_enrolment("222222222222", "europe");
    let policy = commit_active_policy(&world, &acme, &enrolment, clock.now()).await;
    Stage { world, clock, ids: SequentialIds::default(), acme, policy }
}

impl Stage {
    async fn request_by(
        &self,
        organisation: &Organisation,
        site: &str,
        app: &str,
    ) -> Result<AppInstance, RequestError> {
        let (settings, world) = (builders::settings(), &self.world);
        RequestInstance { policies: world, instances: world, ids: &self.ids, clock: &self.clock, settings }
            .run(organisation, &parsed(site), &parsed(app), &by_admin())
            .await
    }

    async fn request(&self, site: &str, app: &str) -> Result<AppInstance, RequestError> {
        self.request_by(&self.acme, site, app).await
    }

    async fn add(&self, site: &str, app: &str) -> Result<AppInstance, RequestError> {
        let (settings, world) = (builders::settings(), &self.world);
        AddInstanceDirectly {
            policies: world,
            instances: world,
            ids: &self.ids,
            clock: &self.clock,
            settings,
        }
        .run(&self.acme, &parsed(site), &parsed(app), &by_claviger())
        .await
        .map(|(instance, _)| instance)
    }
}

#[tokio::test]
async fn e10_a_request_waits_for_support_and_shows_when_it_is_due() {
    let stage = stage().await;
    let instance = stage.request("acme-eng", "jira").await.unwrap();
    assert_eq!(instance.realm, Some(stage.policy.realm.clone()));
    let InstanceStatus::Requested { due_at, .. } = instance.status else {
        panic!("it is {}", instance.status.slug());
    };
    assert_eq!(due_at, builders::instant("2026-11-24T23:59:59Z"));
    let refused = stage.request("acme-eng", "jira").await;
    assert!(matches!(refused, Err(RequestError::Taken(field)) if field.field == "app"));
}

#[tokio::test]
async fn a4_a_site_is_new_or_has_an_encrypted_app_of_the_same_organisation() {
    let stage = stage().await;
    stage.request("acme-eng", "jira").await.unwrap();
    stage.request("acme-eng", "confluence").await.unwrap();
    stage.add("acme-old", "confluence").await.unwrap();
    let refused = stage.request("acme-old", "jira").await;
    assert!(matches!(refused, Err(RequestError::NotEligible { .. })));
    let globex = an_organisation("globex");
    let enrolment = an_enrolment("333333333333", "usa");
    commit_active_policy(&stage.world, &globex, &enrolment, stage.clock.now()).await;
    for site in ["acme-eng", "acme-old"] {
        let refused = stage.request_by(&globex, site, "jira").await;
        assert!(matches!(refused, Err(RequestError::Taken(field)) if field.field == "site"));
    }
}

#[tokio::test]
async fn a3_one_that_exists_without_encryption_is_refused() {
    let stage = stage().await;
    stage.add("acme-old", "jira").await.unwrap();
    let refused = stage.request("acme-old", "jira").await.unwrap_err();
    assert!(refused.to_string().contains("stays so"), "{refused}");
}

#[rstest]
#[case::a1_cannot_be_encrypted("jira-product-discovery")]
#[case::unknown("word")]
#[case::e1_wrong_plan("confluence")]
#[case::e1_no_plan("jira-service-management")]
#[tokio::test]
async fn e1_and_a1_the_app_and_its_plan_have_to_allow_it(#[case] app: &str) {
    let mut stage = stage().await;
    stage.acme.plans =
        [(parsed("jira"), "enterprise".to_owned()), (parsed("confluence"), "standard".to_owned())].into();
    let refused = stage.request("acme-eng", app).await;
    assert!(matches!(refused, Err(RequestError::NotEligible { .. })));
    stage.request("acme-eng", "jira").await.unwrap();
}

#[tokio::test]
async fn no_instance_is_made_while_the_policy_is_degraded_or_suspended() {
    let stage = stage().await;
    let at = stage.clock.advance(jiff::SignedDuration::from_secs(10));
    let mut round = a_round(&stage.policy, Observation::Usable, at);
    let refused = Observation::Refused(RefusalKind::KeyDisabled);
    round.observations.insert(parsed("eu-west-1"), refused);
    let event = PolicyEvent::ProbesReported { rounds: vec![round], heard: Vec::new() };
    let degraded = decided(&stage.policy, &event, &by_claviger(), at);
    stage.world.commit_policy(Some(&stage.policy), &degraded).await.unwrap();
    let answer = stage.request("acme-eng", "jira").await;
    assert!(matches!(answer, Err(RequestError::NotNow { .. })));
    let at = stage.clock.advance(jiff::SignedDuration::from_secs(10));
    let decision = cut_off(&degraded.next, at);
    stage.world.commit_policy(Some(&degraded.next), &decision).await.unwrap();
    assert!(matches!(stage.request("acme-eng", "jira").await, Err(RequestError::Suspended)));
}

#[tokio::test]
async fn a5_an_app_that_is_added_directly_is_not_encrypted_and_added_once() {
    let stage = stage().await;
    let first = stage.add("acme-old", "jira").await.unwrap();
    assert_eq!(first.status.slug(), "not-encrypted");
    assert_eq!(stage.add("acme-old", "jira").await.unwrap().id, first.id);
    stage.request("acme-eng", "jira").await.unwrap();
    let refused = stage.add("acme-eng", "jira").await;
    assert!(matches!(refused, Err(RequestError::Taken(_))), "an encrypted one stays encrypted (A3)");
}

#[tokio::test]
async fn a2_another_app_on_the_site_is_not_encrypted_by_default() {
    let stage = stage().await;
    stage.request("acme-eng", "jira").await.unwrap();
    let added = stage.add("acme-eng", "confluence").await.unwrap();
    assert_eq!(added.status.slug(), "not-encrypted");
    assert_eq!((added.policy, added.realm.as_ref()), (None, None));
    let list = claviger_app::list_instances::ListInstances {
        instances: &stage.world,
        settings: builders::settings(),
    };
    let shown = list.shown(added.clone()).await.unwrap();
    assert_eq!(shown.coverage, claviger_app::list_instances::Coverage::NotCovered);
    // Encrypted on the same site it is by its own request only.
    assert_eq!(
        stage.request("acme-eng", "jira-service-management").await.unwrap().status.slug(),
        "requested"
    );
}

#[tokio::test]
async fn a6_a_member_of_a_suspended_family_that_is_added_directly_is_suspended_at_once() {
    let stage = stage().await;
    let now = stage.clock.now();
    let jira = builders::an_active_instance(&stage.policy, "acme-eng", "jira", now);
    stage.world.seed_instance(jira);
    let before = stage.add("acme-eng", "jira-service-management").await.unwrap();
    assert_eq!(before.status.slug(), "not-encrypted");
    let decision = cut_off(&stage.policy, stage.clock.advance(jiff::SignedDuration::from_secs(60)));
    stage.world.commit_policy(Some(&stage.policy), &decision).await.unwrap();
    let added = stage.add("acme-eng", "jira-product-discovery").await.unwrap();
    assert_eq!((added.status.slug(), added.epoch), ("suspended", decision.next.fence.epoch));
    assert!(matches!(added.status, InstanceStatus::NotEncrypted { .. }), "and stays unencrypted");
    let elsewhere = stage.add("acme-old", "jira-product-discovery").await.unwrap();
    assert_eq!(elsewhere.status.slug(), "not-encrypted");
}
