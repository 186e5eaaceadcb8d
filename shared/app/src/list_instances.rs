//! Lists an organisation's app instances with what of them is covered (spec A5, A6, A8).

use claviger_domain::catalogue::{DataCoverage, DataRules};
use claviger_domain::ids::{InstanceId, TicketId};
use claviger_domain::instance::{Acknowledgement, AppInstance, InstanceStatus};
use claviger_domain::values::{App, OrganisationName, Realm, SiteName};
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::Serialize;

use crate::ports::{Instances, Page, StoreError};
use crate::request_error::RequestError;
use crate::settings::Settings;

/// How much of an app's data on a site is encrypted under the customer's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coverage {
    /// All that can be.
    Covered,
    /// What it shares with an encrypted member of its family.
    Partly,
    /// Nothing.
    NotCovered,
}

/// An instance as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceView {
    /// Its identifier.
    pub id: InstanceId,
    /// On which site.
    pub site: SiteName,
    /// Which app.
    pub app: App,
    /// Where its data lives.
    pub realm: Option<Realm>,
    /// Where it stands.
    pub status: &'static str,
    /// Since when.
    pub since: Timestamp,
    /// When a request is due.
    pub due_at: Option<Timestamp>,
    /// Why it was rejected.
    pub reason: Option<String>,
    /// What of it is covered.
    pub coverage: Coverage,
    /// The same by type of data (spec A9).
    pub data: Vec<DataView>,
    /// What to do for fuller coverage, where there is something.
    pub fuller_coverage: Option<String>,
    /// The rest of its family on the site, as far as it is not encrypted itself: partly covered, and
    /// suspended with it.
    pub family: Vec<App>,
    /// The app's last answer to an order.
    pub acknowledged: Option<Acknowledgement>,
    /// Its site was deleted, and its data keys are to go.
    pub deletion: Option<DeletionView>,
    /// What its site was called before.
    pub former_site: Option<SiteName>,
    /// Which version of it this is.
    pub etag: String,
}

/// The deletion of an instance's site, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeletionView {
    /// Since when it is known.
    pub at: Timestamp,
    /// When the data keys go, or, of what has none, the instance itself.
    pub erase_at: Timestamp,
    /// The ticket that tells of it; none of an app that is not encrypted.
    pub ticket_id: Option<TicketId>,
}

/// What of one type of an app's data is covered (spec A9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DataView {
    /// Which data.
    pub data: String,
    /// How far it is covered.
    pub coverage: DataCoverage,
    /// For what is cached or in transit: for how many days at most it lies outside.
    pub up_to_days: Option<u16>,
}

/// What else of an app's family is on its site, as far as it matters to what is shown of the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// Those that are not encrypted, or not there.
    others: Vec<App>,
    /// Whether one is.
    encrypted: bool,
}

/// Lists instances.
pub struct ListInstances<'a> {
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

/// How many instances' families are looked up at a time.
const LOOKUPS: usize = 16;

