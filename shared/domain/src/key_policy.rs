//! The documents that bind keys to an organisation (spec E12): the key policy that a CMK customer puts on each
//! of its keys; for BYOK the two policies of its key-management role, and the key policy of the keys that we
//! make. The vendor's account, narrowed to the one key-access role, and the encryption context are in each.

use serde_json::{Value, json};

use crate::ids::OrganisationId;
use crate::key_access::{ExternalId, RoleArn};
use crate::policy::CONTEXT_ORGANISATION;
use crate::values::AccountId;

/// Version of the templates below. A new permission means a new version (spec K1).
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
                "Action": ["kms:DescribeKey", "kms:GetKeyRotationStatus"],
                "Resource": "*",
                "Condition": { "StringEquals": { "aws:PrincipalArn": vendor.key_access_role } },
            },
        ],
    })
}

/// The prefix of everything that we make in a BYOK customer's account (spec E7).
pub const KEY_PREFIX: &str = "cryptor";
/// The tag by which a key that we made is found again.
pub const TAG_ORGANISATION: &str = "claviger:organisation";
/// The tag that tells an organisation's generations of keys apart.
pub const TAG_GENERATION: &str = "claviger:generation";

/// The alias of an organisation's key of a generation, the same in every region.
pub fn key_alias(organisation: OrganisationId, generation: u64) -> String {
    format!("alias/{KEY_PREFIX}-{organisation}-{generation}")
}

/// Who may assume a BYOK customer's key-management role: our key-access role, with this external id.
pub fn trust_policy(vendor: &VendorPrincipal, external_id: &ExternalId) -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "ClavigerAssumes",
            "Effect": "Allow",
            "Principal": { "AWS": format!("arn:aws:iam::{}:root", vendor.account) },
            "Action": "sts:AssumeRole",
            "Condition": { "StringEquals": {
                "aws:PrincipalArn": vendor.key_access_role,
                "sts:ExternalId": external_id.as_str(),
            } },
        }],
    })
}

/// What a BYOK customer's key-management role may do in its account: make keys that bear the organisation's
/// tag, name them, and use keys with the organisation's encryption context. No deleting, no disabling, no
/// changing of policies: that stays with the customer.
pub fn role_permissions(organisation: OrganisationId, customer: Option<&AccountId>) -> Value {
    let owner = customer.map_or("<your AWS account id>", AccountId::as_str);
    let keys = format!("arn:aws:kms:*:{owner}:key/*");
    let context = format!("kms:EncryptionContext:{CONTEXT_ORGANISATION}");
    let tag = format!("aws:RequestTag/{TAG_ORGANISATION}");
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "ClavigerMakesKeys",
                "Effect": "Allow",
                "Action": ["kms:CreateKey", "kms:TagResource"],
                "Resource": "*",
                "Condition": { "StringEquals": { tag: organisation.to_string() } },
            },
            {
                "Sid": "ClavigerNamesKeys",
                "Effect": "Allow",
                "Action": "kms:CreateAlias",
                "Resource": [format!("arn:aws:kms:*:{owner}:alias/{KEY_PREFIX}-*"), keys],
            },
            {
                "Sid": "ClavigerFindsKeys",
                "Effect": "Allow",
                "Action": "kms:ListKeys",
                "Resource": "*",
            },
            {
                "Sid": "ClavigerLooksAtKeys",
                "Effect": "Allow",
                "Action": LOOK_ACTIONS,
                "Resource": keys,
            },
            {
                "Sid": "ClavigerUsesKeys",
                "Effect": "Allow",
                "Action": KEY_ACTIONS,
                "Resource": keys,
                "Condition": { "StringEquals": { context: organisation.to_string() } },
            },
        ],
    })
}

/// What is looked at of a key that we made.
pub const LOOK_ACTIONS: [&str; 4] =
    ["kms:DescribeKey", "kms:ListResourceTags", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus"];

/// The key policy of a key that we make in a BYOK customer's account: its owner administers it, and whatever the
/// role's own policy says, the role cannot use it without the organisation's encryption context.
///
/// The denial names the role by `aws:PrincipalArn`, not as principal: a principal would be bound to the role's
/// inner identity, and a role that is deleted and made again has another.
pub fn made_key_policy(role: &RoleArn, organisation: OrganisationId) -> Value {
    let context = format!("kms:EncryptionContext:{CONTEXT_ORGANISATION}");
    json!({
        "Version": "2012-10-17",
        "Id": format!("claviger-{KEY_POLICY_VERSION}"),
        "Statement": [
            {
                "Sid": "OwnerAdministers",
                "Effect": "Allow",
                "Principal": { "AWS": format!("arn:aws:iam::{}:root", role.account()) },
                "Action": "kms:*",
                "Resource": "*",
            },
            {
                "Sid": "ClavigerOnlyWithContext",
                "Effect": "Deny",
                "Principal": { "AWS": "*" },
                "Action": KEY_ACTIONS,
                "Resource": "*",
                "Condition": {
                    "ArnEquals": { "aws:PrincipalArn": role.as_str() },
                    "StringNotEquals": { context: organisation.to_string() },
                },
            },
        ],
    })
}
