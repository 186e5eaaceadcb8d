//! Support suspends an organisation for the vendor, lifts what support ordered, and says that a suspension
//! by the keys is a mistake (spec K1, S7).

use std::collections::BTreeMap;

use claviger_domain::decide::Refusal;
use claviger_domain::event::{Origin, PolicyEvent};
use claviger_domain::fence::Cause;
use claviger_domain::observation::ProbeRound;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::OrganisationName;
use claviger_domain::vendor::Ground;

use crate::messages::{ProbeAnswer, ProbeRequest};
use crate::ports::{CallError, Clock, Policies, Prober};
use crate::request_error::RequestError;
use crate::settings::Settings;
use crate::settle::Settle;

/// What support may do to an organisation's access.
pub struct SuspendByVendor<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Who probes.
    pub prober: &'a dyn Prober,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl SuspendByVendor<'_> {
    /// Closes the fence with the vendor's cause. Said twice, it is done once.
    ///
    /// # Errors
    /// When there is no policy in use, or it is suspended by the vendor on another ground.
    pub async fn suspend(
        &self,
        organisation: &OrganisationName,
        ground: Ground,
        reason: &str,
        origin: &Origin,
    ) -> Result<EncryptionPolicy, RequestError> {
        let event = PolicyEvent::VendorSuspended { ground, reason: reason.to_owned() };
        let policy = self.settle().run(organisation, &event, origin).await?;
        if policy.vendor.as_ref().is_some_and(|suspension| suspension.ground == ground) {
            return Ok(policy);
        }
        Err(Refusal::Redundant.into())
    }

    /// Lifts one cause by its own rule: the vendor's at once, if support ordered it; the keys' as a mistake,
    /// when a second agent says so too.
    ///
    /// # Errors
    /// When nothing is suspended for this cause, somebody else has to lift it, or keys refuse.
    pub async fn lift(
        &self,
        organisation: &OrganisationName,
        cause: Cause,
        reason: &str,
        origin: &Origin,
    ) -> Result<EncryptionPolicy, RequestError> {
        match cause {
            Cause::Vendor => {
                self.settle().run(organisation, &PolicyEvent::VendorSuspensionLifted, origin).await
            }
            Cause::Key => self.call_it_a_mistake(organisation, reason, origin).await,
            Cause::Closing => Err(RequestError::NotNow {
                reason: "an organisation that is leaving is not kept".to_owned(),
                help: "it has its own calls".to_owned(),
            }),
        }
    }

    async fn call_it_a_mistake(
        &self,
        organisation: &OrganisationName,
        reason: &str,
        origin: &Origin,
    ) -> Result<EncryptionPolicy, RequestError> {
        let settle = self.settle();
        let mistake = |rounds| PolicyEvent::MistakeDeclared { reason: reason.to_owned(), rounds };
        // Decided without the keys first: what is refused whatever they say costs no KMS call.
        let now = self.clock.now();
        let unseen = ProbeRound {
            started_at: now,
            observations: BTreeMap::new(),
            controls_healthy: None,
            refused_unwrap: None,
        };
        let policy = settle.load(organisation).await?;
        match settle.tried(&policy, &mistake(vec![unseen.clone(), unseen]), origin) {
            Ok(()) | Err(Refusal::KeysNotUsable { .. } | Refusal::Stale) => {}
            Err(refusal) => return Err(refusal.into()),
        }
        let request = ProbeRequest::ProbeNow { organisation: organisation.clone(), rounds: 2 };
        let ProbeAnswer::Probed { rounds } = self.prober.probe(&request).await? else {
            let reason = "it answered something else than asked for".to_owned();
            return Err(CallError { what: "the prober", reason }.into());
        };
        settle.run(organisation, &mistake(rounds), origin).await
    }

    fn settle(&self) -> Settle<'_> {
        Settle { policies: self.policies, clock: self.clock, settings: self.settings }
    }
}
