//! Finds and makes the keys of BYOK customers, through their roles.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::SharedCredentialsProvider;
use aws_sdk_kms::error::ProvideErrorMetadata;
use aws_sdk_kms::operation::RequestId;
use aws_sdk_kms::types::Tag;
use claviger_app::ports::{Asking, CustomerRoles, KeyError, NewKey};
use claviger_domain::ids::OrganisationId;
use claviger_domain::key_access::{CustomerRole, RoleArn};
use claviger_domain::key_policy::{KEY_PREFIX, KeyLabel, TAG_GENERATION, TAG_ORGANISATION, key_alias};
use claviger_domain::observation::{NoAnswerKind, Observation, RefusalKind};
use claviger_domain::values::{KeyArn, Region};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::customer_role::{Purpose, nothing};
use super::{KmsKeys, counted, incomplete};
use crate::errors::{Call, key_error};

/// A dedicated account has a handful of keys; one with more than this is not looked through.
const MOST_PAGES: usize = 20;

/// KMS tells of a new key everywhere only after a while (KMS Developer Guide, "Eventual consistency"): how long is waited
/// before its name is asked for again, each time.
const UNTIL_IT_IS_KNOWN: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1600),
];

/// What a session that finds and makes keys may do. Which keys it made is not known when it begins, so they are told
/// by their account; nothing in it uses, changes or deletes a key.
fn making(role: &RoleArn) -> Value {
    let account = role.account();
    json!({
        "Version": "2012-10-17",
        "Statement": [
            { "Effect": "Allow", "Action": ["kms:CreateKey", "kms:TagResource", "kms:ListKeys"], "Resource": "*" },
            {
                "Effect": "Allow",
                "Action": ["kms:CreateAlias", "kms:DescribeKey", "kms:ListResourceTags"],
                "Resource": [
                    format!("arn:aws:kms:*:{account}:alias/{KEY_PREFIX}-*"),
                    format!("arn:aws:kms:*:{account}:key/*"),
                ],
            },
        ],
    })
}

fn parsed(arn: Option<&str>, request_id: Option<&str>) -> Result<KeyArn, KeyError> {
    arn.and_then(|arn| arn.parse().ok()).ok_or_else(|| incomplete(request_id))
}

/// The organisation's key of a label, told by its tags.
fn bears(tags: &[Tag], organisation: OrganisationId, label: KeyLabel) -> bool {
    let has =
        |key: &str, value: &str| tags.iter().any(|tag| tag.tag_key() == key && tag.tag_value() == value);
    has(TAG_ORGANISATION, &organisation.to_string()) && has(TAG_GENERATION, &label.to_string())
}

impl KmsKeys {
    async fn maker(
        &self,
        role: &CustomerRole,
        organisation: OrganisationId,
        region: &Region,
    ) -> Result<Client, KeyError> {
        let (asking, policy) = (Asking::With(&role.external_id), making(&role.arn));
        let session = self.assumed(&role.arn, asking, Purpose::Make, organisation, region, &policy).await?;
        Ok(self.client_with(region, SharedCredentialsProvider::new(session)))
    }
}

/// By its alias, which costs one call; else by its tags, which finds the key that a crash left without an alias.
async fn found(
    client: &Client,
    organisation: OrganisationId,
    label: KeyLabel,
) -> Result<Option<(KeyArn, bool)>, KeyError> {
    let alias = key_alias(organisation, label);
    match client.describe_key().key_id(&alias).send().await {
        Ok(output) => {
            let arn = output.key_metadata().and_then(|key| key.arn());
            return parsed(arn, output.request_id()).map(|arn| Some((arn, true)));
        }
        Err(error) if error.code() == Some("NotFoundException") => {}
        Err(error) => return Err(key_error(Call::CustomerKey, &error)),
    }
    let mut marker: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let page = client.list_keys().limit(1000).set_marker(marker.take()).send().await;
        let page = page.map_err(|error| key_error(Call::CustomerKey, &error))?;
        for entry in page.keys() {
            let Some(arn) = entry.key_arn() else { continue };
            let tags = match client.list_resource_tags().key_id(arn).send().await {
                Ok(tags) => tags,
                // A key whose policy shuts the role out is not one of ours.
                Err(error) if error.code() == Some("AccessDeniedException") => continue,
                Err(error) => return Err(not_known_yet(key_error(Call::CustomerKey, &error))),
            };
            if bears(tags.tags(), organisation, label) {
                return parsed(Some(arn), page.request_id()).map(|arn| Some((arn, false)));
            }
        }
        marker = page.next_marker().map(str::to_owned);
        if marker.is_none() {
            return Ok(None);
        }
    }
    warn!("the account has more keys than are looked through: it is not dedicated");
    Err(KeyError {
        observation: Observation::NoAnswer(NoAnswerKind::OurFault),
        code: "too-many-keys".to_owned(),
        request_id: None,
    })
}

