//! What customers' keys really are, apart from what anybody believes of them: the ground truth.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use claviger_domain::ids::OrganisationId;
use claviger_domain::observation::{NoAnswerKind, Observation, RefusalKind};
use claviger_domain::values::{AccountId, KeyArn, Region};
use claviger_testkit::FakeKeys;

/// What the owner of a key has done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It can be used.
    Usable,
    /// Disabled.
    Disabled,
    /// Waiting to be deleted.
    PendingDeletion,
    /// Deleted: KMS does not know it. That may also be somebody's mistake.
    Deleted,
    /// The key policy does not let us in.
    Denied {
        /// DescribeKey is denied too.
        blind: bool,
    },
    /// The role does not trust us any more (BYOK). A session that is kept works on until it ends.
    RoleDenied,
}

impl Standing {
    /// Whether KMS refuses.
    pub fn refuses(self) -> bool {
        self != Self::Usable
    }

    /// Whether it refuses in a way that may be anybody's mistake.
    const fn is_ambiguous(self) -> bool {
        matches!(self, Self::Denied { .. } | Self::RoleDenied | Self::Deleted)
    }

    /// Whether one refusal is enough.
    pub const fn is_definite(self) -> bool {
        matches!(self, Self::Disabled | Self::PendingDeletion)
    }

    const fn observation(self) -> Observation {
        match self {
            Self::Usable => Observation::Usable,
            Self::Disabled => Observation::Refused(RefusalKind::KeyDisabled),
            Self::PendingDeletion => Observation::Refused(RefusalKind::KeyPendingDeletion),
            Self::Deleted => Observation::Refused(RefusalKind::KeyNotFound),
            Self::Denied { .. } => Observation::Refused(RefusalKind::AccessDenied),
            Self::RoleDenied => Observation::Refused(RefusalKind::RoleDenied),
        }
    }
}

/// One key.
#[derive(Debug, Clone)]
pub struct KeyTruth {
    /// What its owner wants.
    pub now: Standing,
    /// What KMS may still answer until the change has spread.
    pub before: Standing,
    /// When the owner changed it.
    pub changed_at: i64,
    /// When every answer is the new one.
    pub visible_at: i64,
    /// When it refused ambiguously: from, to.
    denials: Vec<(i64, i64)>,
}

impl KeyTruth {
    /// Whether KMS may have refused at some instant from `since` on.
    pub fn refused_since(&self, since: i64) -> bool {
        self.now.refuses() || (self.before.refuses() && self.visible_at >= since)
    }

    /// Whether KMS may have answered at some instant from `since` on.
    pub fn usable_since(&self, since: i64) -> bool {
        !self.now.refuses() || (!self.before.refuses() && self.visible_at >= since)
    }

    /// Whether a definite refusal is, or was lately, in effect.
    pub fn definite_since(&self, since: i64) -> bool {
        self.now.is_definite() || (self.before.is_definite() && self.visible_at >= since)
    }

    /// Whether it refused ambiguously at some instant between the two.
    pub fn denied_between(&self, from: i64, to: i64) -> bool {
        self.denials.iter().any(|(start, end)| *start <= to && *end >= from)
    }
}

#[derive(Debug, Default)]
struct State {
    keys: BTreeMap<KeyArn, KeyTruth>,
    outages: BTreeMap<Region, (NoAnswerKind, i64)>,
    ill: BTreeMap<Region, (i64, i64)>,
    untrusting: BTreeSet<AccountId>,
    rotations: u64,
}

/// How long a session of a role lasts.
const SESSION: i64 = 900_000;

/// KMS in every region.
#[derive(Debug, Default)]
pub struct Kms {
    /// Seals and opens; every key in it is usable by its own organisation.
    pub vault: FakeKeys,
    state: Mutex<State>,
}

impl Kms {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The owner makes a key and binds it to its organisation.
    pub fn create(&self, arn: &KeyArn, organisation: OrganisationId) {
        self.vault.create(arn);
        self.vault.bind(arn, organisation);
        self.exists(arn);
    }

    /// A key is there: one that the service made, if nobody else did.
    pub fn exists(&self, arn: &KeyArn) {
        if self.state().keys.contains_key(arn) {
            return;
        }
        let truth = KeyTruth {
            now: Standing::Usable,
            before: Standing::Usable,
            changed_at: 0,
            visible_at: 0,
            denials: Vec::new(),
        };
        self.state().keys.insert(arn.clone(), truth);
    }

