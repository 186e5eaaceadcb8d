//! A small evaluator for IAM policies: identity, resource, trust and session policies.
//!
//! It decides as AWS documents it: an explicit deny wins; inside one account a resource policy that names the
//! principal is enough and one that names the account hands the decision to the identity policy; between accounts
//! both sides must allow; a session policy only ever narrows.

use std::collections::BTreeMap;

use serde_json::Value;

/// Who asks. For the root of an account `arn` and `principal_arn` are the root ARN.
#[derive(Clone, Debug)]
pub struct Principal {
    pub account: String,
    /// The session's ARN (`arn:aws:sts::…:assumed-role/…`) or the root ARN.
    pub arn: String,
    /// What `aws:PrincipalArn` holds: the role's ARN for a session.
    pub principal_arn: String,
}

/// Condition keys of one request, lower case, each with one or more values.
#[derive(Clone, Debug, Default)]
pub struct Context(BTreeMap<String, Vec<String>>);

impl Context {
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.set_all(key, vec![value.into()]);
    }

    pub fn set_all(&mut self, key: &str, values: Vec<String>) {
        self.0.insert(key.to_lowercase(), values);
    }
}

/// One question to the evaluator.
pub struct Asked<'a> {
    pub who: &'a Principal,
    pub action: &'a str,
    pub resource: &'a str,
    pub context: &'a Context,
}

#[derive(Clone, Debug)]
pub struct Policy {
    statements: Vec<Statement>,
}

#[derive(Clone, Debug)]
struct Statement {
    deny: bool,
    principals: Option<Vec<String>>,
    actions: Patterns,
    resources: Option<Patterns>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug)]
struct Patterns {
    negated: bool,
    patterns: Vec<String>,
}

#[derive(Clone, Debug)]
struct Condition {
    operator: Operator,
    set: Option<SetOperator>,
    if_exists: bool,
    key: String,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum SetOperator {
    AnyValue,
    AllValues,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    StringEquals,
    StringNotEquals,
    StringEqualsIgnoreCase,
    StringNotEqualsIgnoreCase,
    StringLike,
    StringNotLike,
    ArnLike,
    ArnNotLike,
    Bool,
    Null,
    Unknown,
}

/// How a resource policy came to allow: it decides whether the identity policy is asked too.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Via {
    Account,
    Principal,
    Session,
}

enum Decision {
    Deny,
    Allow(Via),
    Silent,
}

/// Why a request is refused, for the message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refusal {
    ExplicitDeny(&'static str),
    NoAllow(&'static str),
}

impl Refusal {
    pub fn reason(self, action: &str) -> String {
        match self {
            Refusal::ExplicitDeny(side) => format!("with an explicit deny in {side} policy"),
            Refusal::NoAllow(side) => {
                format!("because no {side} policy allows the {action} action")
            }
        }
    }
}

/// What the caller's own side holds. The root of an account may do everything that the other side allows.
pub enum Identity<'a> {
    Root,
    Policies(&'a [Policy]),
}

/// The policies that meet in one decision.
pub struct Sides<'a> {
    /// `None`: the resource has no policy of its own.
    pub resource: Option<&'a Policy>,
    /// A grant allows in place of the resource policy.
    pub granted: bool,
    pub identity: Identity<'a>,
    pub session: Option<&'a Policy>,
    pub resource_account: &'a str,
}

pub fn authorise(asked: &Asked<'_>, sides: &Sides<'_>) -> Result<(), Refusal> {
    let mut via = sides.granted.then_some(Via::Principal);
    if let Some(policy) = sides.resource {
        match policy.decide(asked) {
            Decision::Deny => return Err(Refusal::ExplicitDeny("a resource-based")),
            Decision::Allow(found) => via = Some(found),
            Decision::Silent => {}
        }
    }
    let mut identity = matches!(sides.identity, Identity::Root);
    if let Identity::Policies(policies) = sides.identity {
        for policy in policies {
            match policy.decide(asked) {
                Decision::Deny => return Err(Refusal::ExplicitDeny("an identity-based")),
                Decision::Allow(_) => identity = true,
                Decision::Silent => {}
            }
        }
    }
    let mut session = true;
    if let Some(policy) = sides.session {
        match policy.decide(asked) {
            Decision::Deny => return Err(Refusal::ExplicitDeny("a session")),
            Decision::Allow(_) => {}
            Decision::Silent => session = false,
        }
    }
    let same_account = asked.who.account == sides.resource_account;
    let identity_is_asked = match (sides.resource, via) {
        (Some(_), None) => return Err(Refusal::NoAllow("resource-based")),
        (_, Some(via)) => !same_account || via == Via::Account,
        (None, None) => true,
    };
    if identity_is_asked && !identity {
        return Err(Refusal::NoAllow("identity-based"));
    }
    let session_is_asked = !(same_account && via == Some(Via::Session));
    if session_is_asked && !session {
        return Err(Refusal::NoAllow("session"));
    }
    Ok(())
}

