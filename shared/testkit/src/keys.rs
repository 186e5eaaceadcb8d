//! Customers' keys that answer what they are told to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use claviger_app::messages::EncryptionContext;
use claviger_app::ports::{
    Asking, ControlProbes, CustomerKeys, CustomerRoles, KeyDescription, KeyError, KeyRef, NewKey,
    RoleSession, Trial,
};
use claviger_domain::catalogue::Mode;
use claviger_domain::ids::OrganisationId;
use claviger_domain::key_access::{CustomerRole, ExternalId, KeyAccess, RoleArn};
use claviger_domain::key_policy::KeyLabel;
use claviger_domain::observation::{NoAnswerKind, Observation, RefusalKind};
use claviger_domain::policy::{CONTEXT_ORGANISATION, CONTEXT_PURPOSE};
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
    /// Whether it was only tried.
    pub dry_run: bool,
}

#[derive(Debug)]
struct FakeKey {
    answer: Observation,
    next: VecDeque<Observation>,
    refused_purpose: Option<String>,
    organisation: Option<OrganisationId>,
    description: Result<KeyDescription, Observation>,
}

/// A customer's key-management role.
#[derive(Debug)]
struct FakeRole {
    external_id: Option<ExternalId>,
    answer: Observation,
    /// Whether a session of it is kept. It lives on, whatever becomes of the trust policy, as on AWS.
    kept: bool,
}

/// One AssumeRole of a customer's role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assumed {
    /// Which role.
    pub role: RoleArn,
    /// Whether an external id came with it.
    pub with_external_id: bool,
    /// Whether it was let in.
    pub let_in: bool,
}

#[derive(Debug, Default)]
struct State {
    keys: BTreeMap<KeyArn, FakeKey>,
    roles: BTreeMap<RoleArn, FakeRole>,
    made_keys: BTreeMap<(RoleArn, Region, KeyLabel), KeyArn>,
    assumed: Vec<Assumed>,
    refuse_making: BTreeMap<Region, Observation>,
    not_granted: BTreeSet<&'static str>,
    not_rotating: BTreeSet<KeyArn>,
    policies: BTreeMap<KeyArn, serde_json::Value>,
    ill_controls: BTreeSet<Region>,
    calls: Vec<KeyCall>,
    control_calls: u64,
    /// Regions in which nothing is answered, and how long a call waits for it.
    silent: BTreeMap<Region, Duration>,
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
        material: None,
        deletion_date: None,
        material_expires: None,
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
            refused_purpose: None,
            organisation: None,
            description: Ok(a_description()),
        };
        self.state().keys.insert(key.clone(), fresh);
    }

    /// From now on no Decrypt in this region is answered: each runs into this limit, in the runtime's time.
    pub fn fall_silent(&self, region: &Region, limit: Duration) {
        self.state().silent.insert(region.clone(), limit);
    }

    /// The region answers again.
    pub fn answers_again(&self, region: &Region) {
        self.state().silent.remove(region);
    }

    /// A key-management role that lets us in with this external id, or, with none, whoever comes.
    pub fn create_role(&self, role: &RoleArn, external_id: Option<&ExternalId>) {
        let fresh = FakeRole { external_id: external_id.cloned(), answer: Observation::Usable, kept: false };
        self.state().roles.insert(role.clone(), fresh);
    }

    /// From now on AssumeRole of the role answers this; sessions that are kept live on.
    pub fn role_answers(&self, role: &RoleArn, answer: Observation) {
        self.state().roles.get_mut(role).expect("the role was created before").answer = answer;
    }

    /// The role is deleted, and with it what its sessions may do.
    pub fn delete_role(&self, role: &RoleArn) {
        self.state().roles.remove(role);
    }

    /// From now on no key can be made in a region; `Usable` heals it.
    pub fn making_answers(&self, region: &Region, answer: Observation) {
        self.state().refuse_making.insert(region.clone(), answer);
    }

    /// Every AssumeRole of customers' roles so far, oldest first.
    pub fn assumed(&self) -> Vec<Assumed> {
        self.state().assumed.clone()
    }

    /// Which keys were made through roles.
    pub fn made(&self) -> Vec<KeyArn> {
        self.state().made_keys.values().cloned().collect()
    }

    /// How many keys were made through roles.
    pub fn made_count(&self) -> usize {
        self.state().made_keys.len()
    }

    /// From now on this use is refused, though the key is usable: the key policy leaves the action out.
    pub fn grant_not(&self, operation: &'static str) {
        self.state().not_granted.insert(operation);
    }

    /// From now on the key's material stays as it is.
    pub fn rotate_not(&self, key: &KeyArn) {
        self.state().not_rotating.insert(key.clone());
    }

    /// The key has this policy, as far as anybody reads it.
    pub fn put_policy(&self, key: &KeyArn, policy: serde_json::Value) {
        self.state().policies.insert(key.clone(), policy);
    }

    /// Whether the key is there.
    pub fn has(&self, key: &KeyArn) -> bool {
        self.state().keys.contains_key(key)
    }

    /// From now on the key policy lets every context through.
    pub fn bind_to_nobody(&self, key: &KeyArn) {
        self.change(key, |key| key.organisation = None);
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

    /// From now on the key policy refuses this purpose and lets every other through.
    pub fn refuse_purpose(&self, key: &KeyArn, purpose: Option<&str>) {
        self.change(key, |key| key.refused_purpose = purpose.map(str::to_owned));
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
        way: KeyRef<'_>,
        context: &EncryptionContext,
    ) -> Result<(), KeyError> {
        self.used(operation, way, context, false)
    }

    fn used(
        &self,
        operation: &'static str,
        way: KeyRef<'_>,
        context: &EncryptionContext,
        dry_run: bool,
    ) -> Result<(), KeyError> {
        let mut state = self.state();
        state.reached(way)?;
        let key = way.arn;
        let request = state.calls.len();
        state.calls.push(KeyCall { operation, key: key.clone(), context: context.clone(), dry_run });
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
        let refused = known.refused_purpose.as_ref();
        if refused.is_some() && context.get(CONTEXT_PURPOSE) == refused {
            return Err(refusal(Observation::Refused(RefusalKind::AccessDenied), request));
        }
        Ok(())
    }
}

