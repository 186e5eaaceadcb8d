//! What is foretold of keys is recorded, shown, and warned of before it takes effect (spec K2, K4); and so is a key that
//! does not refuse any more what comes for somebody else (spec E12).

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::effect::Effect;
use crate::fact::derived_ticket_id;
use crate::key_access::KeyAccess;
use crate::outlook::{Countdown, Described, Loophole, Outlook, RunsOut};
use crate::policy::{EncryptionPolicy, RegionalKey};
use crate::values::Region;

use super::{Change, Refusal, Rules, illegal};

/// Whether descriptions of a policy's keys would change anything: they say something new, or a reminder is due.
pub fn describes_news(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    described: &BTreeMap<Region, Described>,
    now: Timestamp,
) -> bool {
    policy.keys.iter().any(|(region, key)| {
        described.get(region).is_some_and(|said| {
            let next = seen(key.outlook.as_ref(), said, now);
            Some(&next) != key.outlook.as_ref() || reminder_due(rules, &next, now)
        })
    })
}

pub(super) fn keys_described(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    described: &BTreeMap<Region, Described>,
    now: Timestamp,
) -> Result<Change, Refusal> {
    if !policy.lifecycle.is_watched() {
        return illegal(policy);
    }
    let mut next = policy.clone();
    let access = &policy.access;
    let (mut changed, mut lines) = (false, Vec::new());
    for (region, key) in &mut next.keys {
        // A region that nobody could describe keeps what is known of it.
        let Some(said) = described.get(region) else {
            continue;
        };
        let mut outlook = seen(key.outlook.as_ref(), said, now);
        let was = key.outlook.as_ref().map(|known| known.described.countdowns()).unwrap_or_default();
        let is = outlook.described.countdowns();
        if was != is || reminder_due(rules, &outlook, now) {
            outlook.warned_at = Some(now);
            lines.push(told(region, key, &is));
        }
        let was: Vec<Loophole> = key.outlook.iter().flat_map(|known| known.described.open()).collect();
        let is: Vec<Loophole> = outlook.described.open().collect();
        if was != is {
            lines.push(told_loopholes(region, key, &is, access));
        }
        changed |= key.outlook.as_ref() != Some(&outlook);
        key.outlook = Some(outlook);
    }
    if !changed {
        return Err(Refusal::Redundant);
    }
    let effects = if lines.is_empty() { Vec::new() } else { vec![warning(rules, &mut next, &lines, now)] };
    Ok(Change { next, effects })
}

/// What is known after a description: what it could not say stays as it was.
fn seen(known: Option<&Outlook>, said: &Described, now: Timestamp) -> Outlook {
    let Some(known) = known else {
        return Outlook { described: said.clone(), seen_at: now, rotated_at: None, warned_at: None };
    };
    let before = &known.described;
    let described = Described {
        rotates: said.rotates.or(before.rotates),
        material: said.material.clone().or_else(|| before.material.clone()),
        deleted_at: said.deleted_at,
        material_expires_at: said.material_expires_at,
        loopholes: said.loopholes.clone().or_else(|| before.loopholes.clone()),
        share: said.share.or(before.share),
    };
    let rotated = before.material.is_some() && described.material != before.material;
    Outlook {
        seen_at: if described == *before { known.seen_at } else { now },
        rotated_at: if rotated { Some(now) } else { known.rotated_at },
        warned_at: known.warned_at,
        described,
    }
}

/// Whether a moment of the catalogue's lies between what was told last and now.
fn reminder_due(rules: &Rules<'_>, outlook: &Outlook, now: Timestamp) -> bool {
    let days = &rules.catalogue.key_warnings.remind_days_before;
    let countdowns = outlook.described.countdowns();
    let coming = countdowns.iter().filter(|countdown| countdown.at > now);
    let due = |moment: Timestamp| moment <= now && outlook.warned_at.is_some_and(|told| told < moment);
    coming.flat_map(|countdown| countdown.reminders(days)).any(due)
}

/// On a ticket of its own, which is resolved when nothing is foretold any more.
fn warning(rules: &Rules<'_>, next: &mut EncryptionPolicy, lines: &[String], now: Timestamp) -> Effect {
    let body = lines.join("\n");
    let foretold = next.keys.values().filter_map(|key| key.outlook.as_ref()).any(|outlook| {
        !outlook.described.countdowns().is_empty() || outlook.described.open().next().is_some()
    });
    match next.warning {
        Some(ticket) if foretold => Effect::CommentTicket { ticket, body },
        Some(ticket) => {
            next.warning = None;
            Effect::ResolveTicket { ticket, body }
        }
        None => {
            let seq = next.audit.seq.saturating_add(1);
            let ticket = derived_ticket_id(next.id.as_uuid(), seq, now);
            let title = rules.title(next, |mode| &mode.warning_title);
            next.warning = Some(ticket);
            Effect::OpenTicket { ticket, title, body }
        }
    }
}

/// A key that lets others in than its organisation is no revocation: nothing is cut off.
fn told_loopholes(region: &Region, key: &RegionalKey, open: &[Loophole], access: &KeyAccess) -> String {
    if open.is_empty() {
        return format!("- {region}: {} refuses again what does not come for your organisation.", key.arn);
    }
    let lines: Vec<String> =
        open.iter().map(|hole| format!("- {region}: {}", hole.told(&key.arn, access))).collect();
    lines.join("\n")
}

fn told(region: &Region, key: &RegionalKey, countdowns: &[Countdown]) -> String {
    let arn = &key.arn;
    if countdowns.is_empty() {
        return format!("- {region}: nothing is foretold of {arn} any more.");
    }
    let lines: Vec<String> = countdowns
        .iter()
        .map(|countdown| match countdown.what {
            // It refuses already; this is about the day after which nothing brings it back.
            RunsOut::Deletion => format!(
                "- {region}: {arn} will be deleted at {:.0}, and what is encrypted under it alone is lost for good \
                 then. To keep it: `aws kms cancel-key-deletion --key-id {arn} --region {region}`, then `aws kms \
                 enable-key --key-id {arn} --region {region}`.",
                countdown.at
            ),
            RunsOut::MaterialExpiry => format!(
                "- {region}: the imported material of {arn} expires at {:.0}; from then on the key refuses, and with \
                 every key of the realm access is cut off. To go on, import the same material again before: `aws kms \
                 import-key-material --key-id {arn} --region {region} --expiration-model \
                 KEY_MATERIAL_DOES_NOT_EXPIRE ...`.",
                countdown.at
            ),
        })
        .collect();
    lines.join("\n")
}
