//! `/v1/support/organizations/{org}`: what support may do to an organisation's access.

use axum::body::Body;
use axum::extract::{Path, State};
use claviger_app::carry_out_restoration::CarryOutRestoration;
use claviger_app::show_policy::{PolicyView, ShowPolicy};
use claviger_app::suspend_by_vendor::SuspendByVendor;
use claviger_domain::authorisation::Call;
use claviger_domain::enrolment::parsed;
use claviger_domain::fence::Cause;
use claviger_domain::ids::TicketId;
use claviger_domain::invalid::{Invalid, InvalidField};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::vendor::Ground;
use claviger_lambda::problem::Problem;
use http::StatusCode;
use serde_json::Value;

use super::restorations::accepted;
use crate::access::{Access, Visit};
use crate::answer::{Answer, document, located, page};
use crate::body;
use crate::cursor::{Asked, List};
use crate::state::{Api, Shared};
use crate::trouble::{restoration_trouble, trouble};

/// The longest reason, in characters.
const LONGEST: usize = 1000;

fn suspends(api: &Api) -> SuspendByVendor<'_> {
    SuspendByVendor {
        policies: &*api.stores,
        prober: &*api.prober,
        clock: &*api.clock,
        settings: &api.settings,
    }
}

fn view(api: &Api, policy: &EncryptionPolicy) -> PolicyView {
    let show = ShowPolicy {
        policies: &*api.stores,
        watch_list: &*api.stores,
        clock: &*api.clock,
        settings: &api.settings,
    };
    show.view(policy, None)
}

/// Suspends the organisation for the vendor.
pub async fn suspend(State(api): State<Shared>, visit: Visit, Path(org): Path<String>, sent: Body) -> Answer {
    let access = api.enter(&visit, &org, Call::SuspendOrganisation).await?;
    let origin = visit.origin(access.role)?;
    let sent = body::object(sent).await?;
    let mut faults = Vec::new();
    let reason = body::words(&sent, "reason", LONGEST, &mut faults);
    let ground = ground(&sent, &mut faults);
    let (Some(reason), Some(ground), true) = (reason, ground, faults.is_empty()) else {
        return Err(Problem::invalid(faults));
    };
    let policy = suspends(&api).suspend(&access.organisation.name, ground, &reason, &origin).await;
    Ok(document(StatusCode::OK, &view(&api, &policy.map_err(trouble)?)))
}

fn ground(sent: &Value, faults: &mut Vec<InvalidField>) -> Option<Ground> {
    let request = match sent.get("accessRequestId") {
        None | Some(Value::Null) => return Some(Ground::Ordered),
        Some(value) => value.as_str().and_then(|text| uuid::Uuid::try_parse(text).ok()),
    };
    if request.is_none() {
        let invalid =
            Invalid::new("it is not an identifier", "use the id of the access request, or leave it out");
        faults.push(invalid.at("accessRequestId"));
    }
    request.map(|request| Ground::AccessRequest { request })
}

/// Lifts one cause of a suspension.
pub async fn lift(State(api): State<Shared>, visit: Visit, Path(org): Path<String>, sent: Body) -> Answer {
    let access = api.enter(&visit, &org, Call::LiftSuspension).await?;
    let origin = visit.origin(access.role)?;
    let sent = body::object(sent).await?;
    let mut faults = Vec::new();
    let reason = body::words(&sent, "reason", LONGEST, &mut faults);
    let cause = cause(&api, &access, &sent, &mut faults).await?;
    let (Some(reason), Some(cause), true) = (reason, cause, faults.is_empty()) else {
        return Err(Problem::invalid(faults));
    };
    let lifted = suspends(&api).lift(&access.organisation.name, cause, &reason, &origin).await;
    let policy = match lifted {
        Ok(policy) => policy,
        Err(error) => return Err(restoration_trouble(&api, &access.organisation.name, error).await),
    };
    let shown = view(&api, &policy);
    if !policy.fence.causes.contains(&cause) {
        return Ok(document(StatusCode::OK, &shown));
    }
    Ok(located(StatusCode::ACCEPTED, &format!("/v1/organizations/{org}/encryption-policy"), &shown))
}

/// Which cause is meant: the one that is named, or the only one that there is.
async fn cause(
    api: &Api,
    access: &Access,
    sent: &Value,
    faults: &mut Vec<InvalidField>,
) -> Result<Option<Cause>, Problem> {
    const HELP: &str =
        "name the cause: `vendor` or `key`; `fence.causes` of the encryption policy lists them";
    match sent.get("cause") {
        Some(Value::String(word)) if word == "vendor" => return Ok(Some(Cause::Vendor)),
        Some(Value::String(word)) if word == "key" => return Ok(Some(Cause::Key)),
        None | Some(Value::Null) => {}
        Some(_) => {
            faults.push(Invalid::new("it is not a cause that support lifts", HELP).at("cause"));
            return Ok(None);
        }
    }
    let policy = api.stores.policy(&access.organisation.name).await;
    let policy = policy.map_err(|error| crate::trouble::store_trouble(&error))?;
    let causes = policy.map(|policy| policy.fence.causes).unwrap_or_default();
    match (causes.contains(&Cause::Vendor), causes.contains(&Cause::Key)) {
        (true, true) => {
            faults.push(Invalid::new("the organisation is suspended for two causes", HELP).at("cause"));
            Ok(None)
        }
        (false, true) => Ok(Some(Cause::Key)),
        // With none, the answer says that nothing is there to be lifted.
        (true, false) | (false, false) => Ok(Some(Cause::Vendor)),
    }
}

/// Carries out what an org admin asked for on the ticket, after the window.
pub async fn restore(State(api): State<Shared>, visit: Visit, Path(org): Path<String>, sent: Body) -> Answer {
    let access = api.enter(&visit, &org, Call::CarryOutRestoration).await?;
    let origin = visit.origin(access.role)?;
    let mut faults = Vec::new();
    let ticket: Option<TicketId> = parsed(&body::object(sent).await?, "ticketId", &mut faults);
    let ticket = ticket.ok_or_else(|| Problem::invalid(faults))?;
    let restoration = CarryOutRestoration {
        policies: &*api.stores,
        tickets: &*api.stores,
        prober: &*api.prober,
        clock: &*api.clock,
        settings: &api.settings,
    };
    match restoration.run(&access.organisation, ticket, &origin).await {
        Ok(policy) => Ok(accepted(&api, &org, ticket, &policy)),
        Err(error) => Err(restoration_trouble(&api, &access.organisation.name, error).await),
    }
}

/// Lists orders to suspend that apps have not answered in time.
pub async fn overdue(State(api): State<Shared>, visit: Visit, asked: Result<Asked, Problem>) -> Answer {
    api.admit_vendor(&visit, Call::ListOverdueOrders)?;
    let list = List { name: "overdue-orders", owner: None };
    let (cursor, limit) = asked?.page(&list)?;
    let found = api.stores.overdue_orders(cursor.as_deref(), limit).await;
    Ok(page(&list, &found.map_err(|error| crate::trouble::store_trouble(&error))?))
}