impl State {
    /// The way to a key: nothing to do by key policy; else an AssumeRole, unless a kept session will do.
    fn reached(&mut self, way: KeyRef<'_>) -> Result<(), KeyError> {
        let KeyAccess::Role(role) = way.access else {
            return Ok(());
        };
        let kept = self.roles.get(&role.arn).is_some_and(|role| role.kept);
        if kept && way.session == RoleSession::Kept {
            return Ok(());
        }
        self.assume(&role.arn, Some(&role.external_id))?;
        if let Some(role) = self.roles.get_mut(&role.arn) {
            role.kept |= way.session == RoleSession::Kept;
        }
        Ok(())
    }

    fn assume(&mut self, role: &RoleArn, external_id: Option<&ExternalId>) -> Result<(), KeyError> {
        let denied = Observation::Refused(RefusalKind::RoleDenied);
        let answer = match self.roles.get(role) {
            None => denied,
            Some(role) if role.answer != Observation::Usable => role.answer,
            Some(FakeRole { external_id: Some(wanted), .. }) if external_id != Some(wanted) => denied,
            Some(_) => Observation::Usable,
        };
        let let_in = answer == Observation::Usable;
        let with_external_id = external_id.is_some();
        self.assumed.push(Assumed { role: role.clone(), with_external_id, let_in });
        if let_in { Ok(()) } else { Err(refusal(answer, self.calls.len())) }
    }
}

