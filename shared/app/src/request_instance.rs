//! Requests an encrypted app instance (spec A1 to A4, A7, E1).

use claviger_domain::calendar::business_days_after;
use claviger_domain::event::{Actor, Origin};
use claviger_domain::fact::AuditHead;
use claviger_domain::ids::InstanceId;
use claviger_domain::instance::{AppInstance, InstanceStatus, create};
use claviger_domain::organisation::Organisation;
use claviger_domain::policy::{EncryptionPolicy, Lifecycle};
use claviger_domain::values::{App, SiteName};
use jiff::Timestamp;

use crate::close_organisation::is_leaving;
use crate::ports::{Clock, Ids, Instances, Policies};
use crate::request_error::{RequestError, taken};
use crate::settings::Settings;

/// Requests an app instance.
pub struct RequestInstance<'a> {
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

impl RequestInstance<'_> {
    /// Stores the request, which waits for support unless the catalogue lets it start at once.
    ///
    /// # Errors
    /// When app, plan, policy or site do not allow it; nothing is stored then.
    pub async fn run(
        &self,
        organisation: &Organisation,
        site: &SiteName,
        app: &App,
        origin: &Origin,
    ) -> Result<AppInstance, RequestError> {
        let now = self.clock.now();
        let policy = self.policies.policy(&organisation.name).await?;
        let policy = allowed(organisation, app, policy, self.settings, now)?;
        self.site_allows(organisation, site, app).await?;
        let due = &self.settings.catalogue.due;
        let due_at = business_days_after(due, now, due.provisioning_business_days);
        let Actor::OrgAdmin(by) = &origin.actor else {
            return Err(claviger_domain::decide::Refusal::Forbidden { who: "an org admin" }.into());
        };
        let status = if self.settings.catalogue.self_service_approval {
            InstanceStatus::Provisioning { since: now, due_at }
        } else {
            InstanceStatus::Requested { at: now, by: by.clone(), due_at }
        };
        let instance = AppInstance {
            id: InstanceId::from_uuid(self.ids.random()),
            organisation: organisation.id,
            organisation_name: organisation.name.clone(),
            policy: Some(policy.id),
            site: site.clone(),
            app: app.clone(),
            realm: Some(policy.realm.clone()),
            status,
            epoch: policy.fence.epoch,
            acknowledged: None,
            deletion: None,
            former_site: None,
            audit: AuditHead::default(),
            version: 0,
        };
        let decision = create(instance, origin, now);
        self.instances.commit_instance(None, &decision).await?;
        Ok(decision.next)
    }

    /// Whether the place is free: the site new, or this organisation's and encrypted already (spec A4);
    /// the app on it new (spec A3).
    async fn site_allows(
        &self,
        organisation: &Organisation,
        site: &SiteName,
        app: &App,
    ) -> Result<(), RequestError> {
        match self.instances.site_owner(site).await? {
            None => return Ok(()),
            Some(owner) if owner != organisation.name => return Err(RequestError::Taken(taken("site"))),
            Some(_) => {}
        }
        if let Some(known) = self.instances.instance_at(site, app).await? {
            return Err(match known.status {
                InstanceStatus::NotEncrypted { .. } => RequestError::NotEligible {
                    reason: format!("`{app}` exists on this site without encryption, and stays so"),
                    help: "request it on a new site".to_owned(),
                },
                InstanceStatus::Requested { .. }
                | InstanceStatus::Provisioning { .. }
                | InstanceStatus::Active { .. }
                | InstanceStatus::Suspended { .. }
                | InstanceStatus::Rejected { .. }
                | InstanceStatus::Erasing { .. }
                | InstanceStatus::Deleted { .. } => RequestError::Taken(taken("app")),
            });
        }
        // What is new would go with the rest.
        let on_site = self.instances.instances_of_site(site).await?;
        if on_site.iter().any(|one| one.deletion.is_some()) {
            return Err(RequestError::NotEligible {
                reason: "the vendor's records say that the site was deleted".to_owned(),
                help: "choose another site, or have the vendor take the deletion back".to_owned(),
            });
        }
        if self.has_encrypted_app(organisation, site).await? {
            return Ok(());
        }
        Err(RequestError::NotEligible {
            reason: "the site exists and has no encrypted app".to_owned(),
            help: "choose the name of a new site".to_owned(),
        })
    }

    async fn has_encrypted_app(
        &self,
        organisation: &Organisation,
        site: &SiteName,
    ) -> Result<bool, RequestError> {
        for app in self.settings.catalogue.apps.keys() {
            let known = self.instances.instance_at(site, app).await?;
            let encrypted = known.is_some_and(|known| {
                known.organisation_name == organisation.name
                    && match known.status {
                        InstanceStatus::Requested { .. }
                        | InstanceStatus::Provisioning { .. }
                        | InstanceStatus::Active { .. }
                        | InstanceStatus::Suspended { .. } => true,
                        InstanceStatus::NotEncrypted { .. }
                        | InstanceStatus::Rejected { .. }
                        | InstanceStatus::Erasing { .. }
                        | InstanceStatus::Deleted { .. } => false,
                    }
            });
            if encrypted {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The policy under which the organisation may have a new instance of the app. Asked at the request, and again when
/// support approves it; what it asks of the records once more when it is provisioned.
pub(crate) fn allowed(
    organisation: &Organisation,
    app: &App,
    policy: Option<EncryptionPolicy>,
    settings: &Settings,
    now: Timestamp,
) -> Result<EncryptionPolicy, RequestError> {
    app_allows(organisation, app, settings)?;
    let policy = usable(policy)?;
    match policy.held_back_by(now) {
        None => Ok(policy),
        Some(request) => Err(RequestError::AccessNotGranted { request: request.id }),
    }
}

/// Whether the app can be encrypted (spec A1), on this organisation's plan for it (spec E1).
pub(crate) fn app_allows(
    organisation: &Organisation,
    app: &App,
    settings: &Settings,
) -> Result<(), RequestError> {
    let catalogue = &settings.catalogue;
    let refused = |reason, help: &str| Err(RequestError::NotEligible { reason, help: help.to_owned() });
    if !catalogue.can_be_encrypted(app) {
        let reason = format!("`{app}` cannot be encrypted");
        return refused(reason, "`GET /v1/catalogue` lists the apps that can");
    }
    match organisation.plans.get(app) {
        Some(plan) if catalogue.plan_allows(app, plan) => Ok(()),
        Some(plan) => refused(
            format!("`{app}` is on the plan `{plan}`"),
            "move the app to the Enterprise plan or its trial",
        ),
        None => refused(
            format!("the organisation has no plan for `{app}`"),
            "get the app's Enterprise plan or its trial",
        ),
    }
}

/// The policy, if new instances may be made under it: active, and not degraded (design, point 2).
fn usable(policy: Option<EncryptionPolicy>) -> Result<EncryptionPolicy, RequestError> {
    let not_now =
        |reason: &str, help: &str| RequestError::NotNow { reason: reason.to_owned(), help: help.to_owned() };
    let policy = policy.ok_or_else(|| {
        not_now("the organisation has no encryption policy", "enrol first: `POST .../encryption-policy`")
    })?;
    if let Some(leaving) = is_leaving(&policy) {
        return Err(leaving);
    }
    match policy.lifecycle {
        Lifecycle::Active { .. } if !policy.fence.is_open() => Err(RequestError::Suspended),
        Lifecycle::Active { .. } if policy.is_degraded() => Err(not_now(
            "the encryption policy is degraded: a regional key refuses",
            "give the key back; `GET .../encryption-policy` says which and how",
        )),
        Lifecycle::Active { .. } => Ok(policy),
        Lifecycle::Suspended { .. } | Lifecycle::Restoring { .. } | Lifecycle::Lapsed { .. } => {
            Err(RequestError::Suspended)
        }
        Lifecycle::Requested { .. } | Lifecycle::Verifying { .. } => {
            Err(not_now("the encryption policy is not active yet", "wait until support has approved it"))
        }
        Lifecycle::Rejected { .. } => {
            Err(not_now("the encryption policy was rejected", "enrol again: `POST .../encryption-policy`"))
        }
        Lifecycle::Closed { .. } => Err(not_now("the encryption policy is closed", "ask support")),
    }
}
