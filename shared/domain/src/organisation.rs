//! An organisation, as the vendor's customer records feed it (spec E3): who its admins are comes from
//! there and from nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::OrganisationId;
use crate::key_access::ExternalId;
use crate::values::{App, OrganisationName, Subject};

/// An organisation's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Organisation {
    /// Opaque and random; stands in encryption contexts.
    pub id: OrganisationId,
    /// What its key-management role asks of us, should it bring its own keys; made once, for good (spec E12).
    pub external_id: ExternalId,
    /// The vendor's name for it.
    pub name: OrganisationName,
    /// The plan of each app it has.
    pub plans: BTreeMap<App, String>,
    /// Whether it is a government-cloud organisation.
    pub government: bool,
    /// Its registered administrators.
    pub admins: BTreeSet<Subject>,
    /// Its read-only people.
    pub auditors: BTreeSet<Subject>,
}
