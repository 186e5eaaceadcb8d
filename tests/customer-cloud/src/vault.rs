//! The keys of one account in one region: the state machine of `winterbaume-kms`, and what AWS adds to it.
//!
//! Added here: imported material with its states, old material that still decrypts after a rotation, an unambiguous
//! encryption context, and a memory of how a key looked before a change (propagation lag).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use aws_lc_rs::rsa::PrivateDecryptingKey;
use jiff::Timestamp;
use serde_json::{Value, json};
use winterbaume_kms::KmsState;
use winterbaume_kms::state::KmsError;
use winterbaume_kms::types::{Key, KeyState};

use crate::wire::Failure;

pub type EncryptionContext = BTreeMap<String, String>;

/// Length of the key id at the head of every `winterbaume-kms` ciphertext.
const CIPHERTEXT_KEY_ID: usize = 36;

#[derive(Default)]
pub struct Vault {
    pub state: KmsState,
    pub extras: HashMap<String, Extra>,
    /// Key ids that are gone for good: their ciphertexts are refused as AWS refuses them.
    pub deleted: HashSet<String>,
}

/// What a key has beyond `winterbaume-kms`.
#[derive(Default)]
pub struct Extra {
    pub old_materials: Vec<Vec<u8>>,
    pub wrapping: Option<Wrapping>,
    /// Set once material was imported: only the same material may come back.
    pub imported_once: bool,
    pub pending_days: Option<i64>,
    changes: Vec<Change>,
}

/// The wrapping key that GetParametersForImport handed out.
#[derive(Clone)]
pub struct Wrapping {
    pub private: Arc<PrivateDecryptingKey>,
    pub algorithm: String,
    pub token: String,
}

/// A change that others do not see before `visible_at`.
struct Change {
    before: View,
    actor: String,
    visible_at: Timestamp,
}

/// A key as one caller sees it.
#[derive(Clone)]
pub struct View {
    pub key: Key,
    pub policy: String,
    pub imported: bool,
    pub old_materials: Vec<Vec<u8>>,
}

impl Vault {
    /// Finds a key by id, ARN, alias or alias ARN.
    pub fn find(&self, reference: &str) -> Result<String, Failure> {
        Ok(self.state.describe_key(reference).map_err(failure)?.key_id.clone())
    }

    pub fn view(&self, key_id: &str) -> Result<View, Failure> {
        let key = self.state.describe_key(key_id).map_err(failure)?.clone();
        let (_, policy) = self.state.get_key_policy(key_id).map_err(failure)?;
        let imported = self.state.imported_key_material.contains_key(key_id);
        let old_materials =
            self.extras.get(key_id).map(|extra| extra.old_materials.clone()).unwrap_or_default();
        Ok(View { key, policy, imported, old_materials })
    }

    /// The key as `principal_arn` sees it now: changes by others that have not spread yet are invisible.
    pub fn view_for(&self, key_id: &str, principal_arn: &str, now: Timestamp) -> Result<View, Failure> {
        let unseen = |change: &&Change| change.visible_at > now && change.actor != principal_arn;
        match self.extras.get(key_id).and_then(|extra| extra.changes.iter().find(unseen)) {
            Some(change) => Ok(change.before.clone()),
            None => self.view(key_id),
        }
    }

    /// Keeps how the key looked, for those to whom the change shows only at `visible_at`.
    pub fn remember(&mut self, before: View, actor: &str, visible_at: Timestamp, now: Timestamp) {
        let extra = self.extras.entry(before.key.key_id.clone()).or_default();
        extra.changes.retain(|change| change.visible_at > now);
        extra.changes.push(Change { before, actor: actor.to_owned(), visible_at });
    }

    pub fn extra(&mut self, key_id: &str) -> &mut Extra {
        self.extras.entry(key_id.to_owned()).or_default()
    }

    pub fn key_mut(&mut self, key_id: &str) -> Result<&mut Key, Failure> {
        self.state.keys.get_mut(key_id).ok_or_else(|| not_found(key_id))
    }

