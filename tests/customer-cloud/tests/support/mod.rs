//! A server on a free port, and callers for it.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use claviger_customer_cloud::cloud::{Cloud, Config, EventTarget};
use claviger_customer_cloud::server;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub const VENDOR: &str = "111111111111";
pub const ACME: &str = "222222222222";
pub const GLOBEX: &str = "333333333333";
pub const REGION: &str = "eu-west-1";

/// Credentials: a 12-digit id is that account, anything else a session.
#[derive(Clone)]
pub struct Who {
    pub key: String,
    pub token: Option<String>,
}

impl From<&str> for Who {
    fn from(account: &str) -> Self {
        Who { key: account.into(), token: None }
    }
}

impl From<&Who> for Who {
    fn from(who: &Who) -> Self {
        who.clone()
    }
}

pub struct Answer {
    pub status: u16,
    pub text: String,
}

pub struct Server {
    pub address: SocketAddr,
}

pub async fn start() -> Server {
    start_with(Config { vendor_account: VENDOR.into(), vendor_endpoint: None, events: None }).await
}

/// With the vendor's functions played by `endpoint`.
pub async fn start_with_events(endpoint: &str) -> Server {
    let target = EventTarget {
        endpoint: endpoint.into(),
        function: "key-events".into(),
        region: "eu-central-1".into(),
    };
    start_with(Config { vendor_account: VENDOR.into(), vendor_endpoint: None, events: Some(target) }).await
}

pub async fn start_with(config: Config) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(server::serve(listener, Arc::new(Cloud::new(config))));
    Server { address }
}

impl Server {
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `Err` when the server hangs up.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).expect("a request");
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status, text: String::from_utf8_lossy(&body).into_owned() })
    }

    async fn aws(
        &self,
        who: &Who,
        (service, region): (&str, &str),
        extra: (&str, &str),
        body: String,
    ) -> Result<Answer, String> {
        let scope = format!("{}/20260101/{region}/{service}/aws4_request", who.key);
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none");
        let mut headers = vec![("authorization", authorization.as_str()), extra];
        headers.extend(who.token.as_deref().map(|token| ("x-amz-security-token", token)));
        self.send(Method::POST, "/", &headers, body).await
    }

    /// The output, or the error's code; `connection closed` when there was no answer.
    pub async fn kms_in(
        &self,
        region: &str,
        who: impl Into<Who>,
        operation: &str,
        input: Value,
    ) -> Result<Value, String> {
        let target = format!("TrentService.{operation}");
        let answer =
            self.aws(&who.into(), ("kms", region), ("x-amz-target", &target), input.to_string()).await;
        let answer = answer.map_err(|_| "connection closed".to_owned())?;
        let body = serde_json::from_str(&answer.text).unwrap_or(Value::Null);
        if answer.status == 200 { Ok(body) } else { Err(body["__type"].as_str().unwrap_or("?").to_owned()) }
    }

    pub async fn kms(&self, who: impl Into<Who>, operation: &str, input: Value) -> Result<Value, String> {
        self.kms_in(REGION, who, operation, input).await
    }

    /// The XML, or the error's code.
    pub async fn query(
        &self,
        who: impl Into<Who>,
        service: &str,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Result<String, String> {
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", action)
            .extend_pairs(parameters)
            .finish();
        let form = ("content-type", "application/x-www-form-urlencoded");
        let answer = self.aws(&who.into(), (service, REGION), form, body).await?;
        if answer.status == 200 {
            Ok(answer.text)
        } else {
            Err(between(&answer.text, "Code").unwrap_or(answer.text))
        }
    }

    pub async fn assume(
        &self,
        who: impl Into<Who>,
        role: &str,
        more: &[(&str, &str)],
    ) -> Result<Who, String> {
        let mut parameters = vec![("RoleArn", role), ("RoleSessionName", "test")];
        parameters.extend(more);
        let xml = self.query(who, "sts", "AssumeRole", &parameters).await?;
        Ok(Who { key: between(&xml, "AccessKeyId").expect("a key"), token: between(&xml, "SessionToken") })
    }

    /// A role that `trusted` may assume, with one inline policy; returns its ARN.
    pub async fn role(&self, account: &str, name: &str, trust: Value, policy: Value) -> String {
        let trust = trust.to_string();
        let parameters = [("RoleName", name), ("AssumeRolePolicyDocument", &trust)];
        self.query(account, "iam", "CreateRole", &parameters).await.expect("a role");
        let policy = policy.to_string();
        let parameters = [("RoleName", name), ("PolicyName", "p"), ("PolicyDocument", &policy)];
        self.query(account, "iam", "PutRolePolicy", &parameters).await.expect("a policy");
        format!("arn:aws:iam::{account}:role/{name}")
    }

    pub async fn key(&self, account: &str) -> String {
        let output = self.kms(account, "CreateKey", json!({})).await.expect("a key");
        output["KeyMetadata"]["Arn"].as_str().expect("an ARN").to_owned()
    }

    /// A key of `account` that the vendor may use.
    pub async fn shared_key(&self, account: &str, condition: Value) -> String {
        let arn = self.key(account).await;
        let policy = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{account}:root")},
             "Action": "kms:*", "Resource": "*"},
            {"Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{VENDOR}:root")}, "Resource": "*",
             "Action": ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*", "kms:DescribeKey"],
             "Condition": condition},
        ]});
        let input = json!({"KeyId": arn, "Policy": policy.to_string()});
        self.kms(account, "PutKeyPolicy", input).await.expect("a policy");
        arn
    }

    pub async fn admin(&self, method: Method, path: &str, body: Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.send(method, &format!("/_cloud/{path}"), &[], body).await.expect("an answer");
        serde_json::from_str(&answer.text).expect("JSON")
    }

    pub async fn fault(&self, fault: Value) -> Value {
        let answer = self.admin(Method::POST, "faults", fault).await;
        assert!(answer["id"].is_number(), "{answer}");
        answer
    }
}

