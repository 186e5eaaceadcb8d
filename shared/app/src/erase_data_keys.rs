//! Deletes every wrapped data key of an organisation that leaves, a page of instances a message: they are counted, then
//! deleted, until a whole pass finds none. It can be broken off anywhere; only after the last pass the policy is closed.

use claviger_domain::closing::{ClosingStage, Counted};
use claviger_domain::decide::{Refusal, decide};
use claviger_domain::effect::OutboxRow;
use claviger_domain::event::{Actor, Origin, PolicyEvent};
use claviger_domain::policy::EncryptionPolicy;
use jiff::{SignedDuration, Timestamp};

use crate::error::{ATTEMPTS, WorkError};
use crate::messages::{ErasurePage, ErasureStep};
use crate::ports::{Clock, DataKeyRegistry, FanOutQueue, Instances, Policies, StoreError};
use crate::settings::Settings;

/// How many instances one message handles.
const PAGE: u16 = 50;
/// How long after the end of access the first key is deleted: longer than any function runs, so that nobody who saw the
/// fence open is still about to store a data key, and longer than any key that was handed out is good for.
pub const GRACE: SignedDuration = SignedDuration::from_mins(15);

/// Erases data keys.
pub struct EraseDataKeys<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// Where wrapped data keys are.
    pub registry: &'a dyn DataKeyRegistry,
    /// Where the next page waits.
    pub queue: &'a dyn FanOutQueue,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl EraseDataKeys<'_> {
    /// Begins with the first page, once the grace is over.
    ///
    /// # Errors
    /// As [`EraseDataKeys::page`].
    pub async fn run(&self, row: &OutboxRow) -> Result<(), WorkError> {
        let Some((_, since)) = self.erasing(row).await? else {
            return Ok(());
        };
        let wait = (since + GRACE).duration_since(self.clock.now());
        if wait > SignedDuration::ZERO {
            return Ok(self.queue.queue_effect(row, wait).await?);
        }
        let step = ErasureStep::Count { counted: Counted::default() };
        self.page(&ErasurePage { row: row.clone(), step, cursor: None }).await
    }

    /// Handles one page.
    ///
    /// # Errors
    /// When the store or the queue failed: to be tried again.
    pub async fn page(&self, page: &ErasurePage) -> Result<(), WorkError> {
        // INVARIANT: nothing is deleted of an organisation whose access has not ended by its own request.
        if self.erasing(&page.row).await?.is_none() {
            return Ok(());
        }
        let found = self.instances.instances(&page.row.organisation, page.cursor.as_deref(), PAGE).await?;
        let mut step = page.step;
        for instance in &found.items {
            let keys = self.registry.data_keys(instance.id).await?;
            match &mut step {
                ErasureStep::Count { counted } => {
                    let many = u64::try_from(keys.len()).unwrap_or(u64::MAX);
                    counted.data_keys = counted.data_keys.saturating_add(many);
                    counted.instances = counted.instances.saturating_add(u64::from(many > 0));
                }
                ErasureStep::Erase { clean } => {
                    *clean &= keys.is_empty();
                    for key in &keys {
                        self.registry.erase_data_key(key).await?;
                    }
                }
            }
        }
        let next = match (found.next, step) {
            (Some(cursor), step) => ErasurePage { step, cursor: Some(cursor), row: page.row.clone() },
            (None, ErasureStep::Count { counted }) => {
                self.settle(&page.row, &PolicyEvent::DataKeysCounted { counted }).await?;
                let step = ErasureStep::Erase { clean: true };
                ErasurePage { step, cursor: None, row: page.row.clone() }
            }
            (None, ErasureStep::Erase { clean: false }) => {
                let step = ErasureStep::Erase { clean: true };
                ErasurePage { step, cursor: None, row: page.row.clone() }
            }
            (None, ErasureStep::Erase { clean: true }) => {
                return self.settle(&page.row, &PolicyEvent::DataKeysErased).await;
            }
        };
        Ok(self.queue.queue_erasure(&next, SignedDuration::ZERO).await?)
    }

    /// The policy, and since when its keys are being erased; none when this is not wanted, or done.
    async fn erasing(&self, row: &OutboxRow) -> Result<Option<(EncryptionPolicy, Timestamp)>, WorkError> {
        let policy = self.policies.policy(&row.organisation).await?;
        let policy = policy.ok_or(WorkError::NotThere { what: "the encryption policy" })?;
        let stage = policy.closing.as_ref().map(|closing| closing.stage.clone());
        match stage {
            Some(ClosingStage::Erasing { since, .. }) if policy.id == row.policy => Ok(Some((policy, since))),
            Some(
                ClosingStage::Erasing { .. } | ClosingStage::Asked { .. } | ClosingStage::Exporting { .. },
            )
            | None => Ok(None),
        }
    }

    async fn settle(&self, row: &OutboxRow, event: &PolicyEvent) -> Result<(), WorkError> {
        let actor = Actor::Claviger("provisioner".to_owned());
        let origin = Origin { actor, correlation: row.correlation };
        for _ in 0..ATTEMPTS {
            let Some((policy, _)) = self.erasing(row).await? else {
                return Ok(());
            };
            let decision = match decide(&self.settings.rules(), &policy, event, &origin, self.clock.now()) {
                Ok(decision) => decision,
                Err(Refusal::Redundant) => return Ok(()),
                Err(other) => return Err(other.into()),
            };
            match self.policies.commit_policy(Some(&policy), &decision).await {
                Err(StoreError::Conflict) => {}
                other => return Ok(other?),
            }
        }
        Err(StoreError::Conflict.into())
    }
}
