//! Faults that a test switches on: errors, silence and delay for calls, lag for changes, loss for events.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::wire::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Throttle,
    #[serde(rename = "error-500")]
    Error500,
    KeyUnavailable,
    DependencyTimeout,
    /// No answer for `millis`, then the connection closes.
    Timeout,
    /// The connection closes at once.
    RefuseConnection,
    /// `millis` later than usual.
    Latency,
    /// State changes reach other principals' cryptographic calls `millis` later.
    Lag,
    EventsLost,
    EventsDoubled,
    /// Events come `millis` later.
    EventsLate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Callers {
    /// Only callers from another account than the key's or the role's.
    #[default]
    CrossAccount,
    All,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// Given by the server.
    #[serde(default, skip_deserializing)]
    pub id: u64,
    pub kind: Kind,
    pub account: Option<String>,
    pub region: Option<String>,
    /// Without it a fault hits every KMS operation; STS operations have to be named.
    pub operation: Option<String>,
    #[serde(default)]
    pub callers: Callers,
    #[serde(default = "always")]
    pub rate: f64,
    /// How many more times it strikes.
    pub count: Option<u64>,
    pub millis: Option<u64>,
}

fn always() -> f64 {
    1.0
}

/// The call that a fault may hit. `account` owns the key or the role.
pub struct Target<'a> {
    pub sts: bool,
    pub account: &'a str,
    pub region: &'a str,
    pub operation: &'a str,
    pub cross_account: bool,
}

/// What happens to a call that was hit.
#[derive(Default)]
pub struct Strike {
    pub delay: Duration,
    pub end: Option<End>,
}

pub enum End {
    Fail(Failure),
    HangUp,
}

/// What happens to the event of a change.
#[derive(Debug, PartialEq)]
pub struct EventFate {
    pub copies: usize,
    pub delay: Duration,
}

#[derive(Default)]
pub struct Faults {
    active: Vec<Fault>,
    next_id: u64,
}

impl Faults {
    pub fn add(&mut self, mut fault: Fault) -> Fault {
        self.next_id += 1;
        fault.id = self.next_id;
        self.active.push(fault.clone());
        fault
    }

    /// Without an id all faults end.
    pub fn remove(&mut self, id: Option<u64>) -> usize {
        let before = self.active.len();
        self.active.retain(|fault| id.is_some_and(|id| id != fault.id));
        before - self.active.len()
    }

    pub fn list(&self) -> &[Fault] {
        &self.active
    }

    pub fn strike(&mut self, target: &Target<'_>) -> Strike {
        let mut strike = Strike::default();
        for fault in &mut self.active {
            if strike.end.is_some() || !fault.hits(target) || !fault.takes_a_turn() {
                continue;
            }
            let wait = Duration::from_millis(fault.millis.unwrap_or(0));
            match fault.kind {
                Kind::Latency => strike.delay += wait,
                Kind::RefuseConnection => strike.end = Some(End::HangUp),
                Kind::Timeout => {
                    strike.delay += fault.millis.map_or(Duration::from_secs(60), Duration::from_millis);
                    strike.end = Some(End::HangUp);
                }
                kind => strike.end = kind.failure(target.sts).map(End::Fail),
            }
        }
        strike
    }

    pub fn lag(&mut self, account: &str, region: &str) -> Option<Duration> {
        let millis = self.first(Kind::Lag, account, region)?.millis?;
        Some(Duration::from_millis(millis))
    }

    pub fn event_fate(&mut self, account: &str, region: &str) -> EventFate {
        let lost = self.first(Kind::EventsLost, account, region).is_some();
        let doubled = self.first(Kind::EventsDoubled, account, region).is_some();
        let late = self.first(Kind::EventsLate, account, region).and_then(|fault| fault.millis).unwrap_or(0);
        let copies = if lost { 0 } else { 1 + usize::from(doubled) };
        EventFate { copies, delay: Duration::from_millis(late) }
    }

    fn first(&mut self, kind: Kind, account: &str, region: &str) -> Option<&Fault> {
        let mut found =
            self.active.iter_mut().filter(|fault| fault.kind == kind && fault.is_at(account, region));
        found.find_map(|fault| fault.takes_a_turn().then_some(&*fault))
    }
}

impl Kind {
    /// What a call can be refused with; the other kinds do not concern single calls.
    fn failure(self, sts: bool) -> Option<Failure> {
        let (status, code, message) = match self {
            Kind::Throttle if sts => (400, "Throttling", "Rate exceeded"),
            Kind::Throttle => {
                (400, "ThrottlingException", "You have exceeded the rate at which you may call KMS.")
            }
            Kind::Error500 if sts => (500, "InternalFailure", "An internal error occurred."),
            Kind::Error500 => (500, "KMSInternalException", "An internal error occurred."),
            Kind::KeyUnavailable => (500, "KeyUnavailableException", "The key is not available."),
            Kind::DependencyTimeout => (503, "DependencyTimeoutException", "The system timed out."),
            _ => return None,
        };
        Some(Failure::new(status, code, message))
    }

    fn concerns_calls(self) -> bool {
        !matches!(self, Kind::Lag | Kind::EventsLost | Kind::EventsDoubled | Kind::EventsLate)
    }
}

impl Fault {
    fn is_at(&self, account: &str, region: &str) -> bool {
        self.account.as_deref().is_none_or(|wanted| wanted == account)
            && self.region.as_deref().is_none_or(|wanted| wanted == region)
    }

    fn hits(&self, target: &Target<'_>) -> bool {
        self.kind.concerns_calls()
            && self.is_at(target.account, target.region)
            && self.operation.as_deref().map_or(!target.sts, |wanted| wanted == target.operation)
            && (target.cross_account || self.callers == Callers::All)
    }

    fn takes_a_turn(&mut self) -> bool {
        if self.count == Some(0) || !chance(self.rate) {
            return false;
        }
        self.count = self.count.map(|left| left - 1);
        true
    }
}

fn chance(rate: f64) -> bool {
    let mut bytes = [0u8; 4];
    // Without randomness a fault strikes: a test sees that rather than nothing.
    let drawn =
        aws_lc_rs::rand::fill(&mut bytes).map(|()| f64::from(u32::from_le_bytes(bytes)) / 4_294_967_296.0);
    drawn.unwrap_or(0.0) < rate
}
