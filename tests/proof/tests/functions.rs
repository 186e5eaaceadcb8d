//! What the functions meet from outside, fed with what is nearly right: events of customers' accounts, requests to the
//! broker, bearer tokens. Each gives an answer of its closed list; none panics, and nothing secret is in an answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod corpus;

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use aws_lambda_events::event::sqs::SqsEvent;
use claviger_app::deliver_effect::DeliverEffect;
use claviger_app::hand_out_data_key::{HandOutDataKey, UnwrappedKeys};
use claviger_app::messages::ProbeMessage;
use claviger_app::ports::{CallError, DeadLetters};
use claviger_app::probe_keys::ProbeKeys;
use claviger_app::prove_policies::ProvePolicies;
use claviger_app::reencryption::{JobStep, ShardWork};
use claviger_app::see_to_undelivered::SeeToUndelivered;
use claviger_app::webhooks::{WebhookMessage, Webhooks};
use claviger_domain::values::AccountId;
use claviger_key_broker::KeyBroker;
use claviger_key_events::{Heard, KeyEvent};
use claviger_lambda::auth::{AuthError, Authenticator, IssuerKeys, TokenVerifier};
use claviger_lambda::work::Work;
use claviger_testkit::{FakeClock, FakeKeys, MemoryWorld, SequentialIds, builders};
use jsonwebtoken::jwk::JwkSet;
use proptest::prelude::*;
use serde_json::Value;

use corpus::{cases, nearly};

fn samples(of: &str) -> Vec<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events").join(of);
    let files = std::fs::read_dir(folder).unwrap();
    let texts: Vec<String> =
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    assert!(!texts.is_empty());
    texts
}

/// Every function that works messages or ticks off, with what it is invoked with.
static INVOCATIONS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let of = [
        "deadlines",
        "key-prober",
        "outbox",
        "provisioner",
        "reencryption-planner",
        "reencryption-worker",
        "restorer",
        "suspender",
    ];
    of.iter().flat_map(|of| samples(of)).collect()
});

/// What the functions read of what they are invoked with.
fn every_input(text: &str) {
    let _ = serde_json::from_str::<claviger_deadlines::Input>(text);
    let _ = serde_json::from_str::<claviger_key_prober::Input>(text);
    let _ = serde_json::from_str::<claviger_outbox::Input>(text);
    let _ = serde_json::from_str::<claviger_reencryption_planner::Input>(text);
    let Ok(event) = serde_json::from_str::<SqsEvent>(text) else { return };
    for body in event.records.iter().filter_map(|record| record.body.as_deref()) {
        let _ = serde_json::from_str::<ProbeMessage>(body);
        let _ = serde_json::from_str::<ShardWork>(body);
        let _ = serde_json::from_str::<WebhookMessage>(body);
        let _ = serde_json::from_str::<Work<JobStep>>(body);
        let _ = serde_json::from_str::<claviger_suspender::Work>(body);
        let _ = serde_json::from_str::<Work<claviger_restorer::Page>>(body);
        let _ = serde_json::from_str::<Work<claviger_provisioner::Page>>(body);
    }
}

/// What the outbox answers to what it is invoked with: rows that are none are partial failures.
fn carried(text: &str) -> Option<Value> {
    let input = serde_json::from_str(text).ok()?;
    let (world, clock) = (MemoryWorld::new(), FakeClock::at("2026-11-22T09:00:00Z"));
    let deliver = DeliverEffect {
        outbox: &world,
        tickets: &world,
        instances: &world,
        bus: &world,
        webhooks: Webhooks::none(),
        clock: &clock,
    };
    let undelivered = SeeToUndelivered { undelivered: &world, bus: &world };
    let outbox = claviger_outbox::Outbox { deliver, webhook: None, dead_letters: &NoLetters, undelivered };
    runtime().block_on(outbox.handle(input)).ok()
}

struct NoLetters;

#[async_trait]
impl DeadLetters for NoLetters {
    async fn redrive(&self) -> Result<(), CallError> {
        Ok(())
    }
}

static KEY_EVENTS: LazyLock<Vec<String>> = LazyLock::new(|| samples("key-events"));

/// The bodies of the broker's samples.
static BODIES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let body = |text: &String| {
        let event: Value = serde_json::from_str(text).unwrap();
        event["body"].as_str().unwrap().to_owned()
    };
    samples("key-broker").iter().map(body).collect()
});

/// A token of the right form, by a key that nobody knows.
static TOKENS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let key = jsonwebtoken::EncodingKey::from_secret(b"nobody's");
    let claims = serde_json::json!({ "sub": "ada", "iss": "https://issuer.example", "aud": "people", "exp": 4_000_000_000_u64 });
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    header.kid = Some("k1".to_owned());
    let by_secret = jsonwebtoken::encode(&header, &claims, &key).unwrap();
    let (_, rest) = by_secret.split_once('.').unwrap();
    // {"alg":"none","kid":"k1"} and {"alg":"RS256","kid":"k1"}
    let none = format!("eyJhbGciOiJub25lIiwia2lkIjoiazEifQ.{rest}");
    let rs256 = format!("eyJhbGciOiJSUzI1NiIsImtpZCI6ImsxIn0.{rest}");
    vec![by_secret, none, rs256]
});

