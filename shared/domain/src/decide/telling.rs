//! What the organisation's admins are told on the ticket.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::effect::Effect;
use crate::fact::derived_ticket_id;
use crate::heard::HeardChange;
use crate::policy::{EncryptionPolicy, KeyHealth};
use crate::values::Region;

use super::Rules;
use super::health::revoked;

pub(super) fn key_lines(policy: &EncryptionPolicy) -> String {
    let lines: Vec<String> = policy
        .keys
        .iter()
        .map(|(region, key)| {
            let help = key.help().map(|help| format!(": {help}")).unwrap_or_default();
            format!("- {region}: {} is {}{help}", key.arn, key.health.slug())
        })
        .collect();
    lines.join("\n")
}

/// How much of what events say is told on one ticket: who can send events cannot fill it.
const MOST_HEARD: usize = 16;

/// Who changed it, as far as events said so and it was not told before (spec R8). Of what is more than a ticket
/// takes, the ticket says where to find it.
pub(super) fn heard_lines(next: &mut EncryptionPolicy, heard: &[HeardChange]) -> String {
    let mut lines = String::new();
    for change in heard {
        if next.told_heard.contains(change) || next.told_heard.len() >= MOST_HEARD {
            continue;
        }
        next.told_heard.push(change.clone());
        lines.push_str(&change.line());
        lines.push('\n');
        if next.told_heard.len() == MOST_HEARD {
            lines.push_str("What further events say is not repeated here: your CloudTrail has it.\n");
        }
    }
    lines
}

/// An event may come after the probe that saw what it is about: then it is told by itself, once.
pub(super) fn tell_late(next: &mut EncryptionPolicy, heard: &[HeardChange]) -> Option<Effect> {
    let ticket = next.ticket?;
    let refused = next.keys.values().any(|key| key.health.stands_refused());
    let body = if refused { heard_lines(next, heard) } else { String::new() };
    (!body.is_empty()).then(|| Effect::CommentTicket { ticket, body: body.trim_end().to_owned() })
}

/// Opens the ticket of the revocation, or adds to it.
pub(super) fn tell(
    rules: &Rules<'_>,
    next: &mut EncryptionPolicy,
    body: String,
    now: Timestamp,
    effects: &mut Vec<Effect>,
) {
    if let Some(ticket) = next.ticket {
        effects.push(Effect::CommentTicket { ticket, body });
        return;
    }
    let seq = next.audit.seq.saturating_add(1);
    let ticket = derived_ticket_id(next.id.as_uuid(), seq, now);
    let title = rules.title(next, |mode| &mode.revocation_title);
    next.ticket = Some(ticket);
    effects.push(Effect::OpenTicket { ticket, title, body });
}

/// What is said of a key whose refusal does not count. Only one that decrypted works: silence says nothing.
const fn still(health: KeyHealth) -> &'static str {
    match health {
        KeyHealth::Usable => "still works",
        KeyHealth::Refused { .. } => "refuses too, which counts when it lasts",
        KeyHealth::NoAnswer { .. } | KeyHealth::Unknown => "gives no answer",
    }
}

/// What follows from the regions that stand refused, and what the organisation can do.
fn standing_of(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    refused: &BTreeSet<Region>,
) -> (String, &'static str) {
    let seen = policy.keys.iter().map(|(region, key)| (region.clone(), key.health)).collect();
    let enough = revoked(rules, policy, &seen);
    let reads = match (policy.fence.is_open(), enough) {
        (true, true) => "Until then data stays readable.",
        (true, false) => "Data stays readable.",
        (false, _) => "Data is cut off for another cause.",
    };
    if enough {
        let said =
            "Keys refuse as it takes to cut access off: that happens as soon as a second probe confirms it.";
        return (format!("{said} {reads}"), "To end this, give every key back.");
    }
    let others = policy.keys.iter().filter(|(region, _)| !refused.contains(*region));
    let still: Vec<String> =
        others.map(|(region, key)| format!("the key in {region} {}", still(key.health))).collect();
    let to_do = "To cut access off, take the other keys away too; to end this, give every key back.";
    (format!("Revocation is incomplete: {}. {reads}", still.join(", ")), to_do)
}

/// Warns when regions newly stand refused while others work, and says when all is well again
/// (spec R5: one region alone is *degraded*, warned of at once).
pub(super) fn tell_of_regions(
    rules: &Rules<'_>,
    before: &EncryptionPolicy,
    next: &mut EncryptionPolicy,
    heard: &[HeardChange],
    now: Timestamp,
) -> Vec<Effect> {
    let standing = |policy: &EncryptionPolicy| -> BTreeSet<Region> {
        let refused = policy.keys.iter().filter(|(_, key)| key.health.stands_refused());
        refused.map(|(region, _)| region.clone()).collect()
    };
    let (was, is) = (standing(before), standing(next));
    let mut effects = Vec::new();
    if is.difference(&was).next().is_some() {
        let (said, to_do) = standing_of(rules, next, &is);
        let heard = heard_lines(next, heard);
        let body = format!("{said}\n{}\n{heard}{to_do}", key_lines(next));
        tell(rules, next, body, now, &mut effects);
    } else if is.is_empty()
        && next.keys.values().all(|key| key.health == KeyHealth::Usable)
        // INVARIANT (S4): the data-loss report has its ticket.
        && !next.is_coming_back()
        && let Some(ticket) = next.ticket.take()
    {
        let body = "Every regional key works again.".to_owned();
        effects.push(Effect::ResolveTicket { ticket, body });
    }
    effects
}
