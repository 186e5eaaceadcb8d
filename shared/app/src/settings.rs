//! The deploy parameters that use cases need. Production values in brackets.

use std::collections::BTreeMap;

use claviger_domain::catalogue::Catalogue;
use claviger_domain::decide::Rules;
use claviger_domain::key_policy::VendorPrincipal;
use claviger_domain::values::{App, ShardId};
use jiff::SignedDuration;

use crate::usage::KmsPrice;

/// Allowance for a queue's delivery, and for KMS to spread a change.
pub const QUEUE: SignedDuration = SignedDuration::from_secs(5);
/// Allowance for the second look at every region; also the window in which both must lie.
pub const CONFIRMATION: SignedDuration = SignedDuration::from_secs(5);

/// The in-transit period that a catalogue names.
pub fn in_transit_of(catalogue: &Catalogue) -> SignedDuration {
    SignedDuration::from_hours(24).saturating_mul(i32::from(catalogue.cached_or_in_transit_days))
}

/// Deploy parameters, parsed at start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The vendor's catalogue.
    pub catalogue: Catalogue,
    /// The principal that customers' key policies name.
    pub vendor: VendorPrincipal,
    /// How often each regional key is swept (60 s).
    pub probe_phase: SignedDuration,
    /// How long a lease lasts, from before the read (30 s).
    pub lease: SignedDuration,
    /// How long an ambiguous refusal has to persist (60 s).
    pub ambiguity: SignedDuration,
    /// How long after the next sweep was due a shard still counts as watched (10 s).
    pub watch_slack: SignedDuration,
    /// How long one fresh proof serves every broker (10 s).
    pub proof_reuse: SignedDuration,
    /// From when on ambiguous refusals of many customers at once are taken for our own fault (spec R4).
    pub mass_failure: MassFailure,
    /// How long data is in transit at most; between the clean scans of a re-encryption lies this long (the catalogue's
    /// `cached_or_in_transit_days`).
    pub in_transit: SignedDuration,
    /// In how many shards an instance's records are rewritten (4).
    pub record_shards: u16,
    /// How old counts of KMS calls get in a process before they are written (15 minutes).
    pub usage_flush: SignedDuration,
    /// How old a version of a data key is before a newer one is made, however much an app asks for it (a day).
    pub data_key_least_age: SignedDuration,
    /// What KMS takes for requests.
    pub kms_price: KmsPrice,
    /// How many shards the regional keys are swept in.
    pub shards: u16,
    /// Which apps each role of the vendor's apps may ask keys for, by role ARN.
    pub app_roles: BTreeMap<String, Vec<App>>,
}

/// How many customers of a shard have to be refused ambiguously at once. Both must be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MassFailure {
    /// At least so many (5).
    pub least: usize,
    /// And at least so many in a hundred (20).
    pub percent: usize,
}

impl MassFailure {
    /// Whether so many of so many are a mass failure.
    pub const fn is(self, refused: usize, of: usize) -> bool {
        refused >= self.least && refused.saturating_mul(100) >= of.saturating_mul(self.percent)
    }
}

impl Default for MassFailure {
    fn default() -> Self {
        Self { least: 5, percent: 20 }
    }
}

/// What a sweep has at least, however short the phase.
const SHORTEST_SWEEP: SignedDuration = SignedDuration::from_secs(10);

impl Settings {
    /// How long a sweep may take: one that finds its keys slow, and a follow-on for the rest, end before the next.
    pub fn sweep_limit(&self) -> SignedDuration {
        ((self.probe_phase - QUEUE) / 2).max(SHORTEST_SWEEP)
    }

    /// What the deciding functions need of them.
    pub fn rules(&self) -> Rules<'_> {
        Rules {
            catalogue: &self.catalogue,
            ambiguity: self.ambiguity,
            window: CONFIRMATION,
            freshness: SignedDuration::from_secs(30),
            in_transit: self.in_transit,
        }
    }

    /// The shard of a policy: stable while the number of shards is.
    pub fn shard_of(&self, policy: claviger_domain::ids::PolicyId) -> ShardId {
        let folded = policy
            .as_uuid()
            .as_bytes()
            .iter()
            .fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
        let shard = folded.checked_rem(u32::from(self.shards)).unwrap_or(0);
        ShardId(u16::try_from(shard).unwrap_or(0))
    }

    /// The published bound of a cut-off by a definite refusal, by probe alone.
    pub fn cut_off_bound(&self) -> SignedDuration {
        self.by_probe().bound()
    }

    /// The published bound of a cut-off by an ambiguous refusal.
    pub fn ambiguous_cut_off_bound(&self) -> SignedDuration {
        self.ambiguous().bound()
    }

    /// The published bound while the watcher is dead.
    pub fn unwatched_bound(&self) -> SignedDuration {
        self.unwatched().bound()
    }
}
