//! Replays an organisation's audit log through the deciding functions: does the running system decide as this code does?
//!
//! A fact holds its event whole, its time, its actor and where the decision led; the decision taken anew must give the
//! very same fact, hash included. What facts do not hold is filled in: the organisation's opaque id and the policy's
//! shard (nothing is decided by them), an instance's epoch at its request (0 accepts whatever a later one does), and
//! the deploy parameters and the catalogue, which the caller states.

use std::collections::BTreeMap;

use claviger_domain::decide::{Rules, decide, enrol};
use claviger_domain::enrolment::Enrolment;
use claviger_domain::event::{Actor, InstanceEvent, Origin, PolicyEvent};
use claviger_domain::fact::{AuditHead, Fact};
use claviger_domain::fence::Epoch;
use claviger_domain::ids::{InstanceId, PolicyId};
use claviger_domain::instance::{AppInstance, InstanceStatus, create, decide_instance};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::ShardId;
use claviger_testkit::builders;
use serde::Deserialize;
use uuid::Uuid;

/// What a replay found.
#[derive(Debug, Clone, Default)]
pub struct Conformance {
    /// Facts that were replayed.
    pub facts: usize,
    /// Chains of facts.
    pub streams: usize,
    /// Where the log and the code differ.
    pub divergences: Vec<String>,
}

enum Replayed {
    Policy(Box<EncryptionPolicy>),
    Instance(Box<AppInstance>),
}

#[derive(Deserialize)]
struct Enrolled {
    enrolment: Enrolment,
}

#[derive(Deserialize)]
struct Requested {
    site: claviger_domain::values::SiteName,
    app: claviger_domain::values::App,
}

/// Replays a log, one fact a line, in any order of chains.
pub fn replay(rules: &Rules<'_>, log: &str) -> Conformance {
    let mut found = Conformance::default();
    let mut chains: BTreeMap<Uuid, Vec<Fact>> = BTreeMap::new();
    for (number, line) in log.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match serde_json::from_str::<Fact>(line) {
            Ok(fact) => chains.entry(fact.stream).or_default().push(fact),
            Err(error) => found.divergences.push(format!("line {} is not a fact: {error}", number + 1)),
        }
    }
    for (stream, mut facts) in chains {
        found.streams += 1;
        facts.sort_by_key(|fact| fact.seq);
        let mut state = None;
        let mut head = AuditHead::default();
        for fact in facts {
            found.facts += 1;
            let place = format!("{stream} #{} {}", fact.seq, fact.slug);
            if !fact.follows(&head) {
                found
                    .divergences
                    .push(format!("{place}: it does not follow the fact before, or was altered"));
                break;
            }
            head = AuditHead { seq: fact.seq, hash: fact.hash.clone() };
            match step(rules, state, &fact) {
                Ok(next) => state = Some(next),
                Err(why) => {
                    found.divergences.push(format!("{place}: {why}"));
                    break;
                }
            }
        }
    }
    found
}

fn step(rules: &Rules<'_>, state: Option<Replayed>, fact: &Fact) -> Result<Replayed, String> {
    let origin = Origin { actor: fact.actor.clone(), correlation: fact.correlation_id };
    let (next, again) = match state {
        None => first(rules, fact, &origin)?,
        Some(Replayed::Policy(policy)) => {
            let event: PolicyEvent = read(&fact.event)?;
            let decision = decide(rules, &policy, &event, &origin, fact.at);
            let decision = decision.map_err(|refusal| format!("the code refuses it: {refusal}"))?;
            (Replayed::Policy(Box::new(decision.next)), decision.fact)
        }
        Some(Replayed::Instance(instance)) => {
            let event: InstanceEvent = read(&fact.event)?;
            let decision = decide_instance(&instance, &event, &origin, fact.at);
            let decision = decision.map_err(|refusal| format!("the code refuses it: {refusal}"))?;
            (Replayed::Instance(Box::new(decision.next)), decision.fact)
        }
    };
    if again == *fact {
        return Ok(next);
    }
    Err(format!(
        "the code decides otherwise: state `{}` and fence {:?} in the log, `{}` and {:?} by the code",
        fact.state, fact.fence, again.state, again.fence
    ))
}

fn first(rules: &Rules<'_>, fact: &Fact, origin: &Origin) -> Result<(Replayed, Fact), String> {
    let mut organisation = builders::an_organisation("filled-in");
    organisation.name = fact.organisation.clone();
    if fact.slug == "enrolment-requested" {
        let enrolled: Enrolled = read(&fact.event)?;
        let id = PolicyId::from_uuid(fact.stream);
        let decision = enrol(rules, &organisation, &enrolled.enrolment, id, ShardId(0), origin, fact.at);
        let decision = decision.map_err(|refusal| format!("the code refuses it: {refusal}"))?;
        return Ok((Replayed::Policy(Box::new(decision.next)), decision.fact));
    }
    let requested: Requested = read(&fact.event)?;
    let due_at = fact.at;
    let status = match (fact.state.as_str(), &origin.actor) {
        ("requested", Actor::OrgAdmin(by)) => {
            InstanceStatus::Requested { at: fact.at, by: by.clone(), due_at }
        }
        ("provisioning", Actor::OrgAdmin(_)) => InstanceStatus::Provisioning { since: fact.at, due_at },
        ("not-encrypted", _) => InstanceStatus::NotEncrypted { since: fact.at, suspended_since: None },
        (state, actor) => return Err(format!("no instance begins as `{state}` by {actor:?}")),
    };
    let instance = AppInstance {
        id: InstanceId::from_uuid(fact.stream),
        organisation: organisation.id,
        organisation_name: organisation.name.clone(),
        policy: None,
        site: requested.site,
        app: requested.app,
        realm: None,
        status,
        epoch: Epoch::default(),
        acknowledged: None,
        deletion: None,
        former_site: None,
        audit: AuditHead::default(),
        version: 0,
    };
    let decision = create(instance, origin, fact.at);
    Ok((Replayed::Instance(Box::new(decision.next)), decision.fact))
}

fn read<T: serde::de::DeserializeOwned>(value: &serde_json::Value) -> Result<T, String> {
    serde_json::from_value(value.clone()).map_err(|error| format!("its event cannot be read: {error}"))
}
