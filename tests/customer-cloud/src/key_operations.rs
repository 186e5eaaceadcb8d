//! What each KMS operation does to one vault, once it is clear that the caller may.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use winterbaume_kms::types::{GrantConstraints, KeyState};

use crate::cloud::lock;
use crate::policy::Policy;
use crate::vault::{EncryptionContext, Extra, Vault, View, Wrapping, failure, seconds};
use crate::wire::Failure;

pub type Outcome = Result<Value, Failure>;

/// Operations that use the key, and so see it only as far as changes have spread.
pub fn is_cryptographic(operation: &str) -> bool {
    matches!(
        operation,
        "Encrypt"
            | "Decrypt"
            | "ReEncrypt"
            | "GenerateDataKey"
            | "GenerateDataKeyWithoutPlaintext"
            | "GenerateDataKeyPair"
            | "GenerateDataKeyPairWithoutPlaintext"
    )
}

/// Operations that AWS offers to other accounts at all.
pub fn crosses_accounts(operation: &str) -> bool {
    is_cryptographic(operation)
        || matches!(
            operation,
            "DescribeKey"
                | "GetKeyRotationStatus"
                | "CreateGrant"
                | "ListGrants"
                | "RevokeGrant"
                | "RetireGrant"
        )
}

/// Changes that CloudTrail reports and that take time to spread.
pub fn changes_state(operation: &str) -> bool {
    matches!(
        operation,
        "DisableKey"
            | "EnableKey"
            | "ScheduleKeyDeletion"
            | "CancelKeyDeletion"
            | "PutKeyPolicy"
            | "CreateGrant"
            | "RevokeGrant"
            | "RetireGrant"
            | "ImportKeyMaterial"
            | "DeleteImportedKeyMaterial"
            | "RotateKeyOnDemand"
    )
}

pub fn text<'a>(input: &'a Value, name: &str) -> Option<&'a str> {
    input[name].as_str().filter(|text| !text.is_empty())
}

pub fn need<'a>(input: &'a Value, name: &str) -> Result<&'a str, Failure> {
    text(input, name).ok_or_else(|| {
        let name = format!("{}{}", name[..1].to_lowercase(), &name[1..]);
        invalid(format!(
            "1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must not be null"
        ))
    })
}

pub fn blob(input: &Value, name: &str) -> Result<Vec<u8>, Failure> {
    BASE64
        .decode(need(input, name)?)
        .map_err(|error| Failure::bad("SerializationException", error.to_string()))
}

pub fn context(input: &Value, name: &str) -> Result<EncryptionContext, Failure> {
    match &input[name] {
        Value::Null => Ok(EncryptionContext::new()),
        value => serde_json::from_value(value.clone())
            .map_err(|error| Failure::bad("SerializationException", error.to_string())),
    }
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::bad("ValidationException", message)
}

/// Encrypt, Decrypt and the data keys on one key, as the caller sees it.
pub fn use_key(view: &View, operation: &str, input: &Value) -> Outcome {
    let context = context(input, "EncryptionContext")?;
    let arn = &view.key.arn;
    match operation {
        "Encrypt" => {
            let ciphertext = view.encrypt(&blob(input, "Plaintext")?, &context)?;
            Ok(json!({
                "CiphertextBlob": BASE64.encode(ciphertext), "KeyId": arn, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            }))
        }
        "Decrypt" => {
            let plaintext = view.decrypt(&blob(input, "CiphertextBlob")?, &context)?;
            Ok(json!({
                "Plaintext": BASE64.encode(plaintext), "KeyId": arn, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            }))
        }
        // Nobody needs such a pair here; whether one may be made can be asked.
        "GenerateDataKeyPair" | "GenerateDataKeyPairWithoutPlaintext" => {
            need(input, "KeyPairSpec")?;
            view.usable()?;
            if input["DryRun"].as_bool() == Some(true) {
                return Ok(Value::Null);
            }
            let message = format!("customer-cloud plays {operation} as a dry run only");
            Err(Failure::bad("UnsupportedOperationException", message))
        }
        _ => {
            let bytes = input["NumberOfBytes"].as_u64().map(|bytes| bytes as usize);
            let (plaintext, ciphertext) = view.data_key(text(input, "KeySpec"), bytes, &context)?;
            let mut output = json!({"CiphertextBlob": BASE64.encode(ciphertext), "KeyId": arn});
            if operation == "GenerateDataKey" {
                output["Plaintext"] = json!(BASE64.encode(plaintext));
            }
            Ok(output)
        }
    }
}

