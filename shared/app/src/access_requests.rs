//! Access requests (spec K1): support publishes a template, every enrolled customer is asked, each answers. Who enrols
//! after a template was published, or was missed by a publishing that broke off, is asked by `deadlines`.

use std::collections::BTreeSet;

use claviger_domain::access::{AccessRequest, KeyPermission, KeyPolicyTemplate, TemplateVersion};
use claviger_domain::decide::{Refusal, decide};
use claviger_domain::event::{Actor, Origin, PolicyEvent};
use claviger_domain::ids::CorrelationId;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::{OrganisationName, Region, ShardId};
use claviger_domain::vendor::Ground;
use jiff::Timestamp;
use uuid::Uuid;

use crate::messages::{Check, CheckResult, ProbeAnswer, ProbeRequest};
use crate::ports::{CallError, Clock, Policies, Prober, PublishedTemplate, StoreError, Templates, WatchList};
use crate::request_error::{ATTEMPTS, RequestError};
use crate::settings::Settings;
use crate::settle::Settle;

/// How many customers one call asks at most; the same call goes on where it stopped.
const AT_ONCE: u64 = 100;
/// How many templates there may be: each customer's policy holds its answers.
const MOST_TEMPLATES: usize = 50;

/// Publishes templates.
pub struct PublishTemplate<'a> {
    /// Where templates are.
    pub templates: &'a dyn Templates,
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Which policies there are.
    pub watch_list: &'a dyn WatchList,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl PublishTemplate<'_> {
    /// Stores a template and asks customers. Said again, it goes on where it stopped; a customer is asked once.
    ///
    /// # Errors
    /// When the version stands for something else, or the store fails: what was done stays done.
    pub async fn run(
        &self,
        version: TemplateVersion,
        permissions: BTreeSet<KeyPermission>,
        decide_by: Timestamp,
        origin: &Origin,
    ) -> Result<PublishedTemplate, RequestError> {
        let Actor::Support(by) = &origin.actor else {
            return Err(Refusal::Forbidden { who: "a support agent" }.into());
        };
        let known = self.templates.templates().await?;
        let published = match known.iter().find(|known| known.template.version == version) {
            Some(known) => {
                let same = known.template.permissions == permissions && known.template.decide_by == decide_by;
                if !same {
                    return Err(RequestError::NotNow {
                        reason: format!("version `{version}` is published and asks for something else"),
                        help: "publish another version".to_owned(),
                    });
                }
                known.clone()
            }
            None if known.len() >= MOST_TEMPLATES => {
                return Err(RequestError::NotNow {
                    reason: format!("there are {MOST_TEMPLATES} templates"),
                    help: "let the next release of the service take the oldest in".to_owned(),
                });
            }
            None => {
                let published_at = self.clock.now();
                let template = KeyPolicyTemplate {
                    version,
                    permissions,
                    decide_by,
                    published_at,
                    published_by: by.clone(),
                };
                let fresh = PublishedTemplate { template, shard: 0, after: None, opened: 0, done: false };
                self.templates.add_template(&fresh).await?;
                fresh
            }
        };
        self.go_on(published, origin).await
    }

    async fn go_on(
        &self,
        mut published: PublishedTemplate,
        origin: &Origin,
    ) -> Result<PublishedTemplate, RequestError> {
        let mut left = AT_ONCE;
        while !published.done && left > 0 {
            let mut rows = self.watch_list.watched(ShardId(published.shard)).await?;
            rows.sort_by_key(|row| row.policy.id);
            let from = published.after;
            for row in rows.iter().filter(|row| from.is_none_or(|after| row.policy.id > after)) {
                if left == 0 {
                    break;
                }
                left = left.saturating_sub(1);
                let name = &row.policy.organisation_name;
                if opened(self.policies, self.settings, self.clock, name, &published.template, origin).await?
                {
                    published.opened = published.opened.saturating_add(1);
                }
                published.after = Some(row.policy.id);
            }
            if left > 0 {
                published.shard = published.shard.saturating_add(1);
                published.after = None;
                published.done = published.shard >= self.settings.shards;
            }
            self.templates.save_progress(&published).await?;
        }
        Ok(published)
    }
}

