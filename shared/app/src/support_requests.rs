//! What support decides: enrolments and app instances that wait (spec E3, E10).

use claviger_domain::decide::{Refusal, decide};
use claviger_domain::event::{InstanceEvent, Origin, PolicyEvent};
use claviger_domain::ids::{InstanceId, PolicyId};
use claviger_domain::instance::{AppInstance, InstanceStatus, decide_instance};
use claviger_domain::organisation::Organisation;
use claviger_domain::policy::{EncryptionPolicy, Lifecycle};
use claviger_domain::values::{OrganisationName, Subject};
use uuid::Uuid;

use crate::enrol::eligible;
use crate::ports::{
    Clock, Instances, Organisations, Page, Policies, StoreError, SupportRequest, SupportRequestKind,
    SupportRequests,
};
use crate::request_error::{ATTEMPTS, RequestError};
use crate::request_instance::allowed;
use crate::settings::Settings;

/// What support says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on.
    Approved,
    /// It may not.
    Rejected {
        /// Why, as the org admin will read it.
        reason: String,
    },
}

/// What was decided on, as it is from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    /// An enrolment.
    Policy(Box<EncryptionPolicy>),
    /// The closing of a policy.
    Closing(Box<EncryptionPolicy>),
    /// An app instance.
    Instance(Box<AppInstance>),
}

