//! A vendor, an organisation in realm Europe, and a clock: what the tests of the deciding function share.

use claviger_domain::catalogue::Catalogue;
use claviger_domain::decide::{Decision, Refusal, Rules, decide, enrol};
use claviger_domain::enrolment::Enrolment;
use claviger_domain::event::{Actor, Origin, PolicyEvent};
use claviger_domain::ids::{CorrelationId, OrganisationId, PolicyId};
use claviger_domain::key_access::ExternalId;
use claviger_domain::observation::{NoAnswerKind, Observation, ProbeRound, RefusalKind};
use claviger_domain::organisation::Organisation;
use claviger_domain::policy::{EncryptionPolicy, Lifecycle};
use claviger_domain::values::{Region, ShardId};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use uuid::Uuid;

pub const FRANKFURT: &str = "eu-central-1";
pub const DUBLIN: &str = "eu-west-1";
pub const USABLE: Observation = Observation::Usable;
pub const DISABLED: Observation = Observation::Refused(RefusalKind::KeyDisabled);
pub const DENIED: Observation = Observation::Refused(RefusalKind::AccessDenied);
pub const THROTTLED: Observation = Observation::NoAnswer(NoAnswerKind::Throttled);
pub const UNREACHABLE: Observation = Observation::NoAnswer(NoAnswerKind::Unreachable);
pub const OUR_FAULT: Observation = Observation::NoAnswer(NoAnswerKind::OurFault);

pub fn acme() -> Organisation {
    Organisation {
        id: OrganisationId::from_uuid(Uuid::from_u128(1)),
        external_id: ExternalId::from_uuid(Uuid::from_u128(3)),
        name: "acme".parse().unwrap(),
        plans: [("jira".parse().unwrap(), "enterprise".to_owned())].into(),
        government: false,
        admins: ["ada".parse().unwrap()].into(),
        auditors: Default::default(),
    }
}

/// A vendor, an organisation in realm Europe, and a clock.
pub struct World {
    pub catalogue: Catalogue,
    pub policy: EncryptionPolicy,
    pub now: Timestamp,
    pub facts: Vec<claviger_domain::fact::Fact>,
}

pub fn by(actor: Actor) -> Origin {
    Origin { actor, correlation: CorrelationId::from_uuid(Uuid::from_u128(7)) }
}

pub fn admin() -> Origin {
    by(Actor::OrgAdmin("ada".parse().unwrap()))
}

pub fn support() -> Origin {
    by(Actor::Support("sam".parse().unwrap()))
}

pub fn prober() -> Origin {
    by(Actor::Claviger("key-prober".to_owned()))
}

pub fn region(name: &str) -> Region {
    name.parse().unwrap()
}