/// The templates of which the policy has no request.
pub(crate) fn not_asked<'a>(
    policy: &'a EncryptionPolicy,
    templates: &'a [PublishedTemplate],
) -> impl Iterator<Item = &'a KeyPolicyTemplate> {
    let asked = |template: &KeyPolicyTemplate| {
        policy.access_requests.iter().any(|known| known.version == template.version)
    };
    templates.iter().map(|published| &published.template).filter(move |template| !asked(template))
}

/// Opens one template's request with one customer; says whether it is new.
pub(crate) async fn opened(
    policies: &dyn Policies,
    settings: &Settings,
    clock: &dyn Clock,
    organisation: &OrganisationName,
    template: &KeyPolicyTemplate,
    origin: &Origin,
) -> Result<bool, StoreError> {
    let event = PolicyEvent::AccessRequested { template: template.clone() };
    for _ in 0..ATTEMPTS {
        let Some(policy) = policies.policy(organisation).await? else {
            return Ok(false);
        };
        let decision = match decide(&settings.rules(), &policy, &event, origin, clock.now()) {
            Ok(decision) => decision,
            // It was asked before, or has left: there is no other reason not to ask.
            Err(_) => return Ok(false),
        };
        match policies.commit_policy(Some(&policy), &decision).await {
            Ok(()) => return Ok(true),
            Err(StoreError::Conflict) => {}
            Err(other) => return Err(other),
        }
    }
    Err(StoreError::Conflict)
}

