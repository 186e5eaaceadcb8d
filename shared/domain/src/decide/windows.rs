//! The restoration window runs: reminders, the next phase, the end of self-service (spec S3).

use jiff::Timestamp;

use crate::calendar::{MomentKind, WindowMoment, window_moments};
use crate::catalogue::{Catalogue, WindowPhase};
use crate::effect::Effect;
use crate::policy::{EncryptionPolicy, Lifecycle};

use super::{Change, Refusal, Rules, illegal};

/// The moment of the policy's window that has come and was not told yet. Of several, the latest: it says
/// where things stand now, and what was missed says nothing more.
pub fn due_moment(rules: &Rules<'_>, policy: &EncryptionPolicy, now: Timestamp) -> Option<WindowMoment> {
    let cut_off_at = match policy.lifecycle {
        Lifecycle::Suspended { cut_off_at } => cut_off_at,
        // A restoration that is under way is not reminded of, and not cut short; if it fails, its moments come.
        Lifecycle::Restoring { .. }
        | Lifecycle::Lapsed { .. }
        | Lifecycle::Requested { .. }
        | Lifecycle::Verifying { .. }
        | Lifecycle::Active { .. }
        | Lifecycle::Closed { .. }
        | Lifecycle::Rejected { .. } => return None,
    };
    let told = policy.window_told.unwrap_or(cut_off_at);
    let moments = window_moments(rules.catalogue, policy.mode(), cut_off_at);
    moments.into_iter().rfind(|moment| moment.at <= now && moment.at > told)
}

pub(super) fn window_moment_came(
    rules: &Rules<'_>,
    policy: &EncryptionPolicy,
    moment: WindowMoment,
    now: Timestamp,
) -> Result<Change, Refusal> {
    let Lifecycle::Suspended { cut_off_at } = policy.lifecycle else {
        return illegal(policy);
    };
    // INVARIANT (S3): the clock decides, not the message. One that is late, early, doubled or of another
    // window finds another moment due, or none.
    match due_moment(rules, policy, now) {
        None => return Err(Refusal::Redundant),
        Some(due) if due != moment => return Err(Refusal::Stale),
        Some(_) => {}
    }
    let mut next = policy.clone();
    next.window_told = Some(moment.at);
    if moment.phase == WindowPhase::Lapsed {
        // INVARIANT (S3): nothing is deleted by lapsing; keys, wraps and tickets stay.
        next.lifecycle = Lifecycle::Lapsed { cut_off_at };
    }
    let body = words(moment);
    let effects = policy.ticket.map(|ticket| Effect::CommentTicket { ticket, body });
    Ok(Change { next, effects: effects.into_iter().collect() })
}

fn words(moment: WindowMoment) -> String {
    let back = "To restore access: give every key back, then ask for restoration on this ticket.";
    match (moment.kind, moment.phase) {
        (MomentKind::Reminder { ends_at }, phase) => {
            let promise = promise(phase);
            format!("Reminder: restoration is {promise} until {ends_at:.0}, and not after that.\n{back}")
        }
        (MomentKind::PhaseBegins, WindowPhase::Lapsed) => format!(
            "The restoration window is over since {:.0}. Nothing was deleted. {LAPSED_HELP}",
            moment.at
        ),
        (MomentKind::PhaseBegins, phase) => {
            format!("Since {:.0} restoration is {}.\n{back}", moment.at, promise(phase))
        }
    }
}

/// How an organisation comes back after its window is over.
pub const LAPSED_HELP: &str = "Give every key back; then an org admin asks on this ticket, with `POST .../tickets/{ticketId}/comments` \
     and `{\"body\": \"...\", \"request\": \"restoration\"}` (with `\"intoDegraded\": true` where a key is gone for \
     good), and support carries it out.";

const fn promise(phase: WindowPhase) -> &'static str {
    match phase {
        WindowPhase::Assured => "assured",
        WindowPhase::BestEffort => "attempted at best effort",
        WindowPhase::NotAssured => "possible, but full recovery is not assured",
        WindowPhase::Lapsed => "over for self-service",
    }
}

/// What the customer is told of its window when it is cut off.
pub(super) fn window_lines(
    catalogue: &Catalogue,
    policy: &EncryptionPolicy,
    cut_off_at: Timestamp,
) -> String {
    let phases = crate::calendar::dated_phases(catalogue, policy.mode(), cut_off_at);
    let lines: Vec<String> = phases
        .iter()
        .map(|dated| match dated.ends_at {
            Some(end) => format!("- until {end:.0}: restoration is {}", promise(dated.phase)),
            None => format!("- after that: restoration is {}", promise(dated.phase)),
        })
        .collect();
    lines.join("\n")
}
