use claviger_app::ports::{PublishedTemplate, Templates};
use claviger_app::show_key_policy::*;
use claviger_domain::access::{KeyPermission, KeyPolicyTemplate};
use claviger_testkit::MemoryWorld;
use claviger_testkit::builders::{self, an_organisation};

#[tokio::test]
async fn e12_the_document_names_the_role_and_the_organisations_opaque_id_for_every_region() {
    let (world, acme) = (MemoryWorld::new(), an_organisation("acme"));
    let show = ShowKeyPolicy { policies: &world, templates: &world, settings: builders::settings() };
    let account = "222222222222".parse().ok();
    let view = show.run(&acme, account, "europe".parse().ok()).await.unwrap();
    let view = serde_json::to_value(view).unwrap();
    assert_eq!(view["regions"].as_array().unwrap().len(), 2);
    let document = view["regions"][1]["policy"].to_string();
    assert!(document.contains(&acme.id.to_string()));
    assert!(document.contains("arn:aws:iam::111111111111:role/claviger-key-access"));
    assert!(document.contains("arn:aws:iam::222222222222:root"));
    assert!(show.run(&acme, None, "mars".parse().ok()).await.is_err());
}

#[tokio::test]
async fn k1_the_printed_policy_is_of_the_newest_template_and_lists_what_each_asks_for() {
    let (world, acme) = (MemoryWorld::new(), an_organisation("acme"));
    let show = ShowKeyPolicy { policies: &world, templates: &world, settings: builders::settings() };
    assert!(show.run(&acme, None, None).await.unwrap().additions.is_empty());
    // Labels are the vendor's: what is newest, the moment of publishing says.
    for (version, published_at) in [("b", "2026-11-01T00:00:00Z"), ("a", "2026-12-01T00:00:00Z")] {
        let template = KeyPolicyTemplate {
            version: builders::parsed(version),
            permissions: [KeyPermission::GenerateDataKey, KeyPermission::DescribeKey].into(),
            decide_by: builders::instant("2027-01-15T00:00:00Z"),
            published_at: builders::instant(published_at),
            published_by: builders::parsed("agent"),
        };
        let published = PublishedTemplate { template, shard: 0, after: None, opened: 0, done: true };
        world.add_template(&published).await.unwrap();
    }
    let view = show.run(&acme, "222222222222".parse().ok(), "europe".parse().ok()).await.unwrap();
    assert_eq!(view.version, "a");
    assert_eq!(view.policy["Id"], "claviger-a");
    let versions: Vec<&str> = view.additions.iter().map(|addition| addition.version.as_str()).collect();
    assert_eq!(versions, ["b", "a"]);
    for action in ["kms:GenerateDataKey", "kms:DescribeKey"] {
        let granted = view.regions[0].policy.to_string();
        assert_eq!(granted.matches(&format!("\"{action}\"")).count(), 1, "{action}: {granted}");
    }
}
