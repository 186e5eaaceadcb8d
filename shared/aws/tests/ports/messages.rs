//! Queues, bus and prober over the wire.

use claviger_app::messages::{AppOrder, NewerDataKey, ProbeAnswer, ProbeMessage, ProbeRequest};
use claviger_app::ports::{Bus, NewerDataKeys, ProbeQueue, Prober, SetAside, Undelivered};
use claviger_aws::bus::EventBridgeBus;
use claviger_aws::prober::LambdaProber;
use claviger_aws::queues::SqsQueues;
use claviger_domain::effect::{Effect, OutboxRow};
use claviger_domain::fence::Epoch;
use claviger_domain::ids::{CorrelationId, EffectId, InstanceId, PolicyId, TicketId};
use claviger_domain::values::ShardId;
use claviger_testkit::SequentialIds;
use claviger_testkit::builders::{instant, parsed};
use jiff::SignedDuration;
use rstest::rstest;

use crate::support::sdk_config;
use crate::support::wire::{Answer, Wire};

fn sweeps(count: u16) -> Vec<(ProbeMessage, SignedDuration)> {
    let due_at = instant("2026-11-22T12:00:00Z");
    (0..count)
        .map(|shard| {
            (ProbeMessage::Sweep { shard: ShardId(shard), due_at }, SignedDuration::from_millis(1_500))
        })
        .collect()
}

async fn queues(answer: &str) -> (Wire, SqsQueues) {
    let wire = Wire::new().await;
    wire.answers("SendMessageBatch", [Answer::ok(answer)]);
    let queues =
        SqsQueues::new(&sdk_config(&wire.endpoint)).with_probe_queue("http://sqs.example/111111111111/probe");
    (wire, queues)
}

