//! STS: AssumeRole for the customers' roles, GetCallerIdentity; what concerns the vendor's account is passed on.

use jiff::{SignedDuration, Timestamp};

use crate::calls::Entry;
use crate::cloud::Cloud;
use crate::faults::{End, Target};
use crate::iam::{identifier, session_fields};
use crate::identity::{self, Caller, ResourceSide, Session};
use crate::policy::Policy;
use crate::vendor::{Answer, Vendor};
use crate::wire::{Call, Failure, HttpResponse, Reply, element, escape, parameter, required, respond};

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
/// A session that was obtained with a session lives an hour at most.
const CHAINED_MAX: i64 = 3600;

type Parameters = [(String, String)];

pub async fn handle(cloud: &Cloud, call: &Call) -> Reply {
    let parameters = call.parameters();
    let action = parameter(&parameters, "Action").unwrap_or("").to_owned();
    let caller = identity::identify(cloud, call).await;
    let role_arn = parameter(&parameters, "RoleArn").unwrap_or("").to_owned();
    let caller_account = caller.as_ref().map(|caller| caller.account().to_owned());
    // A caller that nobody here knows can only be the vendor's.
    let caller_account = caller_account.unwrap_or_else(|_| vendor_account(cloud));
    let account = if action == "AssumeRole" {
        account_of(&role_arn).unwrap_or(&caller_account)
    } else {
        &caller_account
    };

    let strike = cloud.faults().strike(&Target {
        sts: true,
        account,
        region: &call.region,
        operation: &action,
        cross_account: account != caller_account,
    });
    tokio::time::sleep(strike.delay).await;
    let (outcome, reply) = match strike.end {
        Some(End::HangUp) => ("connection-closed".to_owned(), Reply::HangUp),
        Some(End::Fail(failure)) => {
            (failure.code.clone(), Reply::Http(call.xml(&action, NAMESPACE, Err(failure))))
        }
        None => answer(cloud, call, &caller, &action, &parameters, account).await,
    };
    cloud.calls().record(Entry {
        time: Timestamp::now(),
        request_id: call.id.clone(),
        service: "sts",
        operation: action,
        caller: caller
            .as_ref()
            .map_or_else(|_| call.access_key.clone(), |caller| caller.principal.arn.clone()),
        account: account.to_owned(),
        caller_account: caller_account.clone(),
        region: call.region.clone(),
        resource: role_arn,
        outcome,
        encryption_context: Default::default(),
        dry_run: false,
    });
    reply
}

async fn answer(
    cloud: &Cloud,
    call: &Call,
    caller: &Result<Caller, Failure>,
    action: &str,
    parameters: &Parameters,
    account: &str,
) -> (String, Reply) {
    // The vendor's AWS is the truth about its own roles and credentials, expiry included.
    if let Some(vendor) = cloud.vendor_of(account)
        && !(action == "GetCallerIdentity" && caller.as_ref().is_ok_and(|caller| caller.session.is_none()))
    {
        let relayed = pass_on(cloud, vendor, call, action, parameters).await;
        let outcome =
            if relayed.status().is_success() { "ok".into() } else { relayed.status().as_u16().to_string() };
        return (outcome, Reply::Http(relayed));
    }
    let result = match (caller, action) {
        (Err(failure), _) => Err(failure.clone()),
        (Ok(caller), "GetCallerIdentity") => Ok(format!(
            "<Arn>{}</Arn><UserId>{}</UserId><Account>{}</Account>",
            caller.principal.arn,
            caller.principal_id(),
            caller.account()
        )),
        (Ok(caller), "AssumeRole") => assume_role(cloud, call, caller, parameters).await,
        (Ok(_), other) => Err(Failure::bad("InvalidAction", format!("Could not find operation {other}"))),
    };
    let outcome = result.as_ref().map_or_else(|failure| failure.code.clone(), |_| "ok".into());
    (outcome, Reply::Http(call.xml(action, NAMESPACE, result)))
}

async fn pass_on(
    cloud: &Cloud,
    vendor: &Vendor,
    call: &Call,
    action: &str,
    parameters: &Parameters,
) -> HttpResponse {
    let answer = match vendor.pass_on(call).await {
        Ok(answer) => answer,
        Err(error) => {
            let failure = Failure::new(503, "ServiceUnavailable", error.to_string());
            return call.xml(action, NAMESPACE, Err(failure));
        }
    };
    let xml = String::from_utf8_lossy(&answer.body);
    if answer.status == 200 && action == "AssumeRole" {
        if let Some((access_key, token, arn, expires)) = session_fields(&xml) {
            let mut session = session_from_arn(&vendor.account, &arn);
            session.role_arn = parameter(parameters, "RoleArn").unwrap_or_default().to_owned();
            session.policy = parameter(parameters, "Policy").map(str::to_owned);
            session.token = Some(token);
            session.expires = expires;
            cloud.sessions().remember(&access_key, session);
        }
    } else if answer.status == 200 && action == "GetCallerIdentity" {
        // Learned from a call that ministack has verified: the caller holds these credentials.
        let arn = element(&xml, "Arn").filter(|arn| arn.contains(":assumed-role/"));
        if let Some(arn) = arn
            && cloud.sessions().get(&call.access_key).is_none()
        {
            let mut session = session_from_arn(&vendor.account, &arn);
            session.token = call.token.clone();
            cloud.sessions().remember(&call.access_key, session);
        }
    }
    relay(answer)
}