pub fn re_encrypt(source: &View, destination: &View, input: &Value) -> Outcome {
    let plaintext =
        source.decrypt(&blob(input, "CiphertextBlob")?, &context(input, "SourceEncryptionContext")?)?;
    let ciphertext = destination.encrypt(&plaintext, &context(input, "DestinationEncryptionContext")?)?;
    Ok(json!({
        "CiphertextBlob": BASE64.encode(ciphertext), "SourceKeyId": source.key.arn, "KeyId": destination.key.arn,
        "SourceEncryptionAlgorithm": "SYMMETRIC_DEFAULT", "DestinationEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
    }))
}

pub fn create_key(vault: &mut Vault, (account, region): (&str, &str), input: &Value) -> Outcome {
    if let Some(policy) = text(input, "Policy") {
        well_formed(policy)?;
    }
    let key_id = {
        let spec = text(input, "KeySpec").or(text(input, "CustomerMasterKeySpec"));
        let multi_region = input["MultiRegion"].as_bool().unwrap_or(false);
        let description = text(input, "Description").unwrap_or("");
        let (usage, origin) = (text(input, "KeyUsage"), text(input, "Origin"));
        let created = vault.state.create_key(
            account,
            region,
            description,
            spec,
            usage,
            tags(input),
            origin,
            multi_region,
        );
        created.map_err(failure)?.key_id.clone()
    };
    if let Some(policy) = text(input, "Policy") {
        vault.state.put_key_policy(&key_id, policy).map_err(failure)?;
    }
    Ok(json!({"KeyMetadata": vault.view(&key_id)?.metadata(None)}))
}

pub fn list_keys(vault: &Vault) -> Outcome {
    let mut keys = vault.state.list_keys();
    keys.sort_by(|a, b| a.key_id.cmp(&b.key_id));
    let keys: Vec<_> = keys.iter().map(|key| json!({"KeyId": key.key_id, "KeyArn": key.arn})).collect();
    Ok(json!({"Keys": keys, "Truncated": false}))
}

pub fn list_aliases(vault: &Vault, input: &Value) -> Outcome {
    if let Some(reference) = text(input, "KeyId") {
        vault.find(reference)?;
    }
    let mut aliases = vault.state.list_aliases(text(input, "KeyId"));
    aliases.sort_by(|a, b| a.alias_name.cmp(&b.alias_name));
    let aliases: Vec<_> = aliases
        .iter()
        .map(|alias| {
            json!({"AliasName": alias.alias_name, "AliasArn": alias.alias_arn, "TargetKeyId": alias.target_key_id})
        })
        .collect();
    Ok(json!({"Aliases": aliases, "Truncated": false}))
}

