//! Loads a policy, has the domain decide, commits; anew when somebody else was first.

use std::collections::BTreeSet;

use claviger_domain::decide::{Refusal, decide};
use claviger_domain::event::{Actor, Origin, PolicyEvent};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::{OrganisationName, Subject};

use crate::ports::{Clock, Policies, StoreError};
use crate::request_error::{ATTEMPTS, RequestError};
use crate::settings::Settings;

/// What a decision needs from the outside.
#[derive(Clone, Copy)]
pub(crate) struct Settle<'a> {
    pub(crate) policies: &'a dyn Policies,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) settings: &'a Settings,
}

impl Settle<'_> {
    pub(crate) async fn load(
        &self,
        organisation: &OrganisationName,
    ) -> Result<EncryptionPolicy, RequestError> {
        let policy = self.policies.policy(organisation).await?;
        policy.ok_or(RequestError::NotFound { what: "the encryption policy" })
    }

    /// What the event would do now; nothing is stored.
    pub(crate) fn tried(
        &self,
        policy: &EncryptionPolicy,
        event: &PolicyEvent,
        origin: &Origin,
    ) -> Result<(), Refusal> {
        decide(&self.settings.rules(), policy, event, origin, self.clock.now()).map(drop)
    }

    /// The policy without what people proposed who are no org admins any more.
    ///
    /// INVARIANT (E3): what takes two org admins takes two who are it at the moment at which the second agrees.
    pub(crate) async fn without_former_admins(
        &self,
        organisation: &OrganisationName,
        admins: &BTreeSet<Subject>,
        origin: &Origin,
    ) -> Result<EncryptionPolicy, RequestError> {
        let actor = Actor::Claviger("api".to_owned());
        let origin = Origin { actor, correlation: origin.correlation };
        let mut policy = self.load(organisation).await?;
        loop {
            let gone = policy.proposers().find(|by| !admins.contains(*by)).cloned();
            let Some(by) = gone else { return Ok(policy) };
            policy = self.run(organisation, &PolicyEvent::ProposerLeft { by }, &origin).await?;
        }
    }

    /// The policy as it is after the event. One that has happened already changes nothing and is no error.
    pub(crate) async fn run(
        &self,
        organisation: &OrganisationName,
        event: &PolicyEvent,
        origin: &Origin,
    ) -> Result<EncryptionPolicy, RequestError> {
        for _ in 0..ATTEMPTS {
            let policy = self.load(organisation).await?;
            let decision = match decide(&self.settings.rules(), &policy, event, origin, self.clock.now()) {
                Ok(decision) => decision,
                Err(Refusal::Redundant) => return Ok(policy),
                Err(refusal) => return Err(refusal.into()),
            };
            match self.policies.commit_policy(Some(&policy), &decision).await {
                Ok(()) => return Ok(decision.next),
                Err(StoreError::Conflict) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }
}