impl Policy {
    /// Reads a policy document; operators that the evaluator does not know make it malformed only in `parse_strict`.
    pub fn parse(document: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(document).map_err(|error| format!("not JSON: {error}"))?;
        let statements = match value.get("Statement") {
            Some(Value::Array(list)) => list.clone(),
            Some(one @ Value::Object(_)) => vec![one.clone()],
            _ => return Err("Statement is missing".into()),
        };
        let statements = statements.iter().map(Statement::parse).collect::<Result<_, _>>()?;
        Ok(Policy { statements })
    }

    /// For documents that a customer stores: an operator without meaning here must not pass silently.
    pub fn parse_strict(document: &str, resource_policy: bool) -> Result<Self, String> {
        let policy = Self::parse(document)?;
        for statement in &policy.statements {
            if statement.conditions.iter().any(|condition| condition.operator == Operator::Unknown) {
                return Err("a condition operator is not supported".into());
            }
            if statement.principals.is_some() != resource_policy {
                return Err("Principal is required in resource policies and forbidden in others".into());
            }
        }
        Ok(policy)
    }

    fn decide(&self, asked: &Asked<'_>) -> Decision {
        let mut decision = Decision::Silent;
        for statement in &self.statements {
            let Some(via) = statement.matches(asked) else {
                continue;
            };
            if statement.deny {
                return Decision::Deny;
            }
            decision = match decision {
                Decision::Allow(found) if found >= via => Decision::Allow(found),
                _ => Decision::Allow(via),
            };
        }
        decision
    }
}

impl Statement {
    fn parse(value: &Value) -> Result<Self, String> {
        let deny = match value.get("Effect").and_then(Value::as_str) {
            Some("Allow") => false,
            Some("Deny") => true,
            _ => return Err("Effect must be Allow or Deny".into()),
        };
        if value.get("NotPrincipal").is_some() {
            return Err("NotPrincipal is not supported".into());
        }
        let principals = value.get("Principal").map(principals).transpose()?;
        let actions = Patterns::parse(value, "Action", "NotAction")?.ok_or("Action is missing")?;
        let resources = Patterns::parse(value, "Resource", "NotResource")?;
        let mut conditions = Vec::new();
        if let Some(blocks) = value.get("Condition") {
            for (operator, keys) in blocks.as_object().ok_or("Condition must be an object")? {
                for (key, values) in keys.as_object().ok_or("a condition operator holds an object")? {
                    conditions.push(Condition::parse(operator, key, values)?);
                }
            }
        }
        Ok(Statement { deny, principals, actions, resources, conditions })
    }

    fn matches(&self, asked: &Asked<'_>) -> Option<Via> {
        let via = match &self.principals {
            None => Via::Principal,
            Some(names) => {
                names.iter().filter_map(|name| names_principal(name, asked.who)).fold(None, strongest)?
            }
        };
        let action = self.actions.matches(asked.action, true);
        let resource = self.resources.as_ref().is_none_or(|patterns| patterns.matches(asked.resource, false));
        let conditions = self.conditions.iter().all(|condition| condition.holds(asked.context, self.deny));
        (action && resource && conditions).then_some(via)
    }
}

fn strongest(best: Option<Via>, via: Via) -> Option<Via> {
    Some(match best {
        Some(found) if found >= via => found,
        _ => via,
    })
}

fn principals(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::String(text) if text == "*" => Ok(vec!["*".into()]),
        // Services and federated users never call this server: they parse, and match nobody.
        Value::Object(kinds) => Ok(kinds.get("AWS").map(strings).transpose()?.unwrap_or_default()),
        _ => Err("Principal must be \"*\" or an object".into()),
    }
}

fn names_principal(name: &str, who: &Principal) -> Option<Via> {
    let root = name.strip_prefix("arn:aws:iam::").and_then(|rest| rest.strip_suffix(":root"));
    if name == who.arn && root.is_none() {
        Some(Via::Session)
    } else if name == "*" || (name == who.principal_arn && root.is_none()) {
        Some(Via::Principal)
    } else {
        (root.unwrap_or(name) == who.account).then_some(Via::Account)
    }
}

fn strings(value: &Value) -> Result<Vec<String>, String> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(format!("a string is expected, not `{other}`")),
    };
    match value {
        Value::Array(list) => list.iter().map(one).collect(),
        other => Ok(vec![one(other)?]),
    }
}

