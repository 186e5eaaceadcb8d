//! IAM as far as a customer needs it: roles, their trust policies and their inline policies.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde_json::json;

use crate::cloud::Cloud;
use crate::events::Change;
use crate::identity::{self, Caller, ResourceSide};
use crate::policy::Policy;
use crate::wire::{Call, Failure, HttpResponse, element, escape, parameter, required};

const NAMESPACE: &str = "https://iam.amazonaws.com/doc/2010-05-08/";

#[derive(Clone, Debug)]
pub struct Role {
    pub name: String,
    pub path: String,
    pub arn: String,
    pub id: String,
    pub trust: String,
    pub max_session: i64,
    pub policies: BTreeMap<String, String>,
    created: Timestamp,
}

#[derive(Default)]
pub struct Iam {
    roles: HashMap<(String, String), Role>,
}

type Parameters = [(String, String)];

impl Iam {
    pub fn role(&self, account: &str, name: &str) -> Option<&Role> {
        self.roles.get(&(account.to_owned(), name.to_owned()))
    }

    fn role_mut(&mut self, account: &str, name: &str) -> Result<&mut Role, Failure> {
        self.roles.get_mut(&(account.to_owned(), name.to_owned())).ok_or_else(|| no_role(name))
    }
}

pub async fn handle(cloud: &Cloud, call: &Call) -> HttpResponse {
    let parameters = call.parameters();
    let action = parameter(&parameters, "Action").unwrap_or("").to_owned();
    let caller = match identity::identify(cloud, call).await {
        Ok(caller) => caller,
        Err(failure) => return call.xml(&action, NAMESPACE, Err(failure)),
    };
    if let Some(vendor) = cloud.vendor_of(caller.account()) {
        return match vendor.pass_on(call).await {
            Ok(answer) => crate::sts::relay(answer),
            Err(error) => {
                call.xml(&action, NAMESPACE, Err(Failure::new(503, "ServiceUnavailable", error.to_string())))
            }
        };
    }
    let result = permitted(cloud, call, &caller, &action, &parameters).await;
    let result = result.and_then(|()| perform(&mut cloud.iam(), caller.account(), &action, &parameters));
    if result.is_ok() {
        announce(cloud, call, &caller, &action, &parameters);
    }
    call.xml(&action, NAMESPACE, result)
}

async fn permitted(
    cloud: &Cloud,
    call: &Call,
    caller: &Caller,
    action: &str,
    parameters: &Parameters,
) -> Result<(), Failure> {
    let held = identity::held(cloud, caller).await?;
    let name = parameter(parameters, "RoleName").unwrap_or("*");
    let resource = format!("arn:aws:iam::{}:role/{name}", caller.account());
    let action = format!("iam:{action}");
    let side = ResourceSide { policy: None, granted: false, account: caller.account() };
    identity::allowed(caller, &held, &action, &resource, &caller.context(&call.region), side).map_err(
        |refusal| {
            Failure::new(403, "AccessDenied", identity::not_authorised(caller, &action, &resource, refusal))
        },
    )
}

fn perform(iam: &mut Iam, account: &str, action: &str, parameters: &Parameters) -> Result<String, Failure> {
    match action {
        "CreateRole" => create(iam, account, parameters),
        "ListRoles" => {
            let own = iam.roles.iter().filter(|((owner, _), _)| owner == account);
            let mut roles: Vec<_> = own.map(|(_, role)| role).collect();
            roles.sort_by(|a, b| a.name.cmp(&b.name));
            let members: String =
                roles.iter().map(|role| format!("<member>{}</member>", role.xml())).collect();
            Ok(format!("<IsTruncated>false</IsTruncated><Roles>{members}</Roles>"))
        }
        "GetRole" => {
            let name = required(parameters, "RoleName")?;
            Ok(format!("<Role>{}</Role>", iam.role(account, name).ok_or_else(|| no_role(name))?.xml()))
        }
        "UpdateAssumeRolePolicy" => {
            let document = document(parameters, "PolicyDocument", true)?;
            iam.role_mut(account, required(parameters, "RoleName")?)?.trust = document;
            Ok(String::new())
        }
        "PutRolePolicy" => {
            let document = document(parameters, "PolicyDocument", false)?;
            let name = required(parameters, "PolicyName")?.to_owned();
            iam.role_mut(account, required(parameters, "RoleName")?)?.policies.insert(name, document);
            Ok(String::new())
        }
        "GetRolePolicy" => {
            let (role_name, name) = (required(parameters, "RoleName")?, required(parameters, "PolicyName")?);
            let role = iam.role(account, role_name).ok_or_else(|| no_role(role_name))?;
            let document = encoded(role.policies.get(name).ok_or_else(|| no_policy(name))?);
            Ok(format!(
                "<RoleName>{}</RoleName><PolicyName>{}</PolicyName><PolicyDocument>{document}</PolicyDocument>",
                role.name,
                escape(name)
            ))
        }
        "ListRolePolicies" => {
            let name = required(parameters, "RoleName")?;
            let role = iam.role(account, name).ok_or_else(|| no_role(name))?;
            let names: String =
                role.policies.keys().map(|name| format!("<member>{}</member>", escape(name))).collect();
            Ok(format!("<PolicyNames>{names}</PolicyNames><IsTruncated>false</IsTruncated>"))
        }
        "ListAttachedRolePolicies" => {
            Ok("<AttachedPolicies></AttachedPolicies><IsTruncated>false</IsTruncated>".into())
        }
        "DeleteRolePolicy" => {
            let name = required(parameters, "PolicyName")?;
            let role = iam.role_mut(account, required(parameters, "RoleName")?)?;
            role.policies.remove(name).map(|_| String::new()).ok_or_else(|| no_policy(name))
        }
        "DeleteRole" => {
            let role = iam.role_mut(account, required(parameters, "RoleName")?)?;
            if !role.policies.is_empty() {
                let message = "Cannot delete entity, must delete policies first.";
                return Err(Failure::new(409, "DeleteConflict", message));
            }
            let name = role.name.clone();
            iam.roles.remove(&(account.to_owned(), name));
            Ok(String::new())
        }
        other => Err(Failure::bad("InvalidAction", format!("Could not find operation {other}"))),
    }
}

