//! What a store asks right before it writes.
//!
//! A process that holds an old key, or an upload that was sealed long ago, must not bring the old generation back
//! once a re-encryption has moved on. Who encrypts is stopped by the same rule; but between sealing and storing
//! there may be a queue, a client, or a process that stood still.

use crate::client::millis;
use crate::error::{EnvelopeError, Unavailable};
use crate::format::generation_of;
use crate::instance::Instance;
use crate::source::Wanted;

impl Instance {
    /// Whether a sealed record may be stored: by a fresh lease its generation is one that may still be written,
    /// and the policy is open, and watched or proven, as for sealing itself. The generation is read off the header
    /// and not verified: this keeps out what is stale, not what is forged, which no key opens.
    ///
    /// # Errors
    /// `GenerationTooOld`: seal it anew ([`Self::encrypt`], or [`Self::reseal`] where the plaintext is gone).
    /// `Suspended` and `TemporarilyUnavailable` as ever.
    pub async fn may_store(&self, record: &[u8]) -> Result<(), EnvelopeError> {
        for _ in 0..3 {
            match self.store_check(record) {
                Err(
                    EnvelopeError::NotCached
                    | EnvelopeError::TemporarilyUnavailable { reason: Unavailable::Unproven },
                ) => {
                    // Which policy the instance belongs to, and its generation, is learnt with its key, and with the key
                    // its proof.
                    self.client.ready(&self.state, Wanted::Current { newer_than: None }).await?;
                }
                Err(EnvelopeError::TemporarilyUnavailable { reason: Unavailable::Lease }) => {
                    self.client.ensure_lease().await?;
                }
                answer => return self.counted(answer),
            }
        }
        self.counted(Err(EnvelopeError::unavailable(Unavailable::Overtaken)))
    }

    /// As [`Self::may_store`], with what the process knows; never waits.
    ///
    /// # Errors
    /// `NotCached` if the process has no key with which the instance writes.
    pub fn try_may_store(&self, record: &[u8]) -> Result<(), EnvelopeError> {
        self.counted(self.store_check(record))
    }

    fn store_check(&self, record: &[u8]) -> Result<(), EnvelopeError> {
        let generation = generation_of(record)?;
        let client = &*self.client;
        let now = client.clock.now();
        if !client.lease.fresh(now) {
            return Err(EnvelopeError::unavailable(Unavailable::Lease));
        }
        if client.store.closed(self.state.number) {
            return Err(EnvelopeError::Suspended);
        }
        let writer = client.store.writer(self.state.number).ok_or(EnvelopeError::NotCached)?;
        // INVARIANT (I3): while nobody watches, what waited between sealing and storing is not taken on an old proof.
        writer.policy.usable(writer.policy.epoch(), now)?;
        writer.policy.may_write(generation)?;
        // The fence forgets a re-encryption that is over, and a process that starts later never heard of it. But
        // a key of the new generation is given out after the switch only: a lease later everybody has heard.
        let age = now.wall.saturating_sub(writer.given_at);
        if generation < writer.generation && age > millis(client.config.lease) {
            return Err(EnvelopeError::GenerationTooOld { generation, least: writer.generation });
        }
        Ok(())
    }
}
