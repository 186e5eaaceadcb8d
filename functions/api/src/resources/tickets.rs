//! `.../tickets`: where the customer is told and where it answers.

use axum::body::Body;
use axum::extract::{Path, State};
use claviger_app::as_of::{AsOf, Seen, tag};
use claviger_app::ports::{Page, Tickets};
use claviger_app::tickets::PeoplesTickets;
use claviger_domain::authorisation::Call;
use claviger_domain::ids::TicketId;
use claviger_domain::ticket::{Ticket, TicketStatus};
use claviger_lambda::problem::Problem;
use http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;

use crate::access::Visit;
use crate::answer::{Answer, document, page, tagged};
use crate::body;
use crate::cursor::{Asked, List};
use crate::if_match::IfMatch;
use crate::state::{Api, Shared};
use crate::trouble::trouble;

/// The longest comment, in characters.
const LONGEST: usize = 4000;

/// A ticket as it is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TicketView {
    id: TicketId,
    title: String,
    status: TicketStatus,
    opened_at: Timestamp,
    resolved_at: Option<Timestamp>,
    comments: Vec<CommentView>,
    etag: String,
}

#[derive(Serialize)]
struct CommentView {
    at: Timestamp,
    author: String,
    body: String,
}

impl From<Ticket> for TicketView {
    fn from(ticket: Ticket) -> Self {
        let comments = ticket.comments.into_iter().map(|comment| CommentView {
            at: comment.at,
            author: comment.author,
            body: comment.body,
        });
        Self {
            etag: tag(ticket.id.as_uuid(), ticket.version),
            id: ticket.id,
            title: ticket.title,
            status: ticket.status,
            opened_at: ticket.opened_at,
            resolved_at: ticket.resolved_at,
            comments: comments.collect(),
        }
    }
}

fn tickets<'a>(api: &'a Api, stores: &'a dyn Tickets) -> PeoplesTickets<'a> {
    PeoplesTickets { tickets: stores, clock: &*api.clock }
}

/// Lists tickets, newest first.
pub async fn list(
    State(api): State<Shared>,
    visit: Visit,
    Path(org): Path<String>,
    asked: Result<Asked, Problem>,
) -> Answer {
    let access = api.enter(&visit, &org, Call::ListTickets).await?;
    let list = List { name: "tickets", owner: Some(access.organisation.id) };
    let (cursor, limit) = asked?.page(&list)?;
    let stores = AsOf { stores: &*api.stores, seen: &Seen::Anything };
    let found = tickets(&api, &stores).list(&access.organisation.name, cursor.as_deref(), limit).await;
    let Page { items, next } = found.map_err(trouble)?;
    let items: Vec<TicketView> = items.into_iter().map(TicketView::from).collect();
    Ok(page(&list, &Page { items, next }))
}

/// Adds to a ticket.
pub async fn comment(
    State(api): State<Shared>,
    visit: Visit,
    Path((org, id)): Path<(String, String)>,
    seen: Result<IfMatch, Problem>,
    sent: Body,
) -> Answer {
    let access = api.enter(&visit, &org, Call::CommentTicket).await?;
    let id: TicketId = id.parse().map_err(|_| Problem::not_found())?;
    let mut faults = Vec::new();
    let words = body::words(&body::object(sent).await?, "body", LONGEST, &mut faults);
    let words = words.ok_or_else(|| Problem::invalid(faults))?;
    let IfMatch(seen) = seen?;
    let stores = AsOf { stores: &*api.stores, seen: &seen };
    let ticket = tickets(&api, &stores).comment(&access.organisation.name, id, &words, access.role).await;
    let view = TicketView::from(ticket.map_err(trouble)?);
    Ok(tagged(document(StatusCode::CREATED, &view), &view.etag))
}