fn refusal(observation: Observation, request: usize) -> KeyError {
    let code = match observation {
        Observation::Usable => "none",
        Observation::Refused(RefusalKind::KeyDisabled) => "DisabledException",
        Observation::Refused(RefusalKind::AccessDenied) => "AccessDeniedException",
        Observation::Refused(RefusalKind::RoleDenied) => "AccessDenied",
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

fn opened(
    key: &KeyArn,
    ciphertext: &[u8],
    context: &EncryptionContext,
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
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

#[async_trait]
impl CustomerKeys for FakeKeys {
    async fn decrypt(
        &self,
        key: KeyRef<'_>,
        ciphertext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let silent = self.state().silent.get(key.region()).copied();
        if let Some(limit) = silent {
            tokio::time::sleep(limit).await;
            let observation = Observation::NoAnswer(NoAnswerKind::Unreachable);
            return Err(KeyError { observation, code: "timeout".to_owned(), request_id: None });
        }
        self.called("Decrypt", key, context)?;
        opened(key.arn, ciphertext, context)
    }

    async fn encrypt(
        &self,
        key: KeyRef<'_>,
        plaintext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Vec<u8>, KeyError> {
        self.called("Encrypt", key, context)?;
        Ok(seal(key.arn, plaintext, context))
    }

    async fn re_encrypt(
        &self,
        from: KeyRef<'_>,
        to: KeyRef<'_>,
        ciphertext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Vec<u8>, KeyError> {
        for key in [from, to] {
            self.called("ReEncrypt", key, context)?;
        }
        // The call goes to one region, which knows nothing of the other's keys.
        if from.region() != to.region() {
            return Err(refusal(Observation::Refused(RefusalKind::KeyNotFound), 0));
        }
        if self.state().not_granted.contains("ReEncrypt") {
            return Err(refusal(Observation::Refused(RefusalKind::AccessDenied), 0));
        }
        Ok(seal(to.arn, &opened(from.arn, ciphertext, context)?, context))
    }

    async fn generate_data_key(
        &self,
        key: KeyRef<'_>,
        context: &EncryptionContext,
    ) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), KeyError> {
        self.called("GenerateDataKey", key, context)?;
        let mut plaintext = Zeroizing::new(vec![0x5a_u8; 24]);
        let mut state = self.state();
        state.made += 1;
        plaintext.extend_from_slice(&state.made.to_be_bytes());
        let wrapped = seal(key.arn, &plaintext, context);
        Ok((plaintext, wrapped))
    }

    async fn dry_run(
        &self,
        key: KeyRef<'_>,
        trial: Trial<'_>,
        context: &EncryptionContext,
    ) -> Result<(), KeyError> {
        let operation = match trial {
            Trial::Encrypt => "Encrypt",
            Trial::GenerateDataKey => "GenerateDataKey",
            Trial::GenerateDataKeyPair => "GenerateDataKeyPair",
            Trial::GenerateDataKeyPairWithoutPlaintext => "GenerateDataKeyPairWithoutPlaintext",
            Trial::GenerateDataKeyWithoutPlaintext => "GenerateDataKeyWithoutPlaintext",
            Trial::ReEncrypt(_) => "ReEncrypt",
            Trial::Decrypt(_) => "Decrypt",
        };
        self.used(operation, key, context, true)?;
        if self.state().not_granted.contains(operation) {
            return Err(refusal(Observation::Refused(RefusalKind::AccessDenied), 0));
        }
        Ok(())
    }

    async fn rotates(&self, key: KeyRef<'_>) -> Result<bool, KeyError> {
        let mut state = self.state();
        state.reached(key)?;
        if state.not_granted.contains("GetKeyRotationStatus") {
            return Err(refusal(Observation::Refused(RefusalKind::AccessDenied), 0));
        }
        Ok(!state.not_rotating.contains(key.arn))
    }

    async fn key_policy(&self, key: KeyRef<'_>) -> Result<serde_json::Value, KeyError> {
        let mut state = self.state();
        state.reached(key)?;
        Ok(state.policies.get(key.arn).cloned().unwrap_or_default())
    }

    async fn describe(&self, key: KeyRef<'_>) -> Result<KeyDescription, KeyError> {
        let mut state = self.state();
        state.reached(key)?;
        let key = key.arn;
        let request = state.calls.len();
        let call = KeyCall {
            operation: "DescribeKey",
            key: key.clone(),
            context: EncryptionContext::new(),
            dry_run: false,
        };
        state.calls.push(call);
        match state.keys.get(key).map(|key| key.description.clone()) {
            Some(Ok(description)) => Ok(description),
            Some(Err(observation)) => Err(refusal(observation, request)),
            None => Err(refusal(Observation::Refused(RefusalKind::KeyNotFound), request)),
        }
    }
}

#[async_trait]
impl CustomerRoles for FakeKeys {
    async fn assume(
        &self,
        role: &RoleArn,
        asking: Asking<'_>,
        _organisation: OrganisationId,
        _region: &Region,
    ) -> Result<(), KeyError> {
        self.state().assume(
            role,
            match asking {
                Asking::With(id) => Some(id),
                Asking::WithoutExternalId => None,
            },
        )
    }

    async fn find_key(
        &self,
        role: &CustomerRole,
        region: &Region,
        _organisation: OrganisationId,
        label: KeyLabel,
    ) -> Result<Option<KeyArn>, KeyError> {
        let mut state = self.state();
        state.assume(&role.arn, Some(&role.external_id))?;
        Ok(state.made_keys.get(&(role.arn.clone(), region.clone(), label)).cloned())
    }

    async fn make_key(
        &self,
        role: &CustomerRole,
        region: &Region,
        wanted: &NewKey,
    ) -> Result<KeyArn, KeyError> {
        if let Some(known) = self.find_key(role, region, wanted.organisation, wanted.label).await? {
            return Ok(known);
        }
        let answer = self.state().refuse_making.get(region).copied().unwrap_or(Observation::Usable);
        if answer != Observation::Usable {
            return Err(refusal(answer, 0));
        }
        let account = role.arn.account();
        let number = 0xb0_0000 + wanted.label.generation + 0x100 * wanted.label.lost_before;
        let text = format!("arn:aws:kms:{region}:{account}:key/0000000a-0000-4000-8000-{number:012x}");
        let arn: KeyArn = text.parse().expect("a key ARN");
        self.create(&arn);
        self.bind(&arn, wanted.organisation);
        self.put_policy(&arn, wanted.policy.clone());
        let place = (role.arn.clone(), region.clone(), wanted.label);
        self.state().made_keys.insert(place, arn.clone());
        Ok(arn)
    }
}

#[async_trait]
impl ControlProbes for FakeKeys {
    async fn control_is_healthy(&self, region: &Region, _mode: Mode, _template: &str) -> bool {
        let mut state = self.state();
        state.control_calls += 1;
        !state.ill_controls.contains(region)
    }
}
