//! Deletes every wrapped data key of one instance, whose site was deleted and whose time is over (spec A4). It can be broken
//! off anywhere: they are counted before the first goes, and the instance is deleted only when none is left.

use claviger_domain::decide::Refusal;
use claviger_domain::effect::{Effect, OutboxRow};
use claviger_domain::event::{Actor, InstanceEvent, Origin};
use claviger_domain::ids::InstanceId;
use claviger_domain::instance::{AppInstance, InstanceStatus, decide_instance};
use jiff::{SignedDuration, Timestamp};

use crate::erase_data_keys::GRACE;
use crate::error::{ATTEMPTS, WorkError};
use crate::ports::{Clock, DataKeyRegistry, FanOutQueue, Instances, StoreError};

/// Erases the data keys of an instance.
pub struct EraseInstance<'a> {
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// Where wrapped data keys are.
    pub registry: &'a dyn DataKeyRegistry,
    /// Where the effect waits.
    pub queue: &'a dyn FanOutQueue,
    /// The time.
    pub clock: &'a dyn Clock,
}

impl EraseInstance<'_> {
    /// Erases them, once the grace is over: whoever saw the instance in use is done by then, and so is every key that was
    /// handed out.
    ///
    /// # Errors
    /// When the store or the queue failed: to be tried again.
    pub async fn run(&self, row: &OutboxRow) -> Result<(), WorkError> {
        let Effect::EraseInstance { instance: id } = row.effect else {
            return Err(WorkError::NotThere { what: "an instance to erase" });
        };
        let Some((_, since, counted)) = self.erasing(id).await? else {
            return Ok(());
        };
        let wait = (since + GRACE).duration_since(self.clock.now());
        if wait > SignedDuration::ZERO {
            return Ok(self.queue.queue_effect(row, wait).await?);
        }
        if counted.is_none() {
            let data_keys = self.registry.data_keys(id).await?.len();
            let data_keys = u64::try_from(data_keys).unwrap_or(u64::MAX);
            self.settle(id, &InstanceEvent::DataKeysCounted { data_keys }, row).await?;
        }
        // INVARIANT: nothing is deleted of an instance that is not being erased. Nobody leaves that state but by the end.
        if self.erasing(id).await?.is_none() {
            return Ok(());
        }
        loop {
            let left = self.registry.data_keys(id).await?;
            if left.is_empty() {
                break;
            }
            for key in &left {
                self.registry.erase_data_key(key).await?;
            }
        }
        self.settle(id, &InstanceEvent::DataKeysErased, row).await
    }

    /// The instance, since when its keys are being erased, and how many were counted; none when this is not wanted, or done.
    async fn erasing(
        &self,
        id: InstanceId,
    ) -> Result<Option<(AppInstance, Timestamp, Option<u64>)>, WorkError> {
        let instance = self.instances.instance(id).await?;
        let instance = instance.ok_or(WorkError::NotThere { what: "the app instance" })?;
        Ok(match instance.status {
            InstanceStatus::Erasing { since, counted } => Some((instance, since, counted)),
            InstanceStatus::Requested { .. }
            | InstanceStatus::Provisioning { .. }
            | InstanceStatus::Active { .. }
            | InstanceStatus::Suspended { .. }
            | InstanceStatus::NotEncrypted { .. }
            | InstanceStatus::Rejected { .. }
            | InstanceStatus::Deleted { .. } => None,
        })
    }

    async fn settle(&self, id: InstanceId, event: &InstanceEvent, row: &OutboxRow) -> Result<(), WorkError> {
        let actor = Actor::Claviger("provisioner".to_owned());
        let origin = Origin { actor, correlation: row.correlation };
        for _ in 0..ATTEMPTS {
            let Some((instance, ..)) = self.erasing(id).await? else {
                return Ok(());
            };
            let decision = match decide_instance(&instance, event, &origin, self.clock.now()) {
                Ok(decision) => decision,
                Err(Refusal::Redundant) => return Ok(()),
                Err(other) => return Err(other.into()),
            };
            match self.instances.commit_instance(Some(&instance), &decision).await {
                Err(StoreError::Conflict) => {}
                other => return Ok(other?),
            }
        }
        Err(StoreError::Conflict.into())
    }
}
