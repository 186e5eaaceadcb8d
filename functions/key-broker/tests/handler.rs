//! The function as the Function URL calls it: a data key that an app has used for long or often, and proofs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use claviger_app::hand_out_data_key::{HandOutDataKey, UnwrappedKeys};
use claviger_app::ports::{Clock, CustomerKeys, DataKeyRegistry, KeyRef, Wrap, WrappedDataKey};
use claviger_app::probe_keys::ProbeKeys;
use claviger_app::prove_policies::ProvePolicies;
use claviger_app::settings::Settings;
use claviger_domain::ids::{DataKeyId, InstanceId, PolicyId};
use claviger_domain::policy::PURPOSE_DATA_KEY;
use claviger_key_broker::KeyBroker;
use claviger_testkit::builders::{
    self, a_key, an_enrolment, an_organisation, commit_active_instance, commit_active_policy, parsed,
};
use claviger_testkit::{FakeClock, FakeKeys, MemoryWorld, SequentialIds};
use jiff::SignedDuration;
use serde_json::{Value, json};

const SAMPLE: &str = include_str!("../../../events/key-broker/newer-data-key-asked-for.json");
const PROOFS: &str = include_str!("../../../events/key-broker/proofs-asked-for.json");

struct Stage {
    store: MemoryWorld,
    keys: FakeKeys,
    clock: FakeClock,
    ids: SequentialIds,
    cache: UnwrappedKeys,
    settings: Settings,
    policy: PolicyId,
    instance: InstanceId,
}

impl Stage {
    /// The instance that the samples ask for, with a data key that was made just now.
    async fn new() -> Self {
        let (store, keys, clock) = (MemoryWorld::new(), FakeKeys::new(), FakeClock::default());
        let organisation = an_organisation("acme");
        let regions = ["eu-central-1", "eu-west-1"].map(|region| a_key("222222222222", region, 1));
        for key in &regions {
            keys.create(key);
            keys.bind(key, organisation.id);
        }
        let enrolment = an_enrolment("222222222222", "europe");
        let policy = commit_active_policy(&store, &organisation, &enrolment, clock.now()).await;
        let instance = commit_active_instance(&store, &policy, "acme-eng", "jira", clock.now()).await.id;
        let context = policy.encryption_context(PURPOSE_DATA_KEY, &instance.to_string());
        let mut wraps = BTreeMap::new();
        for key in &regions {
            let sealed = keys.encrypt(KeyRef::of(&policy, key), &[7; 32], &context).await.unwrap();
            wraps.insert(key.region().clone(), Wrap::new(key, &sealed, clock.now()));
        }
        let first = WrappedDataKey {
            id: DataKeyId::from_uuid(SequentialIds::uuid(77)),
            instance,
            purpose: "records".to_owned(),
            version: 1,
            generation: policy.generation,
            created_at: clock.now(),
            wraps,
            second: BTreeMap::new(),
        };
        store.add_data_key(&first).await.unwrap();
        let role = "arn:aws:iam::111111111111:role/claviger-notes-app".to_owned();
        let app_roles = BTreeMap::from([(role, vec![parsed("jira")])]);
        let settings = Settings { app_roles, ..builders::settings().clone() };
        let (ids, cache) = (SequentialIds::default(), UnwrappedKeys::new());
        Self { store, keys, clock, ids, cache, settings, policy: policy.id, instance }
    }

    async fn asks(&self, change: impl FnOnce(&mut Value)) -> (u16, Value) {
        self.asks_with(SAMPLE, change).await
    }

