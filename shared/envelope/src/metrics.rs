//! Counters. The hot path counts in its own thread's cache; everything else here is touched on misses only.

use crate::error::{EnvelopeError, SLUGS};
use crate::lock::Lock;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) broker_calls: AtomicU64,
    pub(crate) proof_calls: AtomicU64,
    pub(crate) polls: AtomicU64,
    pub(crate) poll_failures: AtomicU64,
    pub(crate) closes: AtomicU64,
    pub(crate) keys_wiped: AtomicU64,
    /// By the number of the error.
    refusals: [AtomicU64; SLUGS.len()],
    slow: Lock<Slow>,
}

#[derive(Default)]
struct Slow {
    usage: BTreeMap<String, Usage>,
}

/// What one organisation cost: what the broker did for its keys and proofs. An answer with neither is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Data keys that the broker handed out. Proofs travel together: [`Metrics::proof_calls`].
    pub broker_calls: u64,
    /// For data keys and for proofs.
    pub kms_calls: u64,
}

impl Usage {
    /// At the list price of 0.03 US dollars for 10,000 requests.
    #[must_use]
    pub const fn kms_micro_dollars(&self) -> u64 {
        self.kms_calls.saturating_mul(3)
    }
}

/// All counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Records that needed nothing but this process.
    pub hits: u64,
    /// Uses that found no usable key in the process.
    pub misses: u64,
    pub broker_calls: u64,
    pub proof_calls: u64,
    pub polls: u64,
    pub poll_failures: u64,
    /// Closes that this process has seen on the fence.
    pub closes: u64,
    pub keys_wiped: u64,
    pub kms_calls: u64,
    /// Refused uses by the slug of their error.
    pub refusals: BTreeMap<&'static str, u64>,
    /// By organisation id.
    pub usage: BTreeMap<String, Usage>,
    /// Since before the last successful read of the fence was sent; `None`: there was none.
    pub lease_age_millis: Option<i64>,
    pub lease_fresh: bool,
    pub cached_keys: usize,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Without a lock: an organisation that is cut off is refused on every thread at once.
    pub(crate) fn refused(&self, error: &EnvelopeError) {
        if let Some(counter) = self.refusals.get(error.number()) {
            Self::add(counter, 1);
        }
    }

    /// What answers of the broker cost an organisation.
    pub(crate) fn used(&self, organisation: &str, broker_calls: u64, kms_calls: u32) {
        let mut slow = self.slow.lock();
        let usage = match slow.usage.get_mut(organisation) {
            Some(usage) => usage,
            None => slow.usage.entry(organisation.to_owned()).or_default(),
        };
        usage.broker_calls += broker_calls;
        usage.kms_calls += u64::from(kms_calls);
    }

    pub(crate) fn snapshot(&self) -> Metrics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let slow = self.slow.lock();
        Metrics {
            hits: get(&self.hits),
            misses: get(&self.misses),
            broker_calls: get(&self.broker_calls),
            proof_calls: get(&self.proof_calls),
            polls: get(&self.polls),
            poll_failures: get(&self.poll_failures),
            closes: get(&self.closes),
            keys_wiped: get(&self.keys_wiped),
            kms_calls: slow.usage.values().map(|usage| usage.kms_calls).sum(),
            refusals: SLUGS
                .iter()
                .zip(&self.refusals)
                .map(|(slug, counter)| (*slug, get(counter)))
                .filter(|(_, refused)| *refused > 0)
                .collect(),
            usage: slow.usage.clone(),
            lease_age_millis: None,
            lease_fresh: false,
            cached_keys: 0,
        }
    }
}
