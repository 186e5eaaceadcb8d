//! Who calls: tokens of the vendor's identity provider, verified here rather than at the gateway, so
//! that every answer is a problem document and the same code runs everywhere.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use claviger_domain::authorisation::Role;
use claviger_domain::event::Actor;
use claviger_domain::organisation::Organisation;
use claviger_domain::values::Subject;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use tokio::sync::Mutex;

/// The group of the vendor's own machines.
pub const GROUP_SYSTEM: &str = "claviger-system";
/// The group of the vendor's support agents.
pub const GROUP_SUPPORT: &str = "claviger-support";

/// Keys are asked for at most this often, whatever came of it: neither a forged key id nor an issuer that is ill costs
/// every request one of ours.
const REFETCH: Duration = Duration::from_secs(30);
/// The same while there is no key at all: nobody can be told apart until there is.
const RETRY: Duration = Duration::from_secs(5);
/// Keys are asked for again after this long, so that one that the issuer withdrew ends here too.
const REFRESH: Duration = Duration::from_secs(900);
/// How far clocks may be apart.
const LEEWAY_SECONDS: u64 = 10;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's `sub`.
    pub subject: Subject,
    /// The groups that the identity provider lists.
    pub groups: BTreeSet<String>,
}

impl Caller {
    /// What the caller is by its groups alone, where no organisation is named.
    pub fn vendor_role(&self) -> Role {
        if self.groups.contains(GROUP_SYSTEM) {
            Role::System
        } else if self.groups.contains(GROUP_SUPPORT) {
            Role::Support
        } else {
            Role::Stranger
        }
    }

    /// The caller as the audit log names it, in this role; none for one who may only look, or not even
    /// that, so that nothing can ever be decided in its name.
    pub fn actor(&self, role: Role) -> Option<Actor> {
        let subject = self.subject.clone();
        match role {
            Role::OrgAdmin => Some(Actor::OrgAdmin(subject)),
            Role::Support => Some(Actor::Support(subject)),
            Role::System => Some(Actor::System(subject)),
            Role::Auditor | Role::Stranger => None,
        }
    }
}

/// What a caller is in an organisation. The vendor's people and machines are never an organisation's
/// own, whatever its lists say: who is an admin comes from the feed, who is support from the identity
/// provider (spec E3).
pub fn role_in(organisation: &Organisation, caller: &Caller) -> Role {
    match caller.vendor_role() {
        Role::System => Role::System,
        Role::Support => Role::Support,
        Role::OrgAdmin | Role::Auditor | Role::Stranger => {
            if organisation.admins.contains(&caller.subject) {
                Role::OrgAdmin
            } else if organisation.auditors.contains(&caller.subject) {
                Role::Auditor
            } else {
                Role::Stranger
            }
        }
    }
}

/// Why a caller is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The token does not hold. The reason never repeats the token.
    #[error("the token does not hold: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// The issuer's keys cannot be had: nobody can be told apart for the moment.
    #[error("the issuer's keys are not available: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

fn refused(reason: impl Into<String>) -> AuthError {
    AuthError::Refused { reason: reason.into() }
}

/// Tells callers apart by their tokens.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// Who bears this token.
    ///
    /// # Errors
    /// When it does not hold, or nobody can tell.
    async fn caller(&self, token: &str) -> Result<Caller, AuthError>;
}

/// Where an issuer's public keys come from.
#[async_trait]
pub trait IssuerKeys: Send + Sync {
    /// The keys of now.
    ///
    /// # Errors
    /// Why they cannot be had.
    async fn fetch(&self) -> Result<JwkSet, String>;
}

/// The issuer's published keys.
struct PublishedKeys {
    url: String,
    client: reqwest::Client,
}

#[async_trait]
impl IssuerKeys for PublishedKeys {
    async fn fetch(&self) -> Result<JwkSet, String> {
        let text = |error: reqwest::Error| error.without_url().to_string();
        let answer = self.client.get(&self.url).send().await.map_err(text)?;
        answer.error_for_status().map_err(text)?.json().await.map_err(text)
    }
}

struct Cache {
    keys: JwkSet,
    /// When these keys came.
    fetched: Option<Instant>,
    /// When keys were last asked for.
    asked: Option<Instant>,
    /// Why none came then.
    failed: Option<String>,
}

/// Verifies the tokens of one issuer.
pub struct TokenVerifier {
    issuer: String,
    audiences: Vec<String>,
    source: Arc<dyn IssuerKeys>,
    cache: Mutex<Cache>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(default)]
    aud: Option<OneOrMore>,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default, rename = "cognito:groups")]
    groups: BTreeSet<String>,
}

