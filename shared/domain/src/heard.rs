//! What an event of a customer's account said. It is shown to people and recorded with what a probe then
//! found; nothing is ever decided by it, for an event may be forged (spec R8, R9).

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::invalid::Invalid;

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
}

impl HeardChange {
    /// One line for a ticket.
    pub fn line(&self) -> String {
        let by = self.by.as_ref().map_or_else(|| "somebody".to_owned(), ToString::to_string);
        let at = self.at.map(|at| format!(" at {at:.0}")).unwrap_or_default();
        format!("According to an event of your account, not verified by us: {} by {by}{at}.", self.slug)
    }
}
