//! A stage: the router, two organisations, five kinds of people.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::response::Response;
use claviger_api::{Api, router};
use claviger_app::messages::{Check, CheckResult, ProbeAnswer};
use claviger_app::ports::{Organisations, Prober};
use claviger_app::settings::Settings;
use claviger_domain::organisation::Organisation;
use claviger_lambda::auth::{AuthError, Authenticator, Caller, GROUP_SUPPORT, GROUP_SYSTEM};
use claviger_testkit::builders::{a_key, an_organisation, parsed, settings};
use claviger_testkit::{FakeClock, MemoryWorld, SequentialIds};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

/// `acme-admin` bears the token `acme-admin`, and so on.
struct Names;

#[async_trait]
impl Authenticator for Names {
    async fn caller(&self, token: &str) -> Result<Caller, AuthError> {
        let groups: &[&str] = match token {
            "away" => return Err(AuthError::Unavailable { reason: "the issuer is away".to_owned() }),
            "forged" => return Err(AuthError::Refused { reason: "the signature is wrong".to_owned() }),
            "system" => &[GROUP_SYSTEM],
            "support" | "support-two" => &[GROUP_SUPPORT],
            _ => &[],
        };
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let subject =
            token.parse().map_err(|_| AuthError::Refused { reason: "nobody's subject".to_owned() })?;
        Ok(Caller { subject, groups })
    }
}

pub struct Stage {
    pub world: Arc<MemoryWorld>,
    pub clock: Arc<FakeClock>,
    router: axum::Router,
}

/// What came back.
#[derive(Debug)]
pub struct Came {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Came {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The fields that a problem names.
    pub fn fields(&self) -> Vec<String> {
        let errors = self.json()["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
    }
}

fn organisation(name: &str) -> Organisation {
    let mut organisation = an_organisation(name);
    organisation.admins = [parsed(&format!("{name}-admin"))].into();
    organisation.auditors = [parsed(&format!("{name}-auditor"))].into();
    organisation
}

pub async fn stage() -> Stage {
    stage_with(None).await
}

/// The same with a prober of the test's.
pub async fn stage_with(prober: Option<Arc<dyn Prober>>) -> Stage {
    stage_of(prober, settings().clone()).await
}

/// The same where a second org admin has to agree to a change of keys.
pub async fn stage_of_two_admins() -> Stage {
    let mut settings = settings().clone();
    settings.catalogue.key_changes.second_approver = true;
    let stage = stage_of(None, settings).await;
    let mut acme = organisation("acme");
    acme.admins.insert(parsed("acme-second-admin"));
    stage.world.save_organisation(&acme).await.unwrap();
    stage
}

async fn stage_of(prober: Option<Arc<dyn Prober>>, settings: Settings) -> Stage {
    let (world, clock) = (Arc::new(MemoryWorld::new()), Arc::new(FakeClock::default()));
    for name in ["acme", "globex"] {
        world.save_organisation(&organisation(name)).await.unwrap();
    }
    let api = Api {
        authenticator: Arc::new(Names),
        stores: world.clone(),
        prober: prober.unwrap_or_else(|| world.clone()),
        clock: clock.clone(),
        ids: Arc::new(SequentialIds::default()),
        settings,
    };
    Stage { world, clock, router: router(api) }
}

impl Stage {
    /// Sends a request; its answer has to be as the OpenAPI document says.
    pub async fn send(&self, request: Request<Body>) -> Came {
        let (parts, body) = request.into_parts();
        let (method, path) = (parts.method.to_string(), parts.uri.path().to_owned());
        let sent = body.collect().await.unwrap().to_bytes();
        let request = Request::from_parts(parts, Body::from(sent.clone()));
        let came = self.unchecked(request).await;
        crate::openapi::check(&method, &path, &sent, &came);
        came
    }

    /// Sends a request that the OpenAPI document may know nothing of.
    pub async fn unchecked(&self, request: Request<Body>) -> Came {
        let response: Response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Came { status: parts.status, headers: parts.headers, text }
    }

    /// A call; an empty `who` bears no token.
    pub async fn call(&self, who: &str, method: &str, path: &str, body: Option<Value>) -> Came {
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.raw(who, method, path, body).await
    }

    pub async fn raw(&self, who: &str, method: &str, path: &str, body: Body) -> Came {
        self.with(who, method, path, &[], body).await
    }

    /// A POST that bears headers.
    pub async fn post_with(&self, who: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Came {
        self.with(who, "POST", path, headers, Body::from(body.to_string())).await
    }

    pub async fn with(
        &self,
        who: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Came {
        let mut request = Request::builder().method(method).uri(format!("/v1/{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !who.is_empty() {
            request = request.header("authorization", format!("Bearer {who}"));
        }
        self.send(request.body(body).unwrap()).await
    }

    pub async fn get(&self, who: &str, path: &str) -> Came {
        self.call(who, "GET", path, None).await
    }

    pub async fn post(&self, who: &str, path: &str, body: Value) -> Came {
        self.call(who, "POST", path, Some(body)).await
    }

    /// The next checks find nothing wrong.
    pub fn keys_are_good(&self) {
        good_keys(&self.world);
    }

    /// The same for other regions.
    pub fn regions_are_good(&self, regions: &[&str]) {
        good_regions(&self.world, regions);
    }
}

/// The next checks of a prober find nothing wrong.
pub fn good_keys(world: &MemoryWorld) {
    good_regions(world, &["eu-central-1", "eu-west-1"]);
}

fn good_regions(world: &MemoryWorld, regions: &[&str]) {
    let check = |region: &&str| Check {
        id: "key-usable".to_owned(),
        region: Some(parsed(region)),
        result: CheckResult::Pass,
        observed: "it works".to_owned(),
        help: String::new(),
    };
    let checks = regions.iter().map(check).collect();
    world.prober_answers(Ok(ProbeAnswer::Checked { checks }));
}

/// A right enrolment.
pub fn enrolment(account: &str) -> Value {
    let key = |region: &str| json!({ "region": region, "keyArn": a_key(account, region, 1).as_str() });
    let keys = ["eu-central-1", "eu-west-1"].map(key);
    json!({
        "mode": "cmk", "awsAccountId": account, "realm": "europe",
        "keys": keys,
        "contextTag": "acme1", "contextTagConfirmation": "acme1",
    })
}
