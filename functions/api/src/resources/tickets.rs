//! `.../tickets`: where the customer is told and where it answers.

use axum::body::Body;
use axum::extract::{Path, State};
use claviger_app::as_of::{AsOf, Seen, tag};
use claviger_app::ports::{Page, Tickets};
use claviger_app::tickets::PeoplesTickets;
use claviger_domain::authorisation::Call;
use claviger_domain::authorisation::Role;
use claviger_domain::ids::TicketId;
use claviger_domain::invalid::{Invalid, InvalidField};
use claviger_domain::ticket::{Asked, Ticket, TicketRequest, TicketStatus};
use claviger_lambda::problem::Problem;
use http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::restorations::into_degraded;
use crate::access::Visit;
use crate::answer::{Answer, document, page, tagged};
use crate::body;
use crate::cursor::{self, List};
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
#[serde(rename_all = "camelCase")]
struct CommentView {
    at: Timestamp,
    author: String,
    body: String,
    request: Option<Asked>,
    into_degraded: bool,
}

impl From<Ticket> for TicketView {
    fn from(ticket: Ticket) -> Self {
        let comments = ticket.comments.into_iter().map(|comment| CommentView {
            at: comment.at,
            author: comment.author,
            body: comment.body,
            into_degraded: comment.request.as_ref().is_some_and(|request| request.into_degraded),
            request: comment.request.map(|request| request.asked),
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
    asked: Result<cursor::Asked, Problem>,
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
    let sent = body::object(sent).await?;
    let words = body::words(&sent, "body", LONGEST, &mut faults);
    let request = request(&sent, &visit, access.role, &mut faults);
    let (Some(words), true) = (words, faults.is_empty()) else {
        return Err(Problem::invalid(faults));
    };
    let IfMatch(seen) = seen?;
    let stores = AsOf { stores: &*api.stores, seen: &seen };
    let name = &access.organisation.name;
    let ticket = tickets(&api, &stores).comment(name, id, &words, access.role, request).await;
    let view = TicketView::from(ticket.map_err(trouble)?);
    Ok(tagged(document(StatusCode::CREATED, &view), &view.etag))
}

/// What is asked for with the words. Only an org admin asks (spec S1).
fn request(sent: &Value, visit: &Visit, role: Role, faults: &mut Vec<InvalidField>) -> Option<TicketRequest> {
    let into_degraded = into_degraded(sent, faults);
    let invalid = match sent.get("request") {
        None | Some(Value::Null) => {
            if into_degraded {
                let help = "send `\"request\": \"restoration\"` with it, or leave it out";
                let invalid = Invalid::new("it says how to restore, and nothing is asked for", help);
                faults.push(invalid.at("intoDegraded"));
            }
            return None;
        }
        Some(Value::String(word)) if word == "restoration" => {
            if role == Role::OrgAdmin {
                let by = visit.caller.subject.clone();
                return Some(TicketRequest { asked: Asked::Restoration, by, into_degraded });
            }
            Invalid::new("only an org admin asks for restoration", "leave it out; the org admin asks itself")
        }
        Some(_) => Invalid::new("it is nothing that can be asked for", "send `restoration`, or leave it out"),
    };
    faults.push(invalid.at("request"));
    None
}