/// What a call says about a key that is there: that it is not found means that it is new, or goes just now. INVARIANT
/// (R3): that is no answer, to be asked for again, and refuses nothing.
fn not_known_yet(error: KeyError) -> KeyError {
    match error.observation {
        Observation::Refused(RefusalKind::KeyNotFound) => {
            KeyError { observation: Observation::NoAnswer(NoAnswerKind::Unreachable), ..error }
        }
        Observation::Refused(_) | Observation::NoAnswer(_) | Observation::Usable => error,
    }
}

/// Gives a key that was just made its name; whether nothing else has it already.
async fn named(client: &Client, alias: &str, arn: &KeyArn) -> Result<bool, KeyError> {
    let mut pauses = UNTIL_IT_IS_KNOWN.into_iter();
    loop {
        let answer = client.create_alias().alias_name(alias).target_key_id(arn.as_str()).send().await;
        let Err(error) = answer else {
            return Ok(true);
        };
        match (error.code(), pauses.next()) {
            (Some("AlreadyExistsException"), _) => return Ok(false),
            (Some("NotFoundException"), Some(pause)) => tokio::time::sleep(pause).await,
            _ => return Err(not_known_yet(key_error(Call::CustomerKey, &error))),
        }
    }
}

fn tag(key: &str, value: String) -> Result<Tag, KeyError> {
    Tag::builder().tag_key(key).tag_value(value).build().map_err(|_| incomplete(None))
}

#[async_trait]
impl CustomerRoles for KmsKeys {
    async fn assume(
        &self,
        role: &RoleArn,
        asking: Asking<'_>,
        organisation: OrganisationId,
        region: &Region,
    ) -> Result<(), KeyError> {
        self.assumed(role, asking, Purpose::Check, organisation, region, &nothing()).await.map(drop)
    }

    async fn find_key(
        &self,
        role: &CustomerRole,
        region: &Region,
        organisation: OrganisationId,
        label: KeyLabel,
    ) -> Result<Option<KeyArn>, KeyError> {
        let client = self.maker(role, organisation, region).await?;
        Ok(found(&client, organisation, label).await?.map(|(arn, _)| arn))
    }

    async fn make_key(
        &self,
        role: &CustomerRole,
        region: &Region,
        wanted: &NewKey,
    ) -> Result<KeyArn, KeyError> {
        let NewKey { organisation, label, policy } = wanted;
        let client = self.maker(role, *organisation, region).await?;
        let (mut arn, has_name) = match found(&client, *organisation, *label).await? {
            Some(known) => known,
            None => {
                // The tags come with the key, in one call: from its first moment on it can be found.
                //
                // KMS wants whoever makes a key to be able to change its policy later, or to say that it knows it is
                // not. The role may not, on purpose: the policy leaves that to the customer alone, who always can.
                let answer = client
                    .create_key()
                    .description(format!("{KEY_PREFIX}: root key of organisation {organisation}"))
                    .policy(policy.to_string())
                    .bypass_policy_lockout_safety_check(true)
                    .tags(tag(TAG_ORGANISATION, organisation.to_string())?)
                    .tags(tag(TAG_GENERATION, label.to_string())?)
                    .send()
                    .await
                    .map_err(|error| key_error(Call::CustomerKey, &error))?;
                let arn = parsed(answer.key_metadata().and_then(|key| key.arn()), answer.request_id())?;
                counted("CreateKey", &arn, "ok", answer.request_id());
                (arn, false)
            }
        };
        if !has_name {
            if named(&client, &key_alias(*organisation, *label), &arn).await? {
                info!(key.arn = arn.as_str(), "a key was made and named");
            // Another delivery of the same work was faster: the key that has the name is the one that is used.
            } else if let Some((winner, _)) = found(&client, *organisation, *label).await?
                && winner != arn
            {
                warn!(key.arn = arn.as_str(), "a second key was made at the same moment; it is not used");
                arn = winner;
            }
        }
        Ok(arn)
    }
}