impl TokenVerifier {
    /// Verifies tokens of `issuer` for one of the `audiences` (separated by commas). Keys are fetched
    /// from `<issuer>/.well-known/jwks.json` when the first token comes.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(issuer: &str, audiences: &str) -> Result<Self, AuthError> {
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(3))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| AuthError::Unavailable { reason: error.to_string() })?;
        let url = format!("{}/.well-known/jwks.json", issuer.trim_end_matches('/'));
        Ok(Self::with_keys(issuer, audiences, Arc::new(PublishedKeys { url, client })))
    }

    /// The same with keys from elsewhere.
    pub fn with_keys(issuer: &str, audiences: &str, source: Arc<dyn IssuerKeys>) -> Self {
        let audiences = audiences.split(',').map(str::trim).filter(|text| !text.is_empty());
        Self {
            issuer: issuer.to_owned(),
            audiences: audiences.map(str::to_owned).collect(),
            source,
            cache: Mutex::new(Cache {
                keys: JwkSet { keys: Vec::new() },
                fetched: None,
                asked: None,
                failed: None,
            }),
        }
    }

    /// The key with this id. The lock is held over the fetch, so that many callers make one.
    async fn key(&self, kid: &str) -> Result<DecodingKey, AuthError> {
        let mut cache = self.cache.lock().await;
        let over = |since: Option<Instant>, time| since.is_none_or(|at| at.elapsed() >= time);
        let known = cache.keys.find(kid).is_some();
        let wait = if cache.keys.keys.is_empty() { RETRY } else { REFETCH };
        if over(cache.asked, wait) && (!known || over(cache.fetched, REFRESH)) {
            let fetched = self.source.fetch().await;
            let now = Some(Instant::now());
            cache.asked = now;
            match fetched {
                Ok(keys) if !keys.keys.is_empty() => {
                    *cache = Cache { keys, fetched: now, asked: now, failed: None };
                }
                // Known keys go on: an issuer that is away for a while, or lists none, locks nobody out.
                Ok(_) => cache.failed = Some("the issuer lists no key".to_owned()),
                Err(reason) => cache.failed = Some(reason),
            }
            if let Some(reason) = &cache.failed {
                tracing::warn!(reason, "the issuer's keys cannot be refreshed");
            }
        }
        if let (None, Some(reason)) = (cache.keys.find(kid), &cache.failed) {
            return Err(AuthError::Unavailable { reason: reason.clone() });
        }
        let key = cache.keys.find(kid).ok_or_else(|| refused("its key is not the issuer's"))?;
        DecodingKey::from_jwk(key).map_err(|_| refused("its key is not of a kind that is used"))
    }

    fn is_for_us(&self, claims: &Claims) -> bool {
        let ours = |audience: &String| self.audiences.contains(audience);
        // An access token of Cognito's names its client in `client_id` and has no `aud`.
        match (&claims.aud, &claims.client_id) {
            (Some(OneOrMore::One(audience)), _) => ours(audience),
            (Some(OneOrMore::More(audiences)), _) => audiences.iter().any(ours),
            (None, Some(client)) => ours(client),
            (None, None) => false,
        }
    }
}

#[async_trait]
impl Authenticator for TokenVerifier {
    async fn caller(&self, token: &str) -> Result<Caller, AuthError> {
        if token.len() > 16_384 {
            return Err(refused("it is longer than 16 KiB"));
        }
        let header = decode_header(token).map_err(|_| refused("it is not a JSON web token"))?;
        if header.alg != Algorithm::RS256 {
            return Err(refused("it is not signed with RS256"));
        }
        let kid = header.kid.ok_or_else(|| refused("it names no key"))?;
        let key = self.key(&kid).await?;
        let mut rules = Validation::new(Algorithm::RS256);
        rules.leeway = LEEWAY_SECONDS;
        rules.validate_nbf = true;
        // The audience is checked below, in the place where the kind of token has it.
        rules.validate_aud = false;
        rules.set_issuer(&[&self.issuer]);
        rules.set_required_spec_claims(&["exp", "iss", "sub"]);
        let claims =
            decode::<Claims>(token, &key, &rules).map_err(|error| refused(error.to_string()))?.claims;
        if !self.is_for_us(&claims) {
            return Err(refused("it is meant for somebody else"));
        }
        let subject = claims.sub.parse().map_err(|_| refused("its `sub` cannot be used"))?;
        Ok(Caller { subject, groups: claims.groups })
    }
}

#[cfg(test)]
mod tests;
