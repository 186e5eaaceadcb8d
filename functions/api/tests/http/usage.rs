//! What keys were used for.

use std::collections::BTreeSet;

use claviger_app::ports::{Organisations, UsageRecords};
use claviger_app::usage::{KeyUse, Payer, Tally, UsageDelta};
use claviger_testkit::SequentialIds;
use claviger_testkit::builders::{a_key, parsed};
use http::StatusCode;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan};
use serde_json::{Value, json};

use crate::stage::{Stage, stage};

fn a_use(operation: &str, purpose: Option<&str>, region: &str, payer: Payer) -> KeyUse {
    let key = Some(a_key("222222222222", region, 1));
    let (operation, purpose) = (operation.to_owned(), purpose.map(str::to_owned));
    KeyUse { operation, purpose, region: parsed(region), key, payer }
}

fn today(stage: &Stage) -> jiff::civil::Date {
    claviger_app::ports::Clock::now(&*stage.clock).to_zoned(TimeZone::UTC).date()
}

/// Counts for acme, `days_ago`.
async fn used(stage: &Stage, id: u64, days_ago: i32, uses: &[(KeyUse, Tally)]) {
    let acme = stage.world.organisation(&parsed("acme")).await.unwrap().unwrap();
    let day = today(stage).checked_sub(days_ago.days()).unwrap();
    let (id, uses) = (SequentialIds::uuid(id), uses.iter().cloned().collect());
    stage.world.add_usage(&UsageDelta { id, organisation: acme.id, day, uses }).await.unwrap();
}

fn calls(calls: i64, denied: i64) -> Tally {
    Tally { calls, denied, ..Tally::default() }
}

async fn usage(stage: &Stage, query: &str) -> Value {
    let came = stage.get("acme-auditor", &format!("organizations/acme/usage{query}")).await;
    assert_eq!(came.status, StatusCode::OK, "{}", came.text);
    came.json()
}

#[tokio::test]
async fn k3_usage_says_what_to_expect_in_cloudtrail_who_pays_and_how_much() {
    let stage = stage().await;
    assert_eq!(usage(&stage, "").await["total"], 0);
    used(
        &stage,
        1,
        0,
        &[
            (a_use("Decrypt", Some("canary"), "eu-central-1", Payer::Vendor), calls(20_000, 5)),
            (a_use("DescribeKey", None, "eu-west-1", Payer::Customer), calls(10_000, 5)),
        ],
    )
    .await;
    let seen = usage(&stage, "").await;
    let items = seen["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    let (vendor, customer) = (&items[0], &items[1]);
    assert_eq!((&vendor["operation"], &vendor["purpose"]), (&json!("Decrypt"), &json!("canary")));
    assert_eq!((&vendor["billedTo"], &vendor["cloudTrailEvents"]), (&json!("vendor"), &json!(19_995)));
    assert_eq!((&customer["operation"], &customer["purpose"]), (&json!("DescribeKey"), &Value::Null));
    assert_eq!((&customer["billedTo"], &customer["cloudTrailEvents"]), (&json!("customer"), &json!(10_000)));
    assert_eq!((&seen["total"], &seen["cloudTrailEvents"]), (&json!(30_000), &json!(29_995)));
    assert_eq!((&seen["costUsd"], &seen["pricePer10000Usd"]), (&json!(0.09), &json!(0.03)));
    assert_eq!((&seen["billedToVendorUsd"], &seen["billedToCustomerUsd"]), (&json!(0.06), &json!(0.03)));
}

#[tokio::test]
async fn k3_usage_is_of_the_days_that_are_asked_for() {
    let stage = stage().await;
    let what = a_use("Decrypt", Some("data-key"), "eu-central-1", Payer::Vendor);
    for (id, days_ago) in [(1, 0), (2, 29), (3, 30), (4, 120)] {
        used(&stage, id, days_ago, &[(what.clone(), calls(1, 0))]).await;
    }
    let today = today(&stage);
    let day = |ago: i32| today.checked_sub(ago.days()).unwrap();
    assert_eq!(usage(&stage, "").await["total"], 2, "thirty days without a wish");
    assert_eq!(usage(&stage, &format!("?from={}", day(30))).await["total"], 3);
    let long_ago = format!("?from={}&to={}", day(130), day(100));
    assert_eq!(usage(&stage, &long_ago).await["total"], 1);
    assert_eq!(usage(&stage, &format!("?from={today}&to={today}")).await["total"], 1);
    // Midnight is UTC's, whatever the hour.
    stage.clock.advance(SignedDuration::from_hours(24));
    assert_eq!(usage(&stage, "").await["total"], 1);
}

#[tokio::test]
async fn k3_pages_of_usage_show_every_use_once_and_the_sums_of_all() {
    let stage = stage().await;
    for ago in 0..3 {
        let uses: Vec<(KeyUse, Tally)> = ["eu-central-1", "eu-west-1"]
            .into_iter()
            .flat_map(|region| {
                [Some("canary"), Some("data-key"), None]
                    .map(|purpose| (a_use("Decrypt", purpose, region, Payer::Vendor), calls(1, 0)))
            })
            .collect();
        used(&stage, u64::try_from(ago).unwrap() + 1, ago, &uses).await;
    }
    let (mut seen, mut cursor, mut days) = (BTreeSet::new(), String::new(), Vec::new());
    loop {
        let page = usage(&stage, &format!("?limit=4&cursor={cursor}")).await;
        assert_eq!(page["total"], 18, "the sums are of the whole period");
        for item in page["items"].as_array().unwrap() {
            assert!(seen.insert(item.to_string()), "{item} is shown twice");
            days.push(item["day"].as_str().unwrap().to_owned());
        }
        match page["nextCursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(seen.len(), 18);
    assert!(days.is_sorted_by(|one, other| one >= other), "the newest day first");
    let came = stage.get("globex-admin", &format!("organizations/globex/usage?cursor={cursor}")).await;
    assert_eq!(came.fields(), ["cursor"], "i7: a cursor opens the list that gave it");
}

#[tokio::test]
async fn k3_wrong_days_are_named_with_their_remedy() {
    let stage = stage().await;
    for (query, field) in [
        ("from=yesterday", "from"),
        ("to=2026-11-31", "to"),
        ("to=20261122", "to"),
        ("to=2026-11-22T00:00:00Z", "to"),
        ("from=2026-11-23&to=2026-11-22", "from"),
        ("from=2025-01-01&to=2026-01-01", "from"),
        ("limit=0", "limit"),
        ("cursor=abc", "cursor"),
    ] {
        let came = stage.get("acme-admin", &format!("organizations/acme/usage?{query}")).await;
        assert_eq!(came.status, StatusCode::BAD_REQUEST, "{query}: {}", came.text);
        assert_eq!(came.fields(), [field], "{query}");
    }
}
