//! One probe of every regional key of a policy: the one place where a [`ProbeRound`] comes from.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use claviger_domain::observation::{NoAnswerKind, Observation, ProbeRound, RefusedUnwrap};
use claviger_domain::policy::{EncryptionPolicy, PURPOSE_CANARY, PURPOSE_DATA_KEY, RegionalKey};
use claviger_domain::values::Region;
use futures_util::future::{join, join_all};

use crate::explain_refusal::{explained, reached_kms, to_explain};
use crate::make_data_key::PURPOSE_RECORDS;
use crate::messages::EncryptionContext;
use crate::ports::{
    Clock, ControlProbes, CustomerKeys, DataKeyChoice, DataKeyRegistry, KeyError, KeyRef, Trial,
    WrappedDataKey,
};

/// Probes keys by really decrypting a ciphertext that was made under them, through a session of its own: one that is
/// kept would not notice that a customer's role no longer trusts us.
#[derive(Clone, Copy)]
pub struct ProbeKeys<'a> {
    /// The customers' keys.
    pub keys: &'a dyn CustomerKeys,
    /// The vendor's canary customers.
    pub controls: &'a dyn ControlProbes,
    /// Where the wraps of a data key are that has to be tried too.
    pub registry: &'a dyn DataKeyRegistry,
    /// The time.
    pub clock: &'a dyn Clock,
}

/// A round, and what it took.
#[derive(Debug)]
pub struct Probed {
    /// What was seen.
    pub round: ProbeRound,
    /// KMS calls on the customer's keys. Those on the vendor's canaries are not its.
    pub kms_calls: u32,
}

impl ProbeKeys<'_> {
    /// Probes every region of a policy at once, and the control probes if anything ambiguous is seen.
    pub async fn round(&self, policy: &EncryptionPolicy) -> ProbeRound {
        self.round_with(policy, None).await
    }

    /// As [`Self::round`], and repeats beside the canaries the unwrap that a broker saw refused, or the one that
    /// the policy still knows of.
    pub async fn round_with(&self, policy: &EncryptionPolicy, met: Option<RefusedUnwrap>) -> ProbeRound {
        self.round_and_cost(policy, met).await.round
    }

    /// As [`Self::round_with`], and says what it took.
    pub async fn round_and_cost(&self, policy: &EncryptionPolicy, met: Option<RefusedUnwrap>) -> Probed {
        let started_at = self.clock.now();
        let repeated = policy.refused_unwrap.or(met);
        let data_key = match repeated {
            None => Repeated::Nothing,
            Some(which) => self.wraps_of(which).await,
        };
        let context = policy.encryption_context(PURPOSE_CANARY, &policy.id.to_string());
        let probes = policy.keys.iter().map(|(region, key)| {
            let (context, data_key) = (&context, &data_key);
            async move {
                let repeat = self.repeat(policy, region, data_key);
                let (canary, repeated) = join(self.canary(policy, key, context), repeat).await;
                (region.clone(), canary, repeated)
            }
        });
        let tried = join_all(probes).await;
        let each = tried.iter().flat_map(|(_, canary, repeated)| std::iter::once(canary).chain(repeated));
        let kms_calls = each.map(|tried| tried.kms_calls).sum();
        let seen: Vec<(Region, Observation, Option<Observation>)> = tried
            .into_iter()
            .map(|(region, canary, repeated)| (region, canary.saw, repeated.map(|tried| tried.saw)))
            .collect();
        let refused_unwrap = repeated.filter(|_| still_refused(&seen, policy.refused_unwrap.is_some()));
        let said = |canary, repeated| match data_key {
            Repeated::Unread => without_data_key(canary),
            Repeated::Nothing | Repeated::Key(_) => worse(canary, repeated),
        };
        let observations: std::collections::BTreeMap<Region, Observation> =
            seen.into_iter().map(|(region, canary, repeated)| (region, said(canary, repeated))).collect();
        let ambiguous: Vec<&Region> = observations
            .iter()
            .filter(|(_, saw)| matches!(saw, Observation::Refused(kind) if !kind.is_definite()))
            .map(|(region, _)| region)
            .collect();
        let controls_healthy = if ambiguous.is_empty() {
            None
        } else {
            let (mode, template) = (policy.access.mode(), policy.template_version());
            let control = |region| self.controls.control_is_healthy(region, mode, template);
            let controls = ambiguous.iter().copied().map(control);
            Some(join_all(controls).await.into_iter().all(|healthy| healthy))
        };
        let round = ProbeRound { started_at, observations, controls_healthy, refused_unwrap };
        Probed { round, kms_calls }
    }

    async fn wraps_of(&self, which: RefusedUnwrap) -> Repeated {
        let choice = DataKeyChoice::Id(which.data_key);
        match self.registry.data_key(which.instance, PURPOSE_RECORDS, choice).await {
            Ok(Some(wrapped)) => Repeated::Key(wrapped),
            // A data key that is no more cannot be refused.
            Ok(None) => Repeated::Nothing,
            Err(error) => {
                tracing::warn!(%error, "a refused unwrap could not be repeated");
                Repeated::Unread
            }
        }
    }

    /// Repeats the unwrap in one region; none where there is nothing to unwrap.
    ///
    /// INVARIANT (I1): behind a closed fence no data key comes into the clear, not even here: the unwrap is tried
    /// as a dry run. It proves the permission; that the key is usable is what the canary proves.
    async fn repeat(&self, policy: &EncryptionPolicy, region: &Region, data_key: &Repeated) -> Option<Tried> {
        let wrapped = match data_key {
            Repeated::Nothing => return None,
            Repeated::Unread => return Some(Tried::nothing(NoAnswerKind::OurFault)),
            Repeated::Key(wrapped) => wrapped,
        };
        let wrap = wrapped.wrap_under(&policy.keys.get(region)?.arn)?;
        let sealed = BASE64_STANDARD.decode(&wrap.ciphertext).ok()?;
        let context = policy.encryption_context(PURPOSE_DATA_KEY, &wrapped.instance.to_string());
        let key = KeyRef::of(policy, &wrap.key);
        if policy.fence.is_open() {
            return Some(self.try_unwrap(key, &sealed, &context).await);
        }
        let tried = self.keys.dry_run(key.fresh(), Trial::Decrypt(&sealed), &context).await;
        Some(self.seen(key.fresh(), tried).await)
    }

    async fn canary(
        &self,
        policy: &EncryptionPolicy,
        key: &RegionalKey,
        context: &EncryptionContext,
    ) -> Tried {
        let Some(Ok(canary)) = key.canary.as_ref().map(|text| BASE64_STANDARD.decode(text)) else {
            return Tried::nothing(NoAnswerKind::OurFault);
        };
        self.try_unwrap(KeyRef::of(policy, &key.arn), &canary, context).await
    }

    /// Decrypts one ciphertext and says what that tells about the key. DescribeKey breaks ties.
    pub async fn unwrap(
        &self,
        key: KeyRef<'_>,
        ciphertext: &[u8],
        context: &EncryptionContext,
    ) -> Observation {
        self.try_unwrap(key, ciphertext, context).await.saw
    }

    async fn try_unwrap(&self, key: KeyRef<'_>, ciphertext: &[u8], context: &EncryptionContext) -> Tried {
        let key = key.fresh();
        let decrypted = self.keys.decrypt(key, ciphertext, context).await;
        self.seen(key, decrypted.map(|_| ())).await
    }

    async fn seen(&self, key: KeyRef<'_>, answer: Result<(), KeyError>) -> Tried {
        let Err(error) = answer else { return Tried { saw: Observation::Usable, kms_calls: 1 } };
        tracing::debug!(key.region = %key.region(), code = %error.code, "a probe was not answered with success");
        let explain = to_explain(error.observation).is_some();
        let kms_calls = u32::from(reached_kms(error.observation)).saturating_add(u32::from(explain));
        Tried { saw: explained(self.keys, key, &error).await, kms_calls }
    }
}