struct OneKey;

#[async_trait]
impl IssuerKeys for OneKey {
    /// One that the tokens name, and with which nobody has signed.
    async fn fetch(&self) -> Result<JwkSet, String> {
        let key = serde_json::json!({
            "kty": "RSA", "alg": "RS256", "use": "sig", "kid": "k1", "e": "AQAB", "n": "wcHB".repeat(86),
        });
        serde_json::from_value(serde_json::json!({ "keys": [key] })).map_err(|error| error.to_string())
    }
}

static VERIFIER: LazyLock<TokenVerifier> =
    LazyLock::new(|| TokenVerifier::with_keys("https://issuer.example", "people", Arc::new(OneKey)));

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// What the broker answers to a body, with the role of an app.
fn asked(path: &str, body: &str) -> (u16, String) {
    let (world, keys, ids, cache) =
        (MemoryWorld::new(), FakeKeys::new(), SequentialIds::default(), UnwrappedKeys::new());
    let clock = FakeClock::at("2026-11-22T09:00:00Z");
    let mut settings = builders::settings().clone();
    // The caller of the samples.
    let caller = "arn:aws:iam::111111111111:role/claviger-notes-app".to_owned();
    settings.app_roles.insert(caller, vec![builders::parsed("jira")]);
    let settings = &settings;
    let home = builders::parsed("eu-central-1");
    let broker = KeyBroker {
        hand_out: HandOutDataKey {
            policies: &world,
            instances: &world,
            registry: &world,
            keys: &keys,
            hints: &world,
            newer: &world,
            cache: &cache,
            lifetime: jiff::SignedDuration::from_mins(5),
            home: &home,
            ids: &ids,
            clock: &clock,
            settings,
        },
        prove: ProvePolicies {
            policies: &world,
            proofs: &world,
            probe: ProbeKeys { keys: &keys, controls: &keys, registry: &world, clock: &clock },
            clock: &clock,
            timer: &clock,
            settings,
        },
    };
    let mut event: Value = serde_json::from_str(&samples("key-broker")[0]).unwrap();
    event["rawPath"] = Value::from(path);
    event["body"] = Value::from(body);
    let request = lambda_http::request::from_str(&event.to_string()).unwrap();
    let answer = runtime().block_on(broker.handle(request));
    (answer.status().as_u16(), answer.into_body())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(1_500), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r9_an_event_becomes_a_hint_of_an_account_or_is_ignored(text in nearly(&KEY_EVENTS)) {
        if let Ok(event) = serde_json::from_str::<KeyEvent>(&text)
            && let Heard::Hint { slug, account, .. } = event.heard()
        {
            prop_assert!(!slug.is_empty());
            prop_assert!(account.as_str().parse::<AccountId>().is_ok());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(600), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r9_what_functions_are_invoked_with_is_read_or_refused(text in nearly(&INVOCATIONS)) {
        every_input(&text);
    }

    #[test]
    fn r9_a_row_of_the_stream_that_is_none_is_a_partial_failure(text in nearly(&INVOCATIONS)) {
        if let Some(answer) = carried(&text) {
            prop_assert!(answer.is_object(), "{answer}");
        }
    }
}

#[test]
fn the_samples_of_every_function_are_read() {
    let read = INVOCATIONS.iter().filter(|text| {
        serde_json::from_str::<SqsEvent>(text).is_ok_and(|event| !event.records.is_empty())
            || serde_json::from_str::<claviger_key_prober::Input>(text).is_ok()
            || serde_json::from_str::<claviger_outbox::Input>(text).is_ok()
            || serde_json::from_str::<claviger_deadlines::Input>(text).is_ok()
    });
    assert_eq!(read.count(), INVOCATIONS.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(400), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i7_the_broker_refuses_what_it_does_not_know_and_repeats_nothing(text in nearly(&BODIES)) {
        for path in ["/v1/data-keys", "/v1/proofs"] {
            let (status, body) = asked(path, &text);
            prop_assert!([200, 400, 404].contains(&status), "{status}: {body}");
            if status == 200 {
                // There is no policy here: nothing can be proven.
                prop_assert!(!body.contains("\"proven\""), "{body}");
            } else {
                let problem: Value = serde_json::from_str(&body).unwrap();
                prop_assert!(problem["help"].is_string() || problem["errors"].is_array(), "{body}");
            }
        }
    }

    #[test]
    fn e3_a_token_that_nobody_signed_is_nobody(token in nearly(&TOKENS)) {
        let refused = runtime().block_on(VERIFIER.caller(&token)).unwrap_err();
        let is_refused = matches!(refused, AuthError::Refused { .. });
        prop_assert!(is_refused, "{refused}");
        let signature = token.rsplit('.').next().filter(|part| part.len() > 8);
        prop_assert!(signature.is_none_or(|part| !refused.to_string().contains(part)), "it repeats the token");
    }
}
