//! `.../usage`: KMS calls on the organisation's keys, and what they cost.

use axum::extract::{Path, State};
use claviger_app::usage::{ShowUsage, UsageQuery};
use claviger_domain::authorisation::Call;
use claviger_lambda::problem::Problem;
use http::StatusCode;

use crate::access::Visit;
use crate::answer::{Answer, document};
use crate::cursor::{Asked, List};
use crate::state::Shared;
use crate::trouble::trouble;

/// Shows what the organisation's keys were used for.
pub async fn show(
    State(api): State<Shared>,
    visit: Visit,
    Path(org): Path<String>,
    asked: Result<Asked, Problem>,
) -> Answer {
    let organisation = api.enter(&visit, &org, Call::ReadUsage).await?.organisation.id;
    let list = List { name: "usage", owner: Some(organisation) };
    let asked = asked?;
    let (cursor, limit) = asked.page(&list)?;
    let query = UsageQuery::parse(asked.text("from"), asked.text("to"), api.clock.now());
    let query = query.map_err(Problem::invalid)?;
    let show = ShowUsage { records: &*api.stores, settings: &api.settings };
    let mut shown = show.run(organisation, query, cursor.as_deref(), limit).await.map_err(trouble)?;
    shown.next_cursor = shown.next_cursor.map(|next| list.sealed(&next));
    Ok(document(StatusCode::OK, &shown))
}