/// What one key answered to one ciphertext, and how often KMS was called for it.
struct Tried {
    saw: Observation,
    kms_calls: u32,
}

impl Tried {
    /// There was nothing that KMS could have been asked.
    const fn nothing(why: NoAnswerKind) -> Self {
        Self { saw: Observation::NoAnswer(why), kms_calls: 0 }
    }
}

/// The data key that is unwrapped beside the canaries.
enum Repeated {
    /// There is none.
    Nothing,
    /// The registry did not say.
    Unread,
    /// This one.
    Key(WrappedDataKey),
}

/// Whether the data key has to be tried again next time: it was refused where the canary was not, or it was known
/// to be and not every region unwraps it yet.
fn still_refused(seen: &[(Region, Observation, Option<Observation>)], known: bool) -> bool {
    seen.iter().any(|(_, canary, repeated)| match repeated {
        None | Some(Observation::Usable) => false,
        Some(Observation::Refused(_)) => known || *canary == Observation::Usable,
        Some(Observation::NoAnswer(_)) => known,
    })
}

/// What a region's key says where a data key that it refused could not be read to be tried again.
///
/// INVARIANT (R4, I5): the canary alone proves nothing then; it neither starts the clock of a refusal anew nor opens a
/// fence. What it says against the key counts.
const fn without_data_key(canary: Observation) -> Observation {
    match canary {
        Observation::Usable => Observation::NoAnswer(NoAnswerKind::OurFault),
        Observation::Refused(_) | Observation::NoAnswer(_) => canary,
    }
}

/// What a region's key says, by its canary and by the repeated unwrap together. A refusal of either counts, a
/// definite one first; no answer to the unwrap says nothing about the canary's, unless the way to KMS is at fault.
const fn worse(canary: Observation, repeated: Option<Observation>) -> Observation {
    match (canary, repeated) {
        (canary, None | Some(Observation::Usable)) => canary,
        (Observation::Refused(kind), Some(_)) if kind.is_definite() => canary,
        (_, Some(refused @ Observation::Refused(_))) => refused,
        (Observation::Usable, Some(Observation::NoAnswer(NoAnswerKind::OurFault))) => canary,
        (Observation::Usable, Some(silent @ Observation::NoAnswer(_))) => silent,
        (Observation::Refused(_) | Observation::NoAnswer(_), Some(Observation::NoAnswer(_))) => canary,
    }
}
