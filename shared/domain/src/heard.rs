//! What an event of a customer's account said. It is shown to people and recorded with what a probe then
//! found; nothing is ever decided by it, for an event may be forged (spec R8, R9).

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::invalid::Invalid;
use crate::policy::EncryptionPolicy;
use crate::values::KeyArn;

/// Who made a call, as CloudTrail names it: `arn:aws:sts::222222222222:assumed-role/SecurityAdmin/ada`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CallerArn(String);

/// As long as IAM's longest ARNs; what is longer, or could alter how a ticket reads, is no ARN.
const LONGEST: usize = 512;

impl FromStr for CallerArn {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":/+=,.@_-".contains(&byte);
        let service = text.split(':').nth(2).is_some_and(|service| matches!(service, "iam" | "sts"));
        if text.starts_with("arn:") && service && text.len() <= LONGEST && text.bytes().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new("it is not the ARN of a caller", "give an ARN of IAM or STS"))
    }
}

impl TryFrom<String> for CallerArn {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<CallerArn> for String {
    fn from(arn: CallerArn) -> Self {
        arn.0
    }
}

impl fmt::Display for CallerArn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The name of a role, as IAM allows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoleName(String);

impl RoleName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoleName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new("it is not the name of a role", "give a name as IAM allows it"))
    }
}

impl TryFrom<String> for RoleName {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RoleName> for String {
    fn from(name: RoleName) -> Self {
        name.0
    }
}

/// A change that somebody says happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeardChange {
    /// The one slug of the situation: `key-disabled`.
    pub slug: String,
    /// By whom, when the event says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<CallerArn>,
    /// When, when the event says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Of which key, when the event names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyArn>,
    /// Of which role, when the event names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleName>,
}

impl HeardChange {
    /// Whether it can be about this policy: an account has other keys and roles too, and what happens to them is
    /// none of this organisation's story.
    pub fn concerns(&self, policy: &EncryptionPolicy) -> bool {
        let of_iam = matches!(self.slug.as_str(), "trust-policy-changed" | "role-policy-changed")
            || matches!(self.slug.as_str(), "role-deleted" | "role-created");
        let key = self.key.as_ref().is_none_or(|key| policy.keys.values().any(|known| known.arn == *key));
        match policy.access.role() {
            Some(role) => key && self.role.as_ref().is_none_or(|name| name.as_str() == role.arn.name()),
            // Nobody enters through a role of the customer's: what changes there changes nothing.
            None => key && !of_iam,
        }
    }

    /// Whether it can only give access, never take it.
    pub fn gives(&self) -> bool {
        matches!(
            self.slug.as_str(),
            "key-enabled"
                | "key-deletion-cancelled"
                | "key-material-imported"
                | "key-store-connected"
                | "key-rotated"
                | "grant-created"
                | "role-created"
        )
    }

    /// One line for a ticket.
    pub fn line(&self) -> String {
        let by = self.by.as_ref().map_or_else(|| "somebody".to_owned(), ToString::to_string);
        let at = self.at.map(|at| format!(" at {at:.0}")).unwrap_or_default();
        let of = self.key.as_ref().map(|key| format!(" ({key})")).unwrap_or_default();
        format!("According to an event of your account, not verified by us: {} by {by}{at}{of}.", self.slug)
    }
}

/// How changes are stored: one as itself, as it was when there was never more than one; several as a list.
pub mod one_or_many {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::HeardChange;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        One(HeardChange),
        Many(Vec<HeardChange>),
        None(()),
    }

    /// Writes them.
    ///
    /// # Errors
    /// When the format fails.
    pub fn serialize<S: Serializer>(changes: &[HeardChange], to: S) -> Result<S::Ok, S::Error> {
        match changes {
            [only] => only.serialize(to),
            several => several.serialize(to),
        }
    }

    /// Reads them.
    ///
    /// # Errors
    /// When it is neither a change nor a list of them.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<HeardChange>, D::Error> {
        Ok(match Stored::deserialize(from)? {
            Stored::One(change) => vec![change],
            Stored::Many(changes) => changes,
            Stored::None(()) => Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holds {
        #[serde(default, skip_serializing_if = "Vec::is_empty", with = "one_or_many")]
        heard: Vec<HeardChange>,
    }

    fn change(slug: &str) -> HeardChange {
        HeardChange { slug: slug.to_owned(), by: None, at: None, key: None, role: None }
    }

    #[test]
    fn what_was_stored_when_there_was_one_change_at_most_reads_and_is_written_as_it_was() {
        for (stored, heard) in [
            (r#"{}"#, Vec::new()),
            (r#"{"heard":{"slug":"key-disabled"}}"#, vec![change("key-disabled")]),
            (
                r#"{"heard":[{"slug":"key-disabled"},{"slug":"role-deleted"}]}"#,
                vec![change("key-disabled"), change("role-deleted")],
            ),
        ] {
            let read: Holds = serde_json::from_str(stored).unwrap();
            assert_eq!(read, Holds { heard });
            assert_eq!(serde_json::to_string(&read).unwrap(), stored);
        }
        let none: Holds = serde_json::from_str(r#"{"heard":null}"#).unwrap();
        assert!(none.heard.is_empty());
    }

    #[test]
    fn r9_the_name_of_a_role_cannot_alter_how_a_ticket_reads() {
        for text in ["", "a b", "a\nb", "<b>", "ключ", &"a".repeat(65)] {
            assert!(text.parse::<RoleName>().is_err(), "{text}");
        }
        assert!("key-management@eu".parse::<RoleName>().is_ok());
    }
}