/// Every operation on one key that does not use it.
pub fn manage(vault: &mut Vault, key_id: &str, operation: &str, input: &Value) -> Outcome {
    let view = vault.view(key_id)?;
    let (account, region, arn) = (view.key.account_id.clone(), view.key.region.clone(), view.key.arn.clone());
    let state = &mut vault.state;
    match operation {
        "DescribeKey" => Ok(json!({"KeyMetadata": view.metadata(vault.extras.get(key_id))})),
        "EnableKey" => {
            view.refuse_pending_import()?;
            state.enable_key(key_id).map(|()| Value::Null).map_err(failure)
        }
        "DisableKey" => {
            view.refuse_pending_import()?;
            state.disable_key(key_id).map(|()| Value::Null).map_err(failure)
        }
        "ScheduleKeyDeletion" => schedule_deletion(vault, &view, input),
        "CancelKeyDeletion" => {
            state.cancel_key_deletion(key_id).map_err(failure)?;
            Ok(json!({"KeyId": arn}))
        }
        "GetKeyPolicy" => {
            policy_name(input)?;
            Ok(json!({"Policy": view.policy, "PolicyName": "default"}))
        }
        "PutKeyPolicy" => {
            policy_name(input)?;
            let policy = need(input, "Policy")?;
            well_formed(policy)?;
            state.put_key_policy(key_id, policy).map(|()| Value::Null).map_err(failure)
        }
        "ListKeyPolicies" => Ok(json!({"PolicyNames": ["default"], "Truncated": false})),
        "CreateAlias" => {
            let name = need(input, "AliasName")?;
            if !name.starts_with("alias/") || name.starts_with("alias/aws/") {
                return Err(Failure::bad(
                    "InvalidAliasNameException",
                    "Alias must start with the prefix \"alias/\".",
                ));
            }
            state.create_alias(name, key_id, &account, &region).map(|()| Value::Null).map_err(failure)
        }
        "UpdateAlias" => {
            let name = need(input, "AliasName")?;
            state.update_alias(name, key_id, &account, &region).map(|()| Value::Null).map_err(failure)
        }
        "DeleteAlias" => state.delete_alias(need(input, "AliasName")?).map(|()| Value::Null).map_err(failure),
        "UpdateKeyDescription" => {
            let description = input["Description"].as_str().unwrap_or("");
            state.update_key_description(key_id, description).map(|()| Value::Null).map_err(failure)
        }
        "TagResource" => state.tag_resource(key_id, tags(input)).map(|()| Value::Null).map_err(failure),
        "UntagResource" => {
            let keys: Vec<String> =
                serde_json::from_value(input["TagKeys"].clone()).map_err(|_| invalid("TagKeys"))?;
            state.untag_resource(key_id, &keys).map(|()| Value::Null).map_err(failure)
        }
        "ListResourceTags" => {
            let mut tags: Vec<_> = state.list_resource_tags(key_id).map_err(failure)?.iter().collect();
            tags.sort();
            let tags: Vec<_> =
                tags.iter().map(|(key, value)| json!({"TagKey": key, "TagValue": value})).collect();
            Ok(json!({"Tags": tags, "Truncated": false}))
        }
        "EnableKeyRotation" => {
            rotatable(&view)?;
            state.enable_key_rotation(key_id).map(|()| Value::Null).map_err(failure)
        }
        "DisableKeyRotation" => {
            rotatable(&view)?;
            state.disable_key_rotation(key_id).map(|()| Value::Null).map_err(failure)
        }
        "GetKeyRotationStatus" => Ok(
            json!({"KeyId": arn, "KeyRotationEnabled": view.key.key_rotation_enabled, "RotationPeriodInDays": 365}),
        ),
        "RotateKeyOnDemand" => {
            rotatable(&view)?;
            rotate(vault, key_id)?;
            Ok(json!({"KeyId": arn}))
        }
        "ListKeyRotations" => {
            let rotations = state.list_key_rotations(key_id).map_err(failure)?;
            let rotations: Vec<_> = rotations
                .iter()
                .map(|rotation| {
                    json!({
                        "KeyId": arn, "RotationDate": seconds(rotation.rotation_date.timestamp_millis()),
                        "RotationType": rotation.rotation_type,
                    })
                })
                .collect();
            Ok(json!({"Rotations": rotations, "Truncated": false}))
        }
        "GetParametersForImport" => parameters_for_import(vault, &view, input),
        "ImportKeyMaterial" => import(vault, &view, input),
        "DeleteImportedKeyMaterial" => {
            external(&view)?;
            state.delete_imported_key_material(key_id).map_err(failure)?;
            Ok(json!({"KeyId": arn}))
        }
        "CreateGrant" => create_grant(vault, &view, input),
        "ListGrants" => list_grants(vault, &view, input),
        "RevokeGrant" => {
            state.revoke_grant(key_id, need(input, "GrantId")?).map(|()| Value::Null).map_err(failure)
        }
        "RetireGrant" => state
            .retire_grant(text(input, "GrantId"), text(input, "GrantToken"), Some(key_id))
            .map(|()| Value::Null)
            .map_err(failure),
        other => {
            Err(Failure::bad("UnknownOperationException", format!("customer-cloud does not play {other}")))
        }
    }
}

