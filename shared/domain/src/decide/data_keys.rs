//! Data keys of former generations go when the last backup that needs them has expired (spec X4).

use jiff::Timestamp;

use crate::data_keys::FormerDataKeys;
use crate::effect::Effect;
use crate::event::LastBackup;
use crate::ids::ReencryptionId;
use crate::policy::EncryptionPolicy;
use crate::reencryption::FormerKeys;

use super::{Change, Refusal, Rules, illegal};

/// Nothing needs the data keys of this generation, or of an older one, any more.
///
/// INVARIANT (I6): what the policy itself knows is asked again here. That no backup needs them is what the event says, by the
/// one that lasted longest; the store compares that no other was registered since.
pub(super) fn data_keys_expired(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    (generation, by, last): (u64, ReencryptionId, Option<&LastBackup>),
    now: Timestamp,
) -> Result<Change, Refusal> {
    let former = policy.former_keys.iter().find(|former| former.generation == generation);
    match former.map(|former| former.data_keys) {
        Some(FormerDataKeys::Kept) => {}
        Some(FormerDataKeys::Removing { .. } | FormerDataKeys::Removed { .. }) => {
            return Err(Refusal::Redundant);
        }
        None => return Err(Refusal::Stale),
    }
    let Ok(jobs) = policy.moved_on_from(generation) else {
        return illegal(policy);
    };
    let Some(by) = jobs.into_iter().find(|ended| ended.job.id == by) else {
        return Err(Refusal::Stale);
    };
    if [Some(by.at), last.map(|last| last.expires_at)]
        .into_iter()
        .flatten()
        .any(|at| at + rules.in_transit > now)
    {
        return Err(Refusal::Stale);
    }
    let waited = match last {
        Some(last) => {
            format!("The last backup that needed them, `{}`, expired at {:.0}.", last.id, last.expires_at)
        }
        None => "No registered backup needs them.".to_owned(),
    };
    let body = format!(
        "The data keys of generation {generation} and older are removed: no record is under them. {waited} A copy of an \
         older backup that somebody kept cannot be read any more."
    );
    let effects =
        vec![Effect::CommentTicket { ticket: by.job.ticket, body }, Effect::RemoveDataKeys { generation }];
    let next = each(policy, |former| match former.data_keys {
        FormerDataKeys::Kept if former.generation <= generation => FormerDataKeys::Removing { since: now },
        other => other,
    });
    Ok(Change { next, effects })
}

/// None of them is left.
pub(super) fn data_keys_removed(
    policy: &EncryptionPolicy,
    generation: u64,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let next = each(policy, |former| match former.data_keys {
        FormerDataKeys::Removing { .. } if former.generation <= generation => {
            FormerDataKeys::Removed { at: now }
        }
        other => other,
    });
    if next.former_keys == policy.former_keys {
        return Err(Refusal::Redundant);
    }
    Ok(Change { next, effects: Vec::new() })
}

fn each(policy: &EncryptionPolicy, becomes: impl Fn(&FormerKeys) -> FormerDataKeys) -> EncryptionPolicy {
    let mut next = policy.clone();
    for former in &mut next.former_keys {
        former.data_keys = becomes(former);
    }
    next
}
