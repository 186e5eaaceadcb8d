//! Tells every instance of an organisation to stop, or that it may work again: one page a message,
//! with a cursor, repeated until a whole pass is clean.

use claviger_domain::decide::{Refusal, decide};
use claviger_domain::effect::Order;
use claviger_domain::event::{Actor, InstanceEvent, Origin, PolicyEvent};
use claviger_domain::instance::{AppInstance, InstanceStatus, decide_instance};
use claviger_domain::policy::EncryptionPolicy;
use futures_util::StreamExt;
use futures_util::stream;
use jiff::SignedDuration;

use crate::error::{ATTEMPTS, WorkError};
use crate::messages::FanOut;
use crate::ports::{Clock, FanOutQueue, Instances, Policies, StoreError};
use crate::settings::Settings;

/// How many instances one message handles.
const PAGE: u16 = 100;
/// How many of them at once.
const AT_ONCE: usize = 16;

/// Carries one order to the instances.
pub struct CarryOrder<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// Where the next page waits.
    pub queue: &'a dyn FanOutQueue,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl CarryOrder<'_> {
    /// Handles one page of an order's fan-out.
    ///
    /// # Errors
    /// When the store or the queue fails; the message is delivered again.
    pub async fn run(&self, order: Order, page: &FanOut) -> Result<(), WorkError> {
        let policy = self.policies.policy(&page.organisation).await?;
        let policy = policy.ok_or(WorkError::NotThere { what: "the encryption policy" })?;
        // INVARIANT (R9): an order of an older epoch is dropped whole.
        if policy.id != page.policy || page.epoch < policy.fence.epoch {
            tracing::info!(policy.id = %page.policy, epoch = page.epoch.0, "an order of an old epoch is dropped");
            return Ok(());
        }
        let cursor = page.cursor.as_deref();
        let found = self.instances.instances(&page.organisation, cursor, PAGE).await?;
        let told: Vec<bool> = stream::iter(&found.items)
            .map(|instance| self.tell(order, instance, page))
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<Result<bool, WorkError>>>()
            .await
            .into_iter()
            .collect::<Result<_, _>>()?;
        let encrypted = told.iter().filter(|encrypted| **encrypted).count();
        let done = page.done.saturating_add(u64::try_from(encrypted).unwrap_or(u64::MAX));
        if let Some(next) = found.next {
            let next = FanOut { cursor: Some(next), done, ..page.clone() };
            self.queue.queue_fan_out(&next, SignedDuration::ZERO).await?;
            return Ok(());
        }
        self.finished(order, policy, page, done).await
    }

    /// Tells one instance; says whether it is one that can be told.
    async fn tell(&self, order: Order, instance: &AppInstance, page: &FanOut) -> Result<bool, WorkError> {
        let (epoch, policy) = (page.epoch, page.policy);
        let origin = Origin { actor: carrier(order), correlation: page.correlation };
        let mut instance = instance.clone();
        for _ in 0..ATTEMPTS {
            let event = match instance.status {
                InstanceStatus::Active { .. } | InstanceStatus::Suspended { .. } => match order {
                    Order::Suspend => InstanceEvent::SuspensionOrdered { epoch },
                    Order::Restore => InstanceEvent::RestorationOrdered { epoch },
                },
                // Spec A6: the rest of an encrypted family goes with it.
                InstanceStatus::NotEncrypted { .. } => match order {
                    Order::Suspend
                        if has_encrypted_family(self.instances, self.settings, &instance).await? =>
                    {
                        InstanceEvent::FamilySuspensionOrdered { epoch, policy }
                    }
                    // INVARIANT (R9): one that was never told to stop takes the epoch over too: a page of the
                    // suspension may be late, and would find nothing else that is newer than itself.
                    Order::Restore if has_family(self.settings, &instance) => {
                        InstanceEvent::FamilyRestorationOrdered { epoch, policy }
                    }
                    Order::Suspend | Order::Restore => return Ok(false),
                },
                // Activating an instance looks at the policy's epoch itself.
                InstanceStatus::Requested { .. }
                | InstanceStatus::Provisioning { .. }
                | InstanceStatus::Rejected { .. }
                | InstanceStatus::Erasing { .. }
                | InstanceStatus::Deleted { .. } => return Ok(false),
            };
            let decision = match decide_instance(&instance, &event, &origin, self.clock.now()) {
                Ok(decision) => decision,
                Err(_) => return Ok(true),
            };
            match self.instances.commit_instance(Some(&instance), &decision).await {
                Ok(()) => return Ok(true),
                Err(StoreError::Conflict) => {}
                Err(other) => return Err(other.into()),
            }
            let Some(fresh) = self.instances.instance(instance.id).await? else {
                return Ok(false);
            };
            instance = fresh;
        }
        Err(StoreError::Conflict.into())
    }

    async fn finished(
        &self,
        order: Order,
        mut policy: EncryptionPolicy,
        page: &FanOut,
        instances: u64,
    ) -> Result<(), WorkError> {
        let event = match order {
            Order::Suspend => PolicyEvent::InstancesSuspended { epoch: page.epoch, instances },
            Order::Restore => PolicyEvent::InstancesRestored { epoch: page.epoch },
        };
        let origin = Origin { actor: carrier(order), correlation: page.correlation };
        for _ in 0..ATTEMPTS {
            let rules = self.settings.rules();
            let decision = match decide(&rules, &policy, &event, &origin, self.clock.now()) {
                Ok(decision) => decision,
                Err(Refusal::Stale | Refusal::Redundant | Refusal::IllegalForState { .. }) => return Ok(()),
                Err(other) => return Err(other.into()),
            };
            match self.policies.commit_policy(Some(&policy), &decision).await {
                Err(StoreError::Conflict) => {}
                other => return Ok(other?),
            }
            let fresh = self.policies.policy(&page.organisation).await?;
            policy = fresh.ok_or(WorkError::NotThere { what: "the encryption policy" })?;
        }
        Err(StoreError::Conflict.into())
    }
}

/// Whether the instance can ever be told with others of its site (spec A6).
pub(crate) fn has_family(settings: &Settings, instance: &AppInstance) -> bool {
    settings.catalogue.siblings(&instance.app).next().is_some()
}

/// Whether another member of the instance's family on its site is encrypted (spec A6).
pub(crate) async fn has_encrypted_family(
    instances: &dyn Instances,
    settings: &Settings,
    instance: &AppInstance,
) -> Result<bool, StoreError> {
    for sibling in settings.catalogue.siblings(&instance.app) {
        let known = instances.instance_at(&instance.site, sibling).await?;
        let encrypted = known.is_some_and(|known| {
            known.organisation_name == instance.organisation_name && known.status.is_encrypted()
        });
        if encrypted {
            return Ok(true);
        }
    }
    Ok(false)
}

fn carrier(order: Order) -> Actor {
    let name = match order {
        Order::Suspend => "suspender",
        Order::Restore => "restorer",
    };
    Actor::Claviger(name.to_owned())
}
