//! The function as its queue calls it: the broker asks for a newer data key, and messages come twice.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use aws_lambda_events::event::sqs::SqsEvent;
use claviger_app::check_enrolment::CheckEnrolment;
use claviger_app::erase_data_keys::EraseDataKeys;
use claviger_app::erase_instance::EraseInstance;
use claviger_app::make_data_key::MakeDataKey;
use claviger_app::make_newer_data_key::MakeNewerDataKey;
use claviger_app::ports::{Clock, DataKeyRegistry, StoreError, UsageRecords};
use claviger_app::probe_keys::ProbeKeys;
use claviger_app::provision_instance::ProvisionInstance;
use claviger_app::remove_data_keys::RemoveDataKeys;
use claviger_app::replace_key::ReplaceKey;
use claviger_app::usage::{FlushUsage, UsageMeter};
use claviger_app::verify_policy::VerifyPolicy;
use claviger_domain::ids::InstanceId;
use claviger_domain::observation::{NoAnswerKind, Observation};
use claviger_provisioner::Provisioner;
use claviger_testkit::builders::{
    a_key, an_enrolment, an_organisation, commit_active_instance, commit_active_policy, settings,
};
use claviger_testkit::{FakeClock, FakeKeys, MemoryWorld, SequentialIds};
use jiff::SignedDuration;
use serde_json::json;

const REGIONS: [&str; 2] = ["eu-central-1", "eu-west-1"];

struct Stage {
    store: MemoryWorld,
    keys: FakeKeys,
    clock: FakeClock,
    ids: SequentialIds,
    instance: InstanceId,
}

impl Stage {
    /// An instance whose data key is two days old.
    async fn new() -> Self {
        let (store, keys, clock, ids) =
            (MemoryWorld::new(), FakeKeys::new(), FakeClock::default(), SequentialIds::default());
        let organisation = an_organisation("acme");
        for region in REGIONS {
            let key = a_key("222222222222", region, 1);
            keys.create(&key);
            keys.bind(&key, organisation.id);
        }
        let enrolment = an_enrolment("222222222222", "europe");
        let policy = commit_active_policy(&store, &organisation, &enrolment, clock.now()).await;
        let instance = commit_active_instance(&store, &policy, "acme-eng", "jira", clock.now()).await.id;
        let stage = Self { store, keys, clock, ids, instance };
        let first = claviger_app::ports::WrappedDataKey {
            id: claviger_domain::ids::DataKeyId::from_uuid(SequentialIds::uuid(77)),
            instance,
            purpose: "records".to_owned(),
            version: 1,
            generation: policy.generation,
            created_at: stage.clock.now(),
            wraps: std::collections::BTreeMap::new(),
            second: std::collections::BTreeMap::new(),
        };
        stage.store.add_data_key(&first).await.unwrap();
        stage.clock.advance(SignedDuration::from_hours(48));
        stage
    }

    /// Delivers the body this many times in one batch; says which were given back.
    async fn delivers(&self, body: &serde_json::Value, times: usize) -> Vec<String> {
        let Self { store, keys, clock, ids, .. } = self;
        let settings = settings();
        let probe = ProbeKeys { keys, controls: keys, registry: store, clock };
        let make = MakeDataKey { registry: store, keys, ids, clock };
        let meter = UsageMeter::new(settings.usage_flush);
        let records: &dyn UsageRecords = store;
        let provisioner = Provisioner {
            verify: VerifyPolicy {
                organisations: store,
                policies: store,
                keys,
                check: CheckEnrolment { keys, roles: keys, ids },
                probe,
                ids,
                clock,
                settings,
            },
            provision: ProvisionInstance {
                organisations: store,
                instances: store,
                policies: store,
                make,
                clock,
                settings,
            },
            newer: MakeNewerDataKey { instances: store, policies: store, make, settings },
            erase: EraseDataKeys {
                policies: store,
                instances: store,
                registry: store,
                queue: store,
                clock,
                settings,
            },
            erase_instance: EraseInstance { instances: store, registry: store, queue: store, clock },
            remove: RemoveDataKeys {
                policies: store,
                instances: store,
                registry: store,
                removal: store,
                queue: store,
                clock,
                settings,
            },
            replace: ReplaceKey {
                policies: store,
                instances: store,
                registry: store,
                keys,
                probe,
                queue: store,
                ids,
                clock,
                settings,
            },
            usage: FlushUsage { meter: &meter, records, ids, clock },
        };
        let records: Vec<_> = (0..times)
            .map(|n| json!({ "messageId": format!("m-{n}"), "body": body.to_string(), "eventSource": "aws:sqs" }))
            .collect();
        let event: SqsEvent = serde_json::from_value(json!({ "Records": records })).unwrap();
        let given_back = provisioner.handle(event).await.batch_item_failures;
        given_back.into_iter().map(|failure| failure.item_identifier).collect()
    }

    fn wants(&self, newer_than: u32) -> serde_json::Value {
        let correlation = SequentialIds::uuid(0xc0);
        json!({ "instance": self.instance, "newerThan": newer_than, "correlation": correlation })
    }

    async fn versions(&self) -> Vec<u32> {
        self.store.data_keys(self.instance).await.unwrap().iter().map(|key| key.version).collect()
    }
}

#[tokio::test]
async fn i4_a_newer_data_key_is_made_once_however_often_it_is_asked_for() {
    let stage = Stage::new().await;
    assert!(stage.delivers(&stage.wants(1), 3).await.is_empty());
    assert_eq!(stage.versions().await, [1, 2]);
    assert!(stage.delivers(&stage.wants(1), 1).await.is_empty());
    assert_eq!(stage.versions().await, [1, 2]);
}

#[tokio::test]
async fn i2_what_a_key_does_not_do_now_is_asked_for_again_and_given_up_by_nobody() {
    let stage = Stage::new().await;
    let key = a_key("222222222222", "eu-west-1", 1);
    stage.keys.answer(&key, Observation::NoAnswer(NoAnswerKind::Throttled));
    assert!(stage.delivers(&stage.wants(1), 1).await.is_empty(), "no message for the dead letters");
    assert_eq!(stage.versions().await, [1]);
    stage.keys.answer(&key, Observation::Usable);
    assert!(stage.delivers(&stage.wants(1), 1).await.is_empty());
    assert_eq!(stage.versions().await, [1, 2]);
}

#[tokio::test]
async fn a_store_that_fails_gives_the_message_back() {
    let stage = Stage::new().await;
    stage.store.fail_changes([StoreError::Unavailable { reason: "test".to_owned() }]);
    assert_eq!(stage.delivers(&stage.wants(1), 1).await, ["m-0"]);
    assert!(stage.delivers(&stage.wants(1), 1).await.is_empty());
    assert_eq!(stage.versions().await, [1, 2]);
}

#[tokio::test]
async fn a_request_that_says_half_is_given_back() {
    let stage = Stage::new().await;
    let half = json!({ "instance": stage.instance, "correlation": SequentialIds::uuid(0xc0) });
    assert_eq!(stage.delivers(&half, 1).await, ["m-0"]);
    assert_eq!(stage.versions().await, [1]);
}
