//! What would happen if a key were disabled now: the deciding function itself, run on what is believed, and
//! nothing stored.

use jiff::{SignedDuration, Timestamp};

use crate::event::{Actor, Origin, PolicyEvent};
use crate::ids::CorrelationId;
use crate::observation::{Observation, ProbeRound, RefusalKind};
use crate::policy::{EncryptionPolicy, KeyHealth};
use crate::values::Region;

use super::{Decision, Refusal, Rules, decide};

/// What the prober would see with this region's key disabled and every other key as it is believed to be.
fn supposed(policy: &EncryptionPolicy, region: &Region, at: Timestamp) -> ProbeRound {
    let seen = policy.keys.iter().map(|(of, key)| {
        let saw = match key.health {
            _ if of == region => Observation::Refused(RefusalKind::KeyDisabled),
            KeyHealth::Refused { kind, .. } => Observation::Refused(kind),
            // Nobody counts on a key that was given up: it is not supposed to work.
            KeyHealth::NoAnswer { kind, .. } if key.given_up => Observation::NoAnswer(kind),
            // Without an answer, the key is supposed to work: nothing follows from silence.
            KeyHealth::Unknown | KeyHealth::Usable | KeyHealth::NoAnswer { .. } => Observation::Usable,
        };
        (of.clone(), saw)
    });
    ProbeRound {
        started_at: at,
        observations: seen.collect(),
        controls_healthy: Some(true),
        refused_unwrap: None,
    }
}

/// What disabling the key of a region would decide now; `None` if it would change nothing.
///
/// # Errors
/// When the policy is in a state in which its keys are not watched.
pub fn preview(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    region: &Region,
    now: Timestamp,
) -> Result<Option<Decision>, Refusal> {
    // The round is one that is yet to come: whatever was probed up to now, it is newer.
    let after = policy.probed_at.and_then(|known| known.checked_add(SignedDuration::from_millis(1)).ok());
    let now = after.map_or(now, |after| after.max(now));
    let rounds = vec![supposed(policy, region, now), supposed(policy, region, now)];
    let nobody = CorrelationId::from_uuid(uuid::Uuid::nil());
    let origin = Origin { actor: Actor::Claviger("preview".to_owned()), correlation: nobody };
    match decide(rules, policy, &PolicyEvent::ProbesReported { rounds, heard: Vec::new() }, &origin, now) {
        Ok(decision) => Ok(Some(decision)),
        Err(Refusal::Redundant | Refusal::Stale) => Ok(None),
        Err(other) => Err(other),
    }
}
