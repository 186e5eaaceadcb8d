//! The start of a function: its log and its settings.

use std::collections::{BTreeMap, BTreeSet};

use claviger_app::settings::{MassFailure, Settings, in_transit_of};
use claviger_app::usage::KmsPrice;
use claviger_domain::catalogue::Catalogue;
use claviger_domain::key_policy::VendorPrincipal;
use claviger_domain::values::{App, Realm};
use jiff::SignedDuration;
use tracing_subscriber::EnvFilter;

use crate::env::{SettingsError, Variables};

/// Sends log lines as JSON to standard output, where Lambda collects them. `RUST_LOG` filters; `info`
/// without it.
pub fn init_tracing() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let started = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_ansi(false)
        .with_env_filter(filter)
        .try_init();
    if let Err(error) = started {
        tracing::debug!(%error, "a subscriber is installed already");
    }
}

/// The deploy parameters, from the variables of the process.
///
/// # Errors
/// Names the first variable that is missing or wrong, with the reason and the remedy.
pub fn settings_from_env() -> Result<Settings, SettingsError> {
    settings_from(&Variables::process())
}

/// The deploy parameters, from these variables.
///
/// # Errors
/// Names the first variable that is missing or wrong, with the reason and the remedy.
pub fn settings_from(variables: &Variables<'_>) -> Result<Settings, SettingsError> {
    let shards: u16 = variables.parsed_or("CLAVIGER_SHARDS", 8)?;
    if shards == 0 || shards > 1000 {
        let reason = format!("`{shards}` shards are out of range");
        return Err(SettingsError::new("CLAVIGER_SHARDS", reason, "give 1 to 1000"));
    }
    let catalogue = served_catalogue(variables)?;
    let in_transit = match variables.parsed_or("CLAVIGER_IN_TRANSIT_SECONDS", 0_u32)? {
        0 => in_transit_of(&catalogue),
        seconds => SignedDuration::from_secs(i64::from(seconds)),
    };
    let mut app_roles = app_roles(variables)?;
    // The workers of a re-encryption open records of every app, as the apps themselves do.
    if let Some(role) = variables.optional("CLAVIGER_REENCRYPTION_ROLE_ARN") {
        app_roles.insert(role, catalogue.apps.keys().cloned().collect());
    }
    let record_shards: u16 = variables.parsed_or("CLAVIGER_RECORD_SHARDS", 4)?;
    if record_shards == 0 || record_shards > 256 {
        let reason = format!("`{record_shards}` shards are out of range");
        return Err(SettingsError::new("CLAVIGER_RECORD_SHARDS", reason, "give 1 to 256"));
    }
    Ok(Settings {
        catalogue,
        vendor: VendorPrincipal {
            account: variables.parsed("CLAVIGER_VENDOR_ACCOUNT")?,
            key_access_role: key_access_role(variables)?,
        },
        probe_phase: variables.millis_or("CLAVIGER_PROBE_PHASE_MS", SignedDuration::from_secs(60))?,
        lease: variables.millis_or("CLAVIGER_LEASE_MS", SignedDuration::from_secs(30))?,
        ambiguity: variables.millis_or("CLAVIGER_AMBIGUITY_MS", SignedDuration::from_secs(60))?,
        watch_slack: variables.millis_or("CLAVIGER_WATCH_SLACK_MS", SignedDuration::from_secs(10))?,
        proof_reuse: variables.millis_or("CLAVIGER_PROOF_REUSE_MS", SignedDuration::from_secs(10))?,
        mass_failure: MassFailure {
            least: variables.parsed_or("CLAVIGER_MASS_FAILURE_LEAST", 5)?,
            percent: variables.parsed_or("CLAVIGER_MASS_FAILURE_PERCENT", 20)?,
        },
        in_transit,
        usage_flush: variables.millis_or("CLAVIGER_USAGE_FLUSH_MS", SignedDuration::from_mins(15))?,
        data_key_least_age: variables
            .millis_or("CLAVIGER_DATA_KEY_LEAST_AGE_MS", SignedDuration::from_hours(24))?,
        kms_price: variables.parsed_or("CLAVIGER_KMS_PRICE_PER_10000_USD", KmsPrice::default())?,
        record_shards,
        shards,
        app_roles,
    })
}

fn key_access_role(variables: &Variables<'_>) -> Result<String, SettingsError> {
    const NAME: &str = "CLAVIGER_KEY_ACCESS_ROLE_ARN";
    let arn = variables.required(NAME)?;
    if arn.starts_with("arn:aws:iam::") && arn.contains(":role/") {
        return Ok(arn);
    }
    Err(SettingsError::new(
        NAME,
        format!("`{arn}` is not the ARN of a role"),
        "give the output `KeyAccessRoleArn` of the key-access stack",
    ))
}

