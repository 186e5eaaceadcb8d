//! Sessions of customers' key-management roles (BYOK): assumed by the key-access role, with the organisation's external
//! id, for 900 seconds, and narrowed by a session policy to what they are for.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::{IdentityCache, Region as SdkRegion, SharedCredentialsProvider};
use claviger_app::ports::{Asking, KeyError, KeyRef, RoleSession};
use claviger_domain::access::KEY_PERMISSIONS;
use claviger_domain::ids::OrganisationId;
use claviger_domain::key_access::{CustomerRole, RoleArn};
use claviger_domain::key_policy::{KEY_ACTIONS, LOOK_ACTIONS};
use claviger_domain::values::{KeyArn, Region};
use serde_json::{Value, json};
use tracing::info;

use super::session::{MARGIN, SESSION_SECONDS, credentials};
use super::{KmsKeys, timeouts};
use crate::errors::{Call, key_error};

/// What a session is kept for: a role, the key that it may use, and the one from which data keys move to it.
type Kept = (CustomerRole, KeyArn, Option<KeyArn>);

/// Kept sessions: each may use its key, or its two keys, and nothing else.
#[derive(Debug, Default)]
pub(super) struct CustomerRoleSessions(Mutex<HashMap<Kept, (Client, SystemTime)>>);

impl CustomerRoleSessions {
    fn kept(&self, of: &Kept, now: SystemTime) -> Option<Client> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (client, expiry) = kept.get(of)?;
        (now.checked_add(MARGIN)? < *expiry).then(|| client.clone())
    }

    fn keep(&self, of: Kept, client: &Client, expiry: SystemTime, now: SystemTime) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (_, expiry)| *expiry > now);
        kept.insert(of, (client.clone(), expiry));
    }
}

/// What a session is for: the first part of its name, and what it may do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// Nothing: only whether we are let in is of interest.
    Check,
    /// A probe of a key.
    Probe,
    /// Work with a key.
    Use,
    /// Finding and making keys.
    Make,
}

impl Purpose {
    const fn word(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Probe => "probe",
            Self::Use => "use",
            Self::Make => "make",
        }
    }
}

/// Letters, digits and hyphens, 64 at most: what STS allows, and what explains itself in the customer's CloudTrail.
fn session_name(purpose: Purpose, organisation: OrganisationId) -> String {
    format!("claviger-{}-{organisation}", purpose.word())
}

/// The session may use this key, and the one from which data keys move to it.
fn these_keys(key: &KeyArn, also: Option<&KeyArn>) -> Value {
    // What templates may ask for as well (spec K1): what the role itself does not allow, no session may.
    let asked = KEY_PERMISSIONS.iter().map(|permission| permission.action());
    let actions: BTreeSet<&str> = KEY_ACTIONS.into_iter().chain(LOOK_ACTIONS).chain(asked).collect();
    let keys: Vec<&str> = [key].into_iter().chain(also).map(KeyArn::as_str).collect();
    json!({
        "Version": "2012-10-17",
        "Statement": [{ "Effect": "Allow", "Action": actions, "Resource": keys }],
    })
}

/// The session may do nothing that matters; a session policy cannot be empty.
pub(super) fn nothing() -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [{ "Effect": "Deny", "Action": "*", "Resource": "*" }],
    })
}

impl KmsKeys {
    /// A client with a session of the customer's role that may use this key, and another one with it.
    pub(super) async fn role_client(
        &self,
        role: &CustomerRole,
        key: KeyRef<'_>,
        also: Option<&KeyArn>,
    ) -> Result<Client, KeyError> {
        let now = SystemTime::now();
        let of: Kept = (role.clone(), key.arn.clone(), also.cloned());
        let purpose = match key.session {
            RoleSession::Kept => {
                if let Some(client) = self.customer_roles.kept(&of, now) {
                    return Ok(client);
                }
                Purpose::Use
            }
            RoleSession::Fresh => Purpose::Probe,
        };
        let asking = Asking::With(&role.external_id);
        let policy = these_keys(key.arn, also);
        let session =
            self.assumed(&role.arn, asking, purpose, key.organisation, key.region(), &policy).await?;
        let expiry = session.expiry();
        let client = self.client_with(key.region(), SharedCredentialsProvider::new(session));
        if let (RoleSession::Kept, Some(expiry)) = (key.session, expiry) {
            self.customer_roles.keep(of, &client, expiry, now);
        }
        Ok(client)
    }

    /// One AssumeRole, by the key-access role, at the STS of the key's region: no region depends on another's.
    pub(super) async fn assumed(
        &self,
        role: &RoleArn,
        asking: Asking<'_>,
        purpose: Purpose,
        organisation: OrganisationId,
        region: &Region,
        policy: &Value,
    ) -> Result<Credentials, KeyError> {
        self.session.ensure().await?;
        let provider: std::sync::Arc<dyn ProvideCredentials> = self.session.clone();
        let config = aws_sdk_sts::config::Builder::from(&self.config)
            .region(SdkRegion::new(region.as_str().to_owned()))
            .timeout_config(timeouts(self.call_timeout))
            .retry_config(aws_config::retry::RetryConfig::disabled())
            .credentials_provider(SharedCredentialsProvider::new(provider))
            .identity_cache(IdentityCache::no_cache())
            .build();
        let request = aws_sdk_sts::Client::from_conf(config)
            .assume_role()
            .role_arn(role.as_str())
            .role_session_name(session_name(purpose, organisation))
            .duration_seconds(SESSION_SECONDS)
            .policy(policy.to_string());
        let request = match asking {
            Asking::With(id) => request.external_id(id.as_str()),
            Asking::WithoutExternalId => request,
        };
        let answer = request.send().await.map_err(|error| key_error(Call::CustomerRole, &error));
        let (outcome, request_id) = match &answer {
            Ok(_) => ("ok", None),
            Err(error) => (error.code.as_str(), error.request_id.as_deref()),
        };
        info!(
            target: "claviger::kms",
            {
                sts.calls = 1_u64,
                role.arn = role.as_str(),
                role.purpose = purpose.word(),
                key.region = region.as_str(),
                outcome,
                sts.request_id = request_id,
            },
            "AssumeRole of a customer's role"
        );
        credentials(answer?, "customer-role")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_name_is_one_that_sts_accepts() {
        for purpose in [Purpose::Check, Purpose::Probe, Purpose::Use, Purpose::Make] {
            let name = session_name(purpose, OrganisationId::from_uuid(uuid::Uuid::max()));
            assert!(name.len() <= 64, "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{name}");
        }
    }
}
