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
        direct.status = InstanceStatus::NotEncrypted { since: now };
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
