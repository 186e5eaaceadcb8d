//! A ticket takes each effect's words once and a person's as often as they come, and says when it was resolved.

use claviger_domain::ids::{EffectId, TicketId};
use claviger_domain::ticket::{Ticket, TicketComment, TicketStatus};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

const OPEN: TicketStatus = TicketStatus::Open;
const RESOLVED: TicketStatus = TicketStatus::Resolved;

fn ticket() -> Ticket {
    Ticket {
        id: TicketId::from_uuid(Uuid::from_u128(1)),
        organisation: "acme".parse().unwrap(),
        title: "t".to_owned(),
        status: OPEN,
        opened_at: Timestamp::UNIX_EPOCH,
        resolved_at: None,
        comments: Vec::new(),
        version: 1,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
}

fn comment(effect: Option<u128>, second: i64) -> TicketComment {
    TicketComment {
        effect: effect.map(|id| EffectId::from_uuid(Uuid::from_u128(id))),
        at: at(second),
        author: "claviger".to_owned(),
        body: "b".to_owned(),
        request: None,
    }
}

#[test]
fn r9_an_effect_writes_once_however_often_its_message_comes_and_a_person_as_often_as_it_likes() {
    let mut now = ticket();
    for (index, (effect, written)) in [
        (Some(1), true),
        (Some(1), false),
        (None, true),
        (None, true),
        (Some(2), true),
        (Some(1), false),
        (Some(2), false),
    ]
    .into_iter()
    .enumerate()
    {
        let next = now.commented(comment(effect, 1), OPEN);
        assert_eq!(next.is_some(), written, "comment {index}");
        now = next.unwrap_or(now);
    }
    assert_eq!((now.comments.len(), now.version), (4, 5));
    assert_eq!((now.status, now.resolved_at), (OPEN, None));
}

#[test]
fn s4_a_ticket_is_resolved_since_the_words_that_resolved_it_and_not_since_later_ones() {
    let mut now = ticket();
    for (second, status, resolved_at) in [
        (1, OPEN, None),
        (2, RESOLVED, Some(2)),
        (3, RESOLVED, Some(2)),
        (4, OPEN, Some(2)),
        (5, RESOLVED, Some(5)),
    ] {
        now = now.commented(comment(None, second), status).unwrap();
        assert_eq!((now.status, now.resolved_at), (status, resolved_at.map(at)), "at {second}");
    }
}
