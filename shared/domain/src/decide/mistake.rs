//! A suspension that was a mistake is lifted by two support agents together (spec S7).
//!
//! A mistake is one whose keys were usable all along: what refused may have been ours, a role or a template. Where KMS
//! itself said that a key is disabled or waits for its deletion, the customer did that, whatever the key says now; access
//! comes back when its org admin asks.

use jiff::{SignedDuration, Timestamp};

use crate::effect::Effect;
use crate::event::{Actor, Origin};
use crate::fence::Cause;
use crate::observation::ProbeRound;
use crate::policy::{EncryptionPolicy, Lifecycle};
use crate::vendor::LiftProposal;

use super::health::{all_usable, believe, fresh, observed, within_window};
use super::restoration::keys_are_back;
use super::{Change, Refusal, Rules, illegal};

const CUSTOMER: &str =
    "an org admin, by asking for restoration, since a key was taken away and this is no mistake,";

pub(super) fn mistake_declared(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    reason: &str,
    rounds: &[ProbeRound],
    origin: &Origin,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Actor::Support(agent) = &origin.actor else {
        return Err(Refusal::Forbidden { who: "a support agent" });
    };
    match policy.lifecycle {
        Lifecycle::Suspended { .. } | Lifecycle::Restoring { .. } | Lifecycle::Lapsed { .. } => {}
        Lifecycle::Active { .. } => return Err(Refusal::NotSuspendedBy { cause: Cause::Key }),
        Lifecycle::Requested { .. }
        | Lifecycle::Verifying { .. }
        | Lifecycle::Closed { .. }
        | Lifecycle::Rejected { .. } => return illegal(policy),
    }
    // INVARIANT (I5, S7): two agents do not undo what the customer did.
    if policy.refused_for_certain {
        return Err(Refusal::Forbidden { who: CUSTOMER });
    }
    let within = SignedDuration::from_hours(i64::from(rules.catalogue.support.lift_within_hours));
    let waiting = policy.lift.as_ref().filter(|first| now.duration_since(first.at) <= within);
    // INVARIANT (I5, S7): one agent alone, however often, lifts nothing.
    if waiting.is_some_and(|first| first.by == *agent) {
        return Err(Refusal::Forbidden { who: "another support agent" });
    }
    let [.., first, last] = rounds else {
        return Err(Refusal::Redundant);
    };
    fresh(rules, policy, last, now)?;
    all_usable(rules, policy, first, now)?;
    all_usable(rules, policy, last, now)?;
    if !within_window(rules, first, last) {
        return Err(Refusal::Stale);
    }
    let mut next = policy.clone();
    believe(&mut next, &observed(rules, policy, last), last);
    if waiting.is_some() {
        let words = format!(
            "Two support agents lifted the suspension as a mistake: {reason} Every regional key was proven usable."
        );
        return Ok(keys_are_back(next, Some(words), now));
    }
    next.lift = Some(LiftProposal { by: agent.clone(), at: now, reason: reason.to_owned() });
    let until = now + within;
    let body = format!(
        "A support agent says that this suspension is a mistake: {reason} Every regional key answers. It is \
         lifted if a second agent says so too by {until:.0}, and no key refuses until then."
    );
    let effects = policy.ticket.map(|ticket| Effect::CommentTicket { ticket, body });
    Ok(Change { next, effects: effects.into_iter().collect() })
}
