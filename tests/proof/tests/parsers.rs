//! Every parser that meets outside bytes, fed with what is nearly right: the files of `events/`, cut, spliced and
//! altered. None may panic, take for ever, or give a value that does not come back as itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod corpus;

use std::sync::LazyLock;

use claviger_app::messages::{AppOrder, FanOut, ProbeAnswer, ProbeMessage, ProbeRequest};
use claviger_domain::catalogue::Catalogue;
use claviger_domain::effect::OutboxRow;
use claviger_domain::enrolment::{Enrolment, Holding};
use claviger_domain::event::{InstanceEvent, PolicyEvent};
use claviger_domain::fact::Fact;
use claviger_domain::ids::{DataKeyId, PolicyId};
use claviger_domain::values::{
    AccountId, App, ContextTag, KeyArn, OrganisationName, Realm, Region, SiteName, Subject,
};
use claviger_envelope::Header;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use corpus::{CORPUS, cases, nearly};

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::shipped().unwrap());

/// What can be read comes back as itself.
fn comes_back<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(text: &str) {
    if let Ok(read) = serde_json::from_str::<T>(text) {
        let written = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<T>(&written).unwrap(), read);
    }
}

fn text_comes_back<T>(text: &str)
where
    T: std::str::FromStr + std::fmt::Display + PartialEq + std::fmt::Debug,
{
    if let Ok(value) = text.parse::<T>() {
        let again = value.to_string().parse::<T>().ok();
        assert_eq!(again.as_ref(), Some(&value));
    }
}

fn every_value(text: &str) {
    text_comes_back::<KeyArn>(text);
    text_comes_back::<AccountId>(text);
    text_comes_back::<Region>(text);
    text_comes_back::<Realm>(text);
    text_comes_back::<App>(text);
    text_comes_back::<ContextTag>(text);
    text_comes_back::<OrganisationName>(text);
    text_comes_back::<SiteName>(text);
    text_comes_back::<Subject>(text);
    text_comes_back::<PolicyId>(text);
    text_comes_back::<DataKeyId>(text);
}

fn every_message(text: &str) {
    comes_back::<ProbeMessage>(text);
    comes_back::<ProbeRequest>(text);
    comes_back::<ProbeAnswer>(text);
    comes_back::<FanOut>(text);
    comes_back::<AppOrder>(text);
    comes_back::<OutboxRow>(text);
    comes_back::<PolicyEvent>(text);
    comes_back::<InstanceEvent>(text);
    comes_back::<Fact>(text);
    if let Ok(body) = serde_json::from_str::<Value>(text) {
        let _ = Enrolment::parse(&body, &CATALOGUE);
    }
}

fn an_enrolment() -> Value {
    json!({
        "mode": "cmk", "awsAccountId": "222222222222", "realm": "europe",
        "contextTag": "acme", "contextTagConfirmation": "acme",
        "keys": [
            { "region": "eu-central-1", "keyArn": "arn:aws:kms:eu-central-1:222222222222:key/1234abcd-12ab-34cd-56ef-1234567890ab" },
            { "region": "eu-west-1", "keyArn": "arn:aws:kms:eu-west-1:222222222222:key/1234abcd-12ab-34cd-56ef-1234567890ab" },
        ],
    })
}

static ENROLMENTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let byok = serde_json::json!({
        "mode": "byok", "awsAccountId": "333333333333", "realm": "usa",
        "roleArn": "arn:aws:iam::333333333333:role/security/key-management",
        "contextTag": "globex1", "contextTagConfirmation": "globex1",
    });
    vec![an_enrolment().to_string(), byok.to_string()]
});

static VALUES: LazyLock<Vec<String>> = LazyLock::new(|| {
    [
        "arn:aws:kms:eu-central-1:222222222222:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:eu-central-1:222222222222:key/mrk-1234abcd12ab34cd56ef1234567890ab",
        "arn:aws:kms:eu-central-1:222222222222:alias/mine",
        "222222222222",
        "eu-central-1",
        "united-kingdom",
        "jira-service-management",
        "acme-eng",
        "0190a0b1-12ab-74cd-96ef-1234567890ab",
    ]
    .map(str::to_owned)
    .into()
});

static CATALOGUES: LazyLock<Vec<String>> =
    LazyLock::new(|| vec![include_str!("../../../shared/domain/catalogue.toml").to_owned()]);

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(1_500), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_and_bodies_are_read_or_refused(text in nearly(&CORPUS)) {
        every_message(&text);
    }

    #[test]
    fn e7_an_enrolment_is_parsed_whole_or_every_fault_is_named(text in nearly(&ENROLMENTS)) {
        if let Ok(body) = serde_json::from_str::<Value>(&text) {
            match Enrolment::parse(&body, &CATALOGUE) {
                Ok(enrolment) => {
                    for (region, arn) in enrolment.keys() {
                        prop_assert_eq!(region, arn.region());
                        prop_assert_eq!(&enrolment.account, arn.account());
                    }
                    if let Holding::Byok { role_arn } = &enrolment.holding {
                        prop_assert_eq!(&enrolment.account, role_arn.account());
                    }
                }
                Err(faults) => {
                    prop_assert!(!faults.is_empty());
                    prop_assert!(faults.iter().all(|fault| !fault.help.is_empty() && fault.reason.len() < 2_000));
                }
            }
        }
    }

    #[test]
    fn e5_values_are_parsed_or_refused(text in nearly(&VALUES)) {
        every_value(&text);
    }

    #[test]
    fn values_refuse_whatever_text_there_is(text in any::<String>()) {
        every_value(&text);
        every_message(&text);
    }

    #[test]
    fn records_that_are_none_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Header::parse(&bytes);
        let _ = claviger_envelope::generation_of(&bytes);
        let _ = claviger_envelope::header_digest(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(200), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_catalogue_is_right_or_refused(text in nearly(&CATALOGUES)) {
        if let Ok(catalogue) = Catalogue::parse(&text) {
            prop_assert!(catalogue.realms.values().all(|realm| !realm.regions.is_empty()));
        }
    }
}

#[test]
fn the_samples_themselves_are_read() {
    let read = |count: &dyn Fn(&str) -> bool| CORPUS.iter().filter(|text| count(text)).count();
    assert!(read(&|text| serde_json::from_str::<ProbeMessage>(text).is_ok()) >= 2);
    assert!(read(&|text| serde_json::from_str::<OutboxRow>(text).is_ok()) >= 3);
    let body = serde_json::from_str(&ENROLMENTS[0]).unwrap();
    Enrolment::parse(&body, &CATALOGUE).unwrap();
}
