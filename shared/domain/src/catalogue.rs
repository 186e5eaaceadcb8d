//! The vendor's catalogue: names, realms, apps, windows, titles and switches as data (spec, preamble).
//!
//! One file, validated when it is loaded: at build time by a test, at start by [`Catalogue::shipped`].

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::values::{App, Realm, Region};

/// How an organisation holds its keys (spec E8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The service assumes a role of the customer's and creates the keys in its account.
    Byok,
    /// The customer creates the keys and grants them by key policy.
    Cmk,
}

impl Mode {
    /// The mode as it is written in requests and answers.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Byok => "byok",
            Self::Cmk => "cmk",
        }
    }
}

/// What a restoration can promise, by the time since the cut-off (spec S3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WindowPhase {
    /// Full restoration is promised.
    Assured,
    /// Restoration is attempted.
    BestEffort,
    /// Full recovery is not promised any more.
    NotAssured,
    /// Self-service is over; support may still try.
    Lapsed,
}

/// One phase and the day after the cut-off on which it ends; the last has no end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The phase.
    pub phase: WindowPhase,
    /// Whole days after the cut-off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_day: Option<u16>,
    /// How many days before its end the org admins are reminded, falling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remind_days_before: Vec<u16>,
}

/// What the catalogue says about a mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeRules {
    /// The mode's name for people.
    pub label: String,
    /// Where the org admin finds it on the vendor's console.
    pub console: String,
    /// Title of the ticket of a revocation; `{account}` stands for the AWS account.
    pub revocation_title: String,
    /// Title of the ticket of a suspension by the vendor.
    pub suspension_title: String,
    /// Title of the ticket that warns of what is foretold of keys.
    pub warning_title: String,
    /// Title of the ticket that tells what is amiss in the customer records.
    pub records_title: String,
    /// Title of the ticket of an organisation that leaves.
    pub closing_title: String,
    /// Title of the ticket of a re-encryption.
    pub reencryption_title: String,
    /// Title of the ticket of a site that was deleted.
    pub site_title: String,
    /// Phases in order.
    pub windows: Vec<Window>,
}

/// A data-residency location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealmRules {
    /// The realm's name for people.
    pub name: String,
    /// Its regions; the first is the realm's home.
    pub regions: Vec<Region>,
}

/// How far a type of data is covered where its app is (spec A9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataCoverage {
    /// Encrypted under the customer's keys.
    Covered,
    /// Encrypted under the vendor's own keys only.
    NotCovered,
    /// Lies in caches or is on its way, outside the customer's keys, for a limited time.
    CachedOrInTransit,
}

/// One type of an app's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRules {
    /// Its name for people.
    pub name: String,
    /// How far it is covered.
    pub coverage: DataCoverage,
    /// Whether it is covered too when only another member of the app's family is encrypted (spec A6).
    #[serde(default)]
    pub with_family: bool,
}

/// An app of the vendor's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppRules {
    /// The app's name for people.
    pub name: String,
    /// The family it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// The plans on which it can be encrypted; none = it cannot be encrypted itself.
    pub plans: BTreeSet<String>,
    /// Its types of data and how far each is covered (spec A9).
    pub data: Vec<DataRules>,
}

/// Due dates in business days.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DueRules {
    /// From the processing of a ticket to the site or app (spec E10).
    pub provisioning_business_days: u16,
    /// From a restoration request to access (spec S5).
    pub restoration_business_days: u16,
    /// Days on which nobody is expected to work.
    pub holidays: BTreeSet<Date>,
}

/// What support is held to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SupportRules {
    /// Within how many hours a second agent confirms that a suspension is a mistake (spec S7).
    pub lift_within_hours: u16,
    /// Within how many minutes an app answers an order to suspend; later it is overdue.
    pub acknowledge_within_minutes: u16,
}

/// When what is foretold of keys is told again (spec K4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyWarningRules {
    /// How many days before it takes effect, falling.
    pub remind_days_before: Vec<u16>,
}

/// Who has to agree to a change of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyChangeRules {
    /// Whether a second org admin has to.
    pub second_approver: bool,
    /// Within how many hours.
    pub confirm_within_hours: u16,
}

/// How an organisation leaves (spec E11).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClosingRules {
    /// How many days it has to export its data.
    pub export_days: u16,
    /// How many days before their end it is reminded, falling.
    pub remind_days_before: Vec<u16>,
}

/// What becomes of the data keys of a site that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteRules {
    /// After how many days they are deleted.
    pub erase_after_days: u16,
}

