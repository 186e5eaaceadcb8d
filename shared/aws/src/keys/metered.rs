//! Counts the KMS calls on customers' keys, whatever makes them (spec K3).
//!
//! Two halves. [`MeteredKeys`] stands before the ports and says on whose behalf the calls of a method are made; a method
//! that a port gets anew does not compile until it says so too. [`CountCalls`] sits in every client, sees each request
//! that leaves and each answer that comes, and counts them by what they say of themselves. So a call that an operation
//! makes on the way (a look for the tags of a key) is counted, and one that never left is not.
//!
//! Control probes are of the vendor's own keys, on nobody's behalf: they are not counted.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_kms::config::http::{HttpRequest, HttpResponse};
use aws_sdk_kms::config::interceptors::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_sdk_kms::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use claviger_app::messages::EncryptionContext;
use claviger_app::ports::{
    Asking, Clock, ControlProbes, CustomerKeys, CustomerRoles, KeyDescription, KeyError, KeyRef, NewKey,
    Trial,
};
use claviger_app::usage::{KeyUse, Payer, Tally, UsageMeter};
use claviger_domain::catalogue::Mode;
use claviger_domain::ids::OrganisationId;
use claviger_domain::key_access::{CustomerRole, KeyAccess, RoleArn};
use claviger_domain::key_policy::KeyLabel;
use claviger_domain::policy::CONTEXT_PURPOSE;
use claviger_domain::values::{KeyArn, Region};
use jiff::Timestamp;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::KmsKeys;

/// On whose behalf calls are made.
#[derive(Debug, Clone)]
struct Behalf {
    organisation: OrganisationId,
    region: Region,
    /// The key that the caller named; where a request names another, that one counts.
    key: Option<KeyArn>,
    payer: Payer,
    /// The calls count for the day on which the first of them began.
    at: Timestamp,
}

tokio::task_local! {
    static BEHALF: Behalf;
}

/// Counts what a client sends.
pub(super) struct CountCalls(pub(super) Arc<UsageMeter>);

impl fmt::Debug for CountCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountCalls")
    }
}

/// What a request says of itself. What it encrypts is not read.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Said {
    key_id: Option<String>,
    target_key_id: Option<String>,
    destination_key_id: Option<String>,
    encryption_context: Option<EncryptionContext>,
    destination_encryption_context: Option<EncryptionContext>,
}

/// What an attempt was counted as, until its answer comes: by then the request is gone.
#[derive(Debug, Clone)]
struct Sent(KeyUse);

impl Storable for Sent {
    type Storer = StoreReplace<Self>;
}

impl CountCalls {
    fn count(&self, what: &KeyUse, tally: Tally) {
        // Whoever sent the call is still waiting for its answer: it has the same behalf.
        let _ = BEHALF.try_with(|behalf| self.0.count(behalf.organisation, behalf.at, what, tally));
    }
}

fn use_of(request: &HttpRequest, behalf: &Behalf) -> KeyUse {
    let target = request.headers().get("x-amz-target").unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    let said: Said =
        request.body().bytes().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
    let context = said.destination_encryption_context.or(said.encryption_context).unwrap_or_default();
    // An alias names the same key; a list of keys names none.
    let named = [said.destination_key_id, said.target_key_id, said.key_id].into_iter().flatten().next();
    let key = named.map(|named| named.parse().ok().or_else(|| behalf.key.clone()));
    KeyUse {
        operation,
        purpose: context.get(CONTEXT_PURPOSE).cloned(),
        region: behalf.region.clone(),
        key: key.flatten(),
        payer: behalf.payer,
    }
}

/// The code of an error; none for success. A dry run that would have succeeded is an error with a code, too.
fn code_of(response: &HttpResponse) -> Option<String> {
    #[derive(Deserialize)]
    struct Failure {
        #[serde(rename = "__type")]
        kind: String,
    }
    if response.status().is_success() {
        return None;
    }
    let of_body = || {
        let failure: Failure = serde_json::from_slice(response.body().bytes()?).ok()?;
        Some(failure.kind)
    };
    let kind = response.headers().get("x-amzn-errortype").map(str::to_owned).or_else(of_body)?;
    // Both may bear a namespace before `#` and an address after `:`.
    let kind = kind.split(':').next().unwrap_or_default();
    Some(kind.rsplit('#').next().unwrap_or_default().to_owned())
}

