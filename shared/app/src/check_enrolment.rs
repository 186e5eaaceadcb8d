//! Proves every key of an enrolment before anything is stored (spec E12): a round trip with our opaque
//! organisation id in the encryption context, and a refusal with a random one. For BYOK the role is proven: it lets us
//! in with the organisation's external id, and refuses us without one and with another.

use std::collections::BTreeSet;

use claviger_domain::access::KeyPermission;
use claviger_domain::enrolment::{Enrolment, Holding};
use claviger_domain::ids::OrganisationId;
use claviger_domain::key_access::{CustomerRole, ExternalId, KeyAccess, RoleArn};
use claviger_domain::key_policy::KeyLabel;
use claviger_domain::observation::{Observation, RefusalKind};
use claviger_domain::policy::{PURPOSE_CANARY, encryption_context};
use claviger_domain::values::{ContextTag, Region};
use futures_util::future::join_all;

use crate::messages::{Check, CheckResult, EncryptionContext};
use crate::ports::{Asking, CustomerKeys, CustomerRoles, Ids, KeyError, KeyRef, RoleSession, Trial};
use crate::prove_permissions::tried;

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

/// Checks, and how many of them say nothing.
#[derive(Default)]
pub(crate) struct Checks {
    /// The checks.
    pub all: Vec<Check>,
    /// How many failed for want of an answer.
    unanswered: usize,
}

impl Checks {
    /// Whether a check failed for want of an answer.
    pub const fn some_unanswered(&self) -> bool {
        self.unanswered > 0
    }

    /// Whether a check failed that was answered.
    pub fn some_refused(&self) -> bool {
        self.all.iter().filter(|check| check.result == CheckResult::Fail).count() > self.unanswered
    }

    fn add(&mut self, check: Check) {
        self.all.push(check);
    }

    /// INVARIANT (R3): what gave no answer was neither refused nor proven.
    fn add_unanswered(&mut self, id: &str, region: Option<&Region>, observed: impl Into<String>) {
        self.unanswered = self.unanswered.saturating_add(1);
        self.all.push(fail(id, region, observed, AGAIN));
    }

    /// A call that failed: refused, with what helps against it, or without an answer.
    fn add_failed(
        &mut self,
        error: &KeyError,
        (id, region): (&str, Option<&Region>),
        observed: impl Into<String>,
        help: impl FnOnce(RefusalKind) -> String,
    ) {
        match error.observation {
            Observation::Refused(kind) => self.add(fail(id, region, observed, help(kind))),
            Observation::NoAnswer(_) | Observation::Usable => self.add_unanswered(id, region, observed),
        }
    }
}

/// The first generation of a BYOK organisation's keys.
pub(crate) const FIRST_GENERATION: u64 = 1;

const AGAIN: &str = "try again: AWS or the way to it failed";

