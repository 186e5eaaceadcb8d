//! Takes over what the vendor's customer records say of an organisation (spec E3).

use std::collections::{BTreeMap, BTreeSet};

use claviger_domain::catalogue::Catalogue;
use claviger_domain::decide::Refusal;
use claviger_domain::event::{Origin, PolicyEvent};
use claviger_domain::ids::OrganisationId;
use claviger_domain::instance::{AppInstance, InstanceStatus};
use claviger_domain::invalid::{Invalid, InvalidField, shown};
use claviger_domain::key_access::ExternalId;
use claviger_domain::organisation::Organisation;
use claviger_domain::values::{App, OrganisationName, Subject};
use serde_json::Value;

use crate::ports::{Clock, Ids, Instances, Organisations, Policies, StoreError};
use crate::request_error::{ATTEMPTS, RequestError};
use crate::settings::Settings;
use crate::settle::Settle;

/// More people than this do not administer one organisation; one record has to hold them.
const MOST_PEOPLE: usize = 500;
/// Instances of a page of what is read.
const PAGE: u16 = 200;

/// What the feed says of an organisation, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// The plan of each app it has.
    pub plans: BTreeMap<App, String>,
    /// Whether it is a government-cloud organisation. Never assumed: the feed has to say it (spec E2).
    pub government: bool,
    /// Its registered administrators.
    pub admins: BTreeSet<Subject>,
    /// Its read-only people.
    pub auditors: BTreeSet<Subject>,
}

impl Feed {
    /// Parses the body of the feed against the catalogue.
    ///
    /// # Errors
    /// Every fault, each with its field, reason and remedy.
    pub fn parse(body: &Value, catalogue: &Catalogue) -> Result<Self, Vec<InvalidField>> {
        let mut faults = Vec::new();
        if !body.is_object() {
            let invalid = Invalid::new("the body is not a JSON object", "send a JSON object");
            return Err(vec![invalid.at("(body)")]);
        }
        let plans = parse_plans(body, catalogue, &mut faults);
        let admins = parse_people(body, "admins", &mut faults);
        let auditors = parse_people(body, "auditors", &mut faults);
        let government = body.get("government").and_then(Value::as_bool);
        if government.is_none() {
            let invalid = Invalid::new("it is not true or false", "send `government` as true or false");
            faults.push(invalid.at("government"));
        }
        match government {
            Some(government) if faults.is_empty() => Ok(Self { plans, government, admins, auditors }),
            Some(_) | None => Err(faults),
        }
    }
}

fn parse_plans(body: &Value, catalogue: &Catalogue, faults: &mut Vec<InvalidField>) -> BTreeMap<App, String> {
    let mut plans = BTreeMap::new();
    let Some(Value::Object(entries)) = body.get("plans") else {
        let invalid = Invalid::new("it is not an object", "send `plans` as an object: app to plan");
        faults.push(invalid.at("plans"));
        return plans;
    };
    for (name, plan) in entries {
        let place = format!("plans.{}", shown(name));
        let app: App = match name.parse() {
            Ok(app) => app,
            Err(invalid) => {
                let invalid: Invalid = invalid;
                faults.push(invalid.at(place));
                continue;
            }
        };
        if !catalogue.apps.contains_key(&app) {
            let known: Vec<&str> = catalogue.apps.keys().map(App::as_str).collect();
            let reason = format!("`{app}` is not an app of the catalogue");
            faults.push(Invalid::new(reason, format!("use some of {}", known.join(", "))).at(place));
            continue;
        }
        match plan.as_str().filter(|plan| (1..=64).contains(&plan.len())) {
            Some(plan) => {
                plans.insert(app, plan.to_owned());
            }
            None => {
                let invalid = Invalid::new("the plan is not a text of 1 to 64", "send the plan's name");
                faults.push(invalid.at(place));
            }
        }
    }
    plans
}

