//! An enrolment request, parsed: every field right, or every fault named at once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::catalogue::{Catalogue, Mode};
use crate::invalid::{Invalid, InvalidField, shown};
use crate::key_access::RoleArn;
use crate::policy::EncryptionPolicy;
use crate::values::{AccountId, ContextTag, KeyArn, Realm, Region};

/// The mode, with what the customer brings for it (spec E7, E8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "mode")]
pub enum Holding {
    /// The customer made the keys.
    Cmk {
        /// One key per region.
        keys: BTreeMap<Region, KeyArn>,
    },
    /// The service makes the keys, through the customer's role.
    Byok {
        /// The key-management role.
        role_arn: RoleArn,
    },
}

/// What an org admin asks for: one mode, one account, one realm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enrolment {
    /// How the keys are held, and what was brought for it.
    #[serde(flatten)]
    pub holding: Holding,
    /// The customer's account.
    pub account: AccountId,
    /// Where the data will live.
    pub realm: Realm,
    /// The label in every encryption context.
    pub context_tag: ContextTag,
}

/// Reads a text field of an object and parses it; a fault is added to the list.
pub fn parsed<T>(body: &Value, field: &str, faults: &mut Vec<InvalidField>) -> Option<T>
where
    T: std::str::FromStr<Err = Invalid>,
{
    parsed_at(body, field, field, faults)
}

fn parsed_at<T>(body: &Value, key: &str, place: &str, faults: &mut Vec<InvalidField>) -> Option<T>
where
    T: std::str::FromStr<Err = Invalid>,
{
    let result = match body.get(key) {
        Some(Value::String(text)) => text.parse().map_err(|invalid: Invalid| invalid.at(place)),
        Some(Value::Null) | None => {
            Err(Invalid::new("the field is missing", format!("send `{key}` as text")).at(place))
        }
        Some(other) => Err(Invalid::new(
            format!("`{}` is not text", shown(&other.to_string())),
            format!("send `{key}` as text in quotation marks"),
        )
        .at(place)),
    };
    result.map_err(|fault| faults.push(fault)).ok()
}

impl std::str::FromStr for Mode {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "byok" => Ok(Self::Byok),
            "cmk" => Ok(Self::Cmk),
            "vendor-managed" => Err(Invalid::new(
                "`vendor-managed` is what an organisation has that does not enrol",
                "use `cmk` or `byok`; once enrolled there is no way back to vendor-managed keys",
            )),
            _ => Err(Invalid::new(
                format!("`{}` is not a mode", shown(text)),
                "use `cmk` (you create the keys) or `byok` (we create them in your account)",
            )),
        }
    }
}

impl Enrolment {
    /// The mode.
    pub const fn mode(&self) -> Mode {
        match self.holding {
            Holding::Cmk { .. } => Mode::Cmk,
            Holding::Byok { .. } => Mode::Byok,
        }
    }

    /// The keys that the customer made; none for BYOK.
    pub fn keys(&self) -> impl Iterator<Item = (&Region, &KeyArn)> {
        match &self.holding {
            Holding::Cmk { keys } => Some(keys),
            Holding::Byok { .. } => None,
        }
        .into_iter()
        .flatten()
    }

    /// Parses the body of an enrolment request against the catalogue.
    ///
    /// # Errors
    /// Every fault, each with its field, reason and remedy.
    pub fn parse(body: &Value, catalogue: &Catalogue) -> Result<Self, Vec<InvalidField>> {
        let mut faults = Vec::new();
        if !body.is_object() {
            let invalid = Invalid::new("the body is not a JSON object", "send a JSON object");
            return Err(vec![invalid.at("(body)")]);
        }
        let mode: Option<Mode> = parsed(body, "mode", &mut faults);
        let account: Option<AccountId> = parsed(body, "awsAccountId", &mut faults);
        let realm: Option<Realm> = parsed(body, "realm", &mut faults);
        let tag: Option<ContextTag> = parsed(body, "contextTag", &mut faults);
        let again: Option<ContextTag> = parsed(body, "contextTagConfirmation", &mut faults);
        if let (Some(tag), Some(again)) = (&tag, &again)
            && tag != again
        {
            let help = "type the context tag twice; it cannot be changed later";
            let invalid = Invalid::new("it differs from `contextTag`", help);
            faults.push(invalid.at("contextTagConfirmation"));
        }
        let regions = realm.as_ref().and_then(|realm| {
            let regions = catalogue.regions(realm);
            if regions.is_none() {
                let known: Vec<&str> = catalogue.realms.keys().map(Realm::as_str).collect();
                let reason = format!("`{realm}` is not a realm of the catalogue");
                faults.push(Invalid::new(reason, format!("use one of {}", known.join(", "))).at("realm"));
            }
            regions
        });
        let holding = match mode {
            Some(Mode::Cmk) => {
                unwanted(body, "roleArn", "`cmk` uses the keys in `keys`", &mut faults);
                Some(Holding::Cmk { keys: parse_keys(body, account.as_ref(), regions, &mut faults) })
            }
            Some(Mode::Byok) => {
                unwanted(
                    body,
                    "keys",
                    "`byok` makes the keys itself, with the role in `roleArn`",
                    &mut faults,
                );
                parse_role(body, account.as_ref(), &mut faults).map(|role_arn| Holding::Byok { role_arn })
            }
            None => None,
        };
        match (holding, account, realm, tag) {
            (Some(holding), Some(account), Some(realm), Some(context_tag)) if faults.is_empty() => {
                Ok(Self { holding, account, realm, context_tag })
            }
            _ => Err(faults),
        }
    }
}