impl CheckEnrolment<'_> {
    /// Runs every check in every region and changes nothing; the request stands if none fails. What was granted besides
    /// the template's actions is tried too.
    pub async fn run(
        &self,
        whose: Checked<'_>,
        enrolment: &Enrolment,
        granted: &BTreeSet<KeyPermission>,
    ) -> Vec<Check> {
        let tag = &enrolment.context_tag;
        match &enrolment.holding {
            Holding::Cmk { keys } => {
                let regions = keys.values().map(|arn| async move {
                    let key = KeyRef {
                        arn,
                        access: &KeyAccess::KeyPolicy,
                        organisation: whose.organisation,
                        session: RoleSession::Fresh,
                    };
                    self.key(key, tag, granted).await.all
                });
                join_all(regions).await.into_iter().flatten().collect()
            }
            Holding::Byok { role_arn } => self.role(whose, role_arn, tag).await,
        }
    }

    /// A key of which it is known how it is reached, and what was granted on the keys before it (spec K1).
    pub(crate) async fn key(
        &self,
        key: KeyRef<'_>,
        tag: &ContextTag,
        granted: &BTreeSet<KeyPermission>,
    ) -> Checks {
        let mut checks = Checks::default();
        let region = Some(key.region());
        let context = |organisation| encryption_context(organisation, PURPOSE_CANARY, "enrolment-check", tag);
        let sample = self.ids.random();
        let ours = context(key.organisation);
        let round_trip = async {
            let sealed = self.keys.encrypt(key, sample.as_bytes(), &ours).await?;
            let plain = self.keys.decrypt(key, &sealed, &ours).await?;
            Ok::<_, KeyError>((plain.as_slice() == sample.as_bytes(), sealed))
        };
        let sealed = match round_trip.await {
            Ok((true, sealed)) => sealed,
            Ok((false, _)) => {
                let observed = "what was encrypted did not come back";
                checks.add(fail("key-usable", region, observed, "use another key"));
                return checks;
            }
            // Nothing of the key's metadata is shown before its owner has bound it to the organisation.
            Err(error) => {
                let observed = format!("a round trip failed: {}", error.code);
                let help = |kind: RefusalKind| kind.remedy_for(key.arn);
                checks.add_failed(&error, ("key-usable", region), observed, help);
                return checks;
            }
        };
        let observed = "encrypted and decrypted with your organisation's context";
        checks.add(pass("key-usable", region, observed));

        let stranger = OrganisationId::from_uuid(self.ids.random());
        let foreign = self.keys.encrypt(key, sample.as_bytes(), &context(stranger)).await;
        const CONDITION: &str = "context-condition";
        let unbound = match foreign.map_err(|error| error.observation) {
            Err(Observation::Refused(RefusalKind::AccessDenied)) => {
                checks.add(pass(CONDITION, region, "refused with another organisation's context"));
                false
            }
            // A key that is gone by now would refuse everybody: that proves no condition.
            Err(Observation::Refused(kind)) => {
                let observed = "another organisation's context was refused, but for another reason";
                checks.add(fail(CONDITION, region, observed, kind.remedy_for(key.arn)));
                true
            }
            Ok(_) => {
                let help = match key.access {
                    KeyAccess::KeyPolicy => format!(
                        "add the condition `kms:EncryptionContext:claviger:organisation` of the key policy that \
                         `GET .../key-policy` prints to every statement that allows our principal: {}",
                        put_policy(key)
                    ),
                    KeyAccess::Role(_) => format!(
                        "put the key policy that `GET .../key-policy` prints on the key, its statement \
                         `ClavigerOnlyWithContext` is missing: {}",
                        put_policy(key)
                    ),
                };
                let observed = "the key also works with another organisation's context";
                checks.add(fail(CONDITION, region, observed, help));
                true
            }
            Err(Observation::Usable | Observation::NoAnswer(_)) => {
                let observed = "no answer when another organisation's context was tried";
                checks.add_unanswered(CONDITION, region, observed);
                true
            }
        };
        // Neither is it shown while anybody's context will do: it may be any customer's of ours, or nobody's.
        if unbound {
            return checks;
        }
        self.actions(key, &sealed, &ours, &mut checks).await;
        self.granted(key, &sealed, &ours, granted, &mut checks).await;
        self.describe(key, &mut checks).await;
        checks.add(self.principals(key).await);
        checks
    }

    /// Whether every other use that the service makes of a key is granted too; each is tried, none is done.
    async fn actions(
        &self,
        key: KeyRef<'_>,
        sealed: &[u8],
        context: &EncryptionContext,
        checks: &mut Checks,
    ) {
        const ID: &str = "key-actions";
        let region = Some(key.region());
        let mut refused = Vec::new();
        for (trial, names) in [
            (Trial::GenerateDataKey, "kms:GenerateDataKey"),
            (Trial::GenerateDataKeyWithoutPlaintext, "kms:GenerateDataKeyWithoutPlaintext"),
            (Trial::ReEncrypt(sealed), "kms:ReEncryptFrom, kms:ReEncryptTo"),
        ] {
            match self.keys.dry_run(key, trial, context).await.map_err(|error| error.observation) {
                Ok(()) => {}
                Err(Observation::Refused(_)) => refused.push(names),
                Err(Observation::Usable | Observation::NoAnswer(_)) => {
                    return checks.add_unanswered(ID, region, format!("no answer when {names} was tried"));
                }
            }
        }
        if refused.is_empty() {
            return checks.add(pass(ID, region, "every action of the template is granted"));
        }
        let help = match key.access {
            KeyAccess::KeyPolicy => format!(
                "put the key policy that `GET .../key-policy` prints on the key, its statement `ClavigerUse` lists \
                 every action: {}",
                put_policy(key)
            ),
            KeyAccess::Role(role) => permissions(&role.arn),
        };
        checks.add(fail(ID, region, format!("not granted: {}", refused.join(", ")), help));
    }

    /// Whether the key bears what its organisation accepted in access requests.
    async fn granted(
        &self,
        key: KeyRef<'_>,
        sealed: &[u8],
        context: &EncryptionContext,
        granted: &BTreeSet<KeyPermission>,
        checks: &mut Checks,
    ) {
        let id = ("granted-permissions", Some(key.region()));
        for (permission, outcome) in tried(self.keys, key, Some(sealed), context, granted).await {
            match outcome {
                Ok(()) => checks.add(pass(id.0, id.1, format!("{permission} is granted"))),
                Err(error) => {
                    let observed = format!("{permission}, which an accepted access request grants, failed");
                    let help = |_| match key.access {
                        KeyAccess::KeyPolicy => format!(
                            "put the key policy that `GET .../key-policy` prints, with this action in the statement \
                             `ClavigerUse`, on the key: {}",
                            put_policy(key)
                        ),
                        KeyAccess::Role(role) => permissions(&role.arn),
                    };
                    checks.add_failed(&error, id, observed, help);
                }
            }
        }
    }

    /// Whether the key lets just anybody in. Seen through a role only: AWS shows a key policy to callers of the key's own
    /// account. Of a key that is reached by its policy that is for its owner to look at, and said so.
    async fn principals(&self, key: KeyRef<'_>) -> Check {
        const ID: &str = "wildcard-principal";
        let region = Some(key.region());
        let help =
            format!("put the key policy that `GET .../key-policy` prints on the key: {}", put_policy(key));
        if let KeyAccess::KeyPolicy = key.access {
            let observed = "AWS shows a key policy to its own account alone, so we cannot look";
            let help = format!(
                "see that no statement without a condition has the principal `*`: `aws kms get-key-policy --key-id {} \
                 --region {} --policy-name default --query Policy --output text`; `GET .../key-policy` prints what \
                 should be there",
                key.arn,
                key.region()
            );
            return warn(ID, region, observed, help);
        }
        match self.keys.key_policy(key).await {
            Ok(policy) => match open_statement(&policy) {
                None => pass(ID, region, "no statement lets everybody in"),
                Some(sid) => fail(ID, region, format!("the statement `{sid}` lets everybody in"), help),
            },
            Err(error) => {
                let observed = format!("the key policy could not be read: {}", error.code);
                warn(
                    ID,
                    region,
                    observed,
                    "give the role `kms:GetKeyPolicy`: its permission policy is printed",
                )
            }
        }
    }

    async fn describe(&self, key: KeyRef<'_>, checks: &mut Checks) {
        let region = Some(key.region());
        let check = |id: &str, good: bool, observed: String, help: &str| {
            if good { pass(id, region, observed) } else { fail(id, region, observed, help) }
        };
        let found = match self.keys.describe(key).await {
            Ok(found) => found,
            Err(error) => {
                let observed = format!("kms:DescribeKey failed: {}", error.code);
                let help = |_| {
                    format!(
                        "add the statement `ClavigerDescribe` of the key policy that `GET .../key-policy` prints: {}",
                        put_policy(key)
                    )
                };
                return checks.add_failed(&error, ("key-described", region), observed, help);
            }
        };
        let arn = key.arn;
        let command = |command: &str| format!("`aws kms {command} --key-id {arn} --region {}`", arn.region());
        let another =
            format!("`aws kms create-key --region {} --policy file://policy.json` makes one", arn.region());
        checks.all.extend([
            pass("key-exists", region, format!("in account {} and region {}", arn.account(), arn.region())),
            check(
                "key-state",
                found.state == "Enabled",
                found.state.clone(),
                &format!("enable the key: {}", command("enable-key")),
            ),
            check(
                "key-spec",
                found.spec == "SYMMETRIC_DEFAULT" && found.usage == "ENCRYPT_DECRYPT",
                format!("{} for {}", found.spec, found.usage),
                &format!("make a symmetric key for encryption and decryption: {another}"),
            ),
            check(
                "key-store",
                !found.custom_key_store && found.manager == "CUSTOMER",
                format!("origin {}, manager {}", found.origin, found.manager),
                &format!("make the key in KMS itself, not in a custom key store: {another}"),
            ),
            match found.deletion_date {
                None => pass("deletion-date", region, "none"),
                Some(at) => {
                    let help = format!("cancel the deletion: {}", command("cancel-key-deletion"));
                    fail("deletion-date", region, format!("will be deleted at {at}"), help)
                }
            },
        ]);
        let imported = found.origin == "EXTERNAL";
        checks.add(match (imported, found.material_expires) {
            (false, _) => pass("material-expiry", region, "KMS made the material, and it does not expire"),
            (true, None) => {
                let help =
                    "keep the material where you keep it safe: if KMS loses it, only you can bring it back";
                warn("material-expiry", region, "the material is imported and does not expire", help)
            }
            (true, Some(at)) => {
                let help = format!(
                    "import the material again before then, without an expiry: {}",
                    command("import-key-material --expiration-model KEY_MATERIAL_DOES_NOT_EXPIRE")
                );
                warn("material-expiry", region, format!("the imported material expires at {at}"), help)
            }
        });
        if !imported {
            checks.add(match self.keys.rotates(key).await {
                Ok(true) => pass("rotation", region, "KMS renews the material by itself"),
                Ok(false) => {
                    let help = format!("let KMS renew the material: {}", command("enable-key-rotation"));
                    warn("rotation", region, "off", help)
                }
                Err(error) => {
                    let observed = format!("kms:GetKeyRotationStatus failed: {}", error.code);
                    let help =
                        "to have it checked, grant `kms:GetKeyRotationStatus` as the printed policy does";
                    warn("rotation", region, observed, help)
                }
            });
        }
    }

    async fn role(&self, whose: Checked<'_>, arn: &RoleArn, tag: &ContextTag) -> Vec<Check> {
        let mut checks = self.trust(whose, arn).await.all;
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
    pub(crate) async fn trust(&self, whose: Checked<'_>, arn: &RoleArn) -> Checks {
        let mut trust = Checks::default();
        let mut let_in = None;
        for region in whose.regions {
            match self.roles.assume(arn, Asking::With(whose.external_id), whose.organisation, region).await {
                Ok(()) => {
                    trust.add(pass("role-assumable", Some(region), "assumed with your external id"));
                    let_in = let_in.or(Some(region));
                }
                Err(error) => {
                    let observed = format!("the role could not be assumed: {}", error.code);
                    let help = |_| role_help(arn);
                    trust.add_failed(&error, ("role-assumable", Some(region)), observed, help);
                }
            }
        }
        // Asked only of a role that lets us in: of any other, a refusal without the external id says nothing.
        if let Some(region) = let_in {
            self.external_id(whose, arn, region, &mut trust).await;
        }
        trust
    }

    /// INVARIANT (E12, I7): a role that lets us in without the external id, or with any, could be named by any
    /// customer of ours.
    async fn external_id(&self, whose: Checked<'_>, arn: &RoleArn, region: &Region, trust: &mut Checks) {
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
                    return trust.add(fail(ID, None, observed, help));
                }
                Err(Observation::Usable | Observation::NoAnswer(_)) => {
                    let observed = format!("no answer when the role was tried {how}");
                    return trust.add_unanswered(ID, None, observed);
                }
            }
        }
        trust.add(pass(ID, None, "refused without an external id, and with a wrong one"));
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
        match self.roles.find_key(role, region, organisation, KeyLabel::first_of(FIRST_GENERATION)).await {
            Ok(None) => {
                vec![pass(ID, Some(region), "may look for keys; one will be made once support has approved")]
            }
            Ok(Some(arn)) => {
                let found =
                    pass(ID, Some(region), format!("an earlier enrolment left {arn}, which will be used"));
                let access = KeyAccess::Role(role.clone());
                let key = KeyRef { arn: &arn, access: &access, organisation, session: RoleSession::Fresh };
                let mut checks = vec![found];
                checks.extend(self.key(key, tag, &BTreeSet::new()).await.all);
                checks
            }
            Err(error) => {
                let observed = format!("the role may not look for its keys: {}", error.code);
                vec![fail(ID, Some(region), observed, permission_help(&error, &role.arn))]
            }
        }
    }
}