fn schedule_deletion(vault: &mut Vault, view: &View, input: &Value) -> Outcome {
    if view.key.key_state == KeyState::PendingDeletion {
        return Err(Failure::bad(
            "KMSInvalidStateException",
            format!("{} is pending deletion.", view.key.arn),
        ));
    }
    let days = input["PendingWindowInDays"].as_i64();
    let key_id = &view.key.key_id;
    let (_, at) = vault.state.schedule_key_deletion(key_id, days).map_err(failure)?;
    let days = days.unwrap_or(30);
    vault.extra(key_id).pending_days = Some(days);
    Ok(json!({
        "KeyId": view.key.arn, "DeletionDate": at, "KeyState": "PendingDeletion", "PendingWindowInDays": days,
    }))
}

fn rotatable(view: &View) -> Result<(), Failure> {
    if view.key.origin != "AWS_KMS" || view.key.key_spec != "SYMMETRIC_DEFAULT" {
        return Err(Failure::bad(
            "UnsupportedOperationException",
            format!("{} cannot be rotated.", view.key.arn),
        ));
    }
    view.usable()
}

/// `winterbaume-kms` forgets the material it replaces; AWS never does.
pub fn rotate(vault: &mut Vault, key_id: &str) -> Result<(), Failure> {
    let old = vault.key_mut(key_id)?.key_material.clone();
    vault.state.rotate_key_on_demand(key_id).map_err(failure)?;
    vault.extra(key_id).old_materials.push(old);
    Ok(())
}