    /// The owner changes a key; every answer is the new one from `visible_at` on.
    pub fn change(&self, arn: &KeyArn, standing: Standing, now: i64, visible_at: i64) {
        let mut state = self.state();
        let Some(key) = state.keys.get_mut(arn).filter(|key| key.now != standing) else {
            return;
        };
        if key.now.is_ambiguous()
            && let Some(last) = key.denials.last_mut()
        {
            last.1 = visible_at;
        }
        if standing.is_ambiguous() {
            key.denials.push((now, i64::MAX));
        }
        key.before = key.now;
        key.now = standing;
        key.changed_at = now;
        key.visible_at = visible_at;
    }

    /// The key-management role of an account trusts us, or does not.
    pub fn trust(&self, account: &AccountId, trusts: bool) {
        let mut state = self.state();
        if trusts {
            state.untrusting.remove(account);
        } else {
            state.untrusting.insert(account.clone());
        }
    }

    /// Whether the role of an account lets nobody in.
    pub fn is_untrusting(&self, account: &AccountId) -> bool {
        self.state().untrusting.contains(account)
    }

    /// AWS gives keys new material.
    pub fn rotate(&self) {
        self.state().rotations += 1;
    }

    /// What names the material of this moment.
    pub fn material(&self) -> String {
        format!("material-{}", self.state().rotations)
    }

    /// A key as it is.
    pub fn key(&self, arn: &KeyArn) -> Option<KeyTruth> {
        self.state().keys.get(arn).cloned()
    }

    /// A region gives no answers for a while.
    pub fn outage(&self, region: &Region, kind: NoAnswerKind, until: i64) {
        self.state().outages.insert(region.clone(), (kind, until));
    }

    /// A region's control probe is ill for a while.
    pub fn ill(&self, region: &Region, now: i64, until: i64) {
        self.state().ill.insert(region.clone(), (now, until));
    }

    /// Ends every outage and illness.
    pub fn heal(&self, now: i64) {
        let mut state = self.state();
        state.outages.clear();
        for (_, until) in state.ill.values_mut() {
            *until = now.min(*until);
        }
    }

    /// Whether every region answers, control probes included.
    pub fn is_calm(&self, now: i64) -> bool {
        let state = self.state();
        state.outages.values().all(|(_, until)| now >= *until)
            && state.ill.values().all(|(_, until)| now >= *until)
            && state.keys.values().all(|key| now >= key.visible_at)
    }

    /// Whether the control probe of a region answers.
    pub fn control_is_healthy(&self, region: &Region, now: i64) -> bool {
        self.state().ill.get(region).is_none_or(|(_, until)| now >= *until)
    }

    /// Whether the control probe of a region was ill at some instant from `since` on.
    pub fn was_ill_since(&self, region: &Region, since: i64) -> bool {
        self.state().ill.get(region).is_some_and(|(_, until)| *until >= since)
    }

    /// Whether it was ill all the time.
    pub fn was_ill_throughout(&self, region: &Region, from: i64, to: i64) -> bool {
        self.state().ill.get(region).is_some_and(|(start, until)| *start <= from && *until > to)
    }

    /// Why a region gives no answer, if it gives none.
    pub fn no_answer(&self, region: &Region, now: i64) -> Option<NoAnswerKind> {
        self.state().outages.get(region).filter(|(_, until)| now < *until).map(|(kind, _)| *kind)
    }

    /// What a call meets: while a change spreads, `stale` chooses the answer from before.
    /// A session of a role that is kept may be from before its trust ended.
    pub fn meets(&self, arn: &KeyArn, now: i64, stale: bool, kept: bool) -> (Observation, Standing) {
        let state = self.state();
        let standing = state.keys.get(arn).map_or(Standing::Denied { blind: true }, |key| {
            let standing = if stale && now < key.visible_at { key.before } else { key.now };
            let works_on = kept && standing == Standing::RoleDenied && now < key.changed_at + SESSION;
            if works_on { Standing::Usable } else { standing }
        });
        (standing.observation(), standing)
    }
}
