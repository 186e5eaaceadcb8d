//! A server that answers what it is told to, and remembers what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, Uri};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The operation, as its protocol names it: `Decrypt`, `AssumeRole`, or the path.
    pub operation: String,
    /// The region of the signature.
    pub region: String,
    /// The access key id of the signature.
    pub access_key: String,
    /// The body.
    pub body: String,
}

/// An answer: status, headers, body; or never.
#[derive(Debug, Clone)]
pub enum Answer {
    Now(u16, Vec<(&'static str, &'static str)>, String),
    Never,
}

impl Answer {
    pub fn ok(body: impl Into<String>) -> Self {
        Self::Now(200, vec![("x-amzn-requestid", "request-1")], body.into())
    }

    /// An error of a service that speaks AWS JSON.
    pub fn error(status: u16, code: &str) -> Self {
        let body = format!(r#"{{"__type":"{code}","message":"as the test wants it"}}"#);
        Self::Now(status, vec![("x-amzn-requestid", "request-1")], body)
    }

    /// An error of a service that speaks the query protocol.
    pub fn query_error(status: u16, code: &str) -> Self {
        let body = format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
             <Code>{code}</Code><Message>m</Message></Error><RequestId>request-1</RequestId></ErrorResponse>"
        );
        Self::Now(status, Vec::new(), body)
    }

    /// A session of the key-access role that ends at this instant.
    pub fn session(expiration: &str) -> Self {
        Self::ok(format!(
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
             <Credentials><AccessKeyId>ASIASESSION</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>\
             <SessionToken>token</SessionToken><Expiration>{expiration}</Expiration></Credentials>\
             </AssumeRoleResult></AssumeRoleResponse>"
        ))
    }
}

#[derive(Default)]
struct Script {
    asked: Vec<Asked>,
    answers: Vec<(String, VecDeque<Answer>)>,
}

/// The server, which ends with the test.
pub struct Wire {
    pub endpoint: String,
    script: Arc<Mutex<Script>>,
    server: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn operation(headers: &HeaderMap, uri: &Uri, body: &str) -> String {
    if let Some(target) = headers.get("x-amz-target") {
        return target.to_str().unwrap().rsplit('.').next().unwrap().to_owned();
    }
    let action = body.split('&').find_map(|pair| pair.strip_prefix("Action="));
    action.map_or_else(|| uri.path().to_owned(), str::to_owned)
}

async fn handle(
    State(script): State<Arc<Mutex<Script>>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let body = String::from_utf8(body.to_vec()).unwrap();
    let operation = operation(&headers, &uri, &body);
    // Credential=<access key>/<date>/<region>/<service>/aws4_request
    let signature = headers.get("authorization").map_or("", |value| value.to_str().unwrap());
    let mut scope = signature.split("Credential=").nth(1).unwrap_or_default().split('/');
    let access_key = scope.next().unwrap_or_default().to_owned();
    let region = scope.nth(1).unwrap_or_default().to_owned();
    let answer = {
        let mut script = script.lock().unwrap();
        let answers = script.answers.iter_mut().find(|(of, _)| *of == operation);
        let answer = match answers {
            // The last one is for ever.
            Some((_, left)) if left.len() > 1 => left.pop_front(),
            Some((_, left)) => left.front().cloned(),
            None => None,
        };
        script.asked.push(Asked { operation: operation.clone(), region, access_key, body });
        answer.unwrap_or_else(|| panic!("nothing is to be answered to `{operation}`"))
    };
    match answer {
        Answer::Never => std::future::pending().await,
        Answer::Now(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Body::from(body)).unwrap()
        }
    }
}

impl Wire {
    /// A server that has no answers yet.
    pub async fn new() -> Self {
        let script = Arc::new(Mutex::new(Script::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(handle).with_state(Arc::clone(&script));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { endpoint, script, server }
    }

    /// From now on an operation is answered like this, one after the other, the last one for ever.
    pub fn answers(&self, operation: &str, answers: impl IntoIterator<Item = Answer>) {
        let mut script = self.script.lock().unwrap();
        script.answers.retain(|(of, _)| of != operation);
        script.answers.push((operation.to_owned(), answers.into_iter().collect()));
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.script.lock().unwrap().asked.clone()
    }

    /// The names of the operations asked for so far.
    pub fn operations(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.operation).collect()
    }
}
