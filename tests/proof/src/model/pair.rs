//! Two organisations side by side: one outbox and one budget of changes and faults for both, messages that find their
//! organisation by what is written on them, and every order of both organisations' steps.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use super::{Bounds, Found, Mind, State, World, begin, explore_from};

#[derive(Clone)]
struct Pair([State; 2]);

impl Pair {
    /// After a step of one: the other is as old, what is left of the budget is left to both, and what the step wants
    /// done goes to whom it is addressed to.
    fn settle(&mut self, stepped: usize) {
        let [first, second] = &mut self.0;
        let (it, other) = if stepped == 0 { (first, second) } else { (second, first) };
        (other.changes, other.faults, other.ticks) = (it.changes, it.faults, it.ticks);
        other.pass(it.now - other.now);
        let (its, others): (Vec<_>, Vec<_>) = std::mem::take(&mut it.outbox)
            .into_iter()
            .partition(|row| row.organisation == it.policy.organisation_name);
        it.outbox = its;
        for row in &others {
            let whose = row.policy == other.policy.id && row.organisation == other.policy.organisation_name;
            if !whose {
                it.wrong("I7", format!("{:?} of one organisation goes to another", row.effect));
            }
        }
        other.outbox.extend(others);
    }
}

impl World for Pair {
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.each_ref().map(State::fingerprint).hash(&mut hasher);
        hasher.finish()
    }

    fn next(&self, mind: &dyn Mind) -> Vec<(String, Self)> {
        let mut found = Vec::new();
        for (index, state) in self.0.iter().enumerate() {
            let name = &state.policy.organisation_name;
            for (label, next) in state.next(mind) {
                let mut pair = self.clone();
                pair.0[index] = next;
                pair.settle(index);
                found.push((format!("{name}: {label}"), pair));
            }
        }
        found
    }

    fn wrong(&self) -> Option<(&'static str, String)> {
        self.0.iter().find_map(|state| state.wrong.clone())
    }

    fn wrong_at_rest(&self, mind: &dyn Mind) -> Option<(&'static str, String)> {
        self.0.iter().find_map(|state| state.wrong_at_rest(mind))
    }
}

/// Explores every state of two organisations within the bounds, which both share.
pub fn explore_pair(mind: &dyn Mind, bounds: Bounds) -> Found {
    let pair = Pair([begin(bounds, "acme", "222222222222"), begin(bounds, "globex", "333333333333")]);
    explore_from(mind, pair, bounds.states)
}
