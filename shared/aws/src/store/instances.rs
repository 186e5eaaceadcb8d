//! App instances.

use async_trait::async_trait;
use claviger_app::ports::{Instances, Page, PendingErasure, PendingErasures, StoreError, SupportRequest};
use claviger_domain::ids::InstanceId;
use claviger_domain::instance::{AppInstance, InstanceDecision, InstanceStatus};
use claviger_domain::values::{App, OrganisationName, SiteName};

use super::items::{document, item, millis_text, number, number_of, parsed_of, text};
use super::names::{DUE_AT, DUE_SHARD, VERSION};
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

    async fn instances_of_site(&self, site: &SiteName) -> Result<Vec<AppInstance>, StoreError> {
        let range = Range {
            table: &self.tables.control,
            pk: names::site(site).pk,
            prefix: names::APP_PREFIX,
            direction: Direction::Forward,
        };
        let mut found = Vec::new();
        for claim in self.items(&range, None, None).await? {
            let organisation: OrganisationName = parsed_of(&claim, "organisation")?;
            let id: InstanceId = parsed_of(&claim, "instance")?;
            found.extend(self.load(&names::instance(&organisation, id)).await?);
        }
        Ok(found)
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
        let next = &decision.next;
        let mut transaction = Transaction::default();
        self.put_instance(&mut transaction, previous, next)?;
        if previous.is_none() {
            let pointer =
                item(&names::instance_pointer(next.id), [("organisation", text(&next.organisation_name))]);
            let control = &self.tables.control;
            transaction.put(control, pointer, Condition::absent(), Otherwise::Conflict)?;
        }
        self.site_claims(&mut transaction, previous, next)?;
        self.activation(&mut transaction, previous, next)?;
        self.record(&mut transaction, &decision.fact, &decision.outbox)?;
        let waiting = (previous.and_then(SupportRequest::of_instance), SupportRequest::of_instance(next));
        self.request_of(&mut transaction, waiting.0, waiting.1)?;
        self.erasure_of(&mut transaction, previous, next)?;
        self.commit(transaction).await
    }

    async fn commit_site(
        &self,
        from: &SiteName,
        to: &SiteName,
        renamed: &[(AppInstance, InstanceDecision)],
    ) -> Result<(), StoreError> {
        let control = &self.tables.control;
        let Some((first, _)) = renamed.first() else {
            return Ok(());
        };
        let (organisation, many) =
            (text(&first.organisation_name), i64::try_from(renamed.len()).unwrap_or(i64::MAX));
        let mut transaction = Transaction::default();
        // Nothing that came to the site since it was read is left behind.
        transaction.update(
            control,
            &names::site(from),
            "SET apps = :none",
            Condition::that("organisation = :organisation AND apps = :many")
                .with(":organisation", organisation.clone())
                .with(":many", number(many))
                .with(":none", number(0)),
            Otherwise::Conflict,
        )?;
        transaction.update(
            control,
            &names::site(to),
            "SET organisation = :organisation, apps = :many",
            Condition::that("attribute_not_exists(pk) OR apps = :none")
                .with(":organisation", organisation.clone())
                .with(":many", number(many))
                .with(":none", number(0)),
            Otherwise::Taken("site"),
        )?;
        for (previous, decision) in renamed {
            let next = &decision.next;
            self.put_instance(&mut transaction, Some(previous), next)?;
            let ours = Condition::that("#instance = :instance")
                .naming("#instance", "instance")
                .with(":instance", text(next.id));
            transaction.delete(control, &names::site_app(from, &next.app), ours, Otherwise::Conflict)?;
            let place = names::site_app(to, &next.app);
            let claim = item(&place, [("organisation", organisation.clone()), ("instance", text(next.id))]);
            transaction.put(control, claim, Condition::absent(), Otherwise::Taken("site"))?;
            self.record(&mut transaction, &decision.fact, &decision.outbox)?;
        }
        self.commit(transaction).await
    }
}

#[async_trait]
impl PendingErasures for DynamoStore {
    async fn pending_erasures(
        &self,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<PendingErasure>, StoreError> {
        let range = Range {
            table: &self.tables.control,
            pk: names::ERASURES.to_owned(),
            prefix: "",
            direction: Direction::Forward,
        };
        self.page(&range, cursor, limit).await
    }
}

impl DynamoStore {
    fn put_instance(
        &self,
        transaction: &mut Transaction,
        previous: Option<&AppInstance>,
        next: &AppInstance,
    ) -> Result<(), StoreError> {
        let key = names::instance(&next.organisation_name, next.id);
        let mut instance = document(&key, next, [(VERSION, number(next.version))])?;
        // Sparse: what was answered leaves the index with the same write.
        if let Some(since) = next.unanswered_since() {
            instance.insert(DUE_SHARD.to_owned(), text(names::answers(&next.organisation_name)));
            instance.insert(DUE_AT.to_owned(), text(millis_text(since)));
        }
        let condition = previous.map_or_else(Condition::absent, |known| {
            Condition::that("#version = :version")
                .naming("#version", VERSION)
                .with(":version", number(known.version))
        });
        transaction.put(&self.tables.control, instance, condition, Otherwise::Conflict)
    }

    /// It is listed exactly while its data keys wait for their erasure.
    fn erasure_of(
        &self,
        transaction: &mut Transaction,
        previous: Option<&AppInstance>,
        next: &AppInstance,
    ) -> Result<(), StoreError> {
        let control = &self.tables.control;
        let key = names::erasure(next.id);
        match (previous.and_then(PendingErasure::of), PendingErasure::of(next)) {
            (known, Some(waits)) if known.as_ref() != Some(&waits) => {
                let item = document(&key, &waits, [])?;
                transaction.put(control, item, Condition::none(), Otherwise::Conflict)
            }
            (Some(_), None) => transaction.delete(control, &key, Condition::none(), Otherwise::Conflict),
            (_, Some(_)) | (None, None) => Ok(()),
        }
    }

    /// The claims on the site (spec A4: its own organisation may have it) and on site and app. A rejected request
    /// gives them back, so that it can be made again, and a site name that nobody uses does not stay taken.
    fn site_claims(
        &self,
        transaction: &mut Transaction,
        previous: Option<&AppInstance>,
        next: &AppInstance,
    ) -> Result<(), StoreError> {
        let control = &self.tables.control;
        let held = previous.is_some_and(|instance| instance.status.holds_place());
        let holds = next.status.holds_place();
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
