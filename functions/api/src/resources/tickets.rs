//! `.../tickets`: where the customer is told and where it answers.

use axum::body::Body;
use axum::extract::{Path, State};
use claviger_app::ports::Page;
use claviger_app::tickets::PeoplesTickets;
use claviger_domain::authorisation::Call;
use claviger_domain::ids::TicketId;
use claviger_domain::ticket::{Ticket, TicketStatus};
use claviger_lambda::problem::Problem;
use http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;

use crate::access::Visit;
use crate::answer::{Answer, document, page};
use crate::body;
use crate::cursor::{Asked, List};
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
            id: ticket.id,
            title: ticket.title,
            status: ticket.status,
            opened_at: ticket.opened_at,
            resolved_at: ticket.resolved_at,
            comments: comments.collect(),
        }
    }
}

fn tickets(api: &Api) -> PeoplesTickets<'_> {
    PeoplesTickets { tickets: &*api.stores, clock: &*api.clock }
}

/// Lists tickets, newest first.
pub async fn list(
    State(api): State<Shared>,
    visit: Visit,
    Path(org): Path<String>,
    asked: Result<Asked, Problem>,
) -> Answer {
    let access = api.enter(&visit, &org, Call::ListTickets).await?;
    let list = List { name: "tickets", owner: access.organisation.name.as_str() };
    let (cursor, limit) = asked?.page(&list)?;
    let found = tickets(&api).list(&access.organisation.name, cursor.as_deref(), limit).await;
    let Page { items, next } = found.map_err(trouble)?;
    let items: Vec<TicketView> = items.into_iter().map(TicketView::from).collect();
    Ok(page(&list, &Page { items, next }))
}

/// Adds to a ticket.
pub async fn comment(
    State(api): State<Shared>,
    visit: Visit,
    Path((org, id)): Path<(String, String)>,
    sent: Body,
) -> Answer {
    let access = api.enter(&visit, &org, Call::CommentTicket).await?;
    let id: TicketId = id.parse().map_err(|_| Problem::not_found())?;
    let mut faults = Vec::new();
    let words = body::words(&body::object(sent).await?, "body", LONGEST, &mut faults);
    let words = words.ok_or_else(|| Problem::invalid(faults))?;
    let ticket = tickets(&api).comment(&access.organisation.name, id, &words, access.role).await;
    Ok(document(StatusCode::CREATED, &TicketView::from(ticket.map_err(trouble)?)))
}