/// The catalogue, narrowed to the realms that this cell serves.
fn served_catalogue(variables: &Variables<'_>) -> Result<Catalogue, SettingsError> {
    const NAME: &str = "CLAVIGER_REALMS";
    let mut catalogue = Catalogue::shipped().map_err(|error| {
        SettingsError::new("catalogue.toml", error.to_string(), "correct the catalogue and deploy again")
    })?;
    let Some(list) = variables.optional(NAME) else {
        return Ok(catalogue);
    };
    let mut served = BTreeSet::new();
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let realm: Realm = name.parse().map_err(|error| {
            SettingsError::new(NAME, format!("{error}"), "name realms, separated by commas")
        })?;
        if !catalogue.realms.contains_key(&realm) {
            let reason = format!("`{realm}` is not a realm of the catalogue");
            return Err(SettingsError::new(NAME, reason, "use realms of the catalogue, separated by commas"));
        }
        served.insert(realm);
    }
    catalogue.realms.retain(|realm, _| served.contains(realm));
    Ok(catalogue)
}

fn app_roles(variables: &Variables<'_>) -> Result<BTreeMap<String, Vec<App>>, SettingsError> {
    const NAME: &str = "CLAVIGER_APP_ROLES";
    let Some(text) = variables.optional(NAME) else {
        return Ok(BTreeMap::new());
    };
    serde_json::from_str(&text).map_err(|error| {
        let remedy = "give a JSON object: role ARN to list of apps";
        SettingsError::new(NAME, error.to_string(), remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        all.insert("CLAVIGER_VENDOR_ACCOUNT".into(), "111111111111".into());
        all.insert("CLAVIGER_KEY_ACCESS_ROLE_ARN".into(), "arn:aws:iam::111111111111:role/key-access".into());
        for (name, text) in pairs {
            all.insert((*name).to_owned(), (*text).to_owned());
        }
        let lookup = |name: &str| all.get(name).cloned();
        settings_from(&Variables::new(&lookup))
    }

    #[test]
    fn without_more_than_the_vendor_the_production_values_hold() {
        let settings = from(&[]).unwrap();
        assert_eq!(settings.probe_phase, SignedDuration::from_secs(60));
        assert_eq!(settings.lease, SignedDuration::from_secs(30));
        assert_eq!(settings.shards, 8);
        assert_eq!(settings.catalogue.realms.len(), 10);
    }

    #[test]
    fn a_cell_serves_only_its_realms() {
        let settings = from(&[("CLAVIGER_REALMS", "europe, germany")]).unwrap();
        let realms: Vec<&str> = settings.catalogue.realms.keys().map(Realm::as_str).collect();
        assert_eq!(realms, ["europe", "germany"]);
    }

    #[test]
    fn a_wrong_variable_names_itself_the_reason_and_the_remedy() {
        for (name, text) in [
            ("CLAVIGER_VENDOR_ACCOUNT", "27976624415"),
            ("CLAVIGER_VENDOR_ACCOUNT", ""),
            ("CLAVIGER_KEY_ACCESS_ROLE_ARN", "key-access"),
            ("CLAVIGER_LEASE_MS", "soon"),
            ("CLAVIGER_LEASE_MS", "0"),
            ("CLAVIGER_SHARDS", "0"),
            ("CLAVIGER_RECORD_SHARDS", "0"),
            ("CLAVIGER_USAGE_FLUSH_MS", "0"),
            ("CLAVIGER_DATA_KEY_LEAST_AGE_MS", "0"),
            ("CLAVIGER_KMS_PRICE_PER_10000_USD", "cheap"),
            ("CLAVIGER_IN_TRANSIT_SECONDS", "soon"),
            ("CLAVIGER_REALMS", "mars"),
            ("CLAVIGER_APP_ROLES", "{"),
        ] {
            let error = from(&[(name, text)]).unwrap_err();
            assert_eq!(error.variable, name, "{text}");
            assert!(!error.reason.is_empty() && !error.remedy.is_empty());
        }
    }

    #[test]
    fn apps_are_listed_by_the_role_that_may_ask_for_them() {
        let text = r#"{"arn:aws:iam::111111111111:role/notes-app": ["jira"]}"#;
        let settings = from(&[("CLAVIGER_APP_ROLES", text)]).unwrap();
        let apps = settings.app_roles.get("arn:aws:iam::111111111111:role/notes-app").unwrap();
        assert_eq!(apps.first().map(App::as_str), Some("jira"));
    }
}