/// What puts the printed key policy on a key.
fn put_policy(key: KeyRef<'_>) -> String {
    format!(
        "`aws kms put-key-policy --key-id {} --region {} --policy-name default --policy file://policy.json`",
        key.arn,
        key.region()
    )
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

fn warn(id: &str, region: Option<&Region>, observed: impl Into<String>, help: impl Into<String>) -> Check {
    made(id, region, CheckResult::Warn, observed, help.into())
}

/// The first statement that lets any principal in without a condition.
fn open_statement(policy: &serde_json::Value) -> Option<String> {
    let statements = policy.get("Statement")?;
    let one = std::slice::from_ref(statements);
    let statements = statements.as_array().map_or(one, Vec::as_slice);
    let anybody = |principal: &serde_json::Value| match principal.get("AWS").unwrap_or(principal) {
        serde_json::Value::Array(list) => list.iter().any(|name| name == "*"),
        name => name == "*",
    };
    let open = statements.iter().find(|statement| {
        statement.get("Effect").is_some_and(|effect| effect == "Allow")
            && statement.get("Principal").is_some_and(anybody)
            && statement.get("Condition").is_none()
    });
    open.map(|statement| statement.get("Sid").and_then(serde_json::Value::as_str).unwrap_or("?").to_owned())
}

fn role_help(role: &RoleArn) -> String {
    format!(
        "make the role with the trust policy that `GET .../key-policy` prints: `aws iam create-role --role-name \
         {name} --assume-role-policy-document file://trust.json`; on a role that exists: `aws iam \
         update-assume-role-policy --role-name {name} --policy-document file://trust.json`",
        name = role.name()
    )
}

/// What gives a role the permissions that it lacks.
pub(crate) fn permission_help(error: &KeyError, role: &RoleArn) -> String {
    match error.observation {
        Observation::Refused(_) => permissions(role),
        Observation::NoAnswer(_) | Observation::Usable => AGAIN.to_owned(),
    }
}

fn permissions(role: &RoleArn) -> String {
    format!(
        "put the permission policy that `GET .../key-policy` prints on the role: `aws iam put-role-policy \
         --role-name {} --policy-name claviger --policy-document file://permissions.json`",
        role.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use claviger_domain::key_policy::made_key_policy;
    use serde_json::json;

    #[test]
    fn e12_a_statement_that_lets_everybody_in_is_found_and_ours_does_not() {
        let role = "arn:aws:iam::333333333333:role/a".parse().unwrap();
        let organisation = OrganisationId::from_uuid(uuid::Uuid::nil());
        assert_eq!(open_statement(&made_key_policy(&role, organisation)), None);
        for principal in [json!("*"), json!({ "AWS": "*" }), json!({ "AWS": ["111111111111", "*"] })] {
            let open = json!({ "Statement": [{ "Sid": "Open", "Effect": "Allow", "Principal": principal }] });
            assert_eq!(open_statement(&open).as_deref(), Some("Open"), "{principal}");
        }
        let bound = json!({ "Statement": { "Effect": "Allow", "Principal": "*", "Condition": {} } });
        assert_eq!(open_statement(&bound), None);
    }
}