/// One customer's access requests.
pub struct AnswerAccess<'a> {
    /// Where templates are.
    pub templates: &'a dyn Templates,
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Who probes.
    pub prober: &'a dyn Prober,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl AnswerAccess<'_> {
    /// The requests, newest first. One that neither the publishing nor `deadlines` has come by with yet is opened here, so
    /// that who looks has not to come again.
    ///
    /// # Errors
    /// When there is no policy, or the store fails.
    pub async fn list(
        &self,
        organisation: &OrganisationName,
        correlation: CorrelationId,
    ) -> Result<Vec<AccessRequest>, RequestError> {
        let mut policy = self.load(organisation).await?;
        let templates = self.templates.templates().await?;
        // INVARIANT (K3): nobody but the service itself does it, whoever looks and whoever published the template.
        let origin = Origin { actor: Actor::Claviger("api".to_owned()), correlation };
        let missing: Vec<_> = not_asked(&policy, &templates).cloned().collect();
        for template in &missing {
            opened(self.policies, self.settings, self.clock, organisation, template, &origin).await?;
            policy = self.load(organisation).await?;
        }
        policy.access_requests.reverse();
        Ok(policy.access_requests)
    }

    /// Accepts a request: every permission is used on every key first.
    ///
    /// # Errors
    /// When a region refuses one, with its remedy; nothing is stored then.
    pub async fn accept(
        &self,
        organisation: &OrganisationName,
        id: Uuid,
        origin: &Origin,
    ) -> Result<AccessRequest, RequestError> {
        let policy = self.load(organisation).await?;
        let permissions = find(&policy, id)?.permissions.clone();
        let wanted = ProbeRequest::ProvePermissions { organisation: organisation.clone(), permissions };
        let ProbeAnswer::Checked { checks } = self.prober.probe(&wanted).await? else {
            let reason = "it answered another question".to_owned();
            return Err(CallError { what: "the prober", reason }.into());
        };
        if checks.iter().any(|check| check.result == CheckResult::Fail) {
            return Err(RequestError::NotVerified(checks));
        }
        if checks.iter().any(|check| check.result == CheckResult::Warn) {
            let reason = "a key gave no answer".to_owned();
            return Err(CallError { what: "AWS KMS", reason }.into());
        }
        let proven = proven(&policy, id, &checks)?;
        let event = PolicyEvent::AccessGranted { request: id, proven };
        let accepted = self.answer(organisation, id, &event, origin).await?;
        self.lift_suspension(organisation, id, origin).await?;
        Ok(accepted)
    }

    /// A suspension by the vendor over this request ends with the proof. Asked again after a failure on the way, it is
    /// tried again.
    async fn lift_suspension(
        &self,
        organisation: &OrganisationName,
        id: Uuid,
        origin: &Origin,
    ) -> Result<(), RequestError> {
        let policy = self.load(organisation).await?;
        let over = policy.vendor.as_ref().map(|suspension| suspension.ground);
        if over != Some(Ground::AccessRequest { request: id }) {
            return Ok(());
        }
        let wanted = ProbeRequest::ProbeNow { organisation: organisation.clone(), rounds: 1 };
        let round = match self.prober.probe(&wanted).await? {
            ProbeAnswer::Probed { rounds } => rounds.into_iter().next_back(),
            ProbeAnswer::Checked { .. } | ProbeAnswer::Unwrapped { .. } | ProbeAnswer::Made { .. } => None,
        };
        let reason = || "it answered without a round".to_owned();
        let round = round.ok_or_else(|| CallError { what: "the prober", reason: reason() })?;
        let origin = Origin { actor: Actor::Claviger("api".to_owned()), correlation: origin.correlation };
        let settle = Settle { policies: self.policies, clock: self.clock, settings: self.settings };
        settle.run(organisation, &PolicyEvent::PermissionProven { request: id, round }, &origin).await?;
        Ok(())
    }

    /// Declines a request.
    ///
    /// # Errors
    /// When there is no such request, or it was accepted.
    pub async fn decline(
        &self,
        organisation: &OrganisationName,
        id: Uuid,
        origin: &Origin,
    ) -> Result<AccessRequest, RequestError> {
        self.answer(organisation, id, &PolicyEvent::AccessDeclined { request: id }, origin).await
    }

    async fn load(&self, organisation: &OrganisationName) -> Result<EncryptionPolicy, RequestError> {
        let policy = self.policies.policy(organisation).await?;
        policy.ok_or(RequestError::NotFound { what: "the encryption policy" })
    }

    async fn answer(
        &self,
        organisation: &OrganisationName,
        id: Uuid,
        event: &PolicyEvent,
        origin: &Origin,
    ) -> Result<AccessRequest, RequestError> {
        for _ in 0..ATTEMPTS {
            let policy = self.load(organisation).await?;
            find(&policy, id)?;
            let decision = match decide(&self.settings.rules(), &policy, event, origin, self.clock.now()) {
                Ok(decision) => decision,
                Err(Refusal::Redundant) => return find(&policy, id).cloned(),
                Err(refusal) => return Err(refusal.into()),
            };
            match self.policies.commit_policy(Some(&policy), &decision).await {
                Ok(()) => return find(&decision.next, id).cloned(),
                Err(StoreError::Conflict) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }
}

fn find(policy: &EncryptionPolicy, id: Uuid) -> Result<&AccessRequest, RequestError> {
    let found = policy.access_requests.iter().find(|request| request.id == id);
    found.ok_or(RequestError::NotFound { what: "the access request" })
}

/// The regions in which every permission of the request passed its own check.
fn proven(policy: &EncryptionPolicy, id: Uuid, checks: &[Check]) -> Result<BTreeSet<Region>, RequestError> {
    let request = find(policy, id)?;
    let passed = |region: &Region, permission: &KeyPermission| {
        checks.iter().any(|check| {
            check.region.as_ref() == Some(region)
                && check.id == permission.action()
                && check.result == CheckResult::Pass
        })
    };
    let all = |region: &&Region| request.permissions.iter().all(|permission| passed(region, permission));
    Ok(policy.keys.keys().filter(all).cloned().collect())
}
