//! The broker's requests, parsed.

use claviger_app::hand_out_data_key::KeyRequest;
use claviger_app::ports::DataKeyChoice;
use claviger_app::prove_policies::MOST_POLICIES;
use claviger_domain::enrolment::parsed;
use claviger_domain::ids::{DataKeyId, PolicyId};
use claviger_domain::invalid::{Invalid, InvalidField};
use lambda_http::Body;
use serde_json::Value;

use crate::answer::Trouble;

fn json(body: &Body) -> Result<Value, Trouble> {
    let bytes: &[u8] = body.as_ref();
    serde_json::from_slice(bytes).map_err(|_| {
        let help = "send a JSON object, as docs/KEY-BROKER.md shows";
        Trouble::Invalid(vec![Invalid::new("the body is not JSON", help).at("(body)")])
    })
}

/// A request for a data key: what is wanted, and the one-time key that the answer is sealed to.
pub fn data_key(body: &Body, caller_role: String) -> Result<(KeyRequest, String), Trouble> {
    let body = json(body)?;
    let mut faults = Vec::new();
    let organisation = parsed(&body, "organisation", &mut faults);
    let site = parsed(&body, "site", &mut faults);
    let app = parsed(&body, "app", &mut faults);
    let choice = choice(&body, &mut faults);
    let newer_than = newer_than(&body, &mut faults);
    let transport_key = body.get("transportKey").and_then(Value::as_str).map(str::to_owned);
    if transport_key.is_none() {
        let help = "send a one-time X25519 public key in base64; the data key is sealed to it";
        faults.push(Invalid::new("the field is missing", help).at("transportKey"));
    }
    match (organisation, site, app, transport_key) {
        (Some(organisation), Some(site), Some(app), Some(transport_key)) if faults.is_empty() => {
            Ok((KeyRequest { caller_role, organisation, site, app, choice, newer_than }, transport_key))
        }
        _ => Err(Trouble::Invalid(faults)),
    }
}

fn choice(body: &Value, faults: &mut Vec<InvalidField>) -> DataKeyChoice {
    match (body.get("dataKeyId"), body.get("version")) {
        (Some(Value::String(_)), _) => {
            parsed::<DataKeyId>(body, "dataKeyId", faults).map_or(DataKeyChoice::Current, DataKeyChoice::Id)
        }
        (_, Some(Value::Number(number))) => match version_of(number) {
            Some(version) => DataKeyChoice::Version(version),
            None => {
                let help = "send a whole number from 1, or leave it out for the current version";
                faults.push(Invalid::new("it is not a version", help).at("version"));
                DataKeyChoice::Current
            }
        },
        _ => DataKeyChoice::Current,
    }
}

fn newer_than(body: &Value, faults: &mut Vec<InvalidField>) -> Option<u32> {
    let given = body.get("newerThan").filter(|given| !given.is_null())?;
    let version = given.as_number().and_then(version_of);
    if version.is_none() {
        let help = "send the version that is used up, a whole number from 1, or leave it out";
        faults.push(Invalid::new("it is not a version", help).at("newerThan"));
    }
    version
}

fn version_of(number: &serde_json::Number) -> Option<u32> {
    number.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|version| *version > 0)
}

/// A request for proofs: the policies that are meant.
pub fn proofs(body: &Body) -> Result<Vec<PolicyId>, Trouble> {
    let body = json(body)?;
    let wrong = |reason: &str| {
        let help = format!("send `policies` as a list of 1 to {MOST_POLICIES} policy ids");
        Trouble::Invalid(vec![Invalid::new(reason, help).at("policies")])
    };
    let Some(Value::Array(list)) = body.get("policies") else {
        return Err(wrong("the list is missing"));
    };
    if list.is_empty() || list.len() > MOST_POLICIES {
        return Err(wrong("the list is empty or too long"));
    }
    let ids = list.iter().map(|id| id.as_str().and_then(|text| text.parse().ok()));
    ids.collect::<Option<Vec<PolicyId>>>().ok_or_else(|| wrong("an entry is not a policy id"))
}
