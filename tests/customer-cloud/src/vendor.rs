//! The vendor's AWS, played by ministack: calls on its own account go there untouched, and it is asked about its roles.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::cloud::lock;
use crate::identity::Session;
use crate::wire::{Call, Failure, element, elements};

/// How long a role's policies are believed without asking again.
const FRESH: Duration = Duration::from_secs(3);
/// How long they are believed while the question is under way: asking must not slow down the calls of a busy story.
const STALE: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Debug, thiserror::Error)]
#[error("the vendor's AWS at {endpoint} does not answer: {reason}")]
pub struct NoAnswer {
    endpoint: String,
    reason: String,
}

/// Signs and sends as the root of the vendor's account.
pub struct Sender {
    endpoint: String,
    account: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Sender {
    pub fn new(endpoint: &str, account: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Sender { endpoint: endpoint.trim_end_matches('/').to_owned(), account: account.to_owned(), client }
    }

    pub async fn signed(
        &self,
        (service, region): (&str, &str),
        (method, path): (Method, &str),
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, NoAnswer> {
        let fail = |reason: String| NoAnswer { endpoint: self.endpoint.clone(), reason };
        let credentials = Credentials::new(&self.account, "test", None, None, "customer-cloud").into();
        let parameters = SigningParams::builder()
            .identity(&credentials)
            .region(region)
            .name(service)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| fail(error.to_string()))?
            .into();
        let uri = format!("{}{path}", self.endpoint);
        let signable =
            SignableRequest::new(method.as_str(), &uri, headers.iter().copied(), SignableBody::Bytes(&body))
                .map_err(|error| fail(error.to_string()))?;
        let (instructions, _) =
            sign(signable, &parameters).map_err(|error| fail(error.to_string()))?.into_parts();
        let mut request = Request::builder().method(method).uri(&uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request =
            request.body(Full::new(Bytes::from(body))).map_err(|error| fail(error.to_string()))?;
        instructions.apply_to_request_http1x(&mut request);
        self.send(request).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
        let fail = |reason: String| NoAnswer { endpoint: self.endpoint.clone(), reason };
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| fail(format!("{error:?}")))?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| fail(error.to_string()))?.to_bytes();
            Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| fail("timeout".into()))?
    }
}

/// `None`: no such role.
type RolePolicies = Option<Vec<String>>;

pub struct Vendor {
    pub account: String,
    sender: Sender,
    policies: Mutex<HashMap<String, (Instant, RolePolicies)>>,
    refreshing: tokio::sync::Mutex<()>,
}

impl Vendor {
    pub fn new(endpoint: String, account: String) -> Self {
        Vendor {
            sender: Sender::new(&endpoint, &account),
            account,
            policies: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        }
    }

    /// Passes the call on as it came, `Host` included: the caller's signature covers it.
    pub async fn pass_on(&self, call: &Call) -> Result<Answer, NoAnswer> {
        let uri = format!("{}{}", self.sender.endpoint, call.path_and_query);
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri.parse().map_err(|error: http::uri::InvalidUri| NoAnswer {
            endpoint: self.sender.endpoint.clone(),
            reason: error.to_string(),
        })?;
        *request.headers_mut() = call.headers.clone();
        for hop in ["connection", "content-length", "transfer-encoding", "expect"] {
            request.headers_mut().remove(hop);
        }
        self.sender.send(request).await
    }

    /// The role session behind a function's own credentials.
    ///
    /// ministack issues them without STS and derives the access key id from the function and its role
    /// (`core/lambda_runtime.py`, `execution_credentials`), so its list of functions tells whose they are.
    pub async fn execution_role_session(&self, access_key: &str, region: &str) -> Option<Session> {
        let wanted = access_key.strip_prefix("ASIA")?;
        for region in [region, "eu-central-1", "us-east-1"] {
            let request = (Method::GET, "/2015-03-31/functions/?MaxItems=10000");
            let answer = self.sender.signed(("lambda", region), request, &[], Vec::new()).await.ok()?;
            let listing: Value = serde_json::from_slice(&answer.body).ok()?;
            for function in listing["Functions"].as_array().into_iter().flatten() {
                let field = |name: &str| function[name].as_str().unwrap_or_default().to_owned();
                let (arn, role_arn) = (field("FunctionArn"), field("Role"));
                if derived_key(&arn, &role_arn) == wanted {
                    let role_name = role_arn.rsplit('/').next().unwrap_or_default().to_owned();
                    return Some(Session {
                        account: self.account.clone(),
                        role_id: role_name.clone(),
                        role_name,
                        role_arn,
                        session_name: field("FunctionName"),
                        policy: None,
                        token: None,
                        expires: None,
                    });
                }
            }
        }
        None
    }

