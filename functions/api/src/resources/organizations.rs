//! `/v1/organizations/{org}`: the feed from the vendor's customer records.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::extract::{Path, State};
use claviger_app::put_organisation::{Feed, PutOrganisation};
use claviger_domain::authorisation::Call;
use claviger_domain::ids::OrganisationId;
use claviger_domain::values::{App, OrganisationName, Subject};
use claviger_lambda::problem::Problem;
use http::StatusCode;
use serde::Serialize;

use crate::access::Visit;
use crate::answer::{Answer, document};
use crate::body;
use crate::state::Shared;
use crate::trouble::trouble;

/// Takes over an organisation's record.
pub async fn put(State(api): State<Shared>, visit: Visit, Path(org): Path<String>, sent: Body) -> Answer {
    let name: Result<OrganisationName, _> = org.parse();
    // A name that cannot be one is told to machines of the vendor's only; to others nothing is there.
    let name = match name {
        Ok(name) => name,
        Err(invalid) => {
            api.admit_vendor(&visit, Call::PutOrganisation)?;
            return Err(Problem::invalid(vec![invalid.at("org")]));
        }
    };
    let (_, role) = api.admitted(&visit, &name, Call::PutOrganisation).await?;
    let sent = body::object(sent).await?;
    let feed = Feed::parse(&sent, &api.settings.catalogue).map_err(Problem::invalid)?;
    let origin = visit.origin(role)?;
    let put = PutOrganisation {
        organisations: &*api.stores,
        policies: &*api.stores,
        instances: &*api.stores,
        ids: &*api.ids,
        clock: &*api.clock,
        settings: &api.settings,
    };
    let (organisation, created) = put.run(&name, feed, &origin).await.map_err(trouble)?;
    let record = Record {
        id: organisation.id,
        name: &organisation.name,
        plans: &organisation.plans,
        government: organisation.government,
        admins: &organisation.admins,
        auditors: &organisation.auditors,
    };
    Ok(document(if created { StatusCode::CREATED } else { StatusCode::OK }, &record))
}

/// An organisation's record as the feed sees it again. Without its external id: that is for its own people.
#[derive(Serialize)]
struct Record<'a> {
    id: OrganisationId,
    name: &'a OrganisationName,
    plans: &'a BTreeMap<App, String>,
    government: bool,
    admins: &'a BTreeSet<Subject>,
    auditors: &'a BTreeSet<Subject>,
}
