//! The values of the domain. Each is parsed once, at the edge, and is right from then on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::invalid::{Invalid, shown};

macro_rules! text_value {
    ($name:ident) => {
        impl $name {
            /// The value as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }
    };
}

fn is_slug(text: &str, max: usize) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty()
        && text.len() <= max
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The vendor's name for an organisation, as in `/v1/organizations/{org}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrganisationName(String);
text_value!(OrganisationName);

impl FromStr for OrganisationName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if is_slug(text, 63) {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new(
            format!("`{}` is not an organisation name", shown(text)),
            "use 1 to 63 of a-z, 0-9 and hyphen, with no hyphen at either end",
        ))
    }
}

/// The name of a cloud site (spec A4): 1 to 63 of a-z and 0-9, hyphens inside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SiteName(String);
text_value!(SiteName);

impl FromStr for SiteName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if is_slug(text, 63) {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new(
            format!("`{}` is not a site name", shown(text)),
            "use 1 to 63 of a-z, 0-9 and hyphen, with no hyphen at either end",
        ))
    }
}

/// An AWS account (spec E5): exactly 12 ASCII digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountId(String);
text_value!(AccountId);

impl FromStr for AccountId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Self(text.to_owned()));
        }
        let reason = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            format!("`{}` has {} digits", shown(text), text.len())
        } else {
            format!("`{}` is not 12 ASCII digits", shown(text))
        };
        Err(Invalid::new(
            reason,
            "an AWS account id has exactly 12 digits; `aws sts get-caller-identity` shows yours",
        ))
    }
}

/// An AWS region, by the form of its name. Which regions may be used is the catalogue's to say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Region(String);
text_value!(Region);

impl FromStr for Region {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parts: Vec<&str> = text.split('-').collect();
        let letters = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
        let well_formed = match parts.as_slice() {
            [words @ .., number] => {
                words.len() >= 2
                    && words.iter().all(letters)
                    && number.len() == 1
                    && number.bytes().all(|b| b.is_ascii_digit())
            }
            [] => false,
        };
        if well_formed && text.len() <= 24 {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new(
            format!("`{}` is not an AWS region", shown(text)),
            "write the region's code, like `eu-central-1`",
        ))
    }
}

/// A data-residency location, by its slug. The catalogue knows its regions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Realm(String);
text_value!(Realm);

impl FromStr for Realm {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if is_slug(text, 40) {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new(
            format!("`{}` is not a realm", shown(text)),
            "use one of the realms that `GET /v1/catalogue` lists",
        ))
    }
}

/// An app of the vendor's, by its slug. The catalogue knows which can be encrypted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct App(String);
text_value!(App);

impl FromStr for App {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if is_slug(text, 40) {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new(
            format!("`{}` is not an app", shown(text)),
            "use one of the apps that `GET /v1/catalogue` lists",
        ))
    }
}

/// The label in every encryption context that lets a customer read its CloudTrail (spec E9). It
/// tells nothing apart: two organisations may use the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContextTag(String);
text_value!(ContextTag);

impl FromStr for ContextTag {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if (1..=12).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new(
            format!("`{}` is not a context tag", shown(text)),
            "use 1 to 12 of A-Z, a-z and 0-9",
        ))
    }
}

/// A person or machine, as the vendor's identity provider names it (the token's `sub`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subject(String);
text_value!(Subject);

impl FromStr for Subject {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new(
            format!("`{}` is not a subject", shown(text)),
            "use the identity provider's `sub`: 1 to 128 visible ASCII characters",
        ))
    }
}

/// A KMS key by its full ARN; never an alias (spec E7).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyArn {
    text: String,
    region: Region,
    account: AccountId,
}

impl KeyArn {
    /// The ARN as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// The region that the ARN names.
    pub fn region(&self) -> &Region {
        &self.region
    }
    /// The account that the ARN names.
    pub fn account(&self) -> &AccountId {
        &self.account
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for KeyArn {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "paste the key's own ARN, like \
             `arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab`";
        let wrong = |reason: String| Invalid::new(reason, HELP);
        if text.len() > 256 {
            return Err(wrong("the key ARN is longer than 256 characters".to_owned()));
        }
        let parts: Vec<&str> = text.split(':').collect();
        let [arn, partition, service, region, account, resource] = parts.as_slice() else {
            return Err(wrong(format!("`{}` is not a key ARN", shown(text))));
        };
        if *arn != "arn" || *service != "kms" {
            return Err(wrong(format!("`{}` is not the ARN of a KMS key", shown(text))));
        }
        if *partition != "aws" {
            return Err(wrong(format!(
                "the key is in the partition `{}`; only `aws` is served",
                shown(partition)
            )));
        }
        let Some(key_id) = resource.strip_prefix("key/") else {
            let what = if resource.starts_with("alias/") {
                "is an alias, and an alias can be pointed elsewhere".to_owned()
            } else {
                format!("names `{}`, not a key", shown(resource))
            };
            return Err(wrong(format!("the ARN {what}")));
        };
        let id_ok = !key_id.is_empty()
            && key_id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-' || b"mrk".contains(&b));
        if !id_ok {
            return Err(wrong(format!("`{}` is not a key id", shown(key_id))));
        }
        Ok(Self { text: text.to_owned(), region: region.parse()?, account: account.parse()? })
    }
}

impl Serialize for KeyArn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for KeyArn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One of the shards in which regional keys are swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(pub u16);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.0)
    }
}