    /// All policies of a role, inline and attached; `None` when the role does not exist.
    pub async fn role_policies(self: &Arc<Self>, role: &str) -> Result<RolePolicies, Failure> {
        let known = lock(&self.policies).get(role).cloned();
        match known {
            Some((at, policies)) if at.elapsed() < FRESH => Ok(policies),
            Some((at, Some(policies))) if at.elapsed() < STALE => {
                let (vendor, role) = (Arc::clone(self), role.to_owned());
                tokio::spawn(async move { vendor.refresh(&role).await });
                Ok(Some(policies))
            }
            _ => self.refresh(role).await,
        }
    }

    /// Asks once, however many calls are waiting.
    async fn refresh(&self, role: &str) -> Result<RolePolicies, Failure> {
        let _one_at_a_time = self.refreshing.lock().await;
        let known = lock(&self.policies).get(role).cloned();
        if let Some((at, policies)) = known
            && at.elapsed() < FRESH
        {
            return Ok(policies);
        }
        let failed = |error: NoAnswer| Failure::new(500, "InternalFailure", error.to_string());
        let policies = self.fetch_policies(role).await.map_err(failed)?;
        lock(&self.policies).insert(role.to_owned(), (Instant::now(), policies.clone()));
        Ok(policies)
    }

    async fn fetch_policies(&self, role: &str) -> Result<RolePolicies, NoAnswer> {
        let Some(inline) = self.iam("ListRolePolicies", &[("RoleName", role)]).await? else {
            return Ok(None);
        };
        let mut documents = Vec::new();
        for name in elements(&inline, "member") {
            let parameters = [("RoleName", role), ("PolicyName", &name)];
            let document = self.iam("GetRolePolicy", &parameters).await?;
            documents.extend(document.and_then(|xml| element(&xml, "PolicyDocument")));
        }
        let attached = self.iam("ListAttachedRolePolicies", &[("RoleName", role)]).await?.unwrap_or_default();
        for arn in elements(&attached, "PolicyArn") {
            let policy = self.iam("GetPolicy", &[("PolicyArn", &arn)]).await?.unwrap_or_default();
            let version = element(&policy, "DefaultVersionId").unwrap_or_else(|| "v1".into());
            let parameters = [("PolicyArn", arn.as_str()), ("VersionId", &version)];
            let document = self.iam("GetPolicyVersion", &parameters).await?;
            documents.extend(document.and_then(|xml| element(&xml, "Document")));
        }
        Ok(Some(documents.iter().map(|document| decoded(document)).collect()))
    }

    /// `None`: what was asked for does not exist.
    async fn iam(&self, action: &str, parameters: &[(&str, &str)]) -> Result<Option<String>, NoAnswer> {
        let body = form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", action)
            .append_pair("Version", "2010-05-08")
            .extend_pairs(parameters)
            .finish()
            .into_bytes();
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let answer = self.sender.signed(("iam", "us-east-1"), (Method::POST, "/"), &headers, body).await?;
        match answer.status {
            200 => Ok(Some(String::from_utf8_lossy(&answer.body).into_owned())),
            404 => Ok(None),
            // A stumbling vendor is not a role that is gone: the caller sees an internal error, not a refusal.
            status => Err(NoAnswer {
                endpoint: self.sender.endpoint.clone(),
                reason: format!("{action} ends with status {status}"),
            }),
        }
    }
}

/// IAM returns documents percent-encoded; some emulators do not.
fn decoded(document: &str) -> String {
    if document.trim_start().starts_with('{') {
        return document.to_owned();
    }
    let escaped = document.replace('+', "%2B");
    form_urlencoded::parse(format!("d={escaped}").as_bytes())
        .next()
        .map(|(_, text)| text.into_owned())
        .unwrap_or_default()
}

fn derived_key(function_arn: &str, role_arn: &str) -> String {
    let digest = Sha256::digest(format!("{function_arn}:{role_arn}"));
    digest.iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}