fn create(iam: &mut Iam, account: &str, parameters: &Parameters) -> Result<String, Failure> {
    let name = required(parameters, "RoleName")?.to_owned();
    let path = parameter(parameters, "Path").unwrap_or("/").to_owned();
    let trust = document(parameters, "AssumeRolePolicyDocument", true)?;
    let slot = (account.to_owned(), name.clone());
    if iam.roles.contains_key(&slot) {
        return Err(Failure::new(
            409,
            "EntityAlreadyExists",
            format!("Role with name {name} already exists."),
        ));
    }
    let max_session =
        parameter(parameters, "MaxSessionDuration").and_then(|text| text.parse().ok()).unwrap_or(3600);
    let role = Role {
        arn: format!("arn:aws:iam::{account}:role{path}{name}"),
        id: identifier("AROA"),
        policies: BTreeMap::new(),
        created: Timestamp::now(),
        name,
        path,
        trust,
        max_session,
    };
    let xml = format!("<Role>{}</Role>", role.xml());
    iam.roles.insert(slot, role);
    Ok(xml)
}

/// The changes that can end a vendor's access; CloudTrail shows IAM in us-east-1 only.
fn announce(cloud: &Cloud, call: &Call, caller: &Caller, action: &str, parameters: &Parameters) {
    if !matches!(action, "UpdateAssumeRolePolicy" | "DeleteRole" | "PutRolePolicy" | "DeleteRolePolicy") {
        return;
    }
    let mut request = json!({});
    for (name, key) in
        [("RoleName", "roleName"), ("PolicyName", "policyName"), ("PolicyDocument", "policyDocument")]
    {
        if let Some(value) = parameter(parameters, name) {
            request[key] = json!(value);
        }
    }
    let change = Change {
        source: "aws.iam",
        name: action,
        account: caller.account(),
        region: "us-east-1",
        key_arn: None,
        request,
        response: serde_json::Value::Null,
    };
    cloud.events.changed(cloud, call, caller, &change);
}

impl Role {
    fn xml(&self) -> String {
        format!(
            "<Path>{}</Path><RoleName>{}</RoleName><RoleId>{}</RoleId><Arn>{}</Arn><CreateDate>{}</CreateDate>\
             <AssumeRolePolicyDocument>{}</AssumeRolePolicyDocument><MaxSessionDuration>{}</MaxSessionDuration>",
            self.path,
            self.name,
            self.id,
            self.arn,
            self.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            encoded(&self.trust),
            self.max_session
        )
    }
}

/// An id in the form that AWS uses: four letters of kind, then 17 characters.
pub fn identifier(kind: &str) -> String {
    let random = uuid::Uuid::new_v4().simple().to_string().to_uppercase();
    format!("{kind}{}", &random[..17])
}

fn document(parameters: &Parameters, name: &str, trust: bool) -> Result<String, Failure> {
    let text = required(parameters, name)?;
    Policy::parse_strict(text, trust).map_err(|error| Failure::bad("MalformedPolicyDocument", error))?;
    Ok(text.to_owned())
}

fn encoded(document: &str) -> String {
    form_urlencoded::byte_serialize(document.as_bytes()).collect::<String>().replace('+', "%20")
}

fn no_role(name: &str) -> Failure {
    Failure::new(404, "NoSuchEntity", format!("The role with name {name} cannot be found."))
}

fn no_policy(name: &str) -> Failure {
    Failure::new(404, "NoSuchEntity", format!("The role policy with name {name} cannot be found."))
}

/// Reads what an AWS answer says about a session it issued.
pub fn session_fields(xml: &str) -> Option<(String, String, String, Option<Timestamp>)> {
    let access_key = element(xml, "AccessKeyId")?;
    let token = element(xml, "SessionToken")?;
    let arn = element(xml, "AssumedRoleUser").and_then(|inner| element(&inner, "Arn"))?;
    let expires = element(xml, "Expiration").and_then(|text| text.parse().ok());
    Some((access_key, token, arn, expires))
}
