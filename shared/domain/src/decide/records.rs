//! What the vendor's customer records say and an enrolled organisation has to know: the plan of an app ended, or nobody is
//! left who may ask for anything (spec E1, E3). It changes no access: what is encrypted stays so and goes on working.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::effect::Effect;
use crate::fact::derived_ticket_id;
use crate::policy::{EncryptionPolicy, RecordsTrouble};
use crate::values::App;

use super::closing::time_to_cancel;
use super::{Change, Refusal, Rules, illegal};

pub(super) fn records_fed(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    plans_ended: &BTreeSet<App>,
    without_admin: bool,
    now: Timestamp,
) -> Result<Change, Refusal> {
    if !policy.lifecycle.is_watched() {
        return illegal(policy);
    }
    let known = policy.records.as_ref();
    let was = known.map(|known| (known.plans_ended.clone(), known.without_admin)).unwrap_or_default();
    if was == (plans_ended.clone(), without_admin) {
        return Err(Refusal::Redundant);
    }
    let mut next = policy.clone();
    let came_back = was.1 && !without_admin;
    let longer = if came_back { time_to_cancel(rules, &mut next, now) } else { None };
    let words = words(plans_ended, without_admin);
    if words.is_empty() {
        let body = "The customer records are as an enrolled organisation needs them again.".to_owned();
        let told = next.records.take().map(|known| Effect::ResolveTicket { ticket: known.ticket, body });
        return Ok(Change { next, effects: told.into_iter().chain(longer).collect() });
    }
    let body = words.join("\n");
    let (ticket, effect) = match known {
        Some(known) => (known.ticket, Effect::CommentTicket { ticket: known.ticket, body }),
        None => {
            let seq = next.audit.seq.saturating_add(1);
            let ticket = derived_ticket_id(next.id.as_uuid(), seq, now);
            let title = rules.title(&next, |mode| &mode.records_title);
            (ticket, Effect::OpenTicket { ticket, title, body })
        }
    };
    next.records = Some(RecordsTrouble { plans_ended: plans_ended.clone(), without_admin, ticket });
    Ok(Change { next, effects: [effect].into_iter().chain(longer).collect() })
}

fn words(plans_ended: &BTreeSet<App>, without_admin: bool) -> Vec<String> {
    let mut words: Vec<String> = plans_ended
        .iter()
        .map(|app| {
            format!(
                "The plan of `{app}` does not include encryption any more. What is encrypted stays encrypted and goes on \
                 working; there are no new apps of it, and one that was approved waits. Put the app back on a plan that includes it, or leave: `POST \
                 .../encryption-policy/close`."
            )
        })
        .collect();
    if without_admin {
        words.push(
            "Nobody is registered as an admin of the organisation. Your keys cut access off as ever, but nobody can ask \
             for restoration, answer access requests or leave until the customer records name an admin. Until \
             then no closing begins to erase anything."
                .to_owned(),
        );
    }
    words
}
