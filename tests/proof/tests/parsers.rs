//! Every parser that meets outside bytes, fed with what is nearly right: the files of `events/`, cut, spliced and
//! altered. None may panic, take for ever, or give a value that does not come back as itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod corpus;

use std::sync::LazyLock;

use claviger_app::messages::{
    AppOrder, DataKeyPage, ErasurePage, FanOut, ProbeAnswer, ProbeMessage, ProbeRequest,
};
use claviger_app::put_organisation::Feed;
use claviger_app::reencryption::{Backup, JobProgress, JobStep, ShardCheckpoint, ShardWork};
use claviger_app::register_backup::parse_backup;
use claviger_app::webhooks::{WebhookMessage, WebhookSecret};
use claviger_domain::access::{KeyPermission, TemplateVersion};
use claviger_domain::catalogue::Catalogue;
use claviger_domain::effect::OutboxRow;
use claviger_domain::enrolment::{Enrolment, Holding};
use claviger_domain::event::{InstanceEvent, PolicyEvent};
use claviger_domain::fact::Fact;
use claviger_domain::ids::{DataKeyId, PolicyId};
use claviger_domain::key_access::RoleArn;
use claviger_domain::reencryption::Depth;
use claviger_domain::values::{
    AccountId, App, ContextTag, KeyArn, OrganisationName, Realm, Region, SiteName, Subject,
};
use claviger_envelope::fence::{FenceError, FencedPolicy};
use claviger_envelope::source::{DataKey, Proof, SourceError, Wanted};
use claviger_envelope::testing::TestCloud;
use claviger_envelope::{
    Config, Context, Envelope, EnvelopeError, FenceReader, FenceSnapshot, Header, Instance, InstanceName,
    KeySource,
};
use claviger_reencrypt::{Pattern, Place};
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
    text_comes_back::<RoleArn>(text);
    text_comes_back::<KeyPermission>(text);
    text_comes_back::<TemplateVersion>(text);
    let _ = text.parse::<Depth>();
    let _ = text.parse::<WebhookSecret>();
    if let Ok(pattern) = Pattern::parse(text) {
        let place = Place { organisation: "acme".into(), site: "acme-eng".into(), app: "jira".into() };
        for name in [text, "acme/acme-eng/jira/note/n-1", ""] {
            let _ = pattern.read(&place, name);
        }
    }
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
    comes_back::<DataKeyPage>(text);
    comes_back::<ErasurePage>(text);
    comes_back::<WebhookMessage>(text);
    comes_back::<JobStep>(text);
    comes_back::<ShardWork>(text);
    comes_back::<JobProgress>(text);
    comes_back::<ShardCheckpoint>(text);
    comes_back::<Backup>(text);
    if let Ok(body) = serde_json::from_str::<Value>(text) {
        let _ = Enrolment::parse(&body, &CATALOGUE);
        for faults in [parse_backup(&body).err(), Feed::parse(&body, &CATALOGUE).err()] {
            assert!(faults.is_none_or(|faults| faults.iter().all(|fault| !fault.help.is_empty())));
        }
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
        "arn:aws:iam::222222222222:role/path/key-management",
        "kms:GenerateDataKeyWithoutPlaintext",
        "2027-01-15",
        "rewrap",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "{organisation}/{site}/{app}/{type}/{record}",
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

const NOTE: Context<'static> = Context::new("note", "n-1");
/// How many bytes a stream begins with.
const STREAM_HEADER: usize = claviger_envelope::format::STREAM_HEADER_LEN;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn app() -> Instance {
    let cloud = TestCloud::new();
    let library = Envelope::builder().fence(cloud.clone()).keys(cloud.clone()).clock(cloud.clock.clone());
    let library = library.config(Config::default()).manual().start().unwrap();
    library.instance("acme", "acme-eng", "jira")
}

async fn read_stream(app: &Instance, bytes: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let (header, rest) = bytes.split_at(STREAM_HEADER.min(bytes.len()));
    let mut reader = app.decrypt_stream(&NOTE, header).await?;
    let mut plain = Vec::new();
    reader.update(rest, &mut plain).await?;
    reader.finish(&mut plain).await?;
    Ok(plain)
}

/// A record and a stream with bytes altered, added, taken away or cut.
fn bent(bytes: &[u8], changes: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, kind, byte) in changes {
        if bytes.is_empty() {
            break;
        }
        let at = at.index(bytes.len());
        match kind % 4 {
            0 => bytes[at] ^= byte,
            1 => bytes.insert(at, *byte),
            2 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(500), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i7_a_record_that_was_changed_is_refused_and_gives_nothing(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<u8>()), 1..4),
        plain in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        runtime().block_on(async {
            let app = app();
            let record = app.encrypt(&NOTE, &plain).await.unwrap();
            let changed = bent(&record, &changes);
            let read = app.decrypt(&NOTE, &changed).await;
            prop_assert_eq!(read.is_ok(), changed == record);
            let _ = app.reseal(&NOTE, &changed, 1).await;
            let mut writer = app.encrypt_stream(&NOTE).await.unwrap();
            let mut stream = writer.header().to_vec();
            writer.update(&plain, &mut stream).await.unwrap();
            writer.finish(&mut stream).await.unwrap();
            let changed = bent(&stream, &changes);
            let read = read_stream(&app, &changed).await;
            prop_assert_eq!(read.is_ok(), changed == stream);
            Ok(())
        })?;
    }

    #[test]
    fn r7_a_notice_that_was_changed_has_another_signature(
        id in "[a-z0-9]{1,20}", at in 1_i64..4_000_000_000, body in ".{0,80}", other in ".{0,80}",
    ) {
        let secret: WebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let signed = secret.sign(&id, at, &body);
        prop_assert_eq!(secret.sign(&id, at, &other) == signed, other == body);
        prop_assert_ne!(secret.sign(&id, at + 1, &body), signed.clone());
        prop_assert_ne!(secret.sign(&format!("{id}x"), at, &body), signed);
    }
}

