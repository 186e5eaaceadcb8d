//! Proves every key of an enrolment before anything is stored (spec E12): a round trip with our opaque
//! organisation id in the encryption context, and a refusal with a random one.

use claviger_domain::enrolment::Enrolment;
use claviger_domain::ids::OrganisationId;
use claviger_domain::observation::Observation;
use claviger_domain::policy::{PURPOSE_CANARY, encryption_context};
use claviger_domain::values::{KeyArn, Region};
use futures_util::future::join_all;

use crate::messages::{Check, CheckResult};
use crate::ports::{CustomerKeys, Ids, KeyError};

/// Checks the keys of an enrolment.
pub struct CheckEnrolment<'a> {
    /// The customers' keys.
    pub keys: &'a dyn CustomerKeys,
    /// Randomness.
    pub ids: &'a dyn Ids,
}

impl CheckEnrolment<'_> {
    /// Runs every check in every region; the request stands if none fails.
    pub async fn run(&self, organisation: OrganisationId, enrolment: &Enrolment) -> Vec<Check> {
        let regions =
            enrolment.keys.iter().map(|(region, arn)| self.region(organisation, enrolment, region, arn));
        join_all(regions).await.into_iter().flatten().collect()
    }

    async fn region(
        &self,
        organisation: OrganisationId,
        enrolment: &Enrolment,
        region: &Region,
        arn: &KeyArn,
    ) -> Vec<Check> {
        let check = |id: &str, result, observed: String, help: &str| Check {
            id: id.to_owned(),
            region: Some(region.clone()),
            result,
            observed,
            help: help.to_owned(),
        };
        let context = |organisation| {
            let tag = &enrolment.context_tag;
            encryption_context(organisation, PURPOSE_CANARY, "enrolment-check", tag)
        };
        let sample = self.ids.random();
        let ours = context(organisation);
        let round_trip = async {
            let sealed = self.keys.encrypt(arn, sample.as_bytes(), &ours).await?;
            self.keys.decrypt(arn, &sealed, &ours).await
        };
        match round_trip.await {
            Ok(plain) if plain.as_slice() == sample.as_bytes() => {}
            Ok(_) => {
                let observed = "what was encrypted did not come back".to_owned();
                return vec![check("key-usable", CheckResult::Fail, observed, "use another key")];
            }
            // Nothing of the key's metadata is shown before its owner has bound it to the organisation.
            Err(error) => {
                let help = refusal_help(&error, arn);
                let observed = format!("a round trip failed: {}", error.code);
                return vec![check("key-usable", CheckResult::Fail, observed, &help)];
            }
        }
        let observed = "encrypted and decrypted with your organisation's context".to_owned();
        let mut checks = vec![check("key-usable", CheckResult::Pass, observed, "")];

        let stranger = OrganisationId::from_uuid(self.ids.random());
        let foreign = self.keys.encrypt(arn, sample.as_bytes(), &context(stranger)).await;
        checks.push(match foreign.map_err(|error| error.observation) {
            Err(Observation::Refused(_)) => {
                let observed = "refused with another organisation's context".to_owned();
                check("context-condition", CheckResult::Pass, observed, "")
            }
            Ok(_) => check(
                "context-condition",
                CheckResult::Fail,
                "the key also works with another organisation's context".to_owned(),
                "add the condition `kms:EncryptionContext:claviger:organisation` of the key policy that \
                 `GET .../key-policy` prints to every statement that allows our principal",
            ),
            Err(Observation::Usable | Observation::NoAnswer(_)) => check(
                "context-condition",
                CheckResult::Fail,
                "no answer when another organisation's context was tried".to_owned(),
                "try again: AWS or the way to it failed",
            ),
        });
        checks.extend(self.describe(region, arn).await);
        checks
    }

    async fn describe(&self, region: &Region, arn: &KeyArn) -> Vec<Check> {
        let check = |id: &str, good: bool, observed: String, help: &str| Check {
            id: id.to_owned(),
            region: Some(region.clone()),
            result: if good { CheckResult::Pass } else { CheckResult::Fail },
            observed,
            help: if good { String::new() } else { help.to_owned() },
        };
        let found = match self.keys.describe(arn).await {
            Ok(found) => found,
            Err(error) => {
                let observed = format!("kms:DescribeKey failed: {}", error.code);
                let help =
                    "add the statement `ClavigerDescribe` of the key policy that `GET .../key-policy` prints";
                return vec![check("key-described", false, observed, help)];
            }
        };
        vec![
            check(
                "key-state",
                found.state == "Enabled",
                found.state.clone(),
                "enable the key: `aws kms enable-key --key-id <arn>`",
            ),
            check(
                "key-spec",
                found.spec == "SYMMETRIC_DEFAULT" && found.usage == "ENCRYPT_DECRYPT",
                format!("{} for {}", found.spec, found.usage),
                "make a symmetric key for encryption and decryption: `aws kms create-key` makes one",
            ),
            check(
                "key-store",
                !found.custom_key_store && found.manager == "CUSTOMER",
                format!("origin {}, manager {}", found.origin, found.manager),
                "make the key in KMS itself, not in a custom key store",
            ),
        ]
    }
}

fn refusal_help(error: &KeyError, key: &KeyArn) -> String {
    match error.observation {
        Observation::Refused(kind) => kind.remedy_for(key),
        Observation::NoAnswer(_) | Observation::Usable => "try again: AWS or the way to it failed".to_owned(),
    }
}
