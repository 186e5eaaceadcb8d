//! KMS: who calls, which key is meant, may they, do it, write it down.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::calls::Entry;
use crate::cloud::{Cloud, Keys};
use crate::events::Change;
use crate::faults::{End, Target};
use crate::identity::{self, Caller, Held, ResourceSide, not_authorised};
use crate::key_operations::{self as operations, Outcome, blob, context, need, text};
use crate::policy::{Policy, Refusal};
use crate::vault::{EncryptionContext, Vault, View, key_id_of, looks_like_key_id, not_found};
use crate::wire::{Call, Failure, Reply};

/// Everything that one call needs.
struct Job<'a> {
    cloud: &'a Cloud,
    call: &'a Call,
    caller: &'a Caller,
    held: &'a Held,
    operation: &'a str,
    input: &'a Value,
    now: Timestamp,
}

/// Whose key is meant; whether it exists is found out later.
struct Place {
    account: String,
    reference: Result<String, Failure>,
}

pub async fn handle(cloud: &Cloud, call: &Call) -> Reply {
    let operation = call.header("x-amz-target").strip_prefix("TrentService.").unwrap_or("").to_owned();
    let body: &[u8] = if call.body.is_empty() { b"{}" } else { &call.body };
    let input: Value = match serde_json::from_slice(body) {
        Ok(input @ Value::Object(_)) => input,
        _ => {
            return Reply::Http(call.json(Err(Failure::bad("SerializationException", "not a JSON object"))));
        }
    };
    let mut entry = Entry {
        time: Timestamp::now(),
        request_id: call.id.clone(),
        service: "kms",
        operation: operation.clone(),
        caller_account: String::new(),
        caller: call.access_key.clone(),
        account: String::new(),
        region: call.region.clone(),
        resource: String::new(),
        outcome: "ok".into(),
        encryption_context: logged_context(&input),
        dry_run: input["DryRun"].as_bool().unwrap_or(false),
    };
    let (reply, outcome) = match attempt(cloud, call, &operation, &input, &mut entry).await {
        Ok(value) => (Reply::Http(call.json(Ok(value))), "ok".to_owned()),
        Err(End::Fail(failure)) => {
            let code = failure.code.clone();
            (Reply::Http(call.json(Err(failure))), code)
        }
        Err(End::HangUp) => (Reply::HangUp, "connection-closed".to_owned()),
    };
    entry.outcome = outcome;
    cloud.calls().record(entry);
    reply
}

async fn attempt(
    cloud: &Cloud,
    call: &Call,
    operation: &str,
    input: &Value,
    entry: &mut Entry,
) -> Result<Value, End> {
    let caller = &identity::identify(cloud, call).await.map_err(End::Fail)?;
    entry.caller_account = caller.account().to_owned();
    entry.caller = caller.principal.arn.clone();
    let place = locate(&cloud.keys(), caller.account(), &call.region, operation, input).map_err(End::Fail)?;
    entry.account = place.account.clone();
    let strike = cloud.faults().strike(&Target {
        sts: false,
        account: &place.account,
        region: &call.region,
        operation,
        cross_account: place.account != caller.account(),
    });
    tokio::time::sleep(strike.delay).await;
    if let Some(end) = strike.end {
        return Err(end);
    }
    let held = &identity::held(cloud, caller).await.map_err(|failure| {
        End::Fail(Failure::new(failure.status, "KMSInternalException", failure.message))
    })?;
    // Taken after the waiting: what the key looks like when the call is done counts.
    let now = Timestamp::now();
    let job = Job { cloud, call, caller, held, operation, input, now };
    job.perform(&place, entry).map_err(End::Fail)
}

