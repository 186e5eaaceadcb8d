//! Calls on customers' keys are counted where they leave for KMS, and kept in DynamoDB.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use claviger_app::explain_refusal::explained;
use claviger_app::messages::EncryptionContext;
use claviger_app::ports::{
    ControlProbes, CustomerKeys, CustomerRoles, KeyRef, NewKey, RoleSession, UsageRecords,
};
use claviger_app::usage::{DayOfUse, FlushUsage, KeyUse, Payer, Tally, UsageDelta, UsageMeter};
use claviger_aws::keys::{CanaryKey, CanaryKeys, KmsKeys, MeteredKeys};
use claviger_domain::catalogue::Mode;
use claviger_domain::ids::OrganisationId;
use claviger_domain::key_access::{CustomerRole, ExternalId, KeyAccess};
use claviger_domain::key_policy::KeyLabel;
use claviger_domain::policy::CONTEXT_PURPOSE;
use claviger_domain::values::KeyArn;
use claviger_testkit::builders::{a_key, a_role, parsed};
use claviger_testkit::{FakeClock, MemoryWorld, SequentialIds};
use jiff::SignedDuration;
use jiff::civil::date;

use crate::support::sdk_config;
use crate::support::tables::World;
use crate::support::wire::{Answer, Wire};

const ROLE: &str = "arn:aws:iam::111111111111:role/claviger-key-access";
const PLAINTEXT: &str = r#"{"KeyId":"k","Plaintext":"dGV4dA=="}"#;

struct Stage {
    wire: Wire,
    meter: Arc<UsageMeter>,
    keys: MeteredKeys<FakeClock>,
    world: MemoryWorld,
}

async fn stage_with(timeout: Duration, canaries: CanaryKeys) -> Stage {
    let wire = Wire::new().await;
    wire.answers("AssumeRole", [Answer::session("2090-01-01T00:00:00Z")]);
    let meter = Arc::new(UsageMeter::new(SignedDuration::from_mins(15)));
    let keys = KmsKeys::new(&sdk_config(&wire.endpoint), ROLE, timeout, canaries);
    let keys = keys.metered(Arc::clone(&meter), FakeClock::at("2026-11-22T23:59:59Z"));
    Stage { wire, meter, keys, world: MemoryWorld::new() }
}

async fn stage() -> Stage {
    stage_with(Duration::from_secs(5), BTreeMap::new()).await
}

fn organisation(number: u64) -> OrganisationId {
    OrganisationId::from_uuid(SequentialIds::uuid(number))
}

fn of<'a>(organisation: OrganisationId, arn: &'a KeyArn, access: &'a KeyAccess) -> KeyRef<'a> {
    KeyRef { arn, access, organisation, session: RoleSession::Kept }
}

fn context(purpose: &str) -> EncryptionContext {
    [(CONTEXT_PURPOSE.to_owned(), purpose.to_owned())].into()
}

fn through_role() -> CustomerRole {
    CustomerRole {
        arn: a_role("333333333333"),
        external_id: ExternalId::from_uuid(SequentialIds::uuid(0xeee)),
    }
}

impl Stage {
    /// What is counted by now: operation, purpose, region, whether the key is named, payer.
    async fn counted(&self, organisation: OrganisationId) -> BTreeMap<KeyUse, Tally> {
        let clock = FakeClock::at("2026-11-23T00:00:00Z");
        let ids = SequentialIds::after(self.wire.asked().len() as u64 * 1000);
        let flush = FlushUsage { meter: &self.meter, records: &self.world, ids: &ids, clock: &clock };
        flush.all().await;
        assert!(self.meter.is_empty());
        let day = date(2026, 11, 22);
        let days = self.world.usage(organisation, day, day).await.unwrap();
        days.into_iter().flat_map(|DayOfUse { uses, .. }| uses).collect()
    }
}

fn a_use(operation: &str, purpose: Option<&str>, key: Option<&KeyArn>, region: &str, payer: Payer) -> KeyUse {
    let (operation, purpose) = (operation.to_owned(), purpose.map(str::to_owned));
    KeyUse { operation, purpose, region: parsed(region), key: key.cloned(), payer }
}

fn calls(calls: i64) -> Tally {
    Tally { calls, ..Tally::default() }
}

#[tokio::test]
async fn k3_a_call_is_counted_for_its_organisation_key_operation_and_purpose() {
    let stage = stage().await;
    let (key, access) = (a_key("222222222222", "eu-west-1", 1), KeyAccess::KeyPolicy);
    stage.wire.answers("Decrypt", [Answer::ok(PLAINTEXT)]);
    for (whose, purpose) in [(1, "canary"), (1, "canary"), (1, "data-key"), (2, "canary")] {
        let key = of(organisation(whose), &key, &access);
        stage.keys.decrypt(key, b"wrapped", &context(purpose)).await.unwrap();
    }
    let vendors = |purpose| a_use("Decrypt", Some(purpose), Some(&key), "eu-west-1", Payer::Vendor);
    let expected = [(vendors("canary"), calls(2)), (vendors("data-key"), calls(1))];
    assert_eq!(stage.counted(organisation(1)).await, expected.into());
    assert_eq!(stage.counted(organisation(2)).await, [(vendors("canary"), calls(1))].into());
}