/// A field of the other mode: whoever sends both has to say which is meant.
fn unwanted(body: &Value, field: &str, reason: &str, faults: &mut Vec<InvalidField>) {
    if body.get(field).is_some_and(|value| !value.is_null()) {
        let help = format!("leave `{field}` out, or choose the other mode");
        faults.push(Invalid::new(reason, help).at(field));
    }
}

fn parse_role(body: &Value, account: Option<&AccountId>, faults: &mut Vec<InvalidField>) -> Option<RoleArn> {
    let role: RoleArn = parsed(body, "roleArn", faults)?;
    if account.is_some_and(|account| account != role.account()) {
        let reason = format!("the role belongs to account {}", role.account());
        let help =
            "the key-management role lives in the account in `awsAccountId`, where the keys will be made";
        faults.push(Invalid::new(reason, help).at("roleArn"));
    }
    Some(role)
}

impl Enrolment {
    /// What is checked of new keys that the customer made for a policy, one a region: the same as at its enrolment.
    pub fn of_keys(policy: &EncryptionPolicy, keys: BTreeMap<Region, KeyArn>) -> Self {
        Self {
            holding: Holding::Cmk { keys },
            account: policy.account.clone(),
            realm: policy.realm.clone(),
            context_tag: policy.context_tag.clone(),
        }
    }

    /// What is checked of one new key that the customer made for a policy: the same as at its enrolment.
    pub fn of_one_key(policy: &EncryptionPolicy, region: Region, key: KeyArn) -> Self {
        Self::of_keys(policy, [(region, key)].into())
    }
}

/// Parses the list `keys`: one ARN a region, of this account and these regions. Faults are added to the list.
pub fn parse_keys(
    body: &Value,
    account: Option<&AccountId>,
    regions: Option<&[Region]>,
    faults: &mut Vec<InvalidField>,
) -> BTreeMap<Region, KeyArn> {
    let mut keys = BTreeMap::new();
    let Some(Value::Array(entries)) = body.get("keys") else {
        let help = "send `keys` as a list of {region, keyArn}, one entry per region of the realm";
        faults.push(Invalid::new("the list of keys is missing", help).at("keys"));
        return keys;
    };
    if entries.len() > 16 {
        let help = "send one entry per region of the realm";
        faults.push(Invalid::new(format!("{} keys are listed", entries.len()), help).at("keys"));
        return keys;
    }
    for (index, entry) in entries.iter().enumerate() {
        let place = |field: &str| format!("keys[{index}].{field}");
        let region: Option<Region> = parsed_at(entry, "region", &place("region"), faults);
        let arn: Option<KeyArn> = parsed_at(entry, "keyArn", &place("keyArn"), faults);
        let (Some(region), Some(arn)) = (region, arn) else {
            continue;
        };
        if arn.region() != &region {
            let reason = format!("the key is in {}, not in {region}", arn.region());
            let help = "give the ARN of the key that you made in this region";
            faults.push(Invalid::new(reason, help).at(place("keyArn")));
        }
        if account.is_some_and(|account| account != arn.account()) {
            let reason = format!("the key belongs to account {}", arn.account());
            let help = "all keys belong to the account in `awsAccountId`";
            faults.push(Invalid::new(reason, help).at(place("keyArn")));
        }
        if regions.is_some_and(|regions| !regions.contains(&region)) {
            let reason = format!("{region} is not a region of the realm");
            faults.push(Invalid::new(reason, "leave this entry out").at(place("region")));
        }
        if keys.insert(region.clone(), arn).is_some() {
            let reason = format!("{region} is listed twice");
            faults.push(Invalid::new(reason, "list each region once").at(place("region")));
        }
    }
    for region in regions.unwrap_or_default() {
        if !keys.contains_key(region) {
            let reason = format!("the key for {region} is missing");
            let help = format!("make a key in {region} and add {{region, keyArn}} for it");
            faults.push(Invalid::new(reason, help).at("keys"));
        }
    }
    keys
}