    /// Removes the key as AWS does when its waiting period is over.
    pub fn purge(&mut self, key_id: &str) -> Option<Key> {
        let key = self.state.keys.remove(key_id)?;
        self.state.key_policies.remove(key_id);
        self.state.aliases.retain(|_, alias| alias.target_key_id != key_id);
        self.state.grants.retain(|_, grant| grant.key_id != key_id);
        self.extras.remove(key_id);
        self.deleted.insert(key_id.to_owned());
        Some(key)
    }
}

impl View {
    pub fn state(&self) -> &str {
        if self.pending_import() { "PendingImport" } else { self.key.key_state.as_str() }
    }

    fn pending_import(&self) -> bool {
        self.key.origin == "EXTERNAL" && !self.imported && self.key.key_state != KeyState::PendingDeletion
    }

    /// EnableKey, DisableKey and the like are refused while the material is missing.
    pub fn refuse_pending_import(&self) -> Result<(), Failure> {
        if self.pending_import() {
            let message = format!("{} is pending import.", self.key.arn);
            return Err(Failure::bad("KMSInvalidStateException", message));
        }
        Ok(())
    }

    pub fn encrypt(&self, plaintext: &[u8], context: &EncryptionContext) -> Result<Vec<u8>, Failure> {
        self.refuse_pending_import()?;
        let result = alone(&self.key).encrypt(&self.key.key_id, plaintext, &canonical(context));
        Ok(result.map_err(failure)?.ciphertext_blob)
    }

    /// Tries the current material first, then what it was before each rotation.
    pub fn decrypt(&self, ciphertext: &[u8], context: &EncryptionContext) -> Result<Vec<u8>, Failure> {
        self.refuse_pending_import()?;
        if key_id_of(ciphertext).is_some_and(|id| looks_like_key_id(&id) && id != self.key.key_id) {
            let message =
                "The key ID in the request does not identify a CMK that can perform this operation.";
            return Err(Failure::bad("IncorrectKeyException", message));
        }
        let mut key = self.key.clone();
        let mut materials = self.old_materials.iter().rev();
        loop {
            match alone(&key).decrypt(ciphertext, &canonical(context), None) {
                Ok(result) => return Ok(result.plaintext),
                Err(KmsError::InvalidCiphertext) => match materials.next() {
                    Some(material) => key.key_material = material.clone(),
                    None => {
                        return Err(self
                            .usable()
                            .err()
                            .unwrap_or_else(|| failure(KmsError::InvalidCiphertext)));
                    }
                },
                Err(error) => return Err(failure(error)),
            }
        }
    }

    pub fn data_key(
        &self,
        key_spec: Option<&str>,
        bytes: Option<usize>,
        context: &EncryptionContext,
    ) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        self.refuse_pending_import()?;
        match (key_spec, bytes) {
            (Some(_), Some(_)) | (None, None) => {
                let message = "Please specify either number of bytes or key spec.";
                return Err(Failure::bad("ValidationException", message));
            }
            (None, Some(bytes)) if !(1..=1024).contains(&bytes) => {
                return Err(failure(KmsError::InvalidNumberOfBytes));
            }
            _ => {}
        }
        let result =
            alone(&self.key).generate_data_key(&self.key.key_id, key_spec, bytes, &canonical(context));
        let result = result.map_err(failure)?;
        Ok((result.plaintext, result.ciphertext_blob))
    }

    pub fn usable(&self) -> Result<(), Failure> {
        if self.key.key_state == KeyState::PendingDeletion {
            return Err(failure(KmsError::KeyPendingDeletion(self.key.arn.clone())));
        }
        if !self.key.enabled {
            return Err(failure(KmsError::KeyDisabled(self.key.arn.clone())));
        }
        Ok(())
    }

    /// The key as if nothing had been disabled, for the test side.
    pub fn as_owner(mut self) -> Self {
        self.key.enabled = true;
        self.key.key_state = KeyState::Enabled;
        self.imported = true;
        self
    }

    pub fn metadata(&self, extra: Option<&Extra>) -> Value {
        let key = &self.key;
        let mut metadata = json!({
            "AWSAccountId": key.account_id, "KeyId": key.key_id, "Arn": key.arn,
            "CreationDate": seconds(key.creation_date.timestamp_millis()),
            "Enabled": key.enabled && !self.pending_import(), "Description": key.description,
            "KeyUsage": key.key_usage, "KeyState": self.state(), "Origin": key.origin,
            "KeyManager": key.key_manager, "KeySpec": key.key_spec, "CustomerMasterKeySpec": key.key_spec,
            "MultiRegion": key.multi_region,
        });
        if let Some(algorithms) = key.encryption_algorithms() {
            metadata["EncryptionAlgorithms"] = json!(algorithms);
        }
        if let Some(algorithms) = key.signing_algorithms() {
            metadata["SigningAlgorithms"] = json!(algorithms);
        }
        if let Some(date) = key.deletion_date {
            metadata["DeletionDate"] = json!(seconds(date.timestamp_millis()));
            metadata["PendingDeletionWindowInDays"] =
                json!(extra.and_then(|extra| extra.pending_days).unwrap_or(30));
        }
        if self.imported && key.origin == "EXTERNAL" {
            metadata["ExpirationModel"] = json!("KEY_MATERIAL_DOES_NOT_EXPIRE");
        }
        metadata
    }
}

