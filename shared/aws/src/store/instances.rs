//! App instances.

use async_trait::async_trait;
use claviger_app::ports::{Instances, Page, StoreError, SupportRequest, SupportRequestKind};
use claviger_domain::ids::InstanceId;
use claviger_domain::instance::{AppInstance, InstanceDecision, InstanceStatus};
use claviger_domain::values::{App, OrganisationName, SiteName};

use super::items::{document, item, number, number_of, parsed_of, text};
use super::names::VERSION;
use super::pages::{Direction, Range};
use super::transaction::{Condition, Otherwise, Transaction};
use super::{DynamoStore, names};

#[async_trait]
impl Instances for DynamoStore {
    async fn instance(&self, id: InstanceId) -> Result<Option<AppInstance>, StoreError> {
        let Some(pointer) = self.get(&self.tables.control, &names::instance_pointer(id)).await? else {
            return Ok(None);
        };
        let organisation: OrganisationName = parsed_of(&pointer, "organisation")?;
        self.load(&names::instance(&organisation, id)).await
    }

    async fn instance_at(&self, site: &SiteName, app: &App) -> Result<Option<AppInstance>, StoreError> {
        let Some(claim) = self.get(&self.tables.control, &names::site_app(site, app)).await? else {
            return Ok(None);
        };
        let organisation: OrganisationName = parsed_of(&claim, "organisation")?;
        let id: InstanceId = parsed_of(&claim, "instance")?;
        self.load(&names::instance(&organisation, id)).await
    }

    async fn site_owner(&self, site: &SiteName) -> Result<Option<OrganisationName>, StoreError> {
        let Some(claim) = self.get(&self.tables.control, &names::site(site)).await? else {
            return Ok(None);
        };
        // A site that nothing holds any more is anybody's.
        if number_of::<i64>(&claim, "apps")? > 0 {
            return parsed_of(&claim, "organisation").map(Some);
        }
        Ok(None)
    }

    async fn instances(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<AppInstance>, StoreError> {
        let range = Range {
            table: &self.tables.control,
            pk: names::organisation_partition(organisation),
            prefix: names::INSTANCE_PREFIX,
            direction: Direction::Forward,
        };
        self.page(&range, cursor, limit).await
    }

    async fn commit_instance(
        &self,
        previous: Option<&AppInstance>,
        decision: &InstanceDecision,
    ) -> Result<(), StoreError> {
        let control = &self.tables.control;
        let next = &decision.next;
        let mut transaction = Transaction::default();
        let key = names::instance(&next.organisation_name, next.id);
        let instance = document(&key, next, [(VERSION, number(next.version))])?;
        let condition = previous.map_or_else(Condition::absent, |known| {
            Condition::that("#version = :version")
                .naming("#version", VERSION)
                .with(":version", number(known.version))
        });
        transaction.put(control, instance, condition, Otherwise::Conflict)?;
        if previous.is_none() {
            let pointer =
                item(&names::instance_pointer(next.id), [("organisation", text(&next.organisation_name))]);
            transaction.put(control, pointer, Condition::absent(), Otherwise::Conflict)?;
        }
        self.site_claims(&mut transaction, previous, next)?;
        self.activation(&mut transaction, previous, next)?;
        self.record(&mut transaction, &decision.fact, &decision.outbox)?;
        self.request_of(&mut transaction, previous.and_then(request), request(next))?;
        self.commit(transaction).await
    }
}

/// Whether an instance holds its place on its site.
const fn holds_place(status: &InstanceStatus) -> bool {
    match status {
        InstanceStatus::Requested { .. }
        | InstanceStatus::Provisioning { .. }
        | InstanceStatus::Active { .. }
        | InstanceStatus::Suspended { .. }
        | InstanceStatus::NotEncrypted { .. } => true,
        InstanceStatus::Rejected { .. } => false,
    }
}

fn request(instance: &AppInstance) -> Option<SupportRequest> {
    match instance.status {
        InstanceStatus::Requested { at, due_at, .. } => Some(SupportRequest {
            id: instance.id.as_uuid(),
            kind: SupportRequestKind::AppInstance,
            organisation: instance.organisation_name.clone(),
            requested_at: at,
            due_at,
        }),
        InstanceStatus::Provisioning { .. }
        | InstanceStatus::Active { .. }
        | InstanceStatus::Suspended { .. }
        | InstanceStatus::NotEncrypted { .. }
        | InstanceStatus::Rejected { .. } => None,
    }
}

impl DynamoStore {
    /// The claims on the site (spec A4: its own organisation may have it) and on site and app. A rejected request
    /// gives them back, so that it can be made again, and a site name that nobody uses does not stay taken.
    fn site_claims(
        &self,
        transaction: &mut Transaction,
        previous: Option<&AppInstance>,
        next: &AppInstance,
    ) -> Result<(), StoreError> {
        let control = &self.tables.control;
        let held = previous.is_some_and(|instance| holds_place(&instance.status));
        let holds = holds_place(&next.status);
        let organisation = text(&next.organisation_name);
        let site = names::site(&next.site);
        let place = names::site_app(&next.site, &next.app);
        match (held, holds) {
            (false, true) => {
                let free = "attribute_not_exists(pk) OR organisation = :organisation OR apps = :none";
                transaction.update(
                    control,
                    &site,
                    "SET organisation = :organisation ADD apps :one",
                    Condition::that(free)
                        .with(":organisation", organisation.clone())
                        .with(":none", number(0))
                        .with(":one", number(1)),
                    Otherwise::Taken("site"),
                )?;
                let claim = item(&place, [("organisation", organisation), ("instance", text(next.id))]);
                transaction.put(control, claim, Condition::absent(), Otherwise::Taken("app"))
            }
            (true, false) => {
                transaction.update(
                    control,
                    &site,
                    "ADD apps :less",
                    Condition::that("organisation = :organisation")
                        .with(":organisation", organisation)
                        .with(":less", number(-1)),
                    Otherwise::Conflict,
                )?;
                let ours = Condition::that("#instance = :instance")
                    .naming("#instance", "instance")
                    .with(":instance", text(next.id));
                transaction.delete(control, &place, ours, Otherwise::Conflict)
            }
            (true, true) | (false, false) => Ok(()),
        }
    }

    /// INVARIANT (design, point 9): an instance becomes active at the policy's epoch of this very moment. Otherwise a
    /// cut-off whose fan-out has passed by already would leave it untold.
    fn activation(
        &self,
        transaction: &mut Transaction,
        previous: Option<&AppInstance>,
        next: &AppInstance,
    ) -> Result<(), StoreError> {
        let was = previous.map(|instance| &instance.status);
        let (Some(InstanceStatus::Provisioning { .. }), InstanceStatus::Active { .. }, Some(policy)) =
            (was, &next.status, next.policy)
        else {
            return Ok(());
        };
        let condition = Condition::that("policyId = :policy AND epoch = :epoch")
            .with(":policy", text(policy))
            .with(":epoch", number(next.epoch.0));
        let key = names::policy(&next.organisation_name);
        transaction.check(&self.tables.control, &key, condition, Otherwise::Conflict)
    }
}
