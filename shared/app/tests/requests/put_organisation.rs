use claviger_app::put_organisation::*;
use claviger_domain::catalogue::Catalogue;
use claviger_testkit::{FakeClock, MemoryWorld, SequentialIds, builders};
use rstest::rstest;
use serde_json::Value;
use serde_json::json;

fn good() -> Value {
    json!({
        "plans": { "jira": "enterprise" }, "government": false, "admins": ["ada"], "auditors": ["bea"],
    })
}

#[tokio::test]
async fn the_opaque_id_is_made_once_and_kept() {
    let (world, ids) = (MemoryWorld::new(), SequentialIds::default());
    let clock = FakeClock::default();
    let case = PutOrganisation {
        organisations: &world,
        policies: &world,
        instances: &world,
        ids: &ids,
        clock: &clock,
        settings: builders::settings(),
    };
    let origin = builders::by_claviger();
    let catalogue = Catalogue::shipped().unwrap();
    let name = "acme".parse().unwrap();
    let (first, created) = case.run(&name, Feed::parse(&good(), &catalogue).unwrap(), &origin).await.unwrap();
    assert!(created);
    let mut changed = good();
    changed["admins"] = json!(["eve"]);
    let (second, created) =
        case.run(&name, Feed::parse(&changed, &catalogue).unwrap(), &origin).await.unwrap();
    assert!(!created);
    assert_eq!((first.id, &first.external_id), (second.id, &second.external_id));
    assert_eq!(second.admins, ["eve".parse().unwrap()].into());
}

#[rstest]
#[case("plans", json!([]), "plans")]
#[case("plans", json!({ "word": "enterprise" }), "plans.word")]
#[case("plans", json!({ "Jira!": "enterprise" }), "plans.Jira!")]
#[case("plans", json!({ "jira": 3 }), "plans.jira")]
#[case("government", Value::Null, "government")]
#[case("government", json!("no"), "government")]
#[case("admins", json!("ada"), "admins")]
#[case("admins", json!(["ada", ""]), "admins[1]")]
#[case("auditors", json!([7]), "auditors[0]")]
#[case("auditors", json!(vec!["x"; 501]), "auditors")]
fn e3_a_wrong_feed_names_the_field(#[case] field: &str, #[case] value: Value, #[case] named: &str) {
    let mut body = good();
    body[field] = value;
    let faults = Feed::parse(&body, &Catalogue::shipped().unwrap()).unwrap_err();
    let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(fields, [named]);
}
