//! What the vendor's records say of an instance's site: another name, or that it was deleted (spec A4). A name changes no
//! key: the context of data keys and records knows the instance by its identifier. A deletion is final only when its time
//! is over, of encrypted apps and of others: then nobody is given a data key, and every one of them is deleted with all
//! its wraps.

use jiff::Timestamp;

use crate::decide::Refusal;
use crate::effect::Effect;
use crate::event::{Actor, Origin};
use crate::fact::derived_ticket_id;
use crate::values::SiteName;

use super::{AppInstance, InstanceStatus, SiteDeletion, illegal};

/// Nobody but the vendor's own records says what becomes of a site.
fn by_system(origin: &Origin) -> Result<(), Refusal> {
    match origin.actor {
        Actor::System(_) => Ok(()),
        Actor::OrgAdmin(_) | Actor::Support(_) | Actor::Claviger(_) => {
            Err(Refusal::Forbidden { who: "the vendor's records" })
        }
    }
}

pub(super) fn renamed(
    next: &mut AppInstance,
    from: &SiteName,
    to: &SiteName,
    origin: &Origin,
) -> Result<Vec<Effect>, Refusal> {
    by_system(origin)?;
    if next.site == *to {
        return Err(Refusal::Redundant);
    }
    if next.site != *from {
        return Err(Refusal::Stale);
    }
    if !next.status.holds_place() {
        return illegal(next);
    }
    next.former_site = Some(from.clone());
    next.site = to.clone();
    Ok(Vec::new())
}

pub(super) fn deleted(
    next: &mut AppInstance,
    erase_at: Timestamp,
    title: &str,
    origin: &Origin,
    now: Timestamp,
) -> Result<Vec<Effect>, Refusal> {
    by_system(origin)?;
    let what = match next.status {
        // INVARIANT (A3, A6): it keeps its place, and stays a member of its family, until the time is over: a record that
        // was wrong neither makes room for it anew nor takes it out of a revocation.
        InstanceStatus::NotEncrypted { .. } => None,
        InstanceStatus::Requested { .. } => Some(format!(
            "The request for `{}` on it stands until {erase_at:.0}; then it is dropped.",
            next.app
        )),
        InstanceStatus::Provisioning { .. }
        | InstanceStatus::Active { .. }
        | InstanceStatus::Suspended { .. } => Some(format!(
            "The data keys of `{}` on it are kept until {erase_at:.0}; then they are deleted with all their wraps, and \
             what is encrypted under them, backups included, can be read by nobody, for good.",
            next.app
        )),
        InstanceStatus::Erasing { .. } | InstanceStatus::Deleted { .. } => return Err(Refusal::Redundant),
        InstanceStatus::Rejected { .. } => return illegal(next),
    };
    if next.deletion.is_some() {
        return Err(Refusal::Redundant);
    }
    let told = what.map(|what| {
        let ticket = derived_ticket_id(next.id.as_uuid(), next.audit.seq.saturating_add(1), now);
        let body = format!(
            "The vendor's records say that the site `{}` was deleted. {what} If the site was not meant to be deleted, have \
             the vendor take it back before then.",
            next.site
        );
        (ticket, Effect::OpenTicket { ticket, title: title.to_owned(), body })
    });
    let (ticket, effect) = told.unzip();
    next.deletion = Some(SiteDeletion { at: now, erase_at, ticket });
    Ok(effect.into_iter().collect())
}

/// What has no data keys is gone with its last word.
pub(super) fn nothing_left(next: &mut AppInstance) -> Vec<Effect> {
    let ticket = next.deletion.take().and_then(|deletion| deletion.ticket);
    let body = format!("Nothing of `{}` is left on the site `{}`: it has no data keys.", next.app, next.site);
    ticket.map(|ticket| Effect::ResolveTicket { ticket, body }).into_iter().collect()
}

