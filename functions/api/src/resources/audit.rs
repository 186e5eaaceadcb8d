//! `.../audit`: the facts, one JSON line each. Where an answer does not hold them all, `Link` names the
//! rest.

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use claviger_app::read_audit::ReadAudit;
use claviger_domain::authorisation::Call;
use claviger_lambda::problem::Problem;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LINK};

use crate::access::Visit;
use crate::answer::Answer;
use crate::cursor::{Asked, List};
use crate::state::Shared;
use crate::trouble::trouble;

/// With its character set named, Lambda hands it on as text.
const NDJSON: &str = "application/x-ndjson; charset=utf-8";

/// Reads the audit log.
pub async fn read(
    State(api): State<Shared>,
    visit: Visit,
    Path(org): Path<String>,
    asked: Result<Asked, Problem>,
) -> Answer {
    let access = api.enter(&visit, &org, Call::ReadAudit).await?;
    let name = &access.organisation.name;
    let list = List { name: "audit", owner: Some(access.organisation.id) };
    let asked = asked?;
    let (cursor, limit) = (asked.cursor(&list)?, asked.limit()?);
    let audit = ReadAudit { audit: &*api.stores };
    let page = audit.run(name, cursor.as_deref(), limit).await.map_err(trouble)?;
    let mut text = String::new();
    for line in &page.items {
        text.push_str(line);
        text.push('\n');
    }
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(next) = page.next {
        let limit = limit.map(|limit| format!("&limit={limit}")).unwrap_or_default();
        let next = list.sealed(&next);
        let link = format!("</v1/organizations/{org}/audit?cursor={next}{limit}>; rel=\"next\"");
        if let Ok(link) = HeaderValue::from_str(&link) {
            headers.insert(LINK, link);
        }
    }
    Ok(response)
}
