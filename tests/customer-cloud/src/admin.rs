//! The door for tests, under `/_cloud/`: faults, the record of calls, and what only the test side may do.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::calls::Filter;
use crate::cloud::Cloud;
use crate::faults::Fault;
use crate::key_operations::rotate;
use crate::kms::rotation_detail;
use crate::vault::{EncryptionContext, key_id_of};
use crate::wire::{Failure, HttpResponse, pairs, parameter, respond};

pub fn handle(cloud: &Cloud, method: &Method, path: &str, body: &Bytes) -> HttpResponse {
    let (status, body) = match route(cloud, method, path, body) {
        Ok(value) => (200, value),
        Err(failure) => (failure.status, json!({"error": failure.message, "code": failure.code})),
    };
    respond(status, "application/json", "", body.to_string())
}

fn route(cloud: &Cloud, method: &Method, path: &str, body: &Bytes) -> Result<Value, Failure> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query = pairs(query);
    let segments: Vec<&str> =
        path.trim_start_matches("/_cloud").split('/').filter(|part| !part.is_empty()).collect();
    match (method.as_str(), &segments[..]) {
        ("GET", ["health"]) => Ok(json!({"status": "ok", "keys": cloud.keys().count()})),
        ("GET", ["faults"]) => Ok(json!({"faults": cloud.faults().list()})),
        ("POST", ["faults"]) => Ok(json!(cloud.faults().add(read::<Fault>(body)?))),
        ("DELETE", ["faults"]) => Ok(json!({"removed": cloud.faults().remove(None)})),
        ("DELETE", ["faults", id]) => {
            let id = id.parse().map_err(|_| bad("the id of a fault is a number"))?;
            Ok(json!({"removed": cloud.faults().remove(Some(id))}))
        }
        ("GET", ["calls"]) => calls(cloud, &query),
        ("POST", ["calls", "reset"]) => {
            cloud.calls().reset();
            Ok(json!({}))
        }
        ("GET", ["events"]) => Ok(json!({"events": cloud.events.log()})),
        ("POST", ["decrypt-as-owner"]) => decrypt_as_owner(cloud, &read(body)?),
        ("POST", ["expire"]) => expire(cloud, &read::<KeyRequest>(body)?.key_arn),
        ("POST", ["rotate"]) => rotate_key(cloud, &read::<KeyRequest>(body)?.key_arn),
        _ => Err(Failure::new(404, "not-found", format!("no such door: {method} {path}"))),
    }
}

fn calls(cloud: &Cloud, query: &[(String, String)]) -> Result<Value, Failure> {
    let since = parameter(query, "since").map(moment).transpose()?;
    let text = |name| parameter(query, name).map(str::to_owned);
    let filter = Filter { account: text("account"), operation: text("operation"), since };
    let limit =
        parameter(query, "limit").map_or(Ok(1000), str::parse).map_err(|_| bad("`limit` is a number"))?;
    let log = cloud.calls();
    let mut matching: Vec<_> = log.matching(&filter).collect();
    let matched = matching.len();
    let shown = matching.split_off(matched.saturating_sub(limit));
    let counters: Vec<Value> = log
        .counters(&filter)
        .map(|(key, count)| {
            let mut value = json!(key);
            value["count"] = json!(count);
            value
        })
        .collect();
    Ok(json!({"matched": matched, "calls": shown, "counters": counters}))
}

/// RFC 3339 or Unix milliseconds.
fn moment(text: &str) -> Result<Timestamp, Failure> {
    let milliseconds = text.parse().ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
    milliseconds.or_else(|| text.parse().ok()).ok_or_else(|| bad("`since` is RFC 3339 or Unix milliseconds"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OwnerRequest {
    account: Option<String>,
    region: Option<String>,
    key_arn: Option<String>,
    ciphertext: String,
    #[serde(default)]
    encryption_context: EncryptionContext,
}

/// Opens a ciphertext whatever the key's state and policy: the test side learns which bytes to look for.
fn decrypt_as_owner(cloud: &Cloud, request: &OwnerRequest) -> Result<Value, Failure> {
    let ciphertext = BASE64.decode(&request.ciphertext).map_err(|error| bad(error.to_string()))?;
    let key_id = key_id_of(&ciphertext).ok_or_else(|| bad("too short for a ciphertext"))?;
    let mut keys = cloud.keys();
    let (account, region) = match &request.key_arn {
        Some(arn) => place(arn)?,
        None => {
            let region = request.region.clone().ok_or_else(|| bad("`region` or `keyArn` is needed"))?;
            let found = request.account.clone().or_else(|| keys.account_of(&key_id, &region));
            (found.ok_or_else(|| Failure::new(404, "not-found", "no account has this key"))?, region)
        }
    };
    let view = keys.vault(&account, &region).view(&key_id)?.as_owner();
    let plaintext = view.decrypt(&ciphertext, &request.encryption_context)?;
    Ok(json!({"plaintext": BASE64.encode(plaintext), "keyArn": view.key.arn}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeyRequest {
    key_arn: String,
}

/// Time passes: a key that is pending deletion is gone, imported material has expired.
fn expire(cloud: &Cloud, arn: &str) -> Result<Value, Failure> {
    let (account, region) = place(arn)?;
    let mut keys = cloud.keys();
    let vault = keys.vault(&account, &region);
    let view = vault.view(&vault.find(arn)?)?;
    let key_id = &view.key.key_id;
    let (done, event) = if view.state() == "PendingDeletion" {
        vault.purge(key_id);
        ("deleted", "KMS CMK Deletion")
    } else if view.key.origin == "EXTERNAL" && view.imported {
        vault.state.imported_key_material.remove(key_id);
        ("material-expired", "KMS Imported Key Material Expiration")
    } else {
        return Err(Failure::new(409, "conflict", "neither pending deletion nor imported: nothing expires"));
    };
    cloud.events.native(cloud, event, arn, (&account, &region), json!({"key-id": key_id}));
    Ok(json!({"result": done}))
}

/// The yearly rotation comes due.
fn rotate_key(cloud: &Cloud, arn: &str) -> Result<Value, Failure> {
    let (account, region) = place(arn)?;
    let mut keys = cloud.keys();
    let vault = keys.vault(&account, &region);
    let key_id = vault.find(arn)?;
    let old = vault.key_mut(&key_id)?.key_material.clone();
    rotate(vault, &key_id)?;
    let detail = rotation_detail(&key_id, "AUTOMATIC", &old, &vault.key_mut(&key_id)?.key_material);
    cloud.events.native(cloud, "KMS CMK Rotation", arn, (&account, &region), detail);
    Ok(json!({"result": "rotated"}))
}

/// Account and region of a key's ARN.
fn place(arn: &str) -> Result<(String, String), Failure> {
    match arn.splitn(6, ':').collect::<Vec<_>>()[..] {
        ["arn", _, "kms", region, account, _] => Ok((account.to_owned(), region.to_owned())),
        _ => Err(bad(format!("`{arn}` is not the ARN of a key"))),
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a Bytes) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| bad(error.to_string()))
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::bad("invalid-request", message)
}