/// The whole catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// Whether an org admin's own request starts at once (spec E3).
    pub self_service_approval: bool,
    /// Whether one region's refusal is enough to suspend (spec R5).
    pub any_region_is_enough: bool,
    /// Whether government-cloud organisations may enrol (spec E2).
    pub government_may_enrol: bool,
    /// For how many days at most data lies in caches or is on its way (spec A9).
    pub cached_or_in_transit_days: u16,
    /// Due dates.
    pub due: DueRules,
    /// What support is held to.
    pub support: SupportRules,
    /// Warnings of what is foretold of keys.
    pub key_warnings: KeyWarningRules,
    /// Who has to agree to a change of keys.
    pub key_changes: KeyChangeRules,
    /// How an organisation leaves.
    pub closing: ClosingRules,
    /// What becomes of a site that was deleted.
    pub sites: SiteRules,
    /// What differs between the modes.
    pub modes: BTreeMap<Mode, ModeRules>,
    /// Where data may live.
    pub realms: BTreeMap<Realm, RealmRules>,
    /// What can be encrypted.
    pub apps: BTreeMap<App, AppRules>,
}

/// Why a catalogue was refused.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The file is not the TOML that is expected; the message holds line, column and reason.
    #[error("the catalogue cannot be read: {0}")]
    Syntax(String),
    /// The file can be read but contradicts itself.
    #[error("the catalogue is wrong at `{place}`, line {line}: {reason}")]
    Rule {
        /// The table or key.
        place: String,
        /// Where it stands.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
}

impl Catalogue {
    /// The catalogue that was built in.
    ///
    /// # Errors
    /// Says where the shipped file is wrong; a test makes sure that it is not.
    pub fn shipped() -> Result<Self, CatalogueError> {
        Self::parse(include_str!("../catalogue.toml"))
    }