pub fn material_id(material: &[u8]) -> String {
    Sha256::digest(material).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parameters_for_import(vault: &mut Vault, view: &View, input: &Value) -> Outcome {
    external(view)?;
    let algorithm = need(input, "WrappingAlgorithm")?;
    let size = match need(input, "WrappingKeySpec")? {
        "RSA_2048" => KeySize::Rsa2048,
        "RSA_3072" => KeySize::Rsa3072,
        "RSA_4096" => KeySize::Rsa4096,
        other => {
            return Err(invalid(format!("the wrapping key spec {other} is not supported")));
        }
    };
    if !matches!(algorithm, "RSAES_OAEP_SHA_256" | "RSAES_OAEP_SHA_1") {
        return Err(invalid(format!("the wrapping algorithm {algorithm} is not supported")));
    }
    let internal = |_| Failure::new(500, "KMSInternalException", "a wrapping key cannot be made");
    let private = wrapping_key(size).map_err(internal)?;
    let public: PublicKeyX509Der<'_> = private.public_key().as_der().map_err(internal)?;
    let token = BASE64.encode(uuid::Uuid::new_v4().as_bytes());
    let answer = json!({
        "KeyId": view.key.arn, "ImportToken": token, "PublicKey": BASE64.encode(public.as_ref()),
        "ParametersValidTo": seconds(Timestamp::now().as_millisecond()) + 86_400.0,
    });
    let wrapping = Wrapping { private, algorithm: algorithm.to_owned(), token };
    vault.extra(&view.key.key_id).wrapping = Some(wrapping);
    Ok(answer)
}

/// One wrapping key a size for all imports: making one takes long, and the vault is locked meanwhile.
fn wrapping_key(size: KeySize) -> Result<Arc<PrivateDecryptingKey>, Unspecified> {
    static MADE: Mutex<Vec<Arc<PrivateDecryptingKey>>> = Mutex::new(Vec::new());
    let mut made = lock(&MADE);
    if let Some(known) = made.iter().find(|key| key.key_size_bytes() == size.len()) {
        return Ok(Arc::clone(known));
    }
    let key = Arc::new(PrivateDecryptingKey::generate(size)?);
    made.push(Arc::clone(&key));
    Ok(key)
}

fn import(vault: &mut Vault, view: &View, input: &Value) -> Outcome {
    external(view)?;
    let key_id = &view.key.key_id;
    let token = need(input, "ImportToken")?;
    let Extra { wrapping, imported_once, .. } = vault.extra(key_id);
    let (wrapping, imported_once) = (wrapping.clone(), *imported_once);
    let wrapping = wrapping.filter(|wrapping| wrapping.token == token);
    let wrapping = wrapping
        .ok_or_else(|| Failure::bad("InvalidImportTokenException", "The import token is not valid."))?;
    let unreadable = |_| Failure::bad("InvalidCiphertextException", "the key material cannot be unwrapped");
    let private = OaepPrivateDecryptingKey::new((*wrapping.private).clone()).map_err(unreadable)?;
    let algorithm =
        if wrapping.algorithm == "RSAES_OAEP_SHA_1" { &OAEP_SHA1_MGF1SHA1 } else { &OAEP_SHA256_MGF1SHA256 };
    let mut buffer = vec![0u8; private.min_output_size()];
    let wrapped = blob(input, "EncryptedKeyMaterial")?;
    let material = private.decrypt(algorithm, &wrapped, &mut buffer, None).map_err(unreadable)?.to_vec();
    if material.len() != 32 || (imported_once && material != view.key.key_material) {
        let message = "The key material in the request is not the material that was imported before.";
        return Err(Failure::bad("IncorrectKeyMaterialException", message));
    }
    let id = material_id(&material);
    vault.key_mut(key_id)?.key_material = material;
    vault.extra(key_id).imported_once = true;
    vault.state.import_key_material(key_id).map_err(failure)?;
    Ok(json!({"KeyId": view.key.arn, "KeyMaterialId": id}))
}

fn external(view: &View) -> Result<(), Failure> {
    if view.key.origin == "EXTERNAL" {
        return Ok(());
    }
    let message =
        format!("{} origin is {} which is not valid for this operation.", view.key.arn, view.key.origin);
    Err(Failure::bad("UnsupportedOperationException", message))
}

fn create_grant(vault: &mut Vault, view: &View, input: &Value) -> Outcome {
    view.usable()?;
    let operations: Vec<String> = serde_json::from_value(input["Operations"].clone())
        .map_err(|_| invalid("Operations must be a list"))?;
    let map = |name: &str| -> Result<Option<HashMap<String, String>>, Failure> {
        serde_json::from_value(input["Constraints"][name].clone()).map_err(|_| invalid(name))
    };
    let constraints = GrantConstraints {
        encryption_context_subset: map("EncryptionContextSubset")?,
        encryption_context_equals: map("EncryptionContextEquals")?,
    };
    let constraints = input["Constraints"].is_object().then_some(constraints);
    let grantee = need(input, "GranteePrincipal")?;
    let (retiring, name) = (text(input, "RetiringPrincipal"), text(input, "Name"));
    let key = &view.key;
    let grant = vault.state.create_grant(
        &key.key_id,
        grantee,
        retiring,
        operations,
        constraints,
        name,
        &key.account_id,
    );
    let (id, token) = grant.map_err(failure)?;
    Ok(json!({"GrantId": id, "GrantToken": token}))
}

fn list_grants(vault: &Vault, view: &View, input: &Value) -> Outcome {
    let grants = vault.state.list_grants(Some(&view.key.key_id), text(input, "GrantId")).map_err(failure)?;
    let grants: Vec<_> = grants
        .iter()
        .map(|grant| {
            let mut entry = json!({
                "KeyId": view.key.arn, "GrantId": grant.grant_id, "GranteePrincipal": grant.grantee_principal,
                "IssuingAccount": grant.issuing_account, "Operations": grant.operations,
                "CreationDate": seconds(grant.creation_date.timestamp_millis()),
            });
            if let Some(name) = &grant.name {
                entry["Name"] = json!(name);
            }
            entry
        })
        .collect();
    Ok(json!({"Grants": grants, "Truncated": false}))
}

fn tags(input: &Value) -> HashMap<String, String> {
    let list = input["Tags"].as_array().into_iter().flatten();
    list.filter_map(|tag| Some((text(tag, "TagKey")?.to_owned(), tag["TagValue"].as_str()?.to_owned())))
        .collect()
}

fn policy_name(input: &Value) -> Result<(), Failure> {
    match text(input, "PolicyName") {
        None | Some("default") => Ok(()),
        Some(other) => Err(Failure::bad("NotFoundException", format!("No such policy exists: {other}"))),
    }
}

fn well_formed(policy: &str) -> Result<(), Failure> {
    let checked = Policy::parse_strict(policy, true);
    checked.map(drop).map_err(|error| Failure::bad("MalformedPolicyDocumentException", error))
}
