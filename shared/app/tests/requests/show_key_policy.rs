use claviger_app::show_key_policy::*;
use claviger_testkit::MemoryWorld;
use claviger_testkit::builders::{self, an_organisation};

#[tokio::test]
async fn e12_the_document_names_the_role_and_the_organisations_opaque_id_for_every_region() {
    let (world, acme) = (MemoryWorld::new(), an_organisation("acme"));
    let show = ShowKeyPolicy { policies: &world, settings: builders::settings() };
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
