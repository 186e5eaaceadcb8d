//! The documents that bind keys to an organisation (spec E12): the key policy that a CMK customer puts on each
//! of its keys; for BYOK the two policies of its key-management role, and the key policy of the keys that we
//! make. The vendor's account, narrowed to the one key-access role, and the encryption context are in each.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::access::KeyPermission;
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

/// What the service needs to know of a customer's key.
const KEY_QUESTIONS: [&str; 2] = ["kms:DescribeKey", "kms:GetKeyRotationStatus"];

/// These actions, and with them what published templates ask for besides (spec K1): with an encryption context, or
/// without where KMS knows none.
fn with_asked(actions: &[&'static str], asked: &BTreeSet<KeyPermission>, context: bool) -> Vec<&'static str> {
    let besides = asked.iter().filter(|permission| permission.has_context() == context);
    let mut all = actions.to_vec();
    all.extend(besides.map(|permission| permission.action()).filter(|action| !actions.contains(action)));
    all
}

/// The document to paste, for keys of `customer`, with what published templates ask for.
pub fn key_policy(
    vendor: &VendorPrincipal,
    organisation: OrganisationId,
    customer: Option<&AccountId>,
    (version, asked): (&str, &BTreeSet<KeyPermission>),
) -> Value {
    let owner = customer.map_or("<your AWS account id>", AccountId::as_str);
    let context = format!("kms:EncryptionContext:{CONTEXT_ORGANISATION}");
    let principal = json!({ "AWS": format!("arn:aws:iam::{}:root", vendor.account) });
    json!({
        "Version": "2012-10-17",
        "Id": format!("claviger-{version}"),
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
                "Action": with_asked(&KEY_ACTIONS, asked, true),
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
                "Action": with_asked(&KEY_QUESTIONS, asked, false),
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

/// Tells an organisation's keys of one region apart: the generation, and how many keys of it were lost there before.
/// Written `2`, and `2-1` for the key in the place of a lost one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyLabel {
    /// The generation.
    pub generation: u64,
    /// How many keys of it were lost before.
    pub lost_before: u64,
}

impl KeyLabel {
    /// The first key of a generation.
    pub const fn first_of(generation: u64) -> Self {
        Self { generation, lost_before: 0 }
    }
}

impl std::fmt::Display for KeyLabel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.lost_before {
            0 => write!(f, "{}", self.generation),
            lost => write!(f, "{}-{lost}", self.generation),
        }
    }
}

/// The alias of an organisation's key, the same in every region where it is the key of the same label.
pub fn key_alias(organisation: OrganisationId, label: KeyLabel) -> String {
    format!("alias/{KEY_PREFIX}-{organisation}-{label}")
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
pub fn role_permissions(
    organisation: OrganisationId,
    customer: Option<&AccountId>,
    asked: &BTreeSet<KeyPermission>,
) -> Value {
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
                "Action": with_asked(&LOOK_ACTIONS, asked, false),
                "Resource": keys,
            },
            {
                "Sid": "ClavigerUsesKeys",
                "Effect": "Allow",
                "Action": with_asked(&KEY_ACTIONS, asked, true),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::KEY_PERMISSIONS;

    #[test]
    fn k1_what_templates_ask_for_is_in_the_documents_once_with_and_without_an_encryption_context() {
        let all: BTreeSet<KeyPermission> = KEY_PERMISSIONS.into();
        // Of a template that the service was not made with, so that each comes from what is asked for alone.
        assert_eq!(with_asked(&[], &all, false), KEY_QUESTIONS);
        let asked = with_asked(&[], &all, true);
        assert!(KEY_ACTIONS.iter().all(|action| asked.contains(action)), "{asked:?}");
        assert_eq!(asked.len() + KEY_QUESTIONS.len(), KEY_PERMISSIONS.len());
        assert_eq!(with_asked(&["kms:Decrypt", "kms:Sign"], &all, true)[..2], ["kms:Decrypt", "kms:Sign"]);
        let besides = ["kms:GenerateDataKeyPair", "kms:GenerateDataKeyPairWithoutPlaintext"];
        let whole = with_asked(&KEY_ACTIONS, &all, true);
        assert_eq!(whole, [KEY_ACTIONS.as_slice(), &besides].concat(), "none twice");
        let vendor = VendorPrincipal {
            account: "111111111111".parse().unwrap(),
            key_access_role: "arn:aws:iam::111111111111:role/a".to_owned(),
        };
        let organisation = OrganisationId::from_uuid(uuid::Uuid::nil());
        let document = key_policy(&vendor, organisation, None, ("2027-01-15", &all));
        assert_eq!(document["Id"], "claviger-2027-01-15");
    }

    fn vendor() -> VendorPrincipal {
        VendorPrincipal {
            account: "111111111111".parse().unwrap(),
            key_access_role: "arn:aws:iam::111111111111:role/key-access".to_owned(),
        }
    }

    fn organisation() -> OrganisationId {
        OrganisationId::from_uuid(uuid::Uuid::from_u128(1))
    }

    fn statement<'a>(document: &'a Value, sid: &str) -> &'a Value {
        document["Statement"].as_array().unwrap().iter().find(|one| one["Sid"] == sid).unwrap()
    }

    #[test]
    fn e12_a_key_policy_lets_our_one_role_in_with_the_organisations_context_and_its_owner_always() {
        let customer: AccountId = "222222222222".parse().unwrap();
        let none = BTreeSet::new();
        for (account, owner) in [(Some(&customer), "222222222222"), (None, "<your AWS account id>")] {
            let document = key_policy(&vendor(), organisation(), account, (KEY_POLICY_VERSION, &none));
            let administers = statement(&document, "OwnerAdministers");
            assert_eq!(administers["Principal"]["AWS"], format!("arn:aws:iam::{owner}:root"));
            let used = &statement(&document, "ClavigerUse")["Condition"]["StringEquals"];
            assert_eq!(used["aws:PrincipalArn"], vendor().key_access_role);
            let context = &used["kms:EncryptionContext:claviger:organisation"];
            assert_eq!(*context, organisation().to_string());
            assert_eq!(statement(&document, "ClavigerDescribe")["Action"], json!(KEY_QUESTIONS));
        }
    }

    #[test]
    fn e12_a_role_trusts_our_role_with_the_external_id_alone() {
        let external_id = ExternalId::from_uuid(uuid::Uuid::from_u128(3));
        let document = trust_policy(&vendor(), &external_id);
        let trusted = statement(&document, "ClavigerAssumes");
        assert_eq!(trusted["Principal"]["AWS"], "arn:aws:iam::111111111111:root");
        let condition = &trusted["Condition"]["StringEquals"];
        assert_eq!(condition["aws:PrincipalArn"], vendor().key_access_role);
        assert_eq!(condition["sts:ExternalId"], external_id.as_str());
    }

    #[test]
    fn e12_a_role_makes_keys_of_its_organisation_and_uses_them_with_its_context_alone() {
        let customer: AccountId = "222222222222".parse().unwrap();
        let document = role_permissions(organisation(), Some(&customer), &BTreeSet::new());
        let made = &statement(&document, "ClavigerMakesKeys")["Condition"]["StringEquals"];
        assert_eq!(made["aws:RequestTag/claviger:organisation"], organisation().to_string());
        let used = statement(&document, "ClavigerUsesKeys");
        assert_eq!(
            (&used["Action"], &used["Resource"]),
            (&json!(KEY_ACTIONS), &json!("arn:aws:kms:*:222222222222:key/*"))
        );
        let context = &used["Condition"]["StringEquals"]["kms:EncryptionContext:claviger:organisation"];
        assert_eq!(*context, organisation().to_string());
        let text = document.to_string();
        for never in
            ["kms:ScheduleKeyDeletion", "kms:DisableKey", "kms:PutKeyPolicy", "kms:CreateGrant", "kms:*"]
        {
            assert!(!text.contains(&format!("\"{never}\"")), "{never}");
        }
    }

    #[test]
    fn e12_a_key_that_we_made_refuses_the_role_without_the_organisations_context() {
        let role: RoleArn = "arn:aws:iam::222222222222:role/key-management".parse().unwrap();
        let document = made_key_policy(&role, organisation());
        assert_eq!(
            statement(&document, "OwnerAdministers")["Principal"]["AWS"],
            "arn:aws:iam::222222222222:root"
        );
        let denied = statement(&document, "ClavigerOnlyWithContext");
        assert_eq!((&denied["Effect"], &denied["Action"]), (&json!("Deny"), &json!(KEY_ACTIONS)));
        let condition = &denied["Condition"];
        assert_eq!(condition["ArnEquals"]["aws:PrincipalArn"], role.as_str());
        let context = &condition["StringNotEquals"]["kms:EncryptionContext:claviger:organisation"];
        assert_eq!(*context, organisation().to_string());
    }

    #[test]
    fn e7_a_key_that_we_made_bears_its_organisation_its_generation_and_how_many_were_lost_before_it() {
        for (label, word) in [
            (KeyLabel::first_of(1), "1"),
            (KeyLabel::first_of(12), "12"),
            (KeyLabel { generation: 2, lost_before: 1 }, "2-1"),
        ] {
            assert_eq!(label.to_string(), word);
            assert_eq!(
                key_alias(organisation(), label),
                format!("alias/cryptor-00000000-0000-0000-0000-000000000001-{word}")
            );
        }
    }
}
