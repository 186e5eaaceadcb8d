//! Proves every key of an enrolment before anything is stored (spec E12): a round trip with our opaque
//! organisation id in the encryption context, and a refusal with a random one. For BYOK the role is proven: it lets us
//! in with the organisation's external id, and refuses us without one and with another.

use claviger_domain::enrolment::{Enrolment, Holding};
use claviger_domain::ids::OrganisationId;
use claviger_domain::key_access::{CustomerRole, ExternalId, KeyAccess, RoleArn};
use claviger_domain::observation::Observation;
use claviger_domain::policy::{PURPOSE_CANARY, encryption_context};
use claviger_domain::values::{ContextTag, Region};
use futures_util::future::join_all;

use crate::messages::{Check, CheckResult};
use crate::ports::{Asking, CustomerKeys, CustomerRoles, Ids, KeyError, KeyRef, RoleSession};

/// Checks the keys, or the role, of an enrolment.
#[derive(Clone, Copy)]
pub struct CheckEnrolment<'a> {
    /// The customers' keys.
    pub keys: &'a dyn CustomerKeys,
    /// The customers' roles.
    pub roles: &'a dyn CustomerRoles,
    /// Randomness.
    pub ids: &'a dyn Ids,
}

/// For whom, and where, an enrolment is checked.
#[derive(Debug, Clone, Copy)]
pub struct Checked<'a> {
    /// The organisation's opaque id.
    pub organisation: OrganisationId,
    /// What its role asks for.
    pub external_id: &'a ExternalId,
    /// The regions of the realm.
    pub regions: &'a [Region],
}

/// What is known of a role's trust.
pub(crate) struct Trust {
    /// The checks.
    pub checks: Vec<Check>,
    /// Whether one of them failed for want of an answer.
    pub unanswered: bool,
}

/// The first generation of a BYOK organisation's keys.
pub(crate) const FIRST_GENERATION: u64 = 1;

const AGAIN: &str = "try again: AWS or the way to it failed";