pub(super) fn deletion_cancelled(next: &mut AppInstance, origin: &Origin) -> Result<Vec<Effect>, Refusal> {
    by_system(origin)?;
    match next.status {
        InstanceStatus::Erasing { .. } | InstanceStatus::Deleted { .. } => Err(Refusal::ErasureBegan),
        InstanceStatus::Requested { .. }
        | InstanceStatus::Provisioning { .. }
        | InstanceStatus::Active { .. }
        | InstanceStatus::Suspended { .. }
        | InstanceStatus::NotEncrypted { .. }
        | InstanceStatus::Rejected { .. } => {
            let taken_back = next.deletion.take().ok_or(Refusal::SiteNotDeleted)?;
            let body = format!(
                "The vendor's records took the deletion of the site `{}` back. `{}` stays as it is.",
                next.site, next.app
            );
            Ok(taken_back.ticket.map(|ticket| Effect::ResolveTicket { ticket, body }).into_iter().collect())
        }
    }
}

/// The clock decides, not the message.
pub(super) fn deletion_due(next: &mut AppInstance, now: Timestamp) -> Result<Vec<Effect>, Refusal> {
    let Some(deletion) = &next.deletion else {
        return Err(Refusal::Redundant);
    };
    let has_data_keys = match next.status {
        InstanceStatus::Provisioning { .. }
        | InstanceStatus::Active { .. }
        | InstanceStatus::Suspended { .. } => true,
        InstanceStatus::Requested { .. } | InstanceStatus::NotEncrypted { .. } => false,
        InstanceStatus::Erasing { .. } => return Err(Refusal::Redundant),
        InstanceStatus::Rejected { .. } | InstanceStatus::Deleted { .. } => return illegal(next),
    };
    if now < deletion.erase_at {
        return Err(Refusal::Stale);
    }
    if !has_data_keys {
        next.status = InstanceStatus::Deleted { at: now, data_keys: 0 };
        return Ok(nothing_left(next));
    }
    let body = format!("The data keys of `{}` on the site `{}` are being deleted.", next.app, next.site);
    let told = deletion.ticket.map(|ticket| Effect::CommentTicket { ticket, body });
    next.status = InstanceStatus::Erasing { since: now, counted: None };
    Ok(told.into_iter().chain([Effect::EraseInstance { instance: next.id }]).collect())
}

pub(super) fn data_keys_counted(next: &mut AppInstance, data_keys: u64) -> Result<Vec<Effect>, Refusal> {
    let InstanceStatus::Erasing { since, counted } = next.status else {
        return illegal(next);
    };
    if counted.is_some() {
        return Err(Refusal::Redundant);
    }
    next.status = InstanceStatus::Erasing { since, counted: Some(data_keys) };
    Ok(Vec::new())
}

pub(super) fn data_keys_erased(next: &mut AppInstance, now: Timestamp) -> Result<Vec<Effect>, Refusal> {
    let data_keys = match next.status {
        InstanceStatus::Erasing { counted: Some(counted), .. } => counted,
        InstanceStatus::Deleted { .. } => return Err(Refusal::Redundant),
        InstanceStatus::Erasing { counted: None, .. }
        | InstanceStatus::Requested { .. }
        | InstanceStatus::Provisioning { .. }
        | InstanceStatus::Active { .. }
        | InstanceStatus::Suspended { .. }
        | InstanceStatus::NotEncrypted { .. }
        | InstanceStatus::Rejected { .. } => return illegal(next),
    };
    next.status = InstanceStatus::Deleted { at: now, data_keys };
    let ticket = next.deletion.take().and_then(|deletion| deletion.ticket);
    let resolved = ticket.map(|ticket| {
        let body = format!(
            "{data_keys} data keys of `{}` on the site `{}` are deleted with all their wraps: what was encrypted under \
             them can be read by nobody. Ciphertexts that are left, in backups say, are left to the vendor to delete; the \
             point-in-time backup of our registry holds the wraps, which your keys alone open, for 35 days more.",
            next.app, next.site
        );
        Effect::ResolveTicket { ticket, body }
    });
    Ok(resolved.into_iter().collect())
}
