//! Tells the vendor what changed, as EventBridge would from the customer's bus: by invoking a function.
//!
//! A delivery never holds up the customer's call; one that fails is logged and forgotten.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cloud::{Cloud, EventTarget, lock};
use crate::identity::Caller;
use crate::vendor::Sender;
use crate::wire::Call;

const KEPT: usize = 10_000;

/// A management call that succeeded.
pub struct Change<'a> {
    pub source: &'a str,
    pub name: &'a str,
    pub account: &'a str,
    pub region: &'a str,
    /// IAM changes have none.
    pub key_arn: Option<&'a str>,
    pub request: Value,
    pub response: Value,
}

pub struct Events {
    target: Option<Arc<(EventTarget, Sender)>>,
    /// What was delivered, dropped or failed, for tests.
    log: Arc<Mutex<VecDeque<Value>>>,
}

impl Events {
    pub fn new(target: Option<EventTarget>, vendor_account: String) -> Self {
        let target = target.map(|target| {
            let sender = Sender::new(&target.endpoint, &vendor_account);
            Arc::new((target, sender))
        });
        Events { target, log: Arc::default() }
    }

    pub fn log(&self) -> Vec<Value> {
        lock(&self.log).iter().cloned().collect()
    }

    /// The CloudTrail record of a change.
    pub fn changed(&self, cloud: &Cloud, call: &Call, caller: &Caller, change: &Change<'_>) {
        let now = Timestamp::now();
        let resources: Vec<&str> = change.key_arn.into_iter().collect();
        let mut detail = json!({
            "eventVersion": "1.11",
            "userIdentity": user_identity(caller),
            "eventTime": second(now),
            "eventSource": format!("{}.amazonaws.com", change.source.trim_start_matches("aws.")),
            "eventName": change.name,
            "awsRegion": change.region,
            "sourceIPAddress": "127.0.0.1",
            "userAgent": call.header("user-agent"),
            "requestParameters": change.request,
            "responseElements": change.response,
            "requestID": call.id,
            "eventID": uuid::Uuid::new_v4().to_string(),
            "readOnly": false,
            "eventType": "AwsApiCall",
            "managementEvent": true,
            "recipientAccountId": change.account,
            "eventCategory": "Management",
        });
        if let Some(arn) = change.key_arn {
            detail["resources"] = json!([{"accountId": change.account, "type": "AWS::KMS::Key", "ARN": arn}]);
        }
        let event = envelope(
            change.source,
            "AWS API Call via CloudTrail",
            change.account,
            change.region,
            resources,
            detail,
        );
        self.deliver(cloud, event);
    }

    /// An event that KMS sends by itself, such as `KMS CMK Deletion`.
    pub fn native(
        &self,
        cloud: &Cloud,
        detail_type: &str,
        arn: &str,
        (account, region): (&str, &str),
        detail: Value,
    ) {
        self.deliver(cloud, envelope("aws.kms", detail_type, account, region, vec![arn], detail));
    }

    fn deliver(&self, cloud: &Cloud, event: Value) {
        let place = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let fate = cloud.faults().event_fate(&place("account"), &place("region"));
        if fate.copies == 0 || self.target.is_none() {
            let outcome = if fate.copies == 0 { "lost" } else { "no target" };
            keep(&self.log, &event, outcome);
            return;
        }
        for _ in 0..fate.copies {
            let (Some(target), log, event) = (self.target.clone(), Arc::clone(&self.log), event.clone())
            else {
                return;
            };
            tokio::spawn(async move {
                tokio::time::sleep(fate.delay).await;
                let (target, sender) = &*target;
                let path = format!("/2015-03-31/functions/{}/invocations", target.function);
                let headers = [("x-amz-invocation-type", "Event"), ("content-type", "application/json")];
                let body = event.to_string().into_bytes();
                let scope = ("lambda", target.region.as_str());
                let outcome = match sender.signed(scope, (Method::POST, &path), &headers, body).await {
                    Ok(answer) if answer.status / 100 == 2 => "delivered".to_owned(),
                    Ok(answer) => format!("refused with status {}", answer.status),
                    Err(error) => error.to_string(),
                };
                if outcome != "delivered" {
                    tracing::warn!(function = target.function, outcome, "an event was not delivered");
                }
                keep(&log, &event, &outcome);
            });
        }
    }
}

fn keep(log: &Mutex<VecDeque<Value>>, event: &Value, outcome: &str) {
    let mut log = lock(log);
    if log.len() == KEPT {
        log.pop_front();
    }
    log.push_back(json!({"at": Timestamp::now().to_string(), "outcome": outcome, "event": event}));
}

fn envelope(
    source: &str,
    detail_type: &str,
    account: &str,
    region: &str,
    resources: Vec<&str>,
    detail: Value,
) -> Value {
    json!({
        "version": "0",
        "id": uuid::Uuid::new_v4().to_string(),
        "detail-type": detail_type,
        "source": source,
        "account": account,
        "time": second(Timestamp::now()),
        "region": region,
        "resources": resources,
        "detail": detail,
    })
}

fn user_identity(caller: &Caller) -> Value {
    let mut identity = json!({
        "type": "Root",
        "principalId": caller.principal_id(),
        "arn": caller.principal.arn,
        "accountId": caller.account(),
        "accessKeyId": caller.access_key,
    });
    if let Some(session) = &caller.session {
        identity["type"] = json!("AssumedRole");
        identity["sessionContext"] = json!({
            "sessionIssuer": {
                "type": "Role", "principalId": session.role_id, "arn": session.role_arn,
                "accountId": session.account, "userName": session.role_name,
            },
        });
    }
    identity
}

fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
