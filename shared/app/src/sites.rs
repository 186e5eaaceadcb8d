//! What the vendor's records say of sites: one has another name, or was deleted (spec A4). Both are about every app on the
//! site, encrypted or not.

use claviger_domain::decide::Refusal;
use claviger_domain::event::{InstanceEvent, Origin};
use claviger_domain::instance::{AppInstance, InstanceDecision, decide_instance};
use claviger_domain::organisation::Organisation;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::SiteName;
use jiff::SignedDuration;

use crate::ports::{Clock, Instances, Policies, StoreError};
use crate::request_error::{ATTEMPTS, RequestError, taken};
use crate::settings::Settings;

/// Takes over what became of a site.
pub struct Sites<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl Sites<'_> {
    /// Gives a site another name: all its apps in one transaction, so that no family is ever on two sites, and the old
    /// name is free. Told twice, it is done once.
    ///
    /// # Errors
    /// When the organisation has no such site, or the new name is taken.
    pub async fn rename(
        &self,
        organisation: &Organisation,
        from: &SiteName,
        to: &SiteName,
        origin: &Origin,
    ) -> Result<Vec<AppInstance>, RequestError> {
        for _ in 0..ATTEMPTS {
            let here = self.on_site(organisation, from).await?;
            if here.is_empty() || from == to {
                return self.renamed_before(organisation, from, to).await;
            }
            let event = InstanceEvent::SiteRenamed { from: from.clone(), to: to.clone() };
            let mut renamed: Vec<(AppInstance, InstanceDecision)> = Vec::new();
            for instance in here {
                let decision = decide_instance(&instance, &event, origin, self.clock.now())?;
                renamed.push((instance, decision));
            }
            match self.instances.commit_site(from, to, &renamed).await {
                Ok(()) => return Ok(renamed.into_iter().map(|(_, decision)| decision.next).collect()),
                Err(StoreError::Conflict) => {}
                Err(StoreError::Taken { .. }) => return Err(RequestError::Taken(taken("site"))),
                Err(other) => return Err(other.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    async fn renamed_before(
        &self,
        organisation: &Organisation,
        from: &SiteName,
        to: &SiteName,
    ) -> Result<Vec<AppInstance>, RequestError> {
        let there = self.on_site(organisation, to).await?;
        let before = |instance: &AppInstance| from == to || instance.former_site.as_ref() == Some(from);
        if there.is_empty() || !there.iter().any(before) {
            return Err(RequestError::NotFound { what: "the site" });
        }
        Ok(there)
    }

    /// Takes note that a site was deleted. What is on it goes on as before until the time of the catalogue is over; then
    /// its data keys are deleted. Told twice, the time runs from the first.
    ///
    /// # Errors
    /// When the organisation has no such site.
    pub async fn delete(
        &self,
        organisation: &Organisation,
        site: &SiteName,
        origin: &Origin,
    ) -> Result<Vec<AppInstance>, RequestError> {
        let policy = self.policies.policy(&organisation.name).await?;
        let days = i64::from(self.settings.catalogue.sites.erase_after_days);
        let event = InstanceEvent::SiteDeleted {
            erase_at: self.clock.now() + SignedDuration::from_hours(24 * days),
            title: policy.map(|policy| self.title(&policy)).unwrap_or_default(),
        };
        self.each(organisation, site, &event, origin).await
    }

    /// Takes that back, until the data keys are being deleted.
    ///
    /// # Errors
    /// When the organisation has no such site, it is not being deleted, or the erasure began.
    pub async fn keep(
        &self,
        organisation: &Organisation,
        site: &SiteName,
        origin: &Origin,
    ) -> Result<Vec<AppInstance>, RequestError> {
        let here = self.on_site(organisation, site).await?;
        if !here.is_empty() && here.iter().all(|instance| instance.deletion.is_none()) {
            return Err(Refusal::SiteNotDeleted.into());
        }
        self.each(organisation, site, &InstanceEvent::SiteDeletionCancelled, origin).await
    }

    /// Each app decides by itself: what was told before, and what it is not about, stays as it is.
    async fn each(
        &self,
        organisation: &Organisation,
        site: &SiteName,
        event: &InstanceEvent,
        origin: &Origin,
    ) -> Result<Vec<AppInstance>, RequestError> {
        let here = self.on_site(organisation, site).await?;
        if here.is_empty() {
            return Err(RequestError::NotFound { what: "the site" });
        }
        let mut after = Vec::new();
        for instance in here {
            after.push(self.happens(instance, event, origin).await?);
        }
        Ok(after)
    }

    async fn happens(
        &self,
        mut instance: AppInstance,
        event: &InstanceEvent,
        origin: &Origin,
    ) -> Result<AppInstance, RequestError> {
        for _ in 0..ATTEMPTS {
            let decision = match decide_instance(&instance, event, origin, self.clock.now()) {
                Ok(decision) => decision,
                Err(Refusal::Redundant | Refusal::SiteNotDeleted) => return Ok(instance),
                Err(refusal) => return Err(refusal.into()),
            };
            match self.instances.commit_instance(Some(&instance), &decision).await {
                Ok(()) => return Ok(decision.next),
                Err(StoreError::Conflict) => {}
                Err(other) => return Err(other.into()),
            }
            let fresh = self.instances.instance(instance.id).await?;
            instance = fresh.ok_or(RequestError::NotFound { what: "the app instance" })?;
        }
        Err(StoreError::Conflict.into())
    }

    async fn on_site(
        &self,
        organisation: &Organisation,
        site: &SiteName,
    ) -> Result<Vec<AppInstance>, RequestError> {
        let mut here = self.instances.instances_of_site(site).await?;
        here.retain(|instance| instance.organisation_name == organisation.name);
        Ok(here)
    }

    fn title(&self, policy: &EncryptionPolicy) -> String {
        let mode = self.settings.catalogue.modes.get(&policy.mode());
        mode.map(|mode| mode.site_title.replace("{account}", policy.account.as_str())).unwrap_or_default()
    }
}