    /// Reads and validates a catalogue.
    ///
    /// # Errors
    /// Names the line, or the table, and the reason.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        let catalogue: Self =
            toml::from_str(text).map_err(|error| CatalogueError::Syntax(error.to_string()))?;
        match catalogue.validate() {
            Ok(()) => Ok(catalogue),
            Err((place, reason)) => {
                let line = line_of(text, &place);
                Err(CatalogueError::Rule { place, line, reason: reason.to_owned() })
            }
        }
    }

    fn validate(&self) -> Result<(), (String, &'static str)> {
        let wrong = |place: String, reason| Err((place, reason));
        for (realm, rules) in &self.realms {
            let distinct: BTreeSet<_> = rules.regions.iter().collect();
            if rules.regions.is_empty() || distinct.len() != rules.regions.len() {
                return wrong(format!("realms.{realm}"), "list one or more different regions");
            }
        }
        for (app, rules) in &self.apps {
            let names: BTreeSet<&str> = rules.data.iter().map(|data| data.name.as_str()).collect();
            if names.len() != rules.data.len() || names.contains("") {
                return wrong(format!("apps.{app}.data"), "name each type of data once");
            }
            if rules.data.iter().any(|data| data.with_family) && rules.family.is_none() {
                return wrong(format!("apps.{app}.data"), "`with_family` is for members of a family");
            }
        }
        for mode in [Mode::Byok, Mode::Cmk] {
            let place = format!("modes.{}", mode.slug());
            let Some(rules) = self.modes.get(&mode) else {
                return wrong(place, "the mode is missing");
            };
            let titles = [
                &rules.revocation_title,
                &rules.suspension_title,
                &rules.warning_title,
                &rules.closing_title,
                &rules.site_title,
                &rules.records_title,
                &rules.reencryption_title,
            ];
            for title in titles {
                if !title.contains("{account}") {
                    return wrong(place, "a title does not say `{account}`");
                }
            }
            let place = format!("{place}.windows");
            let Some((last, bounded)) = rules.windows.split_last() else {
                return wrong(place, "list at least one window");
            };
            let days: Vec<u16> = bounded.iter().filter_map(|window| window.until_day).collect();
            let rising = days.windows(2).all(|pair| pair.first() < pair.last());
            if last.until_day.is_some() || days.len() != bounded.len() || !rising {
                return wrong(place, "every window but the last ends on a later day than the one before");
            }
            let phases: Vec<WindowPhase> = rules.windows.iter().map(|w| w.phase).collect();
            if !phases.is_sorted() {
                return wrong(place, "phases go from assured to lapsed");
            }
            let mut begins = 0;
            for window in &rules.windows {
                let lasts = window.until_day.unwrap_or(begins).saturating_sub(begins);
                let falling = window.remind_days_before.windows(2).all(|pair| pair.first() > pair.last());
                let within = window.remind_days_before.iter().all(|days| (1..lasts).contains(days));
                if !falling || !within {
                    return wrong(
                        place,
                        "reminders fall, and lie a day or more after the phase begins and before it ends",
                    );
                }
                begins = window.until_day.unwrap_or(begins);
            }
        }
        let days = &self.key_warnings.remind_days_before;
        if days.contains(&0) || !days.windows(2).all(|pair| pair.first() > pair.last()) {
            return wrong(
                "key_warnings.remind_days_before".to_owned(),
                "reminders fall, a day before at the latest",
            );
        }
        let ClosingRules { export_days, remind_days_before: days } = &self.closing;
        let within = days.iter().all(|days| (1..*export_days).contains(days));
        if *export_days == 0 || !within || !days.windows(2).all(|pair| pair.first() > pair.last()) {
            let reason = "the export takes a day or more; reminders fall, a day or more before its end";
            return wrong("closing".to_owned(), reason);
        }
        // DynamoDB takes a hundred changes at once; an app of a site that is renamed needs five of them.
        if self.apps.len() > 18 {
            return wrong("apps".to_owned(), "18 apps at most: a site is renamed with all of them at once");
        }
        if !(1..=3650).contains(&self.sites.erase_after_days) {
            let reason = "data keys of a deleted site are kept for 1 to 3650 days";
            return wrong("sites.erase_after_days".to_owned(), reason);
        }
        if self.key_changes.confirm_within_hours == 0 {
            return wrong("key_changes.confirm_within_hours".to_owned(), "a time has to be more than none");
        }
        if self.support.lift_within_hours == 0 || self.support.acknowledge_within_minutes == 0 {
            return wrong("support".to_owned(), "a time has to be more than none");
        }
        Ok(())
    }

    /// The regions of a realm, home first; none for a realm that is not in the catalogue.
    pub fn regions(&self, realm: &Realm) -> Option<&[Region]> {
        self.realms.get(realm).map(|rules| rules.regions.as_slice())
    }

    /// Every region of every realm.
    pub fn all_regions(&self) -> BTreeSet<&Region> {
        self.realms.values().flat_map(|rules| &rules.regions).collect()
    }

    /// Whether an app can be encrypted on a plan (spec E1).
    pub fn plan_allows(&self, app: &App, plan: &str) -> bool {
        self.apps.get(app).is_some_and(|rules| rules.plans.contains(plan))
    }

    /// Whether an app can be encrypted at all (spec A1).
    pub fn can_be_encrypted(&self, app: &App) -> bool {
        self.apps.get(app).is_some_and(|rules| !rules.plans.is_empty())
    }

    /// The other members of an app's family (spec A6).
    pub fn siblings<'a>(&'a self, app: &'a App) -> impl Iterator<Item = &'a App> {
        let family = self.apps.get(app).and_then(|rules| rules.family.as_ref());
        self.apps.iter().filter_map(move |(other, rules)| {
            let same = family.is_some() && rules.family.as_ref() == family;
            (same && other != app).then_some(other)
        })
    }
}

