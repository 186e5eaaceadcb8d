//! `.../key-policy`: what the customer pastes on its keys. `?awsAccountId=` and `?realm=` fill it in
//! before the organisation has enrolled.

use axum::extract::{Path, State};
use claviger_app::show_key_policy::ShowKeyPolicy;
use claviger_domain::authorisation::Call;
use claviger_domain::values::{AccountId, Realm};
use http::StatusCode;

use crate::access::Visit;
use crate::answer::{Answer, document};
use crate::cursor::Asked;
use crate::state::Shared;
use crate::trouble::trouble;

/// Shows the key policy.
pub async fn show(
    State(api): State<Shared>,
    visit: Visit,
    Path(org): Path<String>,
    asked: Result<Asked, claviger_lambda::problem::Problem>,
) -> Answer {
    let access = api.enter(&visit, &org, Call::GetKeyPolicy).await?;
    let asked = asked?;
    let account: Option<AccountId> = asked.parsed("awsAccountId")?;
    let realm: Option<Realm> = asked.parsed("realm")?;
    let show = ShowKeyPolicy { policies: &*api.stores, templates: &*api.stores, settings: &api.settings };
    let view = show.run(&access.organisation, account, realm).await.map_err(trouble)?;
    Ok(document(StatusCode::OK, &view))
}
