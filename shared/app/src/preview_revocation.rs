//! Shows what would happen if a regional key were disabled now. Nothing is stored and nobody is told.

use std::collections::BTreeSet;

use claviger_domain::calendar::{DatedPhase, dated_phases};
use claviger_domain::decide::preview;
use claviger_domain::effect::Effect;
use claviger_domain::fence::Cause;
use claviger_domain::instance::AppInstance;
use claviger_domain::instance::InstanceStatus;
use claviger_domain::values::{App, OrganisationName, Region, SiteName};
use serde::Serialize;

use crate::ports::{Clock, Instances, Policies};
use crate::request_error::RequestError;
use crate::settings::Settings;
use crate::show_key_policy::WARNING;

/// Entries of a page of what is read.
const PAGE: u16 = 200;
/// How many places are named.
const NAMED: usize = 50;

/// What disabling a key would lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PreviewOutcome {
    /// Nothing: it is so already.
    Unchanged,
    /// Data stays readable through another region.
    Degraded,
    /// Access is cut off.
    Suspended,
}

/// An app on a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The site.
    pub site: SiteName,
    /// The app.
    pub app: App,
}

/// The preview.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// The region whose key would be disabled.
    pub region: Region,
    /// What it would lead to.
    pub outcome: PreviewOutcome,
    /// The other regions whose keys would still work.
    pub still_usable: Vec<Region>,
    /// How many encrypted app instances would stop.
    pub app_instances: u64,
    /// How many unencrypted members of their families would stop with them (spec A6).
    pub siblings: u64,
    /// The first of all of them.
    pub first: Vec<Place>,
    /// Within how many seconds of the refusal, without any event; none where nothing would be cut off.
    pub bound_seconds: Option<i64>,
    /// What the org admins would read on the ticket.
    pub told: Vec<String>,
    /// How to come back.
    pub help: &'static str,
    /// What to weigh before (spec R1).
    pub guidance: &'static str,
    /// The restoration window that would begin; empty where nothing would be cut off.
    pub window: Vec<DatedPhase>,
}

/// Shows what would happen.
pub struct PreviewRevocation<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl PreviewRevocation<'_> {
    /// Runs the deciding function on a disabled key of this region.
    ///
    /// # Errors
    /// When there is no policy in use, or it has no key in this region.
    pub async fn run(
        &self,
        organisation: &OrganisationName,
        region: &Region,
    ) -> Result<Preview, RequestError> {
        let policy = self.policies.policy(organisation).await?;
        let policy = policy.ok_or(RequestError::NotFound { what: "the encryption policy" })?;
        if !policy.keys.contains_key(region) {
            return Err(RequestError::NotFound { what: "a key in this region" });
        }
        let now = self.clock.now();
        let decision = preview(&self.settings.rules(), &policy, region, now)?;
        let next = decision.as_ref().map_or(&policy, |decision| &decision.next);
        let cut = !policy.fence.causes.contains(&Cause::Key) && next.fence.causes.contains(&Cause::Key);
        let outcome = match (&decision, cut) {
            (_, true) => PreviewOutcome::Suspended,
            (Some(_), false) => PreviewOutcome::Degraded,
            (None, false) => PreviewOutcome::Unchanged,
        };
        let usable = next.keys.iter().filter(|(_, key)| !key.health.stands_refused() && !key.given_up);
        let still_usable: Vec<Region> = usable.map(|(region, _)| region.clone()).collect();
        let (encrypted, siblings) =
            if cut { self.stopped(organisation).await? } else { (Vec::new(), Vec::new()) };
        let bound = self.settings.cut_off_bound();
        let bound = bound.as_secs().saturating_add(i64::from(bound.subsec_nanos() > 0));
        let rows = decision.iter().flat_map(|decision| &decision.outbox);
        let told = rows.filter_map(|row| match &row.effect {
            Effect::OpenTicket { title, body, .. } => Some(format!("{title}\n{body}")),
            Effect::CommentTicket { body, .. } | Effect::ResolveTicket { body, .. } => Some(body.clone()),
            _ => None,
        });
        Ok(Preview {
            region: region.clone(),
            outcome,
            still_usable,
            app_instances: u64::try_from(encrypted.len()).unwrap_or(u64::MAX),
            siblings: u64::try_from(siblings.len()).unwrap_or(u64::MAX),
            first: encrypted.into_iter().chain(siblings).take(NAMED).collect(),
            bound_seconds: cut.then_some(bound),
            told: told.collect(),
            help: if cut {
                "enable every key again, then ask on the ticket: `POST .../restorations` with its `ticketId`"
            } else {
                "enable the key again; nothing has to be asked for"
            },
            guidance: WARNING,
            window: if cut { dated_phases(&self.settings.catalogue, policy.mode(), now) } else { Vec::new() },
        })
    }

    /// The encrypted instances, and the unencrypted members of their families on the same sites.
    async fn stopped(
        &self,
        organisation: &OrganisationName,
    ) -> Result<(Vec<Place>, Vec<Place>), RequestError> {
        let (mut cursor, mut all) = (None, Vec::<AppInstance>::new());
        loop {
            let page = self.instances.instances(organisation, cursor.as_deref(), PAGE).await?;
            all.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let place = |one: &AppInstance| Place { site: one.site.clone(), app: one.app.clone() };
        let (encrypted, others): (Vec<&AppInstance>, Vec<&AppInstance>) =
            all.iter().partition(|one| one.status.is_encrypted());
        let family: BTreeSet<(&SiteName, &App)> = encrypted
            .iter()
            .flat_map(|one| self.settings.catalogue.siblings(&one.app).map(|app| (&one.site, app)))
            .collect();
        let siblings = others.into_iter().filter(|one| {
            matches!(one.status, InstanceStatus::NotEncrypted { .. })
                && family.contains(&(&one.site, &one.app))
        });
        Ok((encrypted.iter().map(|one| place(one)).collect(), siblings.map(place).collect()))
    }
}