/// The line, from 1, on which a table or key stands: its own header, or its key after its table's header.
fn line_of(text: &str, place: &str) -> usize {
    let lines = || text.lines().map(str::trim).zip(1_usize..);
    let header = |table: &str| {
        let header = format!("[{table}]");
        lines().find_map(|(line, number)| (line == header).then_some(number))
    };
    let of_key = || {
        let (table, key) = place.rsplit_once('.')?;
        let table = header(table)?;
        lines().skip(table).find_map(|(line, number)| {
            let name = line.split_once('=').map(|(name, _)| name.trim());
            (name == Some(key)).then_some(number)
        })
    };
    header(place).or_else(of_key).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const SHIPPED: &str = include_str!("../catalogue.toml");

    #[test]
    fn e6_the_shipped_catalogue_lists_the_realms_and_regions_of_the_documents() {
        let catalogue = Catalogue::shipped().unwrap();
        let realms: Vec<(&str, Vec<&str>)> = catalogue
            .realms
            .iter()
            .map(|(realm, rules)| (realm.as_str(), rules.regions.iter().map(Region::as_str).collect()))
            .collect();
        let documents: [(&str, &[&str]); 10] = [
            ("australia", &["ap-southeast-2"]),
            ("canada", &["ca-central-1"]),
            ("europe", &["eu-central-1", "eu-west-1"]),
            ("germany", &["eu-central-1"]),
            ("india", &["ap-south-1"]),
            ("japan", &["ap-northeast-1"]),
            ("singapore", &["ap-southeast-1"]),
            ("south-korea", &["ap-northeast-2"]),
            ("united-kingdom", &["eu-west-2"]),
            ("usa", &["us-east-1", "us-west-2"]),
        ];
        assert_eq!(realms, documents.map(|(realm, regions)| (realm, regions.to_vec())));
    }

    #[test]
    fn a_broken_catalogue_names_the_line_and_the_reason() {
        let text = include_str!("../catalogue.toml").replace("until_day = 10", "until_day = \"ten\"");
        let error = Catalogue::parse(&text).unwrap_err().to_string();
        assert!(error.contains("line"), "{error}");
        assert!(error.contains("ten"), "{error}");
    }

    #[test]
    fn a_catalogue_that_contradicts_itself_names_the_place() {
        let text = include_str!("../catalogue.toml").replace("until_day = 10", "until_day = 30");
        let error = Catalogue::parse(&text).unwrap_err().to_string();
        assert!(error.contains("modes.cmk.windows"), "{error}");
    }

    #[test]
    fn s3_a_reminder_outside_its_phase_is_refused_and_its_line_named() {
        let shipped = include_str!("../catalogue.toml");
        for (right, wrong) in [("[7, 3, 1]", "[15, 3, 1]"), ("[7, 3, 1]", "[3, 7]"), ("[7, 3, 1]", "[7, 0]")]
        {
            let error = Catalogue::parse(&shipped.replacen(right, wrong, 1)).unwrap_err().to_string();
            let mut lines = shipped.lines().zip(1_usize..).skip_while(|(line, _)| *line != "[modes.byok]");
            let (_, line) = lines.find(|(line, _)| line.starts_with("windows")).unwrap();
            assert!(error.contains(&format!("`modes.byok.windows`, line {line}:")), "{error}");
        }
    }

    #[test]
    fn a9_every_app_says_what_of_its_data_is_covered_not_covered_or_outside_for_a_while() {
        let catalogue = Catalogue::shipped().unwrap();
        assert_eq!(catalogue.cached_or_in_transit_days, 30);
        for (app, rules) in &catalogue.apps {
            let has = |coverage| rules.data.iter().any(|data| data.coverage == coverage);
            assert!(has(DataCoverage::Covered), "{app}");
            assert!(has(DataCoverage::NotCovered), "{app}");
            assert!(has(DataCoverage::CachedOrInTransit), "{app}");
        }
        let twice = include_str!("../catalogue.toml").replace("\"Page content\"", "\"Attachments\"");
        let error = Catalogue::parse(&twice).unwrap_err().to_string();
        assert!(error.contains("apps.confluence.data"), "{error}");
    }

    #[test]
    fn a6_the_jira_family_has_members_that_cannot_be_encrypted_themselves() {
        let catalogue = Catalogue::shipped().unwrap();
        let jira: App = "jira".parse().unwrap();
        let siblings: Vec<&str> = catalogue.siblings(&jira).map(App::as_str).collect();
        assert_eq!(siblings, ["jira-product-discovery", "jira-service-management"]);
        assert!(!catalogue.can_be_encrypted(&"jira-product-discovery".parse().unwrap()));
    }

    #[rstest]
    #[case::no_region("[\"ap-south-1\"]", "[]", "realms.india")]
    #[case::a_region_twice("[\"us-east-1\", \"us-west-2\"]", "[\"us-east-1\", \"us-east-1\"]", "realms.usa")]
    #[case::data_without_a_name("\"Page content\"", "\"\"", "apps.confluence.data")]
    #[case::data_of_no_family(
        "\"Page content\",",
        "\"Page content\", with_family = true,",
        "apps.confluence.data"
    )]
    #[case::a_title_of_no_account("CMK access suspended for AWS account {account}", "Suspended", "modes.cmk")]
    #[case::two_windows_till_one_day(
        "until_day = 20, remind_days_before = [3, 1]",
        "until_day = 10",
        "modes.cmk.windows"
    )]
    #[case::an_end_of_the_last(
        "phase = \"not-assured\"",
        "phase = \"not-assured\", until_day = 30",
        "modes.cmk.windows"
    )]
    #[case::no_end_of_another("until_day = 20, remind_days_before = [3, 1]", "", "modes.cmk.windows")]
    #[case::a_phase_back("\"best-effort\"", "\"lapsed\"", "modes.cmk.windows")]
    #[case::a_phases_reminder_twice("[7, 3, 1]", "[7, 3, 3]", "modes.byok.windows")]
    #[case::a_warning_on_the_day("[30, 7, 1]", "[30, 7, 0]", "key_warnings.remind_days_before")]
    #[case::a_warning_twice("[30, 7, 1]", "[30, 7, 7]", "key_warnings.remind_days_before")]
    #[case::warnings_that_rise("[30, 7, 1]", "[1, 7, 30]", "key_warnings.remind_days_before")]
    #[case::no_export("30\nremind_days_before = [14, 7, 1]", "0\nremind_days_before = []", "closing")]
    #[case::a_reminder_before_the_export("[14, 7, 1]", "[30, 7, 1]", "closing")]
    #[case::a_reminder_of_the_export_twice("[14, 7, 1]", "[14, 7, 7]", "closing")]
    #[case::sites_gone_at_once("erase_after_days = 30", "erase_after_days = 0", "sites.erase_after_days")]
    #[case::sites_kept_for_good("erase_after_days = 30", "erase_after_days = 3651", "sites.erase_after_days")]
    #[case::no_time_to_confirm(
        "confirm_within_hours = 24",
        "confirm_within_hours = 0",
        "key_changes.confirm_within_hours"
    )]
    #[case::no_time_to_lift("lift_within_hours = 24", "lift_within_hours = 0", "support")]
    #[case::no_time_to_acknowledge(
        "acknowledge_within_minutes = 15",
        "acknowledge_within_minutes = 0",
        "support"
    )]
    fn what_a_catalogue_cannot_mean_is_refused_where_it_stands(
        #[case] right: &str,
        #[case] wrong: &str,
        #[case] expected: &str,
    ) {
        assert!(SHIPPED.contains(right));
        let error = Catalogue::parse(&SHIPPED.replacen(right, wrong, 1)).unwrap_err();
        let CatalogueError::Rule { place, line, .. } = &error else { panic!("{error}") };
        assert_eq!(place, expected, "{error}");
        let found = SHIPPED.lines().nth(line - 1).unwrap();
        let name = expected.rsplit('.').next().unwrap();
        assert!(found == format!("[{expected}]") || found.starts_with(name), "line {line}: {found}");
    }

    #[test]
    fn a4_a_catalogue_has_as_many_apps_as_a_site_can_be_renamed_with() {
        let shipped = Catalogue::shipped().unwrap().apps.len();
        let with = |apps: usize| {
            let more: String = (shipped..apps)
                .map(|n| format!("\n[apps.more-{n}]\nname = \"More\"\nplans = []\ndata = []\n"))
                .collect();
            Catalogue::parse(&format!("{SHIPPED}{more}"))
        };
        assert_eq!(with(18).unwrap().apps.len(), 18);
        for many in [19, 20] {
            let error = with(many).unwrap_err().to_string();
            assert!(error.contains("18 apps at most"), "{error}");
        }
    }

    #[test]
    fn e6_every_region_of_every_realm_is_known_and_no_other() {
        let catalogue = Catalogue::shipped().unwrap();
        let regions: Vec<&str> = catalogue.all_regions().into_iter().map(Region::as_str).collect();
        let expected = [
            "ap-northeast-1",
            "ap-northeast-2",
            "ap-south-1",
            "ap-southeast-1",
            "ap-southeast-2",
            "ca-central-1",
            "eu-central-1",
            "eu-west-1",
            "eu-west-2",
            "us-east-1",
            "us-west-2",
        ];
        assert_eq!(regions, expected);
    }

    #[rstest]
    #[case("jira", true)]
    #[case("jira-service-management", true)]
    #[case("confluence", true)]
    #[case("jira-product-discovery", false)]
    #[case("trello", false)]
    fn e1_an_app_is_encrypted_on_enterprise_or_its_trial_and_on_no_other_plan(
        #[case] app: &str,
        #[case] encrypted: bool,
    ) {
        let catalogue = Catalogue::shipped().unwrap();
        let app: App = app.parse().unwrap();
        assert_eq!(catalogue.can_be_encrypted(&app), encrypted);
        for (plan, allows) in [("enterprise", true), ("enterprise-trial", true), ("premium", false)] {
            assert_eq!(catalogue.plan_allows(&app, plan), allows && encrypted, "{plan}");
        }
    }

    #[test]
    fn a6_an_app_without_a_family_has_no_siblings_though_there_are_others_without_one() {
        let more = "\n[apps.trello]\nname = \"Trello\"\nplans = []\ndata = []\n";
        let catalogue = Catalogue::parse(&format!("{SHIPPED}{more}")).unwrap();
        let confluence: App = "confluence".parse().unwrap();
        assert_eq!(catalogue.siblings(&confluence).count(), 0);
    }
}
