//! The way to a customer's keys: straight, by their key policy (CMK), or through a role of the customer's
//! (BYOK), which trusts us with an external id that is the organisation's own (spec E8, E12).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::catalogue::Mode;
use crate::invalid::{Invalid, shown};
use crate::values::AccountId;

/// An IAM role of a customer's, by its ARN.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleArn {
    text: String,
    account: AccountId,
}

impl RoleArn {
    /// The ARN as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// The account that the ARN names.
    pub fn account(&self) -> &AccountId {
        &self.account
    }
    /// The role's name, without its path: what IAM's own commands want.
    pub fn name(&self) -> &str {
        self.text.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for RoleArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for RoleArn {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        const HELP: &str = "paste the role's own ARN, like `arn:aws:iam::111122223333:role/key-management`";
        let wrong = |reason: String| Invalid::new(reason, HELP);
        let parts: Vec<&str> = text.split(':').collect();
        let [arn, partition, service, region, account, resource] = parts.as_slice() else {
            return Err(wrong(format!("`{}` is not a role ARN", shown(text))));
        };
        if *arn != "arn" || *service != "iam" || !region.is_empty() {
            return Err(wrong(format!("`{}` is not the ARN of an IAM role", shown(text))));
        }
        if *partition != "aws" {
            let reason = format!("the role is in the partition `{}`; only `aws` is served", shown(partition));
            return Err(wrong(reason));
        }
        let Some(path) = resource.strip_prefix("role/") else {
            return Err(wrong(format!("the ARN names `{}`, not a role", shown(resource))));
        };
        let name = path.rsplit('/').next().unwrap_or_default();
        let letter = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b);
        let sound = (1..=64).contains(&name.len())
            && path.len() <= 512
            && path.bytes().all(|b| letter(b) || b == b'/')
            && !path.starts_with('/')
            && !path.contains("//");
        if !sound {
            return Err(wrong(format!("`{}` is not a role name", shown(path))));
        }
        Ok(Self { text: text.to_owned(), account: account.parse()? })
    }
}

impl Serialize for RoleArn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for RoleArn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a BYOK organisation's role asks of whoever assumes it: made by us, one an organisation, for good.
/// Shown to the organisation's own people; never logged.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExternalId(String);

impl ExternalId {
    /// The external id that a random identifier makes.
    pub fn from_uuid(random: uuid::Uuid) -> Self {
        Self(format!("claviger-{}", random.simple()))
    }
    /// The text, for the one call that needs it and for the trust policy that is shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ExternalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExternalId(..)")
    }
}

/// A customer's key-management role, and what it asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomerRole {
    /// Which.
    pub arn: RoleArn,
    /// What proves that we come for this organisation.
    pub external_id: ExternalId,
}

/// How an organisation's keys are reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "by")]
pub enum KeyAccess {
    /// CMK: the key policy names our key-access role.
    KeyPolicy,
    /// BYOK: through the customer's role, whose sessions use the keys that they made.
    Role(CustomerRole),
}

impl KeyAccess {
    /// The mode of which this is the way.
    pub const fn mode(&self) -> Mode {
        match self {
            Self::KeyPolicy => Mode::Cmk,
            Self::Role(_) => Mode::Byok,
        }
    }
    /// The role, if there is one.
    pub const fn role(&self) -> Option<&CustomerRole> {
        match self {
            Self::KeyPolicy => None,
            Self::Role(role) => Some(role),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_arn_has_an_account_and_a_name() {
        let role: RoleArn = "arn:aws:iam::333333333333:role/security/key-management".parse().unwrap();
        assert_eq!((role.account().as_str(), role.name()), ("333333333333", "key-management"));
    }

    #[test]
    fn e12_what_is_no_role_arn_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "not a role ARN"),
            ("key-management", "not a role ARN"),
            ("arn:aws:kms:eu-west-1:333333333333:key/aa", "not the ARN of an IAM role"),
            ("arn:aws:iam:eu-west-1:333333333333:role/a", "not the ARN of an IAM role"),
            ("arn:aws-cn:iam::333333333333:role/a", "partition `aws-cn`"),
            ("arn:aws:iam::333333333333:user/a", "not a role"),
            ("arn:aws:iam::333333333333:root", "not a role"),
            ("arn:aws:iam::33333333333:role/a", "11 digits"),
            ("arn:aws:iam::333333333333:role/", "not a role name"),
            ("arn:aws:iam::333333333333:role//a", "not a role name"),
            ("arn:aws:iam::333333333333:role/a*", "not a role name"),
            ("arn:aws:iam::333333333333:role/ключ", "not a role name"),
        ] {
            let invalid = text.parse::<RoleArn>().unwrap_err();
            assert!(invalid.reason.contains(reason), "{text}: {invalid}");
        }
    }

    #[test]
    fn an_external_id_does_not_show_itself_in_debug_output() {
        let role = CustomerRole {
            arn: "arn:aws:iam::333333333333:role/a".parse().unwrap(),
            external_id: ExternalId::from_uuid(uuid::Uuid::from_u128(0xabcdef)),
        };
        assert!(!format!("{role:?}").contains("abcdef"));
        assert!(role.external_id.as_str().contains("abcdef"));
    }

    #[test]
    fn e8_a_role_arn_is_shown_and_stored_as_it_was_given() {
        let text = "arn:aws:iam::333333333333:role/security/key-management";
        let role: RoleArn = text.parse().unwrap();
        assert_eq!((role.as_str(), role.to_string().as_str()), (text, text));
        assert_eq!(serde_json::to_value(&role).unwrap(), text);
        assert_eq!(serde_json::from_value::<RoleArn>(text.into()).unwrap(), role);
    }

    #[test]
    fn e12_a_role_has_a_name_of_64_signs_and_a_path_of_512_at_most() {
        let role = |path: &str| format!("arn:aws:iam::333333333333:role/{path}").parse::<RoleArn>();
        let path = |signs: usize| format!("{}/a", "p".repeat(signs - 2));
        for good in ["a".repeat(64), path(512), "Key+Management=1,2.@_-".to_owned()] {
            assert!(role(&good).is_ok(), "{good}");
        }
        for bad in ["a".repeat(65), path(513), "a/".to_owned(), "a//b".to_owned(), "a b".to_owned()] {
            assert!(role(&bad).is_err(), "{bad}");
        }
        for bad in ["x:aws:iam::333333333333:role/a", "arn:aws:sts::333333333333:role/a"] {
            assert!(bad.parse::<RoleArn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn e12_an_external_id_is_shown_by_its_own_name_alone_in_debug_output() {
        assert_eq!(format!("{:?}", ExternalId::from_uuid(uuid::Uuid::from_u128(3))), "ExternalId(..)");
    }
}