impl Job<'_> {
    fn perform(&self, place: &Place, entry: &mut Entry) -> Outcome {
        let mut keys = self.cloud.keys();
        let region = &self.call.region;
        if let "CreateKey" | "ListKeys" | "ListAliases" = self.operation {
            self.may(&format!("kms:{}", self.operation), "*", self.caller.account(), None, None)?;
            // As on AWS: a key that is made with tags needs the right to tag as well.
            if self.operation == "CreateKey"
                && self.input["Tags"].as_array().is_some_and(|tags| !tags.is_empty())
            {
                self.may("kms:TagResource", "*", self.caller.account(), None, None)?;
            }
            if self.operation == "CreateKey" && self.input.get("Policy").is_some() {
                let account = self.caller.account();
                let arn = format!("arn:aws:kms:{region}:{account}:key/{}", uuid::Uuid::new_v4());
                self.refuse_lockout(account, &arn)?;
            }
            let vault = keys.vault(self.caller.account(), region);
            return match self.operation {
                "CreateKey" => operations::create_key(vault, (self.caller.account(), region), self.input),
                "ListKeys" => operations::list_keys(vault),
                _ => operations::list_aliases(vault, self.input),
            };
        }
        if place.account != self.caller.account() && !operations::crosses_accounts(self.operation) {
            let action = format!("kms:{}", self.operation);
            let resource = place.reference.as_deref().unwrap_or("*");
            let message = not_authorised(self.caller, &action, resource, Refusal::NoAllow("resource-based"));
            return Err(Failure::bad("AccessDeniedException", message));
        }
        let vault = keys.vault(&place.account, region);
        let key_id = vault.find(&place.reference.clone()?)?;
        entry.resource = vault.view(&key_id)?.key.arn;
        if operations::is_cryptographic(self.operation) {
            let output = self.use_keys(&mut keys, &place.account, &key_id)?;
            if self.input["DryRun"].as_bool() == Some(true) {
                let message = "The request would have succeeded, but the DryRun option is set.";
                return Err(Failure::bad("DryRunOperationException", message));
            }
            return Ok(output);
        }
        self.manage_key(vault, &key_id)
    }

    fn use_keys(&self, keys: &mut Keys, account: &str, key_id: &str) -> Outcome {
        let region = &self.call.region;
        let vault = keys.vault(account, region);
        let view = self.seen(vault, key_id)?;
        if self.operation != "ReEncrypt" {
            let context = context(self.input, "EncryptionContext")?;
            self.may_use(vault, &view, self.operation, Some(&context))?;
            return operations::use_key(&view, self.operation, self.input);
        }
        self.may_use(vault, &view, "ReEncryptFrom", Some(&context(self.input, "SourceEncryptionContext")?))?;
        let to = resolve(self.caller.account(), region, need(self.input, "DestinationKeyId")?)?;
        let vault = keys.vault(&to.account, region);
        let to_id = vault.find(&to.reference?)?;
        let destination = self.seen(vault, &to_id)?;
        let context = context(self.input, "DestinationEncryptionContext")?;
        self.may_use(vault, &destination, "ReEncryptTo", Some(&context))?;
        operations::re_encrypt(&view, &destination, self.input)
    }

    fn manage_key(&self, vault: &mut Vault, key_id: &str) -> Outcome {
        let before = vault.view(key_id)?;
        self.may_use(vault, &before, self.operation, None)?;
        if self.operation == "PutKeyPolicy" {
            self.refuse_lockout(&before.key.account_id, &before.key.arn)?;
        }
        if self.operation == "CreateGrant" && self.input["DryRun"].as_bool() == Some(true) {
            let message = "The request would have succeeded, but the DryRun option is set.";
            return Err(Failure::bad("DryRunOperationException", message));
        }
        let old_material = before.key.key_material.clone();
        let arn = before.key.arn.clone();
        let output = operations::manage(vault, key_id, self.operation, self.input)?;
        if operations::changes_state(self.operation) {
            let (account, region) = (before.key.account_id.clone(), before.key.region.clone());
            let lag = self.cloud.faults().lag(&account, &region);
            if let Some(lag) = lag.and_then(|lag| SignedDuration::try_from(lag).ok()) {
                vault.remember(before, &self.caller.principal.principal_arn, self.now + lag, self.now);
            }
            self.announce(&arn, (&account, &region), &output);
            if self.operation == "RotateKeyOnDemand" {
                let new_material = &vault.key_mut(key_id)?.key_material;
                let detail = rotation_detail(key_id, "ON_DEMAND", &old_material, new_material);
                self.cloud.events.native(self.cloud, "KMS CMK Rotation", &arn, (&account, &region), detail);
            }
        }
        Ok(output)
    }

    /// The policy that is to be stored has to let its author change it again, unless the author says that it need not.
    fn refuse_lockout(&self, account: &str, arn: &str) -> Result<(), Failure> {
        if self.input["BypassPolicyLockoutSafetyCheck"].as_bool() == Some(true) {
            return Ok(());
        }
        let malformed = |message: String| Failure::bad("MalformedPolicyDocumentException", message);
        let policy = Policy::parse(need(self.input, "Policy")?).map_err(malformed)?;
        let context = self.caller.context(&self.call.region);
        let side = ResourceSide { policy: Some(&policy), granted: false, account };
        let allowed = identity::allowed(self.caller, self.held, "kms:PutKeyPolicy", arn, &context, side);
        allowed.map_err(|_| {
            malformed("The new key policy will not allow you to update the key policy in the future.".into())
        })
    }

    fn seen(&self, vault: &Vault, key_id: &str) -> Result<View, Failure> {
        vault.view_for(key_id, &self.caller.principal.principal_arn, self.now)
    }

    fn may_use(
        &self,
        vault: &Vault,
        view: &View,
        operation: &str,
        context: Option<&EncryptionContext>,
    ) -> Result<(), Failure> {
        let granted = granted(vault, &view.key.key_id, self.caller, operation, context);
        let policy = Policy::parse(&view.policy).map_err(|error| {
            Failure::new(500, "KMSInternalException", format!("the key policy is broken: {error}"))
        })?;
        let side = Some((&policy, granted));
        self.may(&format!("kms:{operation}"), &view.key.arn, &view.key.account_id, side, context)
    }

    fn may(
        &self,
        action: &str,
        resource: &str,
        account: &str,
        side: Option<(&Policy, bool)>,
        encryption_context: Option<&EncryptionContext>,
    ) -> Result<(), Failure> {
        let mut context = self.caller.context(&self.call.region);
        context.set("kms:CallerAccount", self.caller.account());
        context.set("aws:ResourceAccount", account);
        if let Some(pairs) = encryption_context.filter(|pairs| !pairs.is_empty()) {
            for (key, value) in pairs {
                context.set(&format!("kms:EncryptionContext:{key}"), value);
            }
            context.set_all("kms:EncryptionContextKeys", pairs.keys().cloned().collect());
        }
        // Tags that the request would set: a policy may insist on them.
        for tag in self.input["Tags"].as_array().into_iter().flatten() {
            if let (Some(name), Some(value)) = (tag["TagKey"].as_str(), tag["TagValue"].as_str()) {
                context.set(&format!("aws:RequestTag/{name}"), value);
            }
        }
        let (policy, granted) = side.map_or((None, false), |(policy, granted)| (Some(policy), granted));
        let side = ResourceSide { policy, granted, account };
        identity::allowed(self.caller, self.held, action, resource, &context, side).map_err(|refusal| {
            Failure::bad("AccessDeniedException", not_authorised(self.caller, action, resource, refusal))
        })
    }

    fn announce(&self, arn: &str, (account, region): (&str, &str), output: &Value) {
        let change = Change {
            source: "aws.kms",
            name: self.operation,
            account,
            region,
            key_arn: Some(arn),
            request: request_parameters(self.operation, self.input),
            response: response_elements(self.operation, arn, output),
        };
        self.cloud.events.changed(self.cloud, self.call, self.caller, &change);
    }
}