#[tokio::test]
async fn k3_a_description_that_explains_a_refusal_is_counted_too() {
    let stage = stage().await;
    let (key, access) = (a_key("222222222222", "eu-west-1", 1), KeyAccess::KeyPolicy);
    stage.wire.answers("Decrypt", [Answer::error(400, "KMSInvalidStateException")]);
    stage.wire.answers("DescribeKey", [Answer::error(400, "AccessDeniedException")]);
    let key_ref = of(organisation(1), &key, &access);
    let error = stage.keys.decrypt(key_ref, b"x", &context("canary")).await.unwrap_err();
    explained(&stage.keys, key_ref, &error).await;
    let denied = Tally { calls: 1, denied: 1, ..Tally::default() };
    let expected = [
        (a_use("Decrypt", Some("canary"), Some(&key), "eu-west-1", Payer::Vendor), calls(1)),
        (a_use("DescribeKey", None, Some(&key), "eu-west-1", Payer::Vendor), denied),
    ];
    assert_eq!(stage.counted(organisation(1)).await, expected.into());
}

#[tokio::test]
async fn k3_throttled_and_unanswered_calls_are_told_apart_and_what_never_left_is_not_counted() {
    let stage = stage_with(Duration::from_millis(300), BTreeMap::new()).await;
    let (key, access) = (a_key("222222222222", "eu-west-1", 1), KeyAccess::KeyPolicy);
    let key_ref = of(organisation(1), &key, &access);
    stage.wire.answers("Decrypt", [Answer::error(400, "ThrottlingException"), Answer::Never]);
    for _ in 0..2 {
        stage.keys.decrypt(key_ref, b"x", &context("canary")).await.unwrap_err();
    }
    let role = KeyAccess::Role(through_role());
    stage.wire.answers("AssumeRole", [Answer::query_error(403, "AccessDenied")]);
    let through = KeyRef { access: &role, session: RoleSession::Fresh, ..key_ref };
    stage.keys.decrypt(through, b"x", &context("canary")).await.unwrap_err();
    let tally = Tally { calls: 1, denied: 0, throttled: 1, unanswered: 1 };
    let expected = [(a_use("Decrypt", Some("canary"), Some(&key), "eu-west-1", Payer::Vendor), tally)];
    assert_eq!(stage.counted(organisation(1)).await, expected.into());
}

#[tokio::test]
async fn k3_calls_in_the_customers_account_are_billed_to_it_and_counted_before_there_is_a_key() {
    let stage = stage().await;
    let made = a_key("333333333333", "us-east-1", 1);
    let metadata = format!(r#"{{"KeyMetadata":{{"KeyId":"k","Arn":"{made}"}}}}"#);
    stage.wire.answers("DescribeKey", [Answer::error(400, "NotFoundException")]);
    stage.wire.answers("ListKeys", [Answer::ok(r#"{"Keys":[]}"#)]);
    stage.wire.answers("CreateKey", [Answer::ok(metadata)]);
    stage.wire.answers("CreateAlias", [Answer::ok("{}")]);
    stage.wire.answers("Decrypt", [Answer::ok(PLAINTEXT)]);
    let wanted =
        NewKey { organisation: organisation(1), label: KeyLabel::first_of(1), policy: serde_json::json!({}) };
    assert_eq!(stage.keys.make_key(&through_role(), &parsed("us-east-1"), &wanted).await, Ok(made.clone()));
    let access = KeyAccess::Role(through_role());
    stage.keys.decrypt(of(organisation(1), &made, &access), b"x", &context("canary")).await.unwrap();
    let customers = |operation, purpose, key| a_use(operation, purpose, key, "us-east-1", Payer::Customer);
    let expected = [
        (customers("DescribeKey", None, None), calls(1)),
        (customers("ListKeys", None, None), calls(1)),
        (customers("CreateKey", None, None), calls(1)),
        (customers("CreateAlias", None, Some(&made)), calls(1)),
        (customers("Decrypt", Some("canary"), Some(&made)), calls(1)),
    ];
    assert_eq!(stage.counted(organisation(1)).await, expected.into());
}

#[tokio::test]
async fn k3_control_probes_are_of_the_vendors_keys_and_are_not_counted() {
    let canary = CanaryKey {
        key_arn: a_key("555555555555", "eu-central-1", 1),
        organisation: organisation(7),
        template: None,
        role: None,
    };
    let stage = stage_with(Duration::from_secs(5), [(parsed("eu-central-1"), vec![canary])].into()).await;
    stage.wire.answers("Encrypt", [Answer::ok(r#"{"KeyId":"k","CiphertextBlob":"d3JhcHBlZA=="}"#)]);
    stage
        .wire
        .answers("Decrypt", [Answer::ok(r#"{"KeyId":"k","Plaintext":"Y2xhdmlnZXIgY29udHJvbCBwcm9iZQ=="}"#)]);
    assert!(stage.keys.control_is_healthy(&parsed("eu-central-1"), Mode::Cmk, "2026-11-22").await);
    assert!(stage.meter.is_empty());
}

#[tokio::test]
async fn k3_what_processes_add_is_one_item_a_day_that_is_forgotten_in_time() {
    let world = World::new().await;
    let (day, key) = (date(2026, 11, 22), a_key("222222222222", "eu-west-1", 1));
    let what = a_use("Decrypt", Some("canary"), Some(&key), "eu-west-1", Payer::Vendor);
    let delta = |id, count| UsageDelta {
        id: SequentialIds::uuid(id),
        organisation: organisation(1),
        day,
        uses: [(what.clone(), calls(count))].into(),
    };
    for (id, count) in [(1, 40), (2, 2), (1, 40)] {
        world.store.add_usage(&delta(id, count)).await.unwrap();
    }
    let days = world.store.usage(organisation(1), day, day).await.unwrap();
    let expected = DayOfUse { day, uses: [(what.clone(), calls(42))].into() };
    assert_eq!(days, [expected], "the same delta again adds nothing");
    let items = world.all("control").await;
    assert_eq!(items.len(), 1);
    let expires: i64 = items[0]["expiresAt"].as_n().unwrap().parse().unwrap();
    assert_eq!(
        expires,
        (day.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_second()) + 400 * 86_400
    );
}
