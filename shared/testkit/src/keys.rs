//! Customers' keys that answer what they are told to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use claviger_app::messages::EncryptionContext;
use claviger_app::ports::{ControlProbes, CustomerKeys, KeyDescription, KeyError};
use claviger_domain::ids::OrganisationId;
use claviger_domain::observation::{NoAnswerKind, Observation, RefusalKind};
use claviger_domain::policy::CONTEXT_ORGANISATION;
use claviger_domain::values::{KeyArn, Region};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// One call of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCall {
    /// `Decrypt`, `Encrypt`, `GenerateDataKey`, `DescribeKey`.
    pub operation: &'static str,
    /// Of which key.
    pub key: KeyArn,
    /// With which context; empty for `DescribeKey`.
    pub context: EncryptionContext,
}

#[derive(Debug)]
struct FakeKey {
    answer: Observation,
    next: VecDeque<Observation>,
    organisation: Option<OrganisationId>,
    description: Result<KeyDescription, Observation>,
}

#[derive(Debug, Default)]
struct State {
    keys: BTreeMap<KeyArn, FakeKey>,
    ill_controls: BTreeSet<Region>,
    calls: Vec<KeyCall>,
    control_calls: u64,
    made: u64,
}

/// Keys that are usable, or answer an observation. A ciphertext is the plaintext with the key and the context that it
/// is bound to, readable: nothing here protects anything.
#[derive(Debug, Default)]
pub struct FakeKeys(Mutex<State>);

#[derive(Serialize, Deserialize)]
struct Sealed {
    key: KeyArn,
    context: EncryptionContext,
    plaintext: String,
}

/// An enabled, symmetric key made in KMS by the customer.
pub fn a_description() -> KeyDescription {
    KeyDescription {
        state: "Enabled".to_owned(),
        spec: "SYMMETRIC_DEFAULT".to_owned(),
        usage: "ENCRYPT_DECRYPT".to_owned(),
        origin: "AWS_KMS".to_owned(),
        custom_key_store: false,
        manager: "CUSTOMER".to_owned(),
        deletion_date: None,
    }
}

impl FakeKeys {
    /// No keys: all of them are not found.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, key: &KeyArn, change: impl FnOnce(&mut FakeKey)) {
        change(self.state().keys.get_mut(key).expect("the key was created before"));
    }

    /// A usable key, whose policy lets any context through.
    pub fn create(&self, key: &KeyArn) {
        let fresh = FakeKey {
            answer: Observation::Usable,
            next: VecDeque::new(),
            organisation: None,
            description: Ok(a_description()),
        };
        self.state().keys.insert(key.clone(), fresh);
    }

    /// From now on the key policy lets only this organisation's context through (spec E12).
    pub fn bind(&self, key: &KeyArn, organisation: OrganisationId) {
        self.change(key, |key| key.organisation = Some(organisation));
    }

    /// From now on every call answers this; `Usable` heals it.
    pub fn answer(&self, key: &KeyArn, answer: Observation) {
        self.change(key, |key| key.answer = answer);
    }

    /// The next calls answer these, one each; then it is as before.
    pub fn answer_next(&self, key: &KeyArn, answers: impl IntoIterator<Item = Observation>) {
        self.change(key, |key| key.next.extend(answers));
    }

    /// What DescribeKey says from now on.
    pub fn describe_as(&self, key: &KeyArn, description: Result<KeyDescription, Observation>) {
        self.change(key, |key| key.description = description);
    }

    /// Whether a region's control probe is healthy from now on.
    pub fn control(&self, region: &Region, healthy: bool) {
        let mut state = self.state();
        if healthy {
            state.ill_controls.remove(region);
        } else {
            state.ill_controls.insert(region.clone());
        }
    }

    /// Every call so far, oldest first.
    pub fn calls(&self) -> Vec<KeyCall> {
        self.state().calls.clone()
    }

    /// How often a key was called.
    pub fn count(&self, key: &KeyArn) -> usize {
        self.state().calls.iter().filter(|call| call.key == *key).count()
    }

    /// How often control probes were asked.
    pub fn control_count(&self) -> u64 {
        self.state().control_calls
    }

    /// Forgets the calls so far.
    pub fn forget_calls(&self) {
        let mut state = self.state();
        state.calls.clear();
        state.control_calls = 0;
    }

    fn called(
        &self,
        operation: &'static str,
        key: &KeyArn,
        context: &EncryptionContext,
    ) -> Result<(), KeyError> {
        let mut state = self.state();
        let request = state.calls.len();
        state.calls.push(KeyCall { operation, key: key.clone(), context: context.clone() });
        let Some(known) = state.keys.get_mut(key) else {
            return Err(refusal(Observation::Refused(RefusalKind::KeyNotFound), request));
        };
        let answer = known.next.pop_front().unwrap_or(known.answer);
        if answer != Observation::Usable {
            return Err(refusal(answer, request));
        }
        let bound = known.organisation.map(|organisation| organisation.to_string());
        if bound.is_some_and(|bound| context.get(CONTEXT_ORGANISATION) != Some(&bound)) {
            return Err(refusal(Observation::Refused(RefusalKind::AccessDenied), request));
        }
        Ok(())
    }
}