/// Which account's key the request means, from the ARN, the ciphertext or the caller.
fn locate(keys: &Keys, caller: &str, region: &str, operation: &str, input: &Value) -> Result<Place, Failure> {
    let own = |reference: Result<String, Failure>| Place { account: caller.to_owned(), reference };
    let name = match operation {
        "CreateKey" | "ListKeys" | "ListAliases" => return Ok(own(Ok("*".into()))),
        "Decrypt" | "ReEncrypt" => {
            let name = if operation == "Decrypt" { "KeyId" } else { "SourceKeyId" };
            return match text(input, name) {
                Some(reference) => resolve(caller, region, reference),
                None => Ok(from_ciphertext(keys, caller, region, &blob(input, "CiphertextBlob")?)),
            };
        }
        "CreateAlias" | "UpdateAlias" => "TargetKeyId",
        "DeleteAlias" => "AliasName",
        _ => "KeyId",
    };
    match text(input, name) {
        Some(reference) => resolve(caller, region, reference),
        None => Ok(own(Err(need(input, name).err().unwrap_or_else(|| not_found(""))))),
    }
}

fn resolve(caller: &str, region: &str, reference: &str) -> Result<Place, Failure> {
    if !reference.starts_with("arn:") {
        return Ok(Place { account: caller.to_owned(), reference: Ok(reference.to_owned()) });
    }
    let parts: Vec<&str> = reference.splitn(6, ':').collect();
    match parts[..] {
        ["arn", "aws", "kms", place, account, _] if place == region => {
            Ok(Place { account: account.to_owned(), reference: Ok(reference.to_owned()) })
        }
        // The real service answers so for an ARN of another region.
        ["arn", "aws", "kms", place, _, _] => {
            Err(Failure::bad("NotFoundException", format!("Invalid arn {place}")))
        }
        _ => Err(Failure::bad("InvalidArnException", format!("{reference} is not a valid ARN"))),
    }
}

