//! Facts: the append-only audit log (spec K3, I4). Each committed decision leaves exactly one fact;
//! facts of one policy or instance are chained by hash, so that a missing or altered one shows.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::event::{Actor, Origin};
use crate::fence::Fence;
use crate::ids::{CorrelationId, EffectId, TicketId};
use crate::values::OrganisationName;

/// The end of a chain: how many facts there are and the hash of the last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditHead {
    /// Number of facts so far.
    pub seq: u64,
    /// Hash of the last one, hex; empty before the first.
    pub hash: String,
}

/// One committed decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fact {
    /// Position in its chain, from 1.
    pub seq: u64,
    /// The policy or instance whose chain it is.
    pub stream: Uuid,
    /// Whose.
    pub organisation: OrganisationName,
    /// When it was decided.
    pub at: Timestamp,
    /// Who caused it.
    pub actor: Actor,
    /// What it belongs to.
    pub correlation_id: CorrelationId,
    /// The one slug of what happened.
    pub slug: String,
    /// The event, whole: replaying the events of a chain gives the state.
    pub event: Value,
    /// Where the policy or instance stood afterwards.
    pub state: String,
    /// The policy's fence afterwards; absent for instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,
    /// Hash of the fact before, hex.
    pub previous: String,
    /// SHA-256 over `previous` and the canonical JSON of all other fields, hex.
    pub hash: String,
}

/// What a fact says; position, previous hash and own hash are added when it is appended.
#[derive(Debug, Clone)]
pub struct FactBody {
    /// The chain.
    pub stream: Uuid,
    /// Whose.
    pub organisation: OrganisationName,
    /// What happened.
    pub slug: &'static str,
    /// The event, whole.
    pub event: Value,
    /// Where it led.
    pub state: &'static str,
    /// The fence afterwards.
    pub fence: Option<Fence>,
}

impl AuditHead {
    /// Appends a fact and returns the new end of the chain with it.
    pub fn append(&self, body: FactBody, origin: &Origin, at: Timestamp) -> (Self, Fact) {
        let mut fact = Fact {
            seq: self.seq.saturating_add(1),
            stream: body.stream,
            organisation: body.organisation,
            at,
            actor: origin.actor.clone(),
            correlation_id: origin.correlation,
            slug: body.slug.to_owned(),
            event: body.event,
            state: body.state.to_owned(),
            fence: body.fence,
            previous: self.hash.clone(),
            hash: String::new(),
        };
        fact.hash = fact.computed_hash();
        let head = Self { seq: fact.seq, hash: fact.hash.clone() };
        (head, fact)
    }
}

impl Fact {
    /// The hash that the fact must bear.
    pub fn computed_hash(&self) -> String {
        let mut bare = self.clone();
        bare.hash = String::new();
        let canonical = serde_json::to_value(&bare).map(|value| sorted(&value)).unwrap_or_default();
        hex::encode(Sha256::digest(canonical.as_bytes()))
    }

    /// Whether it follows `previous` in its chain and has not been altered.
    pub fn follows(&self, previous: &AuditHead) -> bool {
        self.seq == previous.seq.saturating_add(1)
            && self.previous == previous.hash
            && self.hash == self.computed_hash()
    }

    /// The identifier of the `index`-th effect of this fact's decision: the same each time.
    pub fn effect_id(&self, index: usize) -> EffectId {
        EffectId::from_uuid(Uuid::from_bytes(self.derived(&format!("effect {index}"))))
    }

    fn derived(&self, what: &str) -> [u8; 16] {
        let digest = Sha256::digest(format!("{} {} {what}", self.stream, self.seq).as_bytes());
        let mut bytes = [0_u8; 16];
        for (to, from) in bytes.iter_mut().zip(digest) {
            *to = from;
        }
        bytes
    }
}

/// Canonical JSON: no white space, the keys of every object in order of their bytes. Sorted here and not
/// left to the JSON library, whose order depends on how it was built.
fn sorted(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, &Value> = fields.iter().collect();
            let inner: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), sorted(value)))
                .collect();
            format!("{{{}}}", inner.join(","))
        }
        Value::Array(items) => {
            let inner: Vec<String> = items.iter().map(sorted).collect();
            format!("[{}]", inner.join(","))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

/// A ticket's identifier, derived so that a decision that is taken twice names the same ticket; its
/// first bytes are the time, so newer tickets sort later.
pub fn derived_ticket_id(stream: Uuid, seq: u64, at: Timestamp) -> TicketId {
    let digest = Sha256::digest(format!("{stream} ticket {seq}").as_bytes());
    let mut random = [0_u8; 10];
    for (to, from) in random.iter_mut().zip(digest) {
        *to = from;
    }
    let millis = u64::try_from(at.as_millisecond()).unwrap_or(0);
    TicketId::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
}
