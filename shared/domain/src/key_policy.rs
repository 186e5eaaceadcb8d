//! The key policy that a CMK customer puts on each of its keys (spec E12): the vendor's account,
//! narrowed to the one key-access role, bound to the organisation by the encryption context.

use serde_json::{Value, json};

use crate::ids::OrganisationId;
use crate::policy::CONTEXT_ORGANISATION;
use crate::values::AccountId;

/// Version of the template below. A new permission means a new version (spec K1).
pub const KEY_POLICY_VERSION: &str = "2026-11-22";

/// The vendor's side of every customer's key policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VendorPrincipal {
    /// The vendor's account.
    pub account: AccountId,
    /// The retained key-access role; never recreated.
    pub key_access_role: String,
}

/// What the service needs to do with a customer's key.
pub const KEY_ACTIONS: [&str; 6] = [
    "kms:Encrypt",
    "kms:Decrypt",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
    "kms:GenerateDataKey",
    "kms:GenerateDataKeyWithoutPlaintext",
];

/// The document to paste, for keys of `customer`.
pub fn key_policy(
    vendor: &VendorPrincipal,
    organisation: OrganisationId,
    customer: Option<&AccountId>,
) -> Value {
    let owner = customer.map_or("<your AWS account id>", AccountId::as_str);
    let context = format!("kms:EncryptionContext:{CONTEXT_ORGANISATION}");
    let principal = json!({ "AWS": format!("arn:aws:iam::{}:root", vendor.account) });
    json!({
        "Version": "2012-10-17",
        "Id": format!("claviger-{KEY_POLICY_VERSION}"),
        "Statement": [
            {
                "Sid": "OwnerAdministers",
                "Effect": "Allow",
                "Principal": { "AWS": format!("arn:aws:iam::{owner}:root") },
                "Action": "kms:*",
                "Resource": "*",
            },
            {
                "Sid": "ClavigerUse",
                "Effect": "Allow",
                "Principal": principal,
                "Action": KEY_ACTIONS,
                "Resource": "*",
                "Condition": { "StringEquals": {
                    "aws:PrincipalArn": vendor.key_access_role,
                    context: organisation.to_string(),
                } },
            },
            {
                "Sid": "ClavigerDescribe",
                "Effect": "Allow",
                "Principal": principal,
                "Action": "kms:DescribeKey",
                "Resource": "*",
                "Condition": { "StringEquals": { "aws:PrincipalArn": vendor.key_access_role } },
            },
        ],
    })
}