/// A role of the vendor that may use KMS everywhere, assumed.
pub async fn vendor_session(server: &Server) -> Who {
    let role = server.role(VENDOR, "key-access", trusts(VENDOR), allows("kms:*")).await;
    server.assume(VENDOR, &role, &[]).await.expect("a session")
}

pub fn trusts(account: &str) -> Value {
    json!({"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"AWS": format!("arn:aws:iam::{account}:root")}}]})
}

pub fn allows(action: &str) -> Value {
    json!({"Statement": [{"Effect": "Allow", "Action": action, "Resource": "*"}]})
}

pub fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

pub fn between(xml: &str, name: &str) -> Option<String> {
    let rest = xml.split_once(&format!("<{name}>"))?.1;
    Some(rest.split_once(&format!("</{name}>"))?.0.to_owned())
}

/// Waits for something that happens elsewhere, for five seconds at most.
pub async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..500 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen");
}

/// What reached the fake AWS: path, headers that matter, body.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub host: String,
    pub invocation_type: String,
    pub authorization: String,
    pub body: String,
}

/// A stand-in for the vendor's AWS: keeps every request and answers from `reply`.
pub async fn fake_aws(reply: fn(&Seen) -> (u16, String)) -> (String, Arc<Mutex<Vec<Seen>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let kept = Arc::clone(&kept);
                    async move {
                        let header = |name: &str| {
                            let value = request.headers().get(name).and_then(|value| value.to_str().ok());
                            value.unwrap_or_default().to_owned()
                        };
                        let mut seen = Seen {
                            path: request.uri().path().to_owned(),
                            host: header("host"),
                            invocation_type: header("x-amz-invocation-type"),
                            authorization: header("authorization"),
                            body: String::new(),
                        };
                        let body = request.into_body().collect().await?.to_bytes();
                        seen.body = String::from_utf8_lossy(&body).into_owned();
                        let (status, text) = reply(&seen);
                        kept.lock().expect("a lock").push(seen);
                        let mut response = Response::new(Full::new(Bytes::from(text)));
                        *response.status_mut() = http::StatusCode::from_u16(status).expect("a status");
                        Ok::<_, hyper::Error>(response)
                    }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (url, seen)
}
