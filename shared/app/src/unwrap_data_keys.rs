//! Unwraps every data key of an organisation in one region, as many at a time as there is time for: the proof that
//! nothing is lost when another region's key is gone for good (spec S2).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use claviger_domain::instance::AppInstance;
use claviger_domain::observation::{NoAnswerKind, Observation, RefusalKind};
use claviger_domain::policy::{EncryptionPolicy, PURPOSE_DATA_KEY};
use claviger_domain::values::{OrganisationName, Region};
use futures_util::future::join_all;
use jiff::SignedDuration;

use crate::error::WorkError;
use crate::messages::ProbeAnswer;
use crate::ports::{DataKeyRegistry, Instances, KeyRef, Policies};
use crate::probe_keys::ProbeKeys;

/// How many instances one request handles at most.
const MOST: u16 = 48;
/// How many of them at once; a request that is answered has handled as many.
const AT_ONCE: u16 = 8;
/// After so long no more are begun: who asks gives up after 25 seconds, and would ask for the very same again.
const LONGEST: SignedDuration = SignedDuration::from_secs(10);

/// Unwraps data keys.
pub struct UnwrapDataKeys<'a> {
    /// How to unwrap.
    pub probe: ProbeKeys<'a>,
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// Where wrapped data keys are.
    pub registry: &'a dyn DataKeyRegistry,
}

impl UnwrapDataKeys<'_> {
    /// As many instances as there is time for, from the cursor on: how many data keys were unwrapped, the first that was
    /// not, and where to go on. What one request handles ends with a fault.
    ///
    /// # Errors
    /// When the organisation has no policy, or the store fails.
    pub async fn run(
        &self,
        organisation: &OrganisationName,
        region: &Region,
        cursor: Option<&str>,
    ) -> Result<ProbeAnswer, WorkError> {
        let policy = self.policies.policy(organisation).await?;
        let policy = policy.ok_or(WorkError::NotThere { what: "the encryption policy" })?;
        let began_at = self.probe.clock.now();
        let (mut data_keys, mut next) = (0_u64, cursor.map(str::to_owned));
        for _ in 0..MOST.div_ceil(AT_ONCE) {
            let page = self.instances.instances(organisation, next.as_deref(), AT_ONCE).await?;
            let unwrapped = page.items.iter().map(|instance| self.of_instance(&policy, instance, region));
            let mut fault = None;
            for one in join_all(unwrapped).await {
                let (count, failed) = one?;
                data_keys = data_keys.saturating_add(count);
                fault = fault.or(failed);
            }
            next = page.next;
            let late = self.probe.clock.now().duration_since(began_at) >= LONGEST;
            if fault.is_some() || next.is_none() || late {
                return Ok(ProbeAnswer::Unwrapped { data_keys, next, fault });
            }
        }
        Ok(ProbeAnswer::Unwrapped { data_keys, next, fault: None })
    }

    async fn of_instance(
        &self,
        policy: &EncryptionPolicy,
        instance: &AppInstance,
        region: &Region,
    ) -> Result<(u64, Option<Observation>), WorkError> {
        let context = policy.encryption_context(PURPOSE_DATA_KEY, &instance.id.to_string());
        let mut unwrapped = 0_u64;
        for key in self.registry.data_keys(instance.id).await? {
            // INVARIANT (I5, S2): a data key without a wrap in this region is one that would be lost.
            let wrap = policy.keys.get(region).and_then(|known| key.wrap_under(&known.arn));
            // One that a job made beforehand for keys to come is nobody's yet.
            if wrap.is_none() && key.generation > policy.generation {
                continue;
            }
            let Some(wrap) = wrap else {
                return Ok((unwrapped, Some(Observation::Refused(RefusalKind::KeyNotFound))));
            };
            let Ok(sealed) = BASE64_STANDARD.decode(&wrap.ciphertext) else {
                return Ok((unwrapped, Some(Observation::NoAnswer(NoAnswerKind::OurFault))));
            };
            match self.probe.unwrap(KeyRef::of(policy, &wrap.key), &sealed, &context).await {
                Observation::Usable => unwrapped = unwrapped.saturating_add(1),
                saw @ (Observation::Refused(_) | Observation::NoAnswer(_)) => {
                    return Ok((unwrapped, Some(saw)));
                }
            }
        }
        Ok((unwrapped, None))
    }
}
