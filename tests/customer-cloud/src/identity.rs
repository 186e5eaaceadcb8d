//! Who calls: known by the access key id alone, as this server holds no account's secret.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::cloud::Cloud;
use crate::policy::{self, Asked, Context, Identity, Policy, Principal, Refusal, Sides};
use crate::wire::{Call, Failure};

/// A role session: issued here, or issued by the vendor's AWS and learned.
#[derive(Clone, Debug)]
pub struct Session {
    pub account: String,
    pub role_name: String,
    pub role_arn: String,
    pub role_id: String,
    pub session_name: String,
    pub policy: Option<String>,
    pub token: Option<String>,
    pub expires: Option<Timestamp>,
}

#[derive(Default)]
pub struct Sessions {
    by_access_key: HashMap<String, Session>,
}

impl Sessions {
    pub fn remember(&mut self, access_key: &str, session: Session) {
        let now = Timestamp::now();
        self.by_access_key.retain(|_, known| {
            known.expires.is_none_or(|expires| expires.as_second() + 3600 > now.as_second())
        });
        self.by_access_key.insert(access_key.to_owned(), session);
    }

    pub fn get(&self, access_key: &str) -> Option<Session> {
        self.by_access_key.get(access_key).cloned()
    }
}

#[derive(Clone, Debug)]
pub struct Caller {
    pub principal: Principal,
    pub access_key: String,
    /// `None`: the account itself.
    pub session: Option<Session>,
}

impl Caller {
    pub fn root(account: &str) -> Self {
        let arn = format!("arn:aws:iam::{account}:root");
        let principal = Principal { account: account.to_owned(), arn: arn.clone(), principal_arn: arn };
        Caller { principal, access_key: account.to_owned(), session: None }
    }

    fn of(access_key: &str, session: Session) -> Self {
        let principal = Principal {
            account: session.account.clone(),
            arn: format!(
                "arn:aws:sts::{}:assumed-role/{}/{}",
                session.account, session.role_name, session.session_name
            ),
            principal_arn: session.role_arn.clone(),
        };
        Caller { principal, access_key: access_key.to_owned(), session: Some(session) }
    }

    pub fn account(&self) -> &str {
        &self.principal.account
    }

    /// What STS calls UserId and CloudTrail principalId.
    pub fn principal_id(&self) -> String {
        match &self.session {
            None => self.principal.account.clone(),
            Some(session) => format!("{}:{}", session.role_id, session.session_name),
        }
    }

    /// The condition keys that every request of this caller carries.
    pub fn context(&self, region: &str) -> Context {
        let mut context = Context::default();
        context.set("aws:PrincipalArn", &self.principal.principal_arn);
        context.set("aws:PrincipalAccount", self.account());
        context.set("aws:PrincipalType", if self.session.is_some() { "AssumedRole" } else { "Account" });
        context.set("aws:userid", self.principal_id());
        context.set("aws:RequestedRegion", region);
        context.set("aws:SecureTransport", "false");
        context
    }
}

pub async fn identify(cloud: &Cloud, call: &Call) -> Result<Caller, Failure> {
    let key = &call.access_key;
    if key.len() == 12 && key.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Caller::root(key));
    }
    let session = cloud.sessions().get(key);
    if let Some(session) = session {
        if session.token.is_some() && session.token != call.token {
            return Err(unknown(call));
        }
        if session.expires.is_some_and(|expires| expires < Timestamp::now()) {
            let (status, code) =
                if call.service == "kms" { (400, "ExpiredTokenException") } else { (403, "ExpiredToken") };
            return Err(Failure::new(status, code, "The security token included in the request is expired"));
        }
        return Ok(Caller::of(key, session));
    }
    let Some(vendor) = &cloud.vendor else {
        return Err(unknown(call));
    };
    match vendor.execution_role_session(key, &call.region).await {
        Some(session) => {
            cloud.sessions().remember(key, session.clone());
            Ok(Caller::of(key, session))
        }
        None => Err(unknown(call)),
    }
}

fn unknown(call: &Call) -> Failure {
    let message = "The security token included in the request is invalid.";
    match call.service.as_str() {
        "kms" => Failure::bad("UnrecognizedClientException", message),
        _ => Failure::new(403, "InvalidClientTokenId", message),
    }
}

/// What the caller's own account lets it do.
pub enum Held {
    Root,
    Role {
        policies: Vec<Policy>,
        session: Option<Policy>,
    },
    /// The role was deleted: its sessions can do nothing any more.
    Gone,
}

pub async fn held(cloud: &Cloud, caller: &Caller) -> Result<Held, Failure> {
    let Some(session) = &caller.session else {
        return Ok(Held::Root);
    };
    let documents = match cloud.vendor_of(&session.account) {
        Some(vendor) => vendor.role_policies(&session.role_name).await?,
        None => cloud
            .iam()
            .role(&session.account, &session.role_name)
            .map(|role| {
                if role.id == session.role_id {
                    Some(role.policies.values().cloned().collect())
                } else {
                    None
                }
            })
            .unwrap_or_default(),
    };
    let Some(documents) = documents else {
        return Ok(Held::Gone);
    };
    let malformed = |error| Failure::new(500, "InternalFailure", format!("a policy cannot be read: {error}"));
    let policies =
        documents.iter().map(|text| Policy::parse(text)).collect::<Result<_, _>>().map_err(malformed)?;
    let session = session.policy.as_deref().map(Policy::parse).transpose().map_err(malformed)?;
    Ok(Held::Role { policies, session })
}

/// One decision for `caller` on a resource of `resource_account`.
pub fn allowed(
    caller: &Caller,
    held: &Held,
    action: &str,
    resource: &str,
    context: &Context,
    side: ResourceSide<'_>,
) -> Result<(), Refusal> {
    let (identity, session) = match held {
        Held::Root => (Identity::Root, None),
        Held::Role { policies, session } => (Identity::Policies(policies), session.as_ref()),
        Held::Gone => return Err(Refusal::NoAllow("identity-based")),
    };
    let asked = Asked { who: &caller.principal, action, resource, context };
    let ResourceSide { policy, granted, account } = side;
    policy::authorise(
        &asked,
        &Sides { resource: policy, granted, identity, session, resource_account: account },
    )
}

/// The other side of a decision: the resource's policy, if it has one, and its account.
#[derive(Clone, Copy)]
pub struct ResourceSide<'a> {
    pub policy: Option<&'a Policy>,
    pub granted: bool,
    pub account: &'a str,
}

/// AWS's sentence for a refusal.
pub fn not_authorised(caller: &Caller, action: &str, resource: &str, refusal: Refusal) -> String {
    let reason = refusal.reason(action);
    format!(
        "User: {} is not authorized to perform: {action} on resource: {resource} {reason}",
        caller.principal.arn
    )
}
