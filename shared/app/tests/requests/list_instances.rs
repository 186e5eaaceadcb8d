use claviger_app::list_instances::*;
use claviger_app::ports::Clock;
use claviger_domain::instance::InstanceStatus;
use claviger_testkit::builders::{
    self, an_active_instance, an_active_policy, an_enrolment, an_organisation, parsed,
};
use claviger_testkit::{FakeClock, MemoryWorld};

#[tokio::test]
async fn a6_the_unencrypted_family_of_an_encrypted_app_is_partly_covered() {
    let (world, now) = (MemoryWorld::new(), FakeClock::default().now());
    let acme = an_organisation("acme");
    let policy = an_active_policy(&acme, &an_enrolment("222222222222", "europe"), now);
    let jira = an_active_instance(&policy, "acme-eng", "jira", now);
    world.seed_instance(jira.clone());
    for (site, app) in [
        ("acme-eng", "jira-product-discovery"),
        ("acme-eng", "confluence"),
        ("acme-old", "jira-service-management"),
    ] {
        let mut direct = an_active_instance(&policy, site, app, now);
        direct.status = InstanceStatus::NotEncrypted { since: now, suspended_since: None };
        world.seed_instance(direct);
    }
    let list = ListInstances { instances: &world, settings: builders::settings() };
    let page = list.run(&acme.name, None, 200).await.unwrap();
    let coverage = |site: &str, app: &str| {
        let found = page.items.iter().find(|i| i.site.as_str() == site && i.app.as_str() == app);
        found.map(|instance| instance.coverage)
    };
    assert_eq!(coverage("acme-eng", "jira"), Some(Coverage::Covered));
    assert_eq!(coverage("acme-eng", "jira-product-discovery"), Some(Coverage::Partly));
    assert_eq!(coverage("acme-eng", "confluence"), Some(Coverage::NotCovered));
    assert_eq!(coverage("acme-old", "jira-service-management"), Some(Coverage::NotCovered));
    let shown = page.items.iter().find(|instance| instance.id == jira.id).unwrap();
    assert_eq!(shown.family, [parsed("jira-product-discovery"), parsed("jira-service-management")]);
}

#[tokio::test]
async fn i7_what_another_organisation_encrypts_on_a_site_that_was_given_up_is_not_shown() {
    let (world, now) = (MemoryWorld::new(), FakeClock::default().now());
    let [acme, globex] = ["acme", "globex"].map(an_organisation);
    let policy = an_active_policy(&acme, &an_enrolment("222222222222", "europe"), now);
    let mut rejected = an_active_instance(&policy, "x", "jira", now);
    rejected.status = InstanceStatus::Rejected { at: now, reason: "no".to_owned() };
    world.seed_instance(rejected);
    let theirs = an_active_policy(&globex, &an_enrolment("333333333333", "europe"), now);
    world.seed_instance(an_active_instance(&theirs, "x", "jira-service-management", now));
    let list = ListInstances { instances: &world, settings: builders::settings() };
    let page = list.run(&acme.name, None, 200).await.unwrap();
    let [shown] = &page.items[..] else { panic!("{page:?}") };
    assert_eq!(shown.coverage, Coverage::NotCovered);
    assert_eq!(shown.fuller_coverage, None);
    // Nor by one that holds its place.
    let mut direct = an_active_instance(&policy, "x", "jira-product-discovery", now);
    direct.status = InstanceStatus::NotEncrypted { since: now, suspended_since: None };
    assert_eq!(list.shown(direct).await.unwrap().coverage, Coverage::NotCovered);
}

#[tokio::test]
async fn a8_the_org_admin_sees_site_app_realm_status_coverage_and_since_when() {
    let (world, now) = (MemoryWorld::new(), FakeClock::default().now());
    let acme = an_organisation("acme");
    let policy = an_active_policy(&acme, &an_enrolment("222222222222", "europe"), now);
    world.seed_instance(an_active_instance(&policy, "acme-eng", "jira", now));
    let list = ListInstances { instances: &world, settings: builders::settings() };
    let page = list.run(&acme.name, None, 200).await.unwrap();
    let shown = serde_json::to_value(&page.items[0]).unwrap();
    for (field, value) in [
        ("site", "acme-eng"),
        ("app", "jira"),
        ("realm", "europe"),
        ("status", "active"),
        ("coverage", "covered"),
        ("since", now.to_string().as_str()),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
}

#[tokio::test]
async fn a9_coverage_is_shown_by_type_of_data_and_a6_says_what_fuller_coverage_takes() {
    let (world, now) = (MemoryWorld::new(), FakeClock::default().now());
    let acme = an_organisation("acme");
    let policy = an_active_policy(&acme, &an_enrolment("222222222222", "europe"), now);
    world.seed_instance(an_active_instance(&policy, "acme-eng", "jira", now));
    for app in ["jira-service-management", "jira-product-discovery", "confluence"] {
        let mut direct = an_active_instance(&policy, "acme-eng", app, now);
        direct.status = InstanceStatus::NotEncrypted { since: now, suspended_since: None };
        world.seed_instance(direct);
    }
    let list = ListInstances { instances: &world, settings: builders::settings() };
    let page = list.run(&acme.name, None, 200).await.unwrap();
    let of = |app: &str| page.items.iter().find(|item| item.app.as_str() == app).unwrap();
    let covered = |app: &str, coverage| of(app).data.iter().filter(|data| data.coverage == coverage).count();
    use claviger_domain::catalogue::DataCoverage::{CachedOrInTransit, Covered, NotCovered};
    assert_eq!([Covered, NotCovered, CachedOrInTransit].map(|of| covered("jira", of)), [3, 1, 1]);
    // Of the family, what it shares; of an app that only shares the site, nothing (spec A2).
    let partly = "jira-service-management";
    assert_eq!([Covered, NotCovered, CachedOrInTransit].map(|of| covered(partly, of)), [2, 2, 1]);
    assert_eq!([Covered, CachedOrInTransit].map(|of| covered("confluence", of)), [0, 0]);
    let outside = of("jira").data.iter().find(|data| data.coverage == CachedOrInTransit).unwrap();
    assert_eq!(outside.up_to_days, Some(30));
    assert!(of(partly).fuller_coverage.as_ref().unwrap().contains("enterprise"));
    assert_eq!(of("jira-product-discovery").fuller_coverage, None, "it cannot be encrypted itself");
    assert_eq!(of("jira").fuller_coverage, None);
}