    async fn asks_with(&self, sample: &str, change: impl FnOnce(&mut Value)) -> (u16, Value) {
        let Self { store, keys, clock, ids, cache, settings, .. } = self;
        let home = parsed("eu-central-1");
        let probe = ProbeKeys { keys, controls: keys, registry: store, clock };
        let broker = KeyBroker {
            hand_out: HandOutDataKey {
                policies: store,
                instances: store,
                registry: store,
                keys,
                hints: store,
                newer: store,
                cache,
                lifetime: SignedDuration::from_mins(5),
                home: &home,
                ids,
                clock,
                settings,
            },
            prove: ProvePolicies { policies: store, proofs: store, probe, clock, timer: clock, settings },
        };
        let mut event: Value = serde_json::from_str(sample).unwrap();
        let mut body: Value = serde_json::from_str(event["body"].as_str().unwrap()).unwrap();
        change(&mut body);
        event["body"] = Value::from(body.to_string());
        let answer = broker.handle(lambda_http::request::from_str(&event.to_string()).unwrap()).await;
        (answer.status().as_u16(), serde_json::from_str(answer.body()).unwrap())
    }
}

#[tokio::test]
async fn a10_a_newer_version_is_asked_for_and_the_current_one_is_the_answer() {
    let stage = Stage::new().await;
    let made_at = stage.clock.now().as_millisecond();
    let (status, answer) = stage.asks(|_| ()).await;
    assert_eq!((status, &answer["version"], &answer["createdAt"]), (200, &json!(1), &json!(made_at)));
    assert!(stage.store.take_asked_for_newer().is_empty(), "it is too young for that");
    assert_eq!(BASE64_STANDARD.decode(answer["key"].as_str().unwrap()).unwrap().len(), 80, "sealed");

    stage.clock.advance(SignedDuration::from_hours(48));
    let (status, answer) = stage.asks(|_| ()).await;
    assert_eq!((status, &answer["version"], &answer["current"]), (200, &json!(1), &json!(true)));
    let asked = stage.store.take_asked_for_newer();
    assert_eq!(
        asked.iter().map(|one| (one.instance, one.newer_than)).collect::<Vec<_>>(),
        [(stage.instance, 1)]
    );
    for other in [json!(null), json!(2)] {
        stage.clock.advance(SignedDuration::from_mins(10));
        let (status, _) = stage.asks(|body| body["newerThan"] = other).await;
        assert_eq!(status, 200);
        assert!(stage.store.take_asked_for_newer().is_empty());
    }
}

#[tokio::test]
async fn a_version_that_is_none_is_named_with_its_remedy() {
    let stage = Stage::new().await;
    for wrong in [json!(0), json!(-1), json!(1.5), json!(4_294_967_296_u64), json!("1"), json!([1])] {
        let fields: &[&str] = if wrong.is_number() { &["newerThan", "version"] } else { &["newerThan"] };
        for field in fields.iter().copied() {
            let (status, problem) = stage.asks(|body| body[field] = wrong.clone()).await;
            assert_eq!(status, 400, "{field} {wrong}");
            assert_eq!(problem["errors"][0]["field"], field);
            assert!(!problem["errors"][0]["help"].as_str().unwrap().is_empty());
        }
    }
    assert!(stage.store.take_asked_for_newer().is_empty());
}

#[tokio::test]
async fn a10_a_proof_says_what_it_cost_also_where_there_is_none() {
    let stage = Stage::new().await;
    let unknown = PolicyId::from_uuid(SequentialIds::uuid(0xdead));
    let asked = json!([stage.policy, unknown]);
    let (status, answer) = stage.asks_with(PROOFS, |body| body["policies"] = asked.clone()).await;
    assert_eq!(status, 200);
    let said = |policy: PolicyId, kms_calls: u32| json!({"policyId": policy, "result": "unavailable", "provenUntil": 0, "kmsCalls": kms_calls});
    // The canaries of this policy are no ciphertexts.
    assert_eq!(answer, json!({"proofs": [said(stage.policy, 2), said(unknown, 0)]}));
}

#[tokio::test]
async fn i7_a_role_that_is_no_apps_gets_no_proof_and_costs_no_call() {
    let stage = Stage::new().await;
    let stranger = PROOFS.replace("claviger-notes-app", "some-other-role");
    assert_ne!(stranger, PROOFS);
    stage.keys.forget_calls();
    let asked = json!([stage.policy]);
    let (status, problem) = stage.asks_with(&stranger, |body| body["policies"] = asked).await;
    assert_eq!(status, 403, "{problem}");
    assert!(stage.keys.calls().is_empty());
}