/// Which key a ciphertext says it belongs to.
pub fn key_id_of(ciphertext: &[u8]) -> Option<String> {
    let id = std::str::from_utf8(ciphertext.get(..CIPHERTEXT_KEY_ID)?).ok()?;
    Some(id.trim_end_matches('\0').to_owned())
}

/// A damaged head is a damaged ciphertext, not another key.
pub fn looks_like_key_id(id: &str) -> bool {
    let hex = id.strip_prefix("mrk-").unwrap_or(id);
    id.len() == CIPHERTEXT_KEY_ID && uuid::Uuid::parse_str(hex).is_ok()
}

pub fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

pub fn not_found(reference: &str) -> Failure {
    failure(KmsError::KeyNotFound(reference.to_owned()))
}

/// `winterbaume-kms` with this key only, so that a view can differ from the stored state.
fn alone(key: &Key) -> KmsState {
    KmsState { keys: HashMap::from([(key.key_id.clone(), key.clone())]), ..KmsState::default() }
}

/// `winterbaume-kms` joins pairs with `=` and `,`, so two contexts could read alike: it gets one JSON text instead.
fn canonical(context: &EncryptionContext) -> HashMap<String, String> {
    if context.is_empty() {
        return HashMap::new();
    }
    HashMap::from([(String::new(), json!(context).to_string())])
}

pub fn failure(error: KmsError) -> Failure {
    let code = match &error {
        KmsError::KeyPendingDeletion(_) | KmsError::KeyNotPendingDeletion(_) => "KMSInvalidStateException",
        KmsError::AliasAlreadyExists(_) => "AlreadyExistsException",
        KmsError::KeyNotFound(_)
        | KmsError::AliasNotFound(_)
        | KmsError::GrantNotFound
        | KmsError::GrantNotFoundForKey(..)
        | KmsError::GrantIdNotFound(_)
        | KmsError::GrantIdNotFoundForKey(_) => "NotFoundException",
        KmsError::KeyNotValidForRotation(_) | KmsError::KeyNotValidForOnDemandRotation(_) => {
            "UnsupportedOperationException"
        }
        KmsError::InvalidCiphertext => "InvalidCiphertextException",
        KmsError::KeyDisabled(_) => "DisabledException",
        KmsError::IncorrectKey => "IncorrectKeyException",
        KmsError::EncryptionFailed | KmsError::MacGenerationFailed => "KMSInternalException",
        _ => "ValidationException",
    };
    // The real service says nothing about a ciphertext that it cannot open.
    let message = if code == "InvalidCiphertextException" { String::new() } else { error.to_string() };
    Failure::new(if code == "KMSInternalException" { 500 } else { 400 }, code, message)
}