/// Any number, the outermost ones often.
fn numbers() -> impl Strategy<Value = i64> {
    prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(0), any::<i64>(), 0_i64..4_000_000_000_000]
}

/// A broker and a fence whose numbers are anybody's.
#[derive(Clone)]
struct Odd {
    cloud: std::sync::Arc<TestCloud>,
    times: [i64; 4],
    counts: [u64; 2],
    small: [u32; 4],
    closed: bool,
}

#[async_trait::async_trait]
impl KeySource for Odd {
    async fn fetch(&self, instance: &InstanceName, wanted: Wanted) -> Result<DataKey, SourceError> {
        let key = KeySource::fetch(&self.cloud, instance, wanted).await?;
        let [not_after, proven_until, created_at, _] = self.times;
        let [generation, version, kms_calls, _] = self.small;
        let epoch = self.counts[0];
        Ok(DataKey {
            not_after,
            proven_until,
            created_at: Some(created_at),
            generation,
            version,
            kms_calls,
            epoch,
            ..key
        })
    }

    async fn prove(&self, policies: &[String]) -> Result<Vec<Proof>, SourceError> {
        let mut proofs = KeySource::prove(&self.cloud, policies).await?;
        proofs.iter_mut().for_each(|proof| proof.proven_until = self.times[1]);
        Ok(proofs)
    }
}

#[async_trait::async_trait]
impl FenceReader for Odd {
    async fn read(&self) -> Result<FenceSnapshot, FenceError> {
        let mut snapshot = FenceReader::read(&self.cloud).await?;
        snapshot.shards.iter_mut().for_each(|shard| shard.watched_until = self.times[3]);
        snapshot.policies = vec![FencedPolicy {
            policy_id: TestCloud::policy_of("acme"),
            organisation_id: "acme".to_owned(),
            epoch: self.counts[1],
            closed: self.closed,
            min_write_generation: self.small[3],
        }];
        Ok(snapshot)
    }
}

/// What the library may say to numbers that are anybody's.
fn is_an_answer(error: &EnvelopeError) -> bool {
    matches!(
        error,
        EnvelopeError::Suspended
            | EnvelopeError::TemporarilyUnavailable { .. }
            | EnvelopeError::GenerationTooOld { .. }
            | EnvelopeError::UnknownDataKey
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(500), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i1_whatever_numbers_broker_and_fence_give_the_library_answers_and_a_closed_fence_gives_nothing(
        times in prop::array::uniform4(numbers()), counts in any::<[u64; 2]>(), small in any::<[u32; 4]>(),
        same in any::<[bool; 2]>(), closed in any::<bool>(), wait in 0_i64..400_000,
    ) {
        let [first, second] = counts;
        let counts = [first, if same[0] { first } else { second }];
        let small = if same[1] { [small[0], small[1], small[2], small[0]] } else { small };
        runtime().block_on(async {
            let cloud = TestCloud::new();
            let odd = Odd { cloud: cloud.clone(), times, counts, small, closed };
            let library = Envelope::builder().fence(odd.clone()).keys(odd).clock(cloud.clock.clone());
            let config = Config { proof_window: std::time::Duration::ZERO, ..Config::default() };
            let library = library.config(config).manual().start().unwrap();
            let app = library.instance("acme", "acme-eng", "jira");
            for _ in 0..2 {
                let _ = library.poll().await;
                match app.encrypt(&NOTE, b"plain").await {
                    Ok(record) => {
                        prop_assert!(!closed);
                        match app.decrypt(&NOTE, &record).await {
                            Ok(plain) => prop_assert_eq!(plain.as_slice(), b"plain"),
                            Err(error) => prop_assert!(is_an_answer(&error), "{error:?}"),
                        }
                        let stored = app.may_store(&record).await;
                        prop_assert!(stored.as_ref().err().is_none_or(is_an_answer), "{stored:?}");
                    }
                    Err(error) => prop_assert!(is_an_answer(&error), "{error:?}"),
                }
                cloud.clock.advance(wait);
            }
            Ok(())
        })?;
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
