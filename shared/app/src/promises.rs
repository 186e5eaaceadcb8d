//! The published bounds as what they are: sums, each with its terms. What is shown, printed in
//! `docs/PROMISES.md` and held by the simulation comes from here.

use jiff::SignedDuration;

use crate::hint_budget::SPACING;
use crate::settings::{CONFIRMATION, QUEUE, Settings};

/// One term of a bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// What takes this long.
    pub what: &'static str,
    /// How long at most.
    pub at_most: SignedDuration,
}

/// A published bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// The cause that it is for.
    pub cause: &'static str,
    /// From when it is counted.
    pub from: &'static str,
    /// What it is the sum of.
    pub terms: Vec<Term>,
}

impl Promise {
    /// The bound.
    pub fn bound(&self) -> SignedDuration {
        self.terms.iter().fold(SignedDuration::ZERO, |sum, term| sum + term.at_most)
    }
}

const fn term(what: &'static str, at_most: SignedDuration) -> Term {
    Term { what, at_most }
}

const REFUSED: &str = "KMS first refuses in the last required region";

impl Settings {
    /// A definite refusal of which an event arrived. Events are best effort, so this one holds only then.
    pub fn by_event(&self) -> Promise {
        Promise {
            cause: "a definite refusal, when its event arrives",
            from: "the event reaches the vendor's bus, and KMS refuses in the last required region",
            terms: vec![
                term("a hint deferred, because another one came just before", SPACING),
                term("queue, and KMS spreading the change", QUEUE),
                term("all regions probed again", CONFIRMATION),
                term("lease", self.lease),
            ],
        }
    }

    /// A definite refusal that no event told of.
    pub fn by_probe(&self) -> Promise {
        Promise {
            cause: "a definite refusal, by probe alone",
            from: REFUSED,
            terms: vec![
                term("probe phase", self.probe_phase),
                term("queue, and KMS spreading the change", QUEUE),
                term("all regions probed again", CONFIRMATION),
                term("lease", self.lease),
            ],
        }
    }

    /// A refusal that counts only when it persists.
    pub fn ambiguous(&self) -> Promise {
        let mut terms = self.by_probe().terms;
        terms.insert(2, term("persistence, with healthy control probes", self.ambiguity));
        terms.insert(3, term("queue of the probe that waits for its end", QUEUE));
        Promise { cause: "an ambiguous refusal that persists, by probe alone", from: REFUSED, terms }
    }

    /// Nobody sweeps any more.
    pub fn unwatched(&self) -> Promise {
        Promise {
            cause: "our own watcher is dead",
            from: "the last proof that the key may be used",
            terms: vec![
                term("probe phase", self.probe_phase),
                term("slack of a late sweep", self.watch_slack),
                term("reuse of a proof by all brokers", self.proof_reuse),
                term("lease", self.lease),
            ],
        }
    }

    /// Every bound.
    pub fn promises(&self) -> Vec<Promise> {
        vec![self.by_event(), self.by_probe(), self.ambiguous(), self.unwatched()]
    }
}