type Nothing = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl Intercept for CountCalls {
    fn name(&self) -> &'static str {
        "CountCalls"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Nothing {
        let Ok(what) = BEHALF.try_with(|behalf| use_of(context.request(), behalf)) else {
            tracing::trace!("a KMS call on nobody's behalf");
            return Ok(());
        };
        self.count(&what, Tally::SENT);
        bag.interceptor_state().store_put(Sent(what));
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Nothing {
        if let (Some(Sent(what)), Some(response)) = (bag.load::<Sent>(), context.response()) {
            self.count(what, Tally::answered(code_of(response).as_deref()));
        }
        Ok(())
    }
}

/// Customers' keys, with every call counted.
#[derive(Debug)]
pub struct MeteredKeys<C> {
    keys: KmsKeys,
    clock: C,
}

impl KmsKeys {
    /// The same keys, counted by this meter.
    pub fn metered<C: Clock>(mut self, meter: Arc<UsageMeter>, clock: C) -> MeteredKeys<C> {
        self.meter = Some(meter);
        MeteredKeys { keys: self, clock }
    }
}

impl<C: Clock> MeteredKeys<C> {
    async fn with<T>(&self, key: KeyRef<'_>, call: impl Future<Output = T>) -> T {
        let payer = match key.access {
            KeyAccess::KeyPolicy => Payer::Vendor,
            KeyAccess::Role(_) => Payer::Customer,
        };
        let behalf = Behalf {
            organisation: key.organisation,
            region: key.region().clone(),
            key: Some(key.arn.clone()),
            payer,
            at: self.clock.now(),
        };
        BEHALF.scope(behalf, call).await
    }

    /// Through a role of the customer's, about no key yet.
    async fn in_account<T>(
        &self,
        organisation: OrganisationId,
        region: &Region,
        call: impl Future<Output = T>,
    ) -> T {
        let (region, at) = (region.clone(), self.clock.now());
        let behalf = Behalf { organisation, region, key: None, payer: Payer::Customer, at };
        BEHALF.scope(behalf, call).await
    }
}

#[async_trait]
impl<C: Clock> CustomerKeys for MeteredKeys<C> {
    async fn decrypt(
        &self,
        key: KeyRef<'_>,
        ciphertext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.with(key, self.keys.decrypt(key, ciphertext, context)).await
    }

    async fn encrypt(
        &self,
        key: KeyRef<'_>,
        plaintext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Vec<u8>, KeyError> {
        self.with(key, self.keys.encrypt(key, plaintext, context)).await
    }

    async fn re_encrypt(
        &self,
        from: KeyRef<'_>,
        to: KeyRef<'_>,
        ciphertext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Vec<u8>, KeyError> {
        self.with(to, self.keys.re_encrypt(from, to, ciphertext, context)).await
    }

    async fn generate_data_key(
        &self,
        key: KeyRef<'_>,
        context: &EncryptionContext,
    ) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), KeyError> {
        self.with(key, self.keys.generate_data_key(key, context)).await
    }

    async fn describe(&self, key: KeyRef<'_>) -> Result<KeyDescription, KeyError> {
        self.with(key, self.keys.describe(key)).await
    }

    async fn dry_run(
        &self,
        key: KeyRef<'_>,
        trial: Trial<'_>,
        context: &EncryptionContext,
    ) -> Result<(), KeyError> {
        self.with(key, self.keys.dry_run(key, trial, context)).await
    }

    async fn rotates(&self, key: KeyRef<'_>) -> Result<bool, KeyError> {
        self.with(key, self.keys.rotates(key)).await
    }

    async fn key_policy(&self, key: KeyRef<'_>) -> Result<serde_json::Value, KeyError> {
        self.with(key, self.keys.key_policy(key)).await
    }
}

#[async_trait]
impl<C: Clock> CustomerRoles for MeteredKeys<C> {
    async fn assume(
        &self,
        role: &RoleArn,
        asking: Asking<'_>,
        organisation: OrganisationId,
        region: &Region,
    ) -> Result<(), KeyError> {
        self.keys.assume(role, asking, organisation, region).await
    }

    async fn find_key(
        &self,
        role: &CustomerRole,
        region: &Region,
        organisation: OrganisationId,
        label: KeyLabel,
    ) -> Result<Option<KeyArn>, KeyError> {
        let call = self.keys.find_key(role, region, organisation, label);
        self.in_account(organisation, region, call).await
    }

    async fn make_key(
        &self,
        role: &CustomerRole,
        region: &Region,
        wanted: &NewKey,
    ) -> Result<KeyArn, KeyError> {
        self.in_account(wanted.organisation, region, self.keys.make_key(role, region, wanted)).await
    }
}

#[async_trait]
impl<C: Clock> ControlProbes for MeteredKeys<C> {
    async fn control_is_healthy(&self, region: &Region, mode: Mode, template: &str) -> bool {
        self.keys.control_is_healthy(region, mode, template).await
    }
}
