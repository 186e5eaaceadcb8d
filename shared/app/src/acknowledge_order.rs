//! Takes note of an app's answer to an order: which one, and how much it dropped.

use claviger_domain::decide::Refusal;
use claviger_domain::event::{InstanceEvent, Origin};
use claviger_domain::fence::Epoch;
use claviger_domain::ids::InstanceId;
use claviger_domain::instance::{AppInstance, decide_instance};
use claviger_domain::values::OrganisationName;

use crate::ports::{Clock, Instances, StoreError};
use crate::request_error::{ATTEMPTS, RequestError};

/// Takes note of an app's answer.
pub struct AcknowledgeOrder<'a> {
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// The time.
    pub clock: &'a dyn Clock,
}

impl AcknowledgeOrder<'_> {
    /// Stores the answer; one that comes twice is stored once.
    ///
    /// # Errors
    /// When the organisation has no such instance, or the answer is to another order than the last.
    pub async fn run(
        &self,
        organisation: &OrganisationName,
        id: InstanceId,
        epoch: Epoch,
        evicted: u64,
        origin: &Origin,
    ) -> Result<AppInstance, RequestError> {
        let event = InstanceEvent::OrderAcknowledged { epoch, evicted };
        for _ in 0..ATTEMPTS {
            let instance = self.instances.instance(id).await?;
            let instance = instance
                .filter(|instance| instance.organisation_name == *organisation)
                .ok_or(RequestError::NotFound { what: "the app instance" })?;
            let decision = match decide_instance(&instance, &event, origin, self.clock.now()) {
                Ok(decision) => decision,
                Err(Refusal::Redundant) => return Ok(instance),
                Err(refusal) => return Err(refusal.into()),
            };
            match self.instances.commit_instance(Some(&instance), &decision).await {
                Ok(()) => return Ok(decision.next),
                Err(StoreError::Conflict) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }
}