fn from_ciphertext(keys: &Keys, caller: &str, region: &str, ciphertext: &[u8]) -> Place {
    let key_id = key_id_of(ciphertext).filter(|id| looks_like_key_id(id));
    if let Some((id, account)) = key_id.as_ref().and_then(|id| Some((id, keys.account_of(id, region)?))) {
        return Place { account, reference: Ok(id.clone()) };
    }
    let failure = if key_id.is_some_and(|id| keys.known(&id)) {
        let message = "The ciphertext refers to a customer master key that does not exist, \
                       does not exist in this region, or you are not allowed to access.";
        Failure::bad("AccessDeniedException", message)
    } else {
        Failure::bad("InvalidCiphertextException", "")
    };
    Place { account: caller.to_owned(), reference: Err(failure) }
}

/// Whether a grant on the key lets the caller do this.
fn granted(
    vault: &Vault,
    key_id: &str,
    caller: &Caller,
    operation: &str,
    context: Option<&EncryptionContext>,
) -> bool {
    let holds = |wanted: &std::collections::HashMap<String, String>| {
        context.is_some_and(|context| wanted.iter().all(|(key, value)| context.get(key) == Some(value)))
    };
    vault.state.grants.values().filter(|grant| grant.key_id == key_id).any(|grant| {
        let principal = &caller.principal;
        let who =
            grant.grantee_principal == principal.arn || grant.grantee_principal == principal.principal_arn;
        let what = grant.operations.iter().any(|granted| granted == operation);
        let constrained = grant.constraints.as_ref().is_none_or(|constraints| {
            constraints.encryption_context_subset.as_ref().is_none_or(holds)
                && constraints.encryption_context_equals.as_ref().is_none_or(|wanted| {
                    holds(wanted) && context.is_some_and(|context| context.len() == wanted.len())
                })
        });
        who && what && constrained
    })
}

/// CloudTrail's form: names in lower camel case, no key material.
fn request_parameters(operation: &str, input: &Value) -> Value {
    if operation == "RetireGrant" {
        return Value::Null;
    }
    let fields = input.as_object().into_iter().flatten();
    let fields = fields.filter(|(name, _)| !matches!(name.as_str(), "EncryptedKeyMaterial" | "ImportToken"));
    let mut parameters: serde_json::Map<_, _> =
        fields.map(|(name, value)| (lower_first(name), value.clone())).collect();
    if operation == "PutKeyPolicy" {
        parameters.entry("policyName").or_insert_with(|| json!("default"));
        parameters.entry("bypassPolicyLockoutSafetyCheck").or_insert_with(|| json!(false));
    }
    Value::Object(parameters)
}

fn response_elements(operation: &str, arn: &str, output: &Value) -> Value {
    if operation == "PutKeyPolicy" {
        return Value::Null;
    }
    let mut elements = json!({"keyId": arn});
    for (name, value) in output.as_object().into_iter().flatten() {
        elements[lower_first(name)] = value.clone();
    }
    // CloudTrail writes this date for people, not for machines.
    if let Some(at) = output["DeletionDate"].as_i64().and_then(|at| Timestamp::from_second(at).ok()) {
        elements["deletionDate"] = json!(at.strftime("%b %-d, %Y, %-I:%M:%S %p").to_string());
    }
    elements
}

fn lower_first(name: &str) -> String {
    let mut characters = name.chars();
    characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
}

pub fn rotation_detail(key_id: &str, kind: &str, old: &[u8], new: &[u8]) -> Value {
    json!({
        "key-id": key_id, "key-origin": "AWS_KMS", "rotation-type": kind,
        "previous-key-material-id": operations::material_id(old), "current-key-material-id": operations::material_id(new),
    })
}

/// ReEncrypt has two contexts: both are shown.
fn logged_context(input: &Value) -> EncryptionContext {
    let names = ["EncryptionContext", "SourceEncryptionContext", "DestinationEncryptionContext"];
    names.iter().filter_map(|name| context(input, name).ok()).flatten().collect()
}