/// `arn:aws:sts::account:assumed-role/role/session`; the role's path is not in it.
fn session_from_arn(account: &str, arn: &str) -> Session {
    let mut parts = arn.rsplit('/');
    let session_name = parts.next().unwrap_or_default().to_owned();
    let role_name = parts.next().unwrap_or_default().to_owned();
    Session {
        account: account.to_owned(),
        role_arn: format!("arn:aws:iam::{account}:role/{role_name}"),
        role_id: role_name.clone(),
        role_name,
        session_name,
        policy: None,
        token: None,
        expires: None,
    }
}

pub fn relay(answer: Answer) -> HttpResponse {
    let content_type =
        answer.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("text/xml");
    let id = answer.headers.get("x-amzn-requestid").and_then(|value| value.to_str().ok()).unwrap_or_default();
    respond(answer.status, content_type, id, answer.body.clone())
}

async fn assume_role(
    cloud: &Cloud,
    call: &Call,
    caller: &Caller,
    parameters: &Parameters,
) -> Result<String, Failure> {
    let role_arn = required(parameters, "RoleArn")?;
    let session_name = required(parameters, "RoleSessionName")?;
    let is_name_char = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if !(2..=64).contains(&session_name.len()) || !session_name.chars().all(is_name_char) {
        return Err(invalid(format!(
            "Value '{session_name}' at 'roleSessionName' failed to satisfy constraint"
        )));
    }
    let account = account_of(role_arn).ok_or_else(|| invalid(format!("{role_arn} is invalid")))?;
    let session_policy = parameter(parameters, "Policy");
    if let Some(policy) = session_policy {
        Policy::parse(policy).map_err(|error| Failure::bad("MalformedPolicyDocument", error))?;
    }
    let duration = parameter(parameters, "DurationSeconds").map_or(Ok(3600), str::parse::<i64>);
    let duration = duration.map_err(|_| invalid("'durationSeconds' must be a number".into()))?;

    let held = identity::held(cloud, caller).await?;
    let name = role_arn.rsplit('/').next().unwrap_or_default();
    let role = cloud.iam().role(account, name).filter(|role| role.arn == role_arn).cloned();
    let action = "sts:AssumeRole";
    // AWS does not say which of the reasons it was: a missing role reads like a refusing one.
    let refused = || {
        let message = format!(
            "User: {} is not authorized to perform: {action} on resource: {role_arn}",
            caller.principal.arn
        );
        Failure::new(403, "AccessDenied", message)
    };
    let role = role.ok_or_else(refused)?;
    let trust = Policy::parse(&role.trust).map_err(|_| refused())?;
    let mut context = caller.context(&call.region);
    context.set("sts:RoleSessionName", session_name);
    context.set("aws:ResourceAccount", account);
    if let Some(id) = parameter(parameters, "ExternalId") {
        context.set("sts:ExternalId", id);
    }
    let side = ResourceSide { policy: Some(&trust), granted: false, account };
    identity::allowed(caller, &held, action, role_arn, &context, side).map_err(|_| refused())?;

    if !(900..=43_200).contains(&duration) {
        return Err(invalid(format!("Value '{duration}' at 'durationSeconds' failed to satisfy constraint")));
    }
    if caller.session.is_some() && duration > CHAINED_MAX {
        let message = "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining";
        return Err(invalid(message.into()));
    }
    if duration > role.max_session {
        let message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.";
        return Err(invalid(message.into()));
    }

    let access_key = identifier("ASIA")[..20].to_owned();
    let secret =
        format!("{}{}", uuid::Uuid::new_v4().simple(), &uuid::Uuid::new_v4().simple().to_string()[..8]);
    let token = format!("customer-cloud/{}", uuid::Uuid::new_v4());
    let expires = Timestamp::now() + SignedDuration::from_secs(duration);
    let answer = format!(
        "<AssumedRoleUser><AssumedRoleId>{}:{session_name}</AssumedRoleId>\
         <Arn>arn:aws:sts::{account}:assumed-role/{}/{session_name}</Arn></AssumedRoleUser>\
         <Credentials><AccessKeyId>{access_key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
         <SessionToken>{}</SessionToken><Expiration>{}</Expiration></Credentials>",
        role.id,
        role.name,
        escape(&token),
        expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    );
    let session = Session {
        account: account.to_owned(),
        role_name: role.name,
        role_arn: role.arn,
        role_id: role.id,
        session_name: session_name.to_owned(),
        policy: session_policy.map(str::to_owned),
        token: Some(token),
        expires: Some(expires),
    };
    cloud.sessions().remember(&access_key, session);
    Ok(answer)
}

fn vendor_account(cloud: &Cloud) -> String {
    cloud.vendor.as_ref().map(|vendor| vendor.account.clone()).unwrap_or_default()
}

fn account_of(role_arn: &str) -> Option<&str> {
    let account = role_arn.strip_prefix("arn:aws:iam::")?.split_once(":role/")?.0;
    (account.len() == 12).then_some(account)
}

fn invalid(message: String) -> Failure {
    Failure::bad("ValidationError", message)
}