#[tokio::test]
async fn probes_are_queued_in_tens() {
    let (wire, queues) = queues(r#"{"Successful":[],"Failed":[]}"#).await;
    queues.queue_probes(&sweeps(23)).await.unwrap();
    let sent: Vec<usize> =
        wire.asked().iter().map(|asked| asked.body.matches("MessageBody").count()).collect();
    assert_eq!(sent, [10, 10, 3]);
    assert!(wire.asked()[0].body.contains(r#""DelaySeconds":2"#), "rounded up, never early");
}

#[tokio::test]
async fn a_message_that_the_queue_did_not_take_is_a_failure() {
    let answer = r#"{"Successful":[],"Failed":[{"Id":"0","SenderFault":false,"Code":"InternalError"}]}"#;
    let (_wire, queues) = queues(answer).await;
    assert!(queues.queue_probes(&sweeps(1)).await.unwrap_err().reason.contains("InternalError"));
}

/// The clock runs ahead while nothing else does, so the time limit is over at once; without one the test would not end.
#[tokio::test(start_paused = true)]
async fn a_queue_and_a_bus_that_never_answer_are_given_up() {
    let wire = Wire::new().await;
    wire.answers("SendMessageBatch", [Answer::Never]);
    wire.answers("PutEvents", [Answer::Never]);
    let config = sdk_config(&wire.endpoint);
    let queues = SqsQueues::new(&config).with_probe_queue("http://sqs.example/111111111111/probe");
    assert_eq!(queues.queue_probes(&sweeps(1)).await.unwrap_err().what, "the probe queue");
    let bus = EventBridgeBus::new(&config, "claviger");
    assert_eq!(bus.publish_effect(&row(Effect::VerifyPolicy)).await.unwrap_err().what, "the event bus");
}

#[tokio::test]
async fn a_newer_data_key_is_asked_for_beside_the_work_at_the_provisioners_queue() {
    let (wire, queues) = queues(r#"{"Successful":[],"Failed":[]}"#).await;
    let queues = queues.with_provisioner_queue("http://sqs.example/111111111111/provisioner");
    let wanted = NewerDataKey {
        instance: InstanceId::from_uuid(SequentialIds::uuid(9)),
        newer_than: 3,
        correlation: CorrelationId::from_uuid(SequentialIds::uuid(4)),
    };
    queues.ask_for_newer(wanted.clone());
    let asked = loop {
        if let Some(asked) = wire.asked().first() {
            break asked.body.clone();
        }
        tokio::task::yield_now().await;
    };
    let asked: serde_json::Value = serde_json::from_str(&asked).unwrap();
    assert_eq!(asked["QueueUrl"], "http://sqs.example/111111111111/provisioner");
    let body = asked["Entries"][0]["MessageBody"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<NewerDataKey>(body).unwrap(), wanted);
}

fn row(effect: Effect) -> OutboxRow {
    OutboxRow {
        id: EffectId::from_uuid(SequentialIds::uuid(1)),
        organisation: parsed("acme"),
        policy: PolicyId::from_uuid(SequentialIds::uuid(2)),
        epoch: Epoch(3),
        effect,
        correlation: CorrelationId::from_uuid(SequentialIds::uuid(4)),
        created_at: instant("2026-11-22T12:00:00Z"),
    }
}

async fn bus(answer: &str) -> (Wire, EventBridgeBus) {
    let wire = Wire::new().await;
    wire.answers("PutEvents", [Answer::ok(answer)]);
    let bus = EventBridgeBus::new(&sdk_config(&wire.endpoint), "claviger");
    (wire, bus)
}

const TAKEN: &str = r#"{"FailedEntryCount":0,"Entries":[{"EventId":"e"}]}"#;

#[rstest]
#[case(Effect::VerifyPolicy, "ProvisioningOrdered")]
#[case(Effect::ProvisionInstance { instance: InstanceId::from_uuid(SequentialIds::uuid(9)) }, "ProvisioningOrdered")]
#[case(Effect::SuspendInstances { epoch: Epoch(3) }, "SuspensionOrdered")]
#[case(Effect::ProveRestoration, "RestorationOrdered")]
#[case(Effect::RestoreInstances { epoch: Epoch(4) }, "RestorationOrdered")]
#[tokio::test]
async fn an_effect_goes_to_the_function_whose_concern_it_is(
    #[case] effect: Effect,
    #[case] detail_type: &str,
) {
    let (wire, bus) = bus(TAKEN).await;
    bus.publish_effect(&row(effect)).await.unwrap();
    let body = &wire.asked()[0].body;
    for part in [
        r#""Source":"claviger""#,
        &format!(r#""DetailType":"{detail_type}""#),
        r#"\"organisation\":\"acme\""#,
    ] {
        assert!(body.contains(part), "{part} in {body}");
    }
}

#[tokio::test]
async fn an_effect_that_the_outbox_applies_itself_is_not_published() {
    let (wire, bus) = bus(TAKEN).await;
    let ticket = TicketId::from_uuid(SequentialIds::uuid(1));
    let effect = Effect::CommentTicket { ticket, body: "text".into() };
    bus.publish_effect(&row(effect)).await.unwrap_err();
    assert!(wire.operations().is_empty());
}

#[tokio::test]
async fn an_event_that_the_bus_did_not_take_is_a_failure() {
    let answer =
        r#"{"FailedEntryCount":1,"Entries":[{"ErrorCode":"ThrottlingException","ErrorMessage":"m"}]}"#;
    let (_wire, bus) = bus(answer).await;
    let error = bus.publish_effect(&row(Effect::VerifyPolicy)).await.unwrap_err();
    assert_eq!(error.reason, "ThrottlingException");
}

#[rstest]
#[case("suspend", Some("AppInstanceSuspended"))]
#[case("restore", Some("AppInstanceRestored"))]
#[case("dance", None)]
#[tokio::test]
async fn an_app_hears_of_its_orders(#[case] order: &str, #[case] detail_type: Option<&str>) {
    let (wire, bus) = bus(TAKEN).await;
    let order = AppOrder {
        organisation: parsed("acme"),
        instance_id: InstanceId::from_uuid(SequentialIds::uuid(1)),
        site: "acme-eng".into(),
        app: "jira".into(),
        order: order.into(),
        epoch: Epoch(1),
        correlation_id: CorrelationId::from_uuid(SequentialIds::uuid(2)),
    };
    assert_eq!(bus.publish_order(&order).await.is_ok(), detail_type.is_some());
    if let Some(detail_type) = detail_type {
        assert!(wire.asked()[0].body.contains(&format!(r#""DetailType":"{detail_type}""#)));
    }
}

async fn prober(answer: Answer) -> (Wire, LambdaProber) {
    let wire = Wire::new().await;
    wire.answers("/2015-03-31/functions/claviger-key-prober/invocations", [answer]);
    let prober = LambdaProber::new(&sdk_config(&wire.endpoint), "claviger-key-prober");
    (wire, prober)
}

#[tokio::test]
async fn the_prober_is_asked_and_its_answer_read() {
    let (wire, prober) = prober(Answer::ok(r#"{"kind":"probed","rounds":[]}"#)).await;
    let request = ProbeRequest::ProbeNow { organisation: parsed("acme"), rounds: 2 };
    assert_eq!(prober.probe(&request).await.unwrap(), ProbeAnswer::Probed { rounds: Vec::new() });
    assert_eq!(wire.asked()[0].body, r#"{"kind":"probe-now","organisation":"acme","rounds":2}"#);
}

#[rstest]
#[case::it_failed(Answer::Now(200, vec![("x-amz-function-error", "Unhandled")], r#"{"errorMessage":"secret"}"#.into()))]
#[case::it_babbled(Answer::ok("{}"))]
#[case::it_is_not_there(Answer::error(404, "ResourceNotFoundException"))]
#[tokio::test]
async fn a_prober_that_fails_is_not_available(#[case] answer: Answer) {
    let (_wire, prober) = prober(answer).await;
    let request = ProbeRequest::ProbeNow { organisation: parsed("acme"), rounds: 1 };
    let error = prober.probe(&request).await.unwrap_err();
    assert_eq!(error.what, "the prober");
    assert!(!error.reason.contains("secret"));
}

#[tokio::test]
async fn what_was_not_delivered_is_received_and_taken_away_by_its_receipt() {
    let wire = Wire::new().await;
    let answer = r#"{"Messages":[{"MessageId":"1","ReceiptHandle":"r-1","Body":"{}"},{"MessageId":"2"}]}"#;
    wire.answers("ReceiveMessage", [Answer::ok(answer), Answer::ok("{}")]);
    wire.answers("DeleteMessage", [Answer::ok("{}")]);
    let config = sdk_config(&wire.endpoint);
    let queues = SqsQueues::new(&config).with_undelivered("http://sqs.example/111111111111/undelivered");
    let message = SetAside { body: "{}".to_owned(), receipt: "r-1".to_owned() };
    let found = queues.set_aside().await.unwrap();
    assert_eq!(found, std::slice::from_ref(&message), "one without a body is left alone");
    assert!(queues.set_aside().await.unwrap().is_empty());
    queues.seen_to(&message).await.unwrap();
    assert_eq!(wire.operations(), ["ReceiveMessage", "ReceiveMessage", "DeleteMessage"]);
    assert!(wire.asked()[2].body.contains("r-1"));
}