impl CheckEnrolment<'_> {
    /// Runs every check in every region and changes nothing; the request stands if none fails.
    pub async fn run(&self, whose: Checked<'_>, enrolment: &Enrolment) -> Vec<Check> {
        let tag = &enrolment.context_tag;
        match &enrolment.holding {
            Holding::Cmk { keys } => {
                let regions = keys.iter().map(|(_, arn)| async move {
                    let key = KeyRef {
                        arn,
                        access: &KeyAccess::KeyPolicy,
                        organisation: whose.organisation,
                        session: RoleSession::Fresh,
                    };
                    self.key(key, tag).await
                });
                join_all(regions).await.into_iter().flatten().collect()
            }
            Holding::Byok { role_arn } => self.role(whose, role_arn, tag).await,
        }
    }

    /// A key of which it is known how it is reached.
    pub(crate) async fn key(&self, key: KeyRef<'_>, tag: &ContextTag) -> Vec<Check> {
        let region = Some(key.region());
        let context = |organisation| encryption_context(organisation, PURPOSE_CANARY, "enrolment-check", tag);
        let sample = self.ids.random();
        let ours = context(key.organisation);
        let round_trip = async {
            let sealed = self.keys.encrypt(key, sample.as_bytes(), &ours).await?;
            self.keys.decrypt(key, &sealed, &ours).await
        };
        match round_trip.await {
            Ok(plain) if plain.as_slice() == sample.as_bytes() => {}
            Ok(_) => {
                return vec![fail(
                    "key-usable",
                    region,
                    "what was encrypted did not come back",
                    "use another key",
                )];
            }
            // Nothing of the key's metadata is shown before its owner has bound it to the organisation.
            Err(error) => {
                let observed = format!("a round trip failed: {}", error.code);
                return vec![fail("key-usable", region, observed, refusal_help(&error, key))];
            }
        }
        let observed = "encrypted and decrypted with your organisation's context";
        let mut checks = vec![pass("key-usable", region, observed)];

        let stranger = OrganisationId::from_uuid(self.ids.random());
        let foreign = self.keys.encrypt(key, sample.as_bytes(), &context(stranger)).await;
        checks.push(match foreign.map_err(|error| error.observation) {
            Err(Observation::Refused(_)) => {
                pass("context-condition", region, "refused with another organisation's context")
            }
            Ok(_) => fail(
                "context-condition",
                region,
                "the key also works with another organisation's context",
                match key.access {
                    KeyAccess::KeyPolicy => {
                        "add the condition `kms:EncryptionContext:claviger:organisation` of the key policy that \
                         `GET .../key-policy` prints to every statement that allows our principal"
                    }
                    KeyAccess::Role(_) => {
                        "put the key policy that `GET .../key-policy` prints on the key: its statement \
                         `ClavigerOnlyWithContext` is missing"
                    }
                },
            ),
            Err(Observation::Usable | Observation::NoAnswer(_)) => fail(
                "context-condition",
                region,
                "no answer when another organisation's context was tried",
                AGAIN,
            ),
        });
        checks.extend(self.describe(key).await);
        checks
    }

    async fn describe(&self, key: KeyRef<'_>) -> Vec<Check> {
        let region = Some(key.region());
        let check = |id: &str, good: bool, observed: String, help: &str| {
            if good { pass(id, region, observed) } else { fail(id, region, observed, help) }
        };
        let found = match self.keys.describe(key).await {
            Ok(found) => found,
            Err(error) => {
                let observed = format!("kms:DescribeKey failed: {}", error.code);
                let help =
                    "add the statement `ClavigerDescribe` of the key policy that `GET .../key-policy` prints";
                return vec![fail("key-described", region, observed, help)];
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

    async fn role(&self, whose: Checked<'_>, arn: &RoleArn, tag: &ContextTag) -> Vec<Check> {
        let mut checks = self.trust(whose, arn).await.checks;
        // Only a role that is the organisation's own is used.
        if checks.iter().all(|check| check.result != CheckResult::Fail) {
            let role = CustomerRole { arn: arn.clone(), external_id: whose.external_id.clone() };
            for region in whose.regions {
                checks.extend(self.made_before(whose.organisation, &role, region, tag).await);
            }
        }
        checks
    }

    /// Whether the role lets us in, and nobody who does not come for this organisation.
    pub(crate) async fn trust(&self, whose: Checked<'_>, arn: &RoleArn) -> Trust {
        let mut trust = Trust { checks: Vec::new(), unanswered: false };
        let mut let_in = None;
        for region in whose.regions {
            match self.roles.assume(arn, Asking::With(whose.external_id), whose.organisation, region).await {
                Ok(()) => {
                    trust.checks.push(pass("role-assumable", Some(region), "assumed with your external id"));
                    let_in = let_in.or(Some(region));
                }
                Err(error) => {
                    let observed = format!("the role could not be assumed: {}", error.code);
                    trust.unanswered |= !matches!(error.observation, Observation::Refused(_));
                    trust.checks.push(fail("role-assumable", Some(region), observed, role_help(&error, arn)));
                }
            }
        }
        // Asked only of a role that lets us in: of any other, a refusal without the external id says nothing.
        if let Some(region) = let_in {
            let check = self.external_id(whose, arn, region, &mut trust.unanswered).await;
            trust.checks.push(check);
        }
        trust
    }

    /// INVARIANT (E12, I7): a role that lets us in without the external id, or with any, could be named by any
    /// customer of ours.
    async fn external_id(
        &self,
        whose: Checked<'_>,
        arn: &RoleArn,
        region: &Region,
        unanswered: &mut bool,
    ) -> Check {
        const ID: &str = "external-id-enforced";
        let wrong = ExternalId::from_uuid(self.ids.random());
        for (asking, how) in [
            (Asking::WithoutExternalId, "without an external id"),
            (Asking::With(&wrong), "with a wrong external id"),
        ] {
            match self
                .roles
                .assume(arn, asking, whose.organisation, region)
                .await
                .map_err(|error| error.observation)
            {
                Err(Observation::Refused(_)) => {}
                Ok(()) => {
                    let observed = format!("the role also lets us in {how}");
                    let help = format!(
                        "put the trust policy that `GET .../key-policy` prints on the role, and no other statement \
                         that allows us: `aws iam update-assume-role-policy --role-name {} --policy-document \
                         file://trust.json`",
                        arn.name()
                    );
                    return fail(ID, None, observed, help);
                }
                Err(Observation::Usable | Observation::NoAnswer(_)) => {
                    *unanswered = true;
                    return fail(ID, None, format!("no answer when the role was tried {how}"), AGAIN);
                }
            }
        }
        pass(ID, None, "refused without an external id, and with a wrong one")
    }

    /// Whether the role may look for its keys, and what is known of one that an earlier enrolment left. Making a key
    /// has no dry run: it is done once support has approved.
    async fn made_before(
        &self,
        organisation: OrganisationId,
        role: &CustomerRole,
        region: &Region,
        tag: &ContextTag,
    ) -> Vec<Check> {
        const ID: &str = "role-permissions";
        match self.roles.find_key(role, region, organisation, FIRST_GENERATION).await {
            Ok(None) => {
                vec![pass(ID, Some(region), "may look for keys; one will be made once support has approved")]
            }
            Ok(Some(arn)) => {
                let found =
                    pass(ID, Some(region), format!("an earlier enrolment left {arn}, which will be used"));
                let access = KeyAccess::Role(role.clone());
                let key = KeyRef { arn: &arn, access: &access, organisation, session: RoleSession::Fresh };
                let mut checks = vec![found];
                checks.extend(self.key(key, tag).await);
                checks
            }
            Err(error) => {
                let observed = format!("the role may not look for its keys: {}", error.code);
                vec![fail(ID, Some(region), observed, permission_help(&error, &role.arn))]
            }
        }
    }
}

fn made(
    id: &str,
    region: Option<&Region>,
    result: CheckResult,
    observed: impl Into<String>,
    help: String,
) -> Check {
    Check { id: id.to_owned(), region: region.cloned(), result, observed: observed.into(), help }
}

fn pass(id: &str, region: Option<&Region>, observed: impl Into<String>) -> Check {
    made(id, region, CheckResult::Pass, observed, String::new())
}

fn fail(id: &str, region: Option<&Region>, observed: impl Into<String>, help: impl Into<String>) -> Check {
    made(id, region, CheckResult::Fail, observed, help.into())
}

fn refusal_help(error: &KeyError, key: KeyRef<'_>) -> String {
    match error.observation {
        Observation::Refused(kind) => kind.remedy_for(key.arn),
        Observation::NoAnswer(_) | Observation::Usable => AGAIN.to_owned(),
    }
}

fn role_help(error: &KeyError, role: &RoleArn) -> String {
    match error.observation {
        Observation::Refused(_) => format!(
            "make the role with the trust policy that `GET .../key-policy` prints: `aws iam create-role --role-name \
             {name} --assume-role-policy-document file://trust.json`; on a role that exists: `aws iam \
             update-assume-role-policy --role-name {name} --policy-document file://trust.json`",
            name = role.name()
        ),
        Observation::NoAnswer(_) | Observation::Usable => AGAIN.to_owned(),
    }
}

/// What gives a role the permissions that it lacks.
pub(crate) fn permission_help(error: &KeyError, role: &RoleArn) -> String {
    match error.observation {
        Observation::Refused(_) => format!(
            "put the permission policy that `GET .../key-policy` prints on the role: `aws iam put-role-policy \
             --role-name {} --policy-name claviger --policy-document file://permissions.json`",
            role.name()
        ),
        Observation::NoAnswer(_) | Observation::Usable => AGAIN.to_owned(),
    }
}
