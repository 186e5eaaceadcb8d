//! Lets callers in. Whether one may make a call is the domain's table to say, nothing else's.

use axum::extract::FromRequestParts;
use claviger_app::ports::StoreError;
use claviger_domain::authorisation::{Call, Role, Verdict, verdict};
use claviger_domain::event::Origin;
use claviger_domain::ids::CorrelationId;
use claviger_domain::organisation::Organisation;
use claviger_domain::values::OrganisationName;
use claviger_lambda::auth::{Caller, role_in};
use claviger_lambda::problem::{Problem, ProblemKind};
use http::request::Parts;

use crate::state::Api;
use crate::trouble::store_trouble;

/// One call of a known caller.
#[derive(Debug, Clone)]
pub struct Visit {
    /// Who calls.
    pub caller: Caller,
    /// What everything that the call causes belongs to.
    pub correlation: CorrelationId,
}

impl<S: Sync> FromRequestParts<S> for Visit {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Every route that asks for a visit is behind the layer that makes one.
        let visit = parts.extensions.get::<Self>().cloned();
        visit.ok_or_else(|| Problem::new(ProblemKind::Unauthenticated, "the caller is not known"))
    }
}

impl Visit {
    /// In whose name something is decided.
    pub fn origin(&self, role: Role) -> Result<Origin, Problem> {
        let actor = self.caller.actor(role).ok_or_else(forbidden)?;
        Ok(Origin { actor, correlation: self.correlation })
    }
}

/// A caller in an organisation.
pub struct Access {
    /// Which.
    pub organisation: Organisation,
    /// As what.
    pub role: Role,
}

fn forbidden() -> Problem {
    Problem::new(ProblemKind::Forbidden, "your role does not allow this call")
}

fn check(call: Call, role: Role) -> Result<(), Problem> {
    match verdict(call, role) {
        Verdict::Allowed => Ok(()),
        Verdict::Forbidden => Err(forbidden()),
        Verdict::NotFound => Err(Problem::not_found()),
    }
}

impl Api {
    /// Lets a caller into an organisation for a call. An organisation that is not there, and one that the
    /// caller has nothing to do with, look the same (I7).
    pub async fn enter(&self, visit: &Visit, org: &str, call: Call) -> Result<Access, Problem> {
        let name: OrganisationName = org.parse().map_err(|_| Problem::not_found())?;
        let (organisation, role) = self.admitted(visit, &name, call).await?;
        let organisation = organisation.ok_or_else(Problem::not_found)?;
        Ok(Access { organisation, role })
    }

    /// The same for a call that may name an organisation that is yet to be made.
    pub async fn admitted(
        &self,
        visit: &Visit,
        name: &OrganisationName,
        call: Call,
    ) -> Result<(Option<Organisation>, Role), Problem> {
        let found: Result<_, StoreError> = self.stores.organisation(name).await;
        let organisation = found.map_err(|error| store_trouble(&error))?;
        let role = match &organisation {
            Some(organisation) => role_in(organisation, &visit.caller),
            None => visit.caller.vendor_role(),
        };
        check(call, role)?;
        Ok((organisation, role))
    }

    /// Lets a caller in for a call that names no organisation.
    pub fn admit_vendor(&self, visit: &Visit, call: Call) -> Result<Role, Problem> {
        let role = visit.caller.vendor_role();
        check(call, role)?;
        Ok(role)
    }
}