impl World {
    pub fn rules(&self) -> Rules<'_> {
        Rules {
            catalogue: &self.catalogue,
            ambiguity: SignedDuration::from_secs(60),
            window: SignedDuration::from_secs(5),
            freshness: SignedDuration::from_secs(30),
            in_transit: SignedDuration::from_hours(24 * 30),
        }
    }

    pub fn requested() -> Self {
        Self::requested_with(Catalogue::shipped().unwrap())
    }

    pub fn requested_with(catalogue: Catalogue) -> Self {
        let now: Timestamp = "2026-11-23T09:00:00Z".parse().unwrap();
        let body = json!({
            "mode": "cmk", "awsAccountId": "222222222222", "realm": "europe",
            "contextTag": "acme1", "contextTagConfirmation": "acme1",
            "keys": [
                { "region": FRANKFURT, "keyArn": format!("arn:aws:kms:{FRANKFURT}:222222222222:key/aa") },
                { "region": DUBLIN, "keyArn": format!("arn:aws:kms:{DUBLIN}:222222222222:key/bb") },
            ],
        });
        let enrolment = Enrolment::parse(&body, &catalogue).unwrap();
        let organisation = acme();
        let rules = Rules {
            catalogue: &catalogue,
            ambiguity: SignedDuration::from_secs(60),
            window: SignedDuration::from_secs(5),
            freshness: SignedDuration::from_secs(30),
            in_transit: SignedDuration::from_hours(24 * 30),
        };
        let id = PolicyId::from_uuid(Uuid::from_u128(2));
        let decision = enrol(&rules, &organisation, &enrolment, id, ShardId(0), &admin(), now).unwrap();
        Self { policy: decision.next, facts: vec![decision.fact], catalogue, now }
    }

    /// An organisation that lets us make its keys, approved.
    pub fn byok_approved() -> Self {
        let mut world = Self::requested();
        let body = json!({
            "mode": "byok", "awsAccountId": "222222222222", "realm": "europe",
            "contextTag": "acme1", "contextTagConfirmation": "acme1",
            "roleArn": "arn:aws:iam::222222222222:role/key-management",
        });
        let enrolment = Enrolment::parse(&body, &world.catalogue).unwrap();
        let organisation = acme();
        let decision = enrol(
            &world.rules(),
            &organisation,
            &enrolment,
            world.policy.id,
            ShardId(0),
            &admin(),
            world.now,
        )
        .unwrap();
        world.policy = decision.next;
        world.facts = vec![decision.fact];
        world.happens(PolicyEvent::EnrolmentApproved, &support()).unwrap();
        world
    }

    pub fn active() -> Self {
        let mut world = Self::requested();
        world.activate();
        world
    }

    pub fn activate(&mut self) {
        self.happens(PolicyEvent::EnrolmentApproved, &support()).unwrap();
        let canaries = [(region(FRANKFURT), "QQ==".to_owned()), (region(DUBLIN), "QQ==".to_owned())].into();
        let round = self.round(USABLE, USABLE);
        self.happens(PolicyEvent::KeysVerified { canaries, round }, &prober()).unwrap();
        self.later(60);
    }

    pub fn suspended() -> Self {
        let mut world = Self::active();
        world.probed_twice(DISABLED, DISABLED).unwrap();
        world.later(60);
        world
    }

    /// Denied in every region, as when something of ours broke: KMS says of no key that its owner took it away.
    pub fn suspended_by_mistake() -> Self {
        let mut world = Self::active();
        world.is_denied_for_long();
        world.later(60);
        world
    }

    pub fn is_denied_for_long(&mut self) {
        let _ = self.probed_twice(DENIED, DENIED);
        self.later(60);
        self.probed_twice(DENIED, DENIED).unwrap();
        assert!(self.is_suspended());
    }

    pub fn later(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    pub fn round(&self, frankfurt: Observation, dublin: Observation) -> ProbeRound {
        ProbeRound {
            started_at: self.now,
            observations: [(region(FRANKFURT), frankfurt), (region(DUBLIN), dublin)].into(),
            controls_healthy: Some(true),
            refused_unwrap: None,
        }
    }

    /// Two rounds, a second apart; the clock stands at the second.
    pub fn rounds(&mut self, frankfurt: Observation, dublin: Observation) -> Vec<ProbeRound> {
        let first = self.round(frankfurt, dublin);
        self.later(1);
        vec![first, self.round(frankfurt, dublin)]
    }

    pub fn happens(&mut self, event: PolicyEvent, origin: &Origin) -> Result<Decision, Refusal> {
        let decision = decide(&self.rules(), &self.policy, &event, origin, self.now)?;
        self.policy = decision.next.clone();
        self.facts.push(decision.fact.clone());
        Ok(decision)
    }

    pub fn probed(&mut self, frankfurt: Observation, dublin: Observation) -> Result<Decision, Refusal> {
        let rounds = vec![self.round(frankfurt, dublin)];
        self.happens(PolicyEvent::ProbesReported { rounds, heard: Vec::new() }, &prober())
    }

    pub fn probed_twice(&mut self, frankfurt: Observation, dublin: Observation) -> Result<Decision, Refusal> {
        let rounds = self.rounds(frankfurt, dublin);
        self.happens(PolicyEvent::ProbesReported { rounds, heard: Vec::new() }, &prober())
    }

    pub fn asks_for_restoration(&mut self, origin: &Origin) -> Result<Decision, Refusal> {
        let ticket = self.policy.ticket.unwrap();
        let round = self.round(USABLE, USABLE);
        self.happens(PolicyEvent::RestorationRequested { ticket, round, into_degraded: false }, origin)
    }

    pub fn is_suspended(&self) -> bool {
        matches!(self.policy.lifecycle, Lifecycle::Suspended { .. }) && !self.policy.fence.is_open()
    }
}
