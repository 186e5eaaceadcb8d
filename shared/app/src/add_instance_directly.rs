//! Takes note of an app that was added without a request: it is not encrypted (spec A5).

use claviger_domain::event::{InstanceEvent, Origin};
use claviger_domain::fact::AuditHead;
use claviger_domain::fence::Epoch;
use claviger_domain::ids::InstanceId;
use claviger_domain::instance::{AppInstance, InstanceStatus, create, decide_instance};
use claviger_domain::invalid::Invalid;
use claviger_domain::organisation::Organisation;
use claviger_domain::values::{App, SiteName};

use crate::fan_out::{has_encrypted_family, has_family};
use crate::ports::{Clock, Ids, Instances, Policies, StoreError};
use crate::request_error::{ATTEMPTS, RequestError, taken};
use crate::settings::Settings;

/// Takes note of an app.
pub struct AddInstanceDirectly<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// Identifiers.
    pub ids: &'a dyn Ids,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl AddInstanceDirectly<'_> {
    /// Stores the instance as not encrypted, and says whether it is new: told twice, it is stored once.
    ///
    /// # Errors
    /// When the app is not in the catalogue, or the place is taken.
    pub async fn run(
        &self,
        organisation: &Organisation,
        site: &SiteName,
        app: &App,
        origin: &Origin,
    ) -> Result<(AppInstance, bool), RequestError> {
        if !self.settings.catalogue.apps.contains_key(app) {
            let reason = format!("`{app}` is not an app of the catalogue");
            let invalid = Invalid::new(reason, "use one of the apps that `GET /v1/catalogue` lists");
            return Err(RequestError::Invalid(vec![invalid.at("app")]));
        }
        if let Some(known) = self.instances.instance_at(site, app).await? {
            let ours = known.organisation_name == organisation.name;
            return match known.status {
                // The call before may have broken off in between.
                InstanceStatus::NotEncrypted { .. } if ours => {
                    Ok((self.catch_up(known, origin).await?, false))
                }
                _ if ours => Err(RequestError::Taken(taken("app"))),
                _ => Err(RequestError::Taken(taken("site"))),
            };
        }
        let now = self.clock.now();
        let instance = AppInstance {
            id: InstanceId::from_uuid(self.ids.random()),
            organisation: organisation.id,
            organisation_name: organisation.name.clone(),
            policy: None,
            site: site.clone(),
            app: app.clone(),
            realm: None,
            status: InstanceStatus::NotEncrypted { since: now, suspended_since: None },
            epoch: Epoch::default(),
            acknowledged: None,
            deletion: None,
            former_site: None,
            audit: AuditHead::default(),
            version: 0,
        };
        let decision = create(instance, origin, now);
        self.instances.commit_instance(None, &decision).await?;
        Ok((self.catch_up(decision.next, origin).await?, true))
    }

    /// The fan-out of a cut-off, or of a restoration, has passed by already: one that joins a family is told here what
    /// it missed (spec A6).
    ///
    /// INVARIANT (R9): it ends at the policy's epoch of this moment, so that a page of an older order, which was under way
    /// when it was stored, changes nothing.
    async fn catch_up(
        &self,
        mut instance: AppInstance,
        origin: &Origin,
    ) -> Result<AppInstance, RequestError> {
        if !has_family(self.settings, &instance) {
            return Ok(instance);
        }
        for _ in 0..ATTEMPTS {
            let Some(policy) = self.policies.policy(&instance.organisation_name).await? else {
                return Ok(instance);
            };
            let (epoch, id) = (policy.fence.epoch, policy.id);
            let event = if policy.fence.is_open() {
                InstanceEvent::FamilyRestorationOrdered { epoch, policy: id }
            } else if has_encrypted_family(self.instances, self.settings, &instance).await? {
                InstanceEvent::FamilySuspensionOrdered { epoch, policy: id }
            } else {
                return Ok(instance);
            };
            let Ok(decision) = decide_instance(&instance, &event, origin, self.clock.now()) else {
                return Ok(instance);
            };
            match self.instances.commit_instance(Some(&instance), &decision).await {
                Ok(()) => return Ok(decision.next),
                // A fan-out came by: with an order of this epoch, or of an older one.
                Err(StoreError::Conflict) => {}
                Err(other) => return Err(other.into()),
            }
            let fresh = self.instances.instance(instance.id).await?;
            instance = fresh.ok_or(RequestError::NotFound { what: "the app instance" })?;
        }
        Err(StoreError::Conflict.into())
    }
}