fn parse_people(body: &Value, field: &str, faults: &mut Vec<InvalidField>) -> BTreeSet<Subject> {
    let mut people = BTreeSet::new();
    let Some(Value::Array(entries)) = body.get(field) else {
        let help = format!("send `{field}` as a list of the identity provider's `sub` values");
        faults.push(Invalid::new("it is not a list", help).at(field));
        return people;
    };
    if entries.len() > MOST_PEOPLE {
        let reason = format!("{} people are listed", entries.len());
        faults.push(Invalid::new(reason, format!("list at most {MOST_PEOPLE}")).at(field));
        return people;
    }
    for (index, entry) in entries.iter().enumerate() {
        let parsed: Result<Subject, Invalid> = match entry.as_str() {
            Some(text) => text.parse(),
            None => Err(Invalid::new("it is not text", "send the identity provider's `sub`")),
        };
        match parsed {
            Ok(subject) => {
                people.insert(subject);
            }
            Err(invalid) => faults.push(invalid.at(format!("{field}[{index}]"))),
        }
    }
    people
}

/// Takes over an organisation's record.
pub struct PutOrganisation<'a> {
    /// Where organisations are.
    pub organisations: &'a dyn Organisations,
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Where instances are.
    pub instances: &'a dyn Instances,
    /// Randomness, for the opaque id.
    pub ids: &'a dyn Ids,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl PutOrganisation<'_> {
    /// Stores the record as a whole and says whether it is a new organisation. The opaque id
    /// and the external id are made once and kept for good, because customers' policies name them.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn run(
        &self,
        name: &OrganisationName,
        feed: Feed,
        origin: &Origin,
    ) -> Result<(Organisation, bool), RequestError> {
        for _ in 0..ATTEMPTS {
            let known = self.organisations.organisation(name).await?;
            let created = known.is_none();
            // Told before it is stored: if this breaks off, the same feed comes again and finds what it was before.
            if let Some(known) = &known {
                self.tell(known, &feed, origin).await?;
            }
            let organisation = Organisation {
                id: known
                    .as_ref()
                    .map_or_else(|| OrganisationId::from_uuid(self.ids.random()), |known| known.id),
                external_id: known
                    .map_or_else(|| ExternalId::from_uuid(self.ids.random()), |known| known.external_id),
                name: name.clone(),
                plans: feed.plans.clone(),
                government: feed.government,
                admins: feed.admins.clone(),
                auditors: feed.auditors.clone(),
            };
            match self.organisations.save_organisation(&organisation).await {
                // Two first feeds raced: the one that came first made the id.
                Err(StoreError::Conflict) => {}
                Ok(()) => return Ok((organisation, created)),
                Err(other) => return Err(other.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// What an enrolled organisation has to know of the feed, it is told on a ticket.
    async fn tell(&self, known: &Organisation, feed: &Feed, origin: &Origin) -> Result<(), RequestError> {
        let Some(policy) = self.policies.policy(&known.name).await? else {
            return Ok(());
        };
        if !policy.lifecycle.is_watched() {
            return Ok(());
        }
        let catalogue = &self.settings.catalogue;
        let allows = |plans: &BTreeMap<App, String>, app: &App| {
            plans.get(app).is_some_and(|plan| catalogue.plan_allows(app, plan))
        };
        let told = policy.records.as_ref().map(|records| records.plans_ended.clone()).unwrap_or_default();
        let mut plans_ended: BTreeSet<App> =
            told.iter().filter(|app| !allows(&feed.plans, app)).cloned().collect();
        for app in known.plans.keys().filter(|app| allows(&known.plans, app) && !allows(&feed.plans, app)) {
            if !plans_ended.contains(app) && self.has_encryption(&known.name, app).await? {
                plans_ended.insert(app.clone());
            }
        }
        let event = PolicyEvent::RecordsFed { plans_ended, without_admin: feed.admins.is_empty() };
        let settle = Settle { policies: self.policies, clock: self.clock, settings: self.settings };
        settle.without_former_admins(&known.name, &feed.admins, origin).await?;
        match settle.run(&known.name, &event, origin).await {
            // It closed meanwhile: nobody has to know any more.
            Ok(_) | Err(RequestError::Refused(Refusal::IllegalForState { .. })) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// Whether the organisation has an encrypted instance of the app, or one that was approved and waits for its data key.
    async fn has_encryption(&self, name: &OrganisationName, app: &App) -> Result<bool, RequestError> {
        let mut cursor = None;
        loop {
            let page = self.instances.instances(name, cursor.as_deref(), PAGE).await?;
            let waits = |one: &AppInstance| matches!(one.status, InstanceStatus::Provisioning { .. });
            if page.items.iter().any(|one| one.app == *app && (one.status.is_encrypted() || waits(one))) {
                return Ok(true);
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(false);
            }
        }
    }
}
