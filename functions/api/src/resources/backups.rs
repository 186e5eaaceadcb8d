//! `.../backups`: which backups of the vendor's hold an organisation's data, for the ledger of old keys.

use axum::body::Body;
use axum::extract::{Path, State};
use claviger_app::register_backup::{RegisterBackup, parse_backup};
use claviger_domain::authorisation::Call;
use claviger_lambda::problem::Problem;
use http::StatusCode;

use crate::access::Visit;
use crate::answer::{Answer, document, page};
use crate::body;
use crate::cursor::{Asked, List};
use crate::state::Shared;
use crate::trouble::{store_trouble, trouble};

/// Registers a backup, or says anew how it is.
pub async fn register(
    State(api): State<Shared>,
    visit: Visit,
    Path(org): Path<String>,
    sent: Body,
) -> Answer {
    let access = api.enter(&visit, &org, Call::RegisterBackup).await?;
    let backup = parse_backup(&body::object(sent).await?).map_err(Problem::invalid)?;
    let register = RegisterBackup { policies: &*api.stores, backups: &*api.stores };
    let backup = register.run(&access.organisation.name, backup).await.map_err(trouble)?;
    Ok(document(StatusCode::OK, &backup))
}

/// Lists the organisation's backups.
pub async fn list(
    State(api): State<Shared>,
    visit: Visit,
    Path(org): Path<String>,
    asked: Result<Asked, Problem>,
) -> Answer {
    let access = api.enter(&visit, &org, Call::ListBackups).await?;
    let list = List { name: "backups", owner: Some(access.organisation.id) };
    let (cursor, limit) = asked?.page(&list)?;
    let found = api.stores.backups(&access.organisation.name, cursor.as_deref(), limit).await;
    Ok(page(&list, &found.map_err(|error| store_trouble(&error))?))
}