/// Support's list.
pub struct DecideRequests<'a> {
    /// What waits.
    pub requests: &'a dyn SupportRequests,
    /// Where organisations are.
    pub organisations: &'a dyn Organisations,
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl DecideRequests<'_> {
    /// One page of what waits.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self, cursor: Option<&str>, limit: u16) -> Result<Page<SupportRequest>, RequestError> {
        Ok(self.requests.support_requests(cursor, limit).await?)
    }

    /// Approves or rejects a policy or an instance by its id. Said twice, it is done once.
    ///
    /// What was checked at the request is checked again before it is approved: business days lie between the two.
    /// Nothing stands in the way of a rejection, and nothing but who asked for it in the way of an organisation that
    /// leaves.
    ///
    /// # Errors
    /// When nothing has this id, it does not wait any more, or what is to be approved is not allowed any more.
    pub async fn decide(
        &self,
        id: Uuid,
        verdict: &Verdict,
        origin: &Origin,
    ) -> Result<Decided, RequestError> {
        for _ in 0..ATTEMPTS {
            let result = match self.requests.support_request(id).await? {
                Some(SupportRequest {
                    kind: SupportRequestKind::Enrolment | SupportRequestKind::Closing,
                    organisation,
                    ..
                }) => {
                    let policy = self.policies.policy(&organisation).await?;
                    self.on_policy(policy.filter(|policy| policy.id.as_uuid() == id), verdict, origin).await
                }
                Some(SupportRequest { kind: SupportRequestKind::AppInstance, .. }) => {
                    let instance = self.instances.instance(InstanceId::from_uuid(id)).await?;
                    self.on_instance(instance, verdict, origin).await
                }
                // It does not wait any more: say why, or that it was done.
                None => match self.policies.policy_by_id(PolicyId::from_uuid(id)).await? {
                    Some(policy) => self.on_policy(Some(policy), verdict, origin).await,
                    None => {
                        let instance = self.instances.instance(InstanceId::from_uuid(id)).await?;
                        self.on_instance(instance, verdict, origin).await
                    }
                },
            };
            match result {
                Err(RequestError::Store(StoreError::Conflict)) => {}
                other => return other,
            }
        }
        Err(StoreError::Conflict.into())
    }

    async fn on_policy(
        &self,
        policy: Option<EncryptionPolicy>,
        verdict: &Verdict,
        origin: &Origin,
    ) -> Result<Decided, RequestError> {
        let policy = policy.ok_or(RequestError::NotFound { what: "the request" })?;
        // A policy that asks to be closed was enrolled long ago.
        let closing = policy.closing.is_some();
        let event = match (closing, verdict) {
            (false, Verdict::Approved) => PolicyEvent::EnrolmentApproved,
            (false, Verdict::Rejected { reason }) => {
                PolicyEvent::EnrolmentRejected { reason: reason.clone() }
            }
            (true, Verdict::Approved) => PolicyEvent::ClosingApproved,
            (true, Verdict::Rejected { reason }) => PolicyEvent::ClosingRejected { reason: reason.clone() },
        };
        let decided = |policy| if closing { Decided::Closing(policy) } else { Decided::Policy(policy) };
        match decide(&self.settings.rules(), &policy, &event, origin, self.clock.now()) {
            Ok(decision) => {
                match event {
                    PolicyEvent::EnrolmentApproved => self.may_still_enrol(&policy).await?,
                    PolicyEvent::ClosingApproved => self.may_still_leave(&policy).await?,
                    _ => {}
                }
                self.policies.commit_policy(Some(&policy), &decision).await?;
                Ok(decided(Box::new(decision.next)))
            }
            Err(Refusal::Redundant) => Ok(decided(Box::new(policy))),
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn on_instance(
        &self,
        instance: Option<AppInstance>,
        verdict: &Verdict,
        origin: &Origin,
    ) -> Result<Decided, RequestError> {
        let instance = instance.ok_or(RequestError::NotFound { what: "the request" })?;
        let event = match verdict {
            Verdict::Approved => InstanceEvent::InstanceApproved,
            Verdict::Rejected { reason } => InstanceEvent::InstanceRejected { reason: reason.clone() },
        };
        match decide_instance(&instance, &event, origin, self.clock.now()) {
            Ok(decision) => {
                if *verdict == Verdict::Approved {
                    self.may_still_be_made(&instance).await?;
                }
                self.instances.commit_instance(Some(&instance), &decision).await?;
                Ok(Decided::Instance(Box::new(decision.next)))
            }
            Err(Refusal::Redundant) => Ok(Decided::Instance(Box::new(instance))),
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn may_still_enrol(&self, policy: &EncryptionPolicy) -> Result<(), RequestError> {
        let Lifecycle::Requested { by, .. } = &policy.lifecycle else { return Ok(()) };
        let organisation = self.organisation(&policy.organisation_name).await?;
        is_still_admin(&organisation, by)
            .and_then(|()| eligible(&organisation, self.settings))
            .map_err(not_approved)
    }

    /// Whatever the organisation has become, it may leave; but its data is erased at the word of an org admin alone.
    async fn may_still_leave(&self, policy: &EncryptionPolicy) -> Result<(), RequestError> {
        let Some(closing) = &policy.closing else { return Ok(()) };
        let organisation = self.organisation(&policy.organisation_name).await?;
        is_still_admin(&organisation, &closing.by).map_err(not_approved)
    }

    /// The place on the site is not asked about again: the request has held it since.
    async fn may_still_be_made(&self, instance: &AppInstance) -> Result<(), RequestError> {
        let InstanceStatus::Requested { by, .. } = &instance.status else { return Ok(()) };
        let organisation = self.organisation(&instance.organisation_name).await?;
        let policy = self.policies.policy(&instance.organisation_name).await?;
        let now = self.clock.now();
        is_still_admin(&organisation, by)
            .and_then(|()| allowed(&organisation, &instance.app, policy, self.settings, now).map(drop))
            .map_err(not_approved)
    }

    async fn organisation(&self, name: &OrganisationName) -> Result<Organisation, RequestError> {
        let organisation = self.organisations.organisation(name).await?;
        organisation.ok_or(RequestError::NotFound { what: "the organisation" })
    }
}

/// INVARIANT (E3): nothing is approved in the name of somebody who is no org admin at this moment.
fn is_still_admin(organisation: &Organisation, by: &Subject) -> Result<(), RequestError> {
    if organisation.admins.contains(by) {
        return Ok(());
    }
    Err(RequestError::NotNow {
        reason: "who asked for it is no org admin any more".to_owned(),
        help: "another org admin asks anew once it is rejected".to_owned(),
    })
}

fn not_approved(why: RequestError) -> RequestError {
    RequestError::NotApproved { why: Box::new(why) }
}