impl ListInstances<'_> {
    /// One page.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn run(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<InstanceView>, RequestError> {
        let page = self.instances.instances(organisation, cursor, limit).await?;
        let views = futures_util::stream::iter(page.items).map(|instance| self.shown(instance));
        let items = views.buffered(LOOKUPS).try_collect().await?;
        Ok(Page { items, next: page.next })
    }

    /// What is shown of an instance.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn shown(&self, instance: AppInstance) -> Result<InstanceView, StoreError> {
        // INVARIANT (I7): what gave its place up has no family any more, and the name may be another organisation's.
        let family = if instance.status.holds_place() {
            self.family(&instance.organisation_name, &instance.site, &instance.app).await?
        } else {
            Family { others: Vec::new(), encrypted: false }
        };
        Ok(self.view(instance, family))
    }

    /// What else of an app's family an organisation has on a site. Whoever decides something asks beforehand: an answer
    /// that fails after the decision has the caller ask again for what is there already.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn family(
        &self,
        organisation: &OrganisationName,
        site: &SiteName,
        app: &App,
    ) -> Result<Family, StoreError> {
        let mut known = Vec::new();
        for sibling in self.settings.catalogue.siblings(app) {
            let there = self.instances.instance_at(site, sibling).await?;
            known.extend(there.filter(|there| there.organisation_name == *organisation));
        }
        Ok(self.family_among(&known, app))
    }

    /// The same, where every app that the organisation has on the site is known.
    pub fn family_among(&self, known: &[AppInstance], app: &App) -> Family {
        let encrypted =
            |sibling: &&App| known.iter().any(|there| there.app == **sibling && there.status.is_encrypted());
        let (encrypted, others): (Vec<&App>, Vec<&App>) =
            self.settings.catalogue.siblings(app).partition(encrypted);
        Family { others: others.into_iter().cloned().collect(), encrypted: !encrypted.is_empty() }
    }

    /// What is shown of an instance beside this family.
    pub fn view(&self, instance: AppInstance, family: Family) -> InstanceView {
        let encrypted = instance.status.is_encrypted();
        let (since, due_at) = match instance.status {
            InstanceStatus::Requested { at, due_at, .. } => (at, Some(due_at)),
            InstanceStatus::Provisioning { since, due_at } => (since, Some(due_at)),
            InstanceStatus::Active { since }
            | InstanceStatus::Suspended { since }
            | InstanceStatus::NotEncrypted { suspended_since: Some(since), .. }
            | InstanceStatus::NotEncrypted { since, suspended_since: None } => (since, None),
            InstanceStatus::Rejected { at, .. } | InstanceStatus::Deleted { at, .. } => (at, None),
            InstanceStatus::Erasing { since, .. } => (since, None),
        };
        let status = instance.status.slug();
        let coverage = match (encrypted, family.encrypted) {
            (true, _) => Coverage::Covered,
            (false, true) => Coverage::Partly,
            (false, false) => Coverage::NotCovered,
        };
        let data = self.data(&instance.app, coverage);
        let fuller_coverage = self.fuller(&instance.app, coverage);
        InstanceView {
            id: instance.id,
            site: instance.site,
            app: instance.app,
            realm: instance.realm,
            status,
            since,
            due_at,
            coverage,
            data,
            fuller_coverage,
            reason: match instance.status {
                InstanceStatus::Rejected { reason, .. } => Some(reason),
                _ => None,
            },
            family: if encrypted { family.others } else { Vec::new() },
            acknowledged: instance.acknowledged,
            deletion: instance.deletion.map(|deletion| DeletionView {
                at: deletion.at,
                erase_at: deletion.erase_at,
                ticket_id: deletion.ticket,
            }),
            former_site: instance.former_site,
            etag: crate::as_of::tag(instance.id.as_uuid(), instance.version),
        }
    }

    /// Each type of the app's data, as far as this coverage of the app reaches.
    fn data(&self, app: &App, coverage: Coverage) -> Vec<DataView> {
        let catalogue = &self.settings.catalogue;
        let types = catalogue.apps.get(app).map(|rules| rules.data.as_slice()).unwrap_or_default();
        let view = |kind: &DataRules| {
            let reaches = match coverage {
                Coverage::Covered => kind.coverage,
                Coverage::Partly if kind.with_family => kind.coverage,
                Coverage::Partly | Coverage::NotCovered => DataCoverage::NotCovered,
            };
            let outside = reaches == DataCoverage::CachedOrInTransit;
            DataView {
                data: kind.name.clone(),
                coverage: reaches,
                up_to_days: outside.then_some(catalogue.cached_or_in_transit_days),
            }
        };
        types.iter().map(view).collect()
    }

    fn fuller(&self, app: &App, coverage: Coverage) -> Option<String> {
        let catalogue = &self.settings.catalogue;
        match coverage {
            Coverage::Partly if catalogue.can_be_encrypted(app) => {
                let plans: Vec<&str> = catalogue.apps.get(app)?.plans.iter().map(String::as_str).collect();
                Some(format!(
                    "it needs its own plan ({}) and its own request, on a new site: what exists without \
                     encryption stays so",
                    plans.join(" or ")
                ))
            }
            Coverage::Partly | Coverage::Covered | Coverage::NotCovered => None,
        }
    }
}