fn refusal(observation: Observation, request: usize) -> KeyError {
    let code = match observation {
        Observation::Usable => "none",
        Observation::Refused(RefusalKind::KeyDisabled) => "DisabledException",
        Observation::Refused(RefusalKind::AccessDenied) => "AccessDeniedException",
        Observation::Refused(RefusalKind::KeyNotFound) => "NotFoundException",
        Observation::Refused(
            RefusalKind::KeyPendingDeletion
            | RefusalKind::KeyPendingImport
            | RefusalKind::KeyUnavailable
            | RefusalKind::InvalidState,
        ) => "KMSInvalidStateException",
        Observation::NoAnswer(NoAnswerKind::Throttled) => "ThrottlingException",
        Observation::NoAnswer(NoAnswerKind::Unreachable) => "KMSInternalException",
        Observation::NoAnswer(NoAnswerKind::OurFault) => "ExpiredTokenException",
    };
    KeyError { observation, code: code.to_owned(), request_id: Some(format!("fake-{request}")) }
}

fn not_ours(code: &str) -> KeyError {
    KeyError {
        observation: Observation::NoAnswer(NoAnswerKind::OurFault),
        code: code.to_owned(),
        request_id: None,
    }
}

fn seal(key: &KeyArn, plaintext: &[u8], context: &EncryptionContext) -> Vec<u8> {
    let sealed = Sealed { key: key.clone(), context: context.clone(), plaintext: hex::encode(plaintext) };
    serde_json::to_vec(&sealed).expect("a ciphertext is plain JSON")
}

#[async_trait]
impl CustomerKeys for FakeKeys {
    async fn decrypt(
        &self,
        key: &KeyArn,
        ciphertext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.called("Decrypt", key, context)?;
        let sealed: Sealed =
            serde_json::from_slice(ciphertext).map_err(|_| not_ours("InvalidCiphertextException"))?;
        if sealed.key != *key {
            return Err(not_ours("IncorrectKeyException"));
        }
        if sealed.context != *context {
            return Err(not_ours("InvalidCiphertextException"));
        }
        hex::decode(sealed.plaintext).map(Zeroizing::new).map_err(|_| not_ours("InvalidCiphertextException"))
    }

    async fn encrypt(
        &self,
        key: &KeyArn,
        plaintext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Vec<u8>, KeyError> {
        self.called("Encrypt", key, context)?;
        Ok(seal(key, plaintext, context))
    }

    async fn generate_data_key(
        &self,
        key: &KeyArn,
        context: &EncryptionContext,
    ) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), KeyError> {
        self.called("GenerateDataKey", key, context)?;
        let mut plaintext = Zeroizing::new(vec![0x5a_u8; 24]);
        let mut state = self.state();
        state.made += 1;
        plaintext.extend_from_slice(&state.made.to_be_bytes());
        let wrapped = seal(key, &plaintext, context);
        Ok((plaintext, wrapped))
    }

    async fn describe(&self, key: &KeyArn) -> Result<KeyDescription, KeyError> {
        let mut state = self.state();
        let request = state.calls.len();
        let call = KeyCall { operation: "DescribeKey", key: key.clone(), context: EncryptionContext::new() };
        state.calls.push(call);
        match state.keys.get(key).map(|key| key.description.clone()) {
            Some(Ok(description)) => Ok(description),
            Some(Err(observation)) => Err(refusal(observation, request)),
            None => Err(refusal(Observation::Refused(RefusalKind::KeyNotFound), request)),
        }
    }
}

#[async_trait]
impl ControlProbes for FakeKeys {
    async fn control_is_healthy(&self, region: &Region) -> bool {
        let mut state = self.state();
        state.control_calls += 1;
        !state.ill_controls.contains(region)
    }
}