impl Patterns {
    fn parse(value: &Value, name: &str, negated_name: &str) -> Result<Option<Self>, String> {
        match (value.get(name), value.get(negated_name)) {
            (Some(_), Some(_)) => Err(format!("{name} and {negated_name} exclude each other")),
            (Some(value), None) => Ok(Some(Patterns { negated: false, patterns: strings(value)? })),
            (None, Some(value)) => Ok(Some(Patterns { negated: true, patterns: strings(value)? })),
            (None, None) => Ok(None),
        }
    }

    fn matches(&self, value: &str, ignore_case: bool) -> bool {
        let found = self.patterns.iter().any(|pattern| {
            if ignore_case {
                glob(&pattern.to_lowercase(), &value.to_lowercase())
            } else {
                glob(pattern, value)
            }
        });
        found != self.negated
    }
}

impl Condition {
    fn parse(operator: &str, key: &str, values: &Value) -> Result<Self, String> {
        let (set, rest) = if let Some(rest) = operator.strip_prefix("ForAnyValue:") {
            (Some(SetOperator::AnyValue), rest)
        } else if let Some(rest) = operator.strip_prefix("ForAllValues:") {
            (Some(SetOperator::AllValues), rest)
        } else {
            (None, operator)
        };
        let (name, if_exists) = rest.strip_suffix("IfExists").map_or((rest, false), |name| (name, true));
        let operator = match name {
            "StringEquals" => Operator::StringEquals,
            "StringNotEquals" => Operator::StringNotEquals,
            "StringEqualsIgnoreCase" => Operator::StringEqualsIgnoreCase,
            "StringNotEqualsIgnoreCase" => Operator::StringNotEqualsIgnoreCase,
            "StringLike" => Operator::StringLike,
            "StringNotLike" => Operator::StringNotLike,
            "ArnEquals" | "ArnLike" => Operator::ArnLike,
            "ArnNotEquals" | "ArnNotLike" => Operator::ArnNotLike,
            "Bool" => Operator::Bool,
            "Null" => Operator::Null,
            _ => Operator::Unknown,
        };
        Ok(Condition { operator, set, if_exists, key: key.to_lowercase(), values: strings(values)? })
    }

    fn holds(&self, context: &Context, deny: bool) -> bool {
        let actual = context.0.get(&self.key);
        match self.operator {
            // Fail closed: an operator without meaning here never allows and always denies.
            Operator::Unknown => return deny,
            Operator::Null => {
                let wants_absent = self.values.iter().any(|value| value.eq_ignore_ascii_case("true"));
                return actual.is_none() == wants_absent;
            }
            _ => {}
        }
        match (self.set, actual) {
            (None, None) => self.if_exists || self.operator.negated(),
            (None, Some(values)) if self.operator.negated() => {
                values.iter().all(|value| self.holds_for(value))
            }
            (None, Some(values)) => values.iter().any(|value| self.holds_for(value)),
            (Some(SetOperator::AnyValue), None) => self.if_exists,
            (Some(SetOperator::AnyValue), Some(values)) => values.iter().any(|value| self.holds_for(value)),
            (Some(SetOperator::AllValues), None) => true,
            (Some(SetOperator::AllValues), Some(values)) => values.iter().all(|value| self.holds_for(value)),
        }
    }

    fn holds_for(&self, actual: &str) -> bool {
        let found = self.values.iter().any(|expected| match self.operator {
            Operator::StringEquals | Operator::StringNotEquals => actual == expected,
            Operator::StringEqualsIgnoreCase | Operator::StringNotEqualsIgnoreCase | Operator::Bool => {
                actual.eq_ignore_ascii_case(expected)
            }
            Operator::StringLike | Operator::StringNotLike => glob(expected, actual),
            Operator::ArnLike | Operator::ArnNotLike => arn_glob(expected, actual),
            Operator::Null | Operator::Unknown => false,
        });
        found != self.operator.negated()
    }
}

impl Operator {
    fn negated(self) -> bool {
        matches!(
            self,
            Operator::StringNotEquals
                | Operator::StringNotEqualsIgnoreCase
                | Operator::StringNotLike
                | Operator::ArnNotLike
        )
    }
}

/// `*` stands for any run of characters, `?` for one.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// ARN patterns match part by part: a `*` does not cross the first five colons.
fn arn_glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<_>, Vec<_>) = (pattern.splitn(6, ':').collect(), text.splitn(6, ':').collect());
    pattern.len() == text.len() && pattern.iter().zip(text).all(|(pattern, part)| glob(pattern, part))
}
