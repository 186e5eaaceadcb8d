//! What must be the same however often something was tried, and what may differ.

use std::collections::BTreeMap;

use claviger_app::ports::{DataKeyRegistry, Instances, Tickets};
use claviger_domain::data_keys::FormerDataKeys;
use claviger_domain::ids::InstanceId;
use serde_json::{Value, json};

use super::checks::now_or_never;
use super::run::Sim;

/// What of two shapes is not the same.
pub(super) fn difference(wanted: &Value, is: &Value) -> String {
    let (Value::Object(wanted), Value::Object(is)) = (wanted, is) else {
        return format!("it should be {wanted} and is {is}");
    };
    let other = wanted.iter().filter(|(name, value)| is.get(*name) != Some(*value));
    other
        .map(|(name, value)| {
            let now = is.get(name).unwrap_or(&Value::Null);
            format!("{name} should be {value}\n    and is {now}")
        })
        .collect::<Vec<_>>()
        .join("\n  ")
}

/// What an enum is, without what it holds.
fn word(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// Facts of which the number depends on how often somebody looked: a probe that saw what was known, the description of
/// keys. What follows from them has a fact of its own.
const LOOKS: [&str; 2] = ["keys-described", "probes-reported"];

/// Comments that depend on who was first: whether the event of a change came before the sweep saw it, and whether one
/// probe saw both regions refuse, or one of them first. None is written twice: the observer sees to that (I4).
const PASSING: [&str; 2] = ["According to an event", "Revocation is incomplete"];

/// Words without what is different in every run: identifiers, times, counts of tries.
fn gist(text: &str) -> String {
    text.chars().take_while(|letter| !letter.is_ascii_digit()).take(60).collect()
}

/// What a notice is about.
fn words_of(notice: &str) -> (String, String) {
    let notice: Value = serde_json::from_str(notice).unwrap_or_default();
    let text = |value: &Value| value.as_str().map(gist).unwrap_or_default();
    let kind = match text(&notice["type"]) {
        // A cut-off opens a ticket, or is written on the one that a region which was first has opened.
        kind if kind == "ticket.opened" => "ticket.commented".to_owned(),
        kind => kind,
    };
    (kind, text(&notice["data"]["body"]))
}

impl Sim {
    /// Everything that must not depend on how often something was tried.
    pub(super) fn shape(&self) -> Value {
        let count = self.world.state().orgs.len();
        let mut shape = serde_json::Map::new();
        for org in 0..count {
            let Some(policy) = self.policy(org) else { continue };
            let name = policy.organisation_name.clone();
            let keys: Vec<Value> = policy
                .keys
                .values()
                .map(|key| {
                    json!([key.arn.as_str(), key.health.slug(), key.given_up, key.replacement.is_some()])
                })
                .collect();
            let of_policy = json!({
                "lifecycle": policy.lifecycle.slug(),
                "mode": policy.mode(),
                "fence": [json!(policy.fence.epoch), json!(policy.fence.causes), json!(policy.fence.min_write_generation)],
                "told": policy.told,
                "generation": policy.generation,
                "keys": keys,
                "former": policy.former_keys.iter().map(|former| former.keys.clone()).collect::<Vec<_>>(),
                "job": policy.reencryption.as_ref().map(|job| (job.phase.slug(), job.paused.is_some())),
                "ended": policy.reencryptions.iter().map(|ended| json!(ended.outcome)).collect::<Vec<_>>(),
                "open": [policy.ticket.is_some(), policy.warning.is_some(), policy.vendor.is_some(), policy.lift.is_some()],
                "former": policy.former_keys.iter().map(|former| (former.generation, former_state(&former.data_keys))).collect::<Vec<_>>(),
                "leaving": policy.closing.is_some(),
                "asked": policy.access_requests.iter().map(|asked| word(&asked.answer)).collect::<Vec<_>>(),
                "records": policy.records.as_ref().map(|records| json!(records.plans_ended)),
                "erased": policy.erasure.as_ref().map(|erasure| (erasure.counted.instances, erasure.counted.data_keys)),
            });
            shape.insert(format!("policy of {name}"), of_policy);
            let facts = self.world.store.all_facts(&name);
            let of_policy = facts.iter().filter(|fact| fact.stream == policy.id.as_uuid());
            let slugs = of_policy.map(|fact| fact.slug.as_str());
            let mut decided: Vec<&str> = slugs.filter(|slug| !LOOKS.contains(slug)).collect();
            // Which, and how many of each. Of two that work at the same time the one or the other is first.
            decided.sort_unstable();
            shape.insert(format!("decisions of {name}"), json!(decided));
            self.shape_of_instances(&name, &mut shape);
            self.shape_of_tickets(&name, &mut shape);
        }
        let state = self.world.state();
        let records: Vec<Value> = state
            .records
            .iter()
            .map(|(place, record)| {
                let generation = claviger_envelope::generation_of(&record.sealed).unwrap_or(0);
                json!([place.1, place.2, generation, record.written.len()])
            })
            .collect();
        shape.insert("records".to_owned(), json!(records));
        // Which notices, and how many of each; their identifiers, and how often each was sent, differ.
        let mut told: Vec<(String, String)> = state.notices.values().map(|body| words_of(body)).collect();
        told.retain(|(_, gist)| !PASSING.iter().any(|passing| gist.starts_with(passing)));
        told.sort();
        shape.insert("told".to_owned(), json!(told));
        let undelivered = self.world.store.still_undelivered().len();
        let left = [self.world.store.outbox().len(), state.dead_letters.len(), undelivered];
        shape.insert("left".to_owned(), json!(left));
        Value::Object(shape)
    }

    fn shape_of_instances(
        &self,
        name: &claviger_domain::values::OrganisationName,
        shape: &mut serde_json::Map<String, Value>,
    ) {
        let page = now_or_never(Instances::instances(&self.world.store, name, None, 200));
        let instances = page.and_then(Result::ok).map(|page| page.items).unwrap_or_default();
        let mut all: Vec<(String, Value)> = instances
            .iter()
            .map(|instance| {
                let app = self.world.state().apps.get(&instance.id).cloned().unwrap_or_default();
                let place = format!("{}/{}", instance.site, instance.app);
                let what = json!([
                    instance.status.slug(),
                    instance.epoch,
                    app.epoch,
                    app.stopped,
                    self.shape_of_data_keys(instance.id)
                ]);
                (place, what)
            })
            .collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        shape.insert(format!("instances of {name}"), json!(all));
    }

    fn shape_of_data_keys(&self, instance: InstanceId) -> Value {
        let keys = now_or_never(DataKeyRegistry::data_keys(&self.world.store, instance));
        let mut keys = keys.and_then(Result::ok).unwrap_or_default();
        keys.sort_by_key(|key| key.version);
        let one = |key: &claviger_app::ports::WrappedDataKey| {
            let arns = |wraps: &BTreeMap<_, claviger_app::ports::Wrap>| {
                wraps.values().map(|wrap| wrap.key.to_string()).collect::<Vec<_>>()
            };
            json!([key.purpose, key.version, key.generation, arns(&key.wraps), arns(&key.second)])
        };
        keys.iter().map(one).collect()
    }

    fn shape_of_tickets(
        &self,
        name: &claviger_domain::values::OrganisationName,
        shape: &mut serde_json::Map<String, Value>,
    ) {
        let page = now_or_never(Tickets::tickets(&self.world.store, name, None, 200));
        let tickets = page.and_then(Result::ok).map(|page| page.items).unwrap_or_default();
        let mut all: Vec<Value> = tickets
            .iter()
            .map(|ticket| {
                // What people said twice stands there twice; what was heard, and which region was seen first, is a
                // matter of moments.
                let ours = ticket.comments.iter().filter(|comment| comment.effect.is_some());
                let mut said: Vec<String> = ours.map(|comment| gist(&comment.body)).collect();
                said.retain(|gist| !PASSING.iter().any(|passing| gist.starts_with(passing)));
                said.sort();
                json!([ticket.title, ticket.status, said])
            })
            .collect();
        all.sort_by_key(Value::to_string);
        shape.insert(format!("tickets of {name}"), json!(all));
    }
}

const fn former_state(of: &FormerDataKeys) -> &'static str {
    match of {
        FormerDataKeys::Kept => "kept",
        FormerDataKeys::Removing { .. } => "removing",
        FormerDataKeys::Removed { .. } => "removed",
    }
}
