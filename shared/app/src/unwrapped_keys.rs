//! What a broker process keeps of the keys that it has unwrapped.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use claviger_domain::fence::Epoch;
use claviger_domain::ids::{DataKeyId, PolicyId};
use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

/// How often keys past their lifetime are looked for. Between two looks nobody is given one, it only stays longer.
const SWEEP_EVERY: SignedDuration = SignedDuration::from_secs(1);

/// A data key in the clear, wiped when the last holder lets go.
pub type RawKey = Arc<Zeroizing<Vec<u8>>>;

struct Unwrapped {
    key: RawKey,
    epoch: Epoch,
    at: Timestamp,
}

/// A refused unwrap is a hint once in this time: the prober repeats a hinted probe by itself.
const HINT_EVERY: SignedDuration = SignedDuration::from_secs(5);

/// A newer version is asked for once in this time: libraries ask anew with every refresh.
const ASK_EVERY: SignedDuration = SignedDuration::from_mins(5);

type Slot = Arc<tokio::sync::Mutex<Option<Unwrapped>>>;

/// Unwrapped keys of this process. The gate is asked on every answer all the same. Requests for one key
/// wait for one another, so that many of them make one unwrap.
#[derive(Default)]
pub struct UnwrappedKeys {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    slots: HashMap<DataKeyId, Slot>,
    hinted: HashMap<PolicyId, Timestamp>,
    asked: HashMap<DataKeyId, Timestamp>,
    swept_at: Option<Timestamp>,
}

impl UnwrappedKeys {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The key and when its unwrap began: what is there, if it is of `epoch` and not older than `lifetime`, else
    /// what `unwrap` brings. `now` is asked again once it is this request's turn: others may have taken their time.
    ///
    /// # Errors
    /// What `unwrap` returns; nothing is kept then.
    pub async fn get_or_unwrap<E>(
        &self,
        id: DataKeyId,
        epoch: Epoch,
        now: impl Fn() -> Timestamp,
        lifetime: SignedDuration,
        unwrap: impl AsyncFnOnce() -> Result<(Zeroizing<Vec<u8>>, Timestamp), E>,
    ) -> Result<(RawKey, Timestamp), E> {
        let valid = |held: &Unwrapped, now: Timestamp| now.duration_since(held.at) < lifetime;
        let asked_at = now();
        let slot = self.slot(id, asked_at, |held| valid(held, asked_at));
        let mut held = slot.lock().await;
        let now = now();
        if let Some(held) = held.as_ref().filter(|held| valid(held, now) && held.epoch == epoch) {
            return Ok((Arc::clone(&held.key), held.at));
        }
        *held = None;
        let (key, at) = unwrap().await?;
        let key = Arc::new(key);
        *held = Some(Unwrapped { key: Arc::clone(&key), epoch, at });
        Ok((key, at))
    }

    /// Whether the prober is to be told that a data key of this policy was refused, or was told just now: however many
    /// requests meet the refusal, and of however many data keys, one hint is enough.
    pub fn may_hint(&self, id: PolicyId, now: Timestamp) -> bool {
        first_in(&mut self.inner().hinted, HINT_EVERY, id, now)
    }

    /// Whether a newer version than this data key is to be asked for, or was just now.
    pub fn may_ask_for_newer(&self, id: DataKeyId, now: Timestamp) -> bool {
        first_in(&mut self.inner().asked, ASK_EVERY, id, now)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, id: DataKeyId, now: Timestamp, valid: impl Fn(&Unwrapped) -> bool) -> Slot {
        let mut inner = self.inner();
        let due = |swept: Timestamp| now.duration_since(swept).abs() >= SWEEP_EVERY;
        if inner.swept_at.is_none_or(due) {
            inner.swept_at = Some(now);
            // A slot that somebody has in hand stays, or the next request for it would make a second unwrap.
            inner.slots.retain(|_, slot| {
                Arc::strong_count(slot) > 1
                    || slot.try_lock().is_ok_and(|held| held.as_ref().is_some_and(&valid))
            });
        }
        Arc::clone(inner.slots.entry(id).or_default())
    }
}

/// Whether it is the first time in this while. What is older is forgotten.
pub(crate) fn first_in<T: Eq + Hash>(
    seen: &mut HashMap<T, Timestamp>,
    every: SignedDuration,
    id: T,
    now: Timestamp,
) -> bool {
    seen.retain(|_, at| now.duration_since(*at).abs() < every);
    if seen.contains_key(&id) {
        return false;
    }
    seen.insert(id, now);
    true
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use claviger_domain::ids::DataKeyId;
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn i1_a_key_that_grew_too_old_while_others_were_waited_for_is_unwrapped_anew() {
        let (cache, id) = (UnwrappedKeys::new(), DataKeyId::from_uuid(Uuid::from_u128(1)));
        let start: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let lifetime = SignedDuration::from_mins(5);
        let unwraps = Cell::new(0);
        let unwrap = |at: Timestamp| {
            let unwraps = &unwraps;
            async move || {
                unwraps.set(unwraps.get() + 1);
                Ok::<_, ()>((Zeroizing::new(vec![7; 32]), at))
            }
        };
        cache.get_or_unwrap(id, Epoch(1), || start, lifetime, unwrap(start)).await.unwrap();
        // Asked at four minutes; its turn came two minutes later.
        let clock = Cell::new(start + SignedDuration::from_mins(2));
        let now = || {
            clock.set(clock.get() + SignedDuration::from_mins(2));
            clock.get()
        };
        let turn = start + SignedDuration::from_mins(6);
        let (_, at) = cache.get_or_unwrap(id, Epoch(1), now, lifetime, unwrap(turn)).await.unwrap();
        assert_eq!((at, unwraps.get()), (turn, 2));
    }
}
