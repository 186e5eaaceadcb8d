//! What a key-policy template may ask for, and where the request of one customer stands.

use std::collections::BTreeSet;

use claviger_domain::access::{
    AccessAnswer, AccessRequest, AccessStanding, KEY_PERMISSIONS, KeyPermission, KeyPolicyTemplate,
    TemplateVersion,
};
use claviger_domain::decide::{Decision, Refusal};
use claviger_domain::effect::Effect;
use claviger_domain::event::{Origin, PolicyEvent};
use claviger_domain::ids::TicketId;
use claviger_domain::key_policy::KEY_POLICY_VERSION;
use claviger_domain::values::Region;
use jiff::{SignedDuration, Timestamp};
use rstest::rstest;
use uuid::Uuid;

use crate::support::{DUBLIN, FRANKFURT, World, admin, prober, region, support};

fn template(decide_by: Timestamp) -> KeyPolicyTemplate {
    KeyPolicyTemplate {
        version: "2027-01-15".parse().unwrap(),
        permissions: [KeyPermission::DescribeKey].into(),
        decide_by,
        published_at: Timestamp::UNIX_EPOCH,
        published_by: "sam".parse().unwrap(),
    }
}

fn request(answer: AccessAnswer) -> AccessRequest {
    let ticket = TicketId::from_uuid(Uuid::from_u128(5));
    let decide_by = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 30);
    AccessRequest { answer, ..AccessRequest::new(&template(decide_by), ticket, Timestamp::UNIX_EPOCH) }
}

#[test]
fn k1_every_permission_is_read_back_as_it_is_written_and_no_two_are_written_alike() {
    let written: BTreeSet<String> = KEY_PERMISSIONS.iter().map(ToString::to_string).collect();
    assert_eq!(written.len(), KEY_PERMISSIONS.len());
    for known in KEY_PERMISSIONS {
        assert_eq!(known.to_string(), known.action());
        assert_eq!(known.action().parse::<KeyPermission>().unwrap(), known);
    }
    let unknown = "kms:ScheduleKeyDeletion".parse::<KeyPermission>().unwrap_err();
    assert!(unknown.help.contains("kms:Decrypt"), "{}", unknown.help);
}

#[test]
fn k1_who_moves_a_ciphertext_from_a_key_moves_it_to_one_and_nothing_else_comes_in_pairs() {
    for known in KEY_PERMISSIONS {
        let expected = match known {
            KeyPermission::ReEncryptFrom => Some(KeyPermission::ReEncryptTo),
            KeyPermission::ReEncryptTo => Some(KeyPermission::ReEncryptFrom),
            _ => None,
        };
        assert_eq!(known.counterpart(), expected, "{known}");
        assert_eq!(expected.and_then(KeyPermission::counterpart), expected.map(|_| known));
    }
}

#[rstest]
#[case::a_date("2027-01-15")]
#[case::a_letter("a")]
#[case::a_number("1.10")]
#[case::as_long_as_may_be("abcdefghijklmnopqrstuvwxyz-01234")]
fn k1_a_templates_version_is_a_short_label(#[case] text: &str) {
    let version: TemplateVersion = text.parse().unwrap();
    assert_eq!((version.as_str(), version.to_string().as_str()), (text, text));
}

#[rstest]
#[case::nothing("")]
#[case::capitals("V2")]
#[case::a_space("2027 01")]
#[case::a_slash("2027/01")]
#[case::too_long("abcdefghijklmnopqrstuvwxyz-012345")]
fn k1_what_is_no_version_is_refused_with_its_remedy(#[case] text: &str) {
    let refused = text.parse::<TemplateVersion>().unwrap_err();
    assert!(refused.help.contains("1 to 32"), "{}", refused.help);
}

#[test]
fn k1_a_request_stands_open_until_its_date_and_then_counts_as_ignored() {
    let open = request(AccessAnswer::Open);
    let mut asked = World::active().policy;
    asked.access_requests.push(open.clone());
    let second = SignedDuration::from_secs(1);
    for (now, standing, holds_back) in [
        (Timestamp::UNIX_EPOCH, AccessStanding::Open, false),
        (open.decide_by - second, AccessStanding::Open, false),
        (open.decide_by, AccessStanding::Ignored, true),
        (open.decide_by + second, AccessStanding::Ignored, true),
    ] {
        assert_eq!((open.standing(now), open.holds_back(now)), (standing, holds_back), "{now}");
        assert_eq!(asked.held_back_by(now), Some(&open).filter(|_| holds_back), "{now}");
    }
}

#[test]
fn k1_an_answer_stands_whatever_the_date_and_only_a_refusal_holds_new_apps_back() {
    let at = Timestamp::UNIX_EPOCH;
    for (answer, standing, holds_back) in [
        (AccessAnswer::Granted { at }, AccessStanding::Accepted, false),
        (AccessAnswer::Declined { at }, AccessStanding::Declined, true),
    ] {
        let answered = request(answer);
        for now in [at, answered.decide_by + SignedDuration::from_hours(1)] {
            assert_eq!((answered.standing(now), answered.holds_back(now)), (standing, holds_back));
        }
    }
}

#[test]
fn k1_who_meets_a_template_late_has_two_weeks_all_the_same() {
    let ticket = TicketId::from_uuid(Uuid::from_u128(5));
    let two_weeks = SignedDuration::from_hours(14 * 24);
    let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1000);
    let late = AccessRequest::new(&template(now + SignedDuration::from_hours(1)), ticket, now);
    assert_eq!(late.decide_by, now + two_weeks);
    let far = now + two_weeks + SignedDuration::from_hours(1);
    assert_eq!(AccessRequest::new(&template(far), ticket, now).decide_by, far);
}

/// Which regions of the realm proved the permission.
fn proven(regions: &[&str]) -> BTreeSet<Region> {
    regions.iter().map(|name| region(name)).collect()
}

impl World {
    fn is_asked(&mut self) -> Result<Decision, Refusal> {
        let template = template(self.now + SignedDuration::from_hours(24 * 30));
        self.happens(PolicyEvent::AccessRequested { template }, &support())
    }

    /// Active, and asked for a permission.
    pub fn asked() -> (Self, Uuid) {
        let mut world = Self::active();
        world.is_asked().unwrap();
        let id = world.policy.access_requests[0].id;
        (world, id)
    }

    pub fn grants(&mut self, request: Uuid, regions: &[&str], who: &Origin) -> Result<Decision, Refusal> {
        self.happens(PolicyEvent::AccessGranted { request, proven: proven(regions) }, who)
    }

    pub fn declines(&mut self, request: Uuid, who: &Origin) -> Result<Decision, Refusal> {
        self.happens(PolicyEvent::AccessDeclined { request }, who)
    }
}

#[test]
fn k1_a_template_is_asked_once_of_whoever_has_keys_in_use() {
    let mut world = World::active();
    let decision = world.is_asked().unwrap();
    let [row] = decision.outbox.as_slice() else { panic!("one ticket") };
    let Effect::OpenTicket { title, body, ticket } = &row.effect else { panic!("{:?}", row.effect) };
    assert!(title.starts_with("New permissions"), "{title}");
    assert!(body.contains("kms:DescribeKey") && body.contains(&ticket.to_string()), "{body}");
    assert_eq!(world.policy.access_requests[0].ticket, *ticket);
    assert!(matches!(world.is_asked(), Err(Refusal::Redundant)));
    assert!(World::suspended().is_asked().is_ok(), "its keys are watched, and it comes back");
    assert!(matches!(World::requested().is_asked(), Err(Refusal::IllegalForState { .. })));
}

#[test]
fn k1_accepted_is_what_every_region_proved_and_it_is_accepted_once() {
    let (mut world, id) = World::asked();
    for some in [&[][..], &[DUBLIN], &[FRANKFURT]] {
        let refused = world.grants(id, some, &admin()).unwrap_err();
        let Refusal::KeysNotUsable { faults } = refused else { panic!("{refused:?}") };
        assert_eq!(faults.len() + some.len(), 2);
        assert!(faults.keys().all(|region| !proven(some).contains(region)));
    }
    assert!(matches!(world.grants(Uuid::nil(), &[DUBLIN, FRANKFURT], &admin()), Err(Refusal::Stale)));
    let accepted = world.grants(id, &[DUBLIN, FRANKFURT], &admin()).unwrap();
    assert!(matches!(accepted.outbox[0].effect, Effect::ResolveTicket { .. }));
    assert_eq!(world.policy.access_requests[0].answer, AccessAnswer::Granted { at: world.now });
    assert!(matches!(world.grants(id, &[DUBLIN, FRANKFURT], &admin()), Err(Refusal::Redundant)));
    assert!(matches!(world.declines(id, &admin()), Err(Refusal::IllegalForState { .. })), "it is proven");
}

#[test]
fn k1_declined_once_and_accepted_after_all() {
    let (mut world, id) = World::asked();
    assert!(matches!(world.declines(Uuid::nil(), &admin()), Err(Refusal::Stale)));
    let declined = world.declines(id, &admin()).unwrap();
    assert!(matches!(declined.outbox[0].effect, Effect::CommentTicket { .. }));
    assert!(matches!(world.declines(id, &admin()), Err(Refusal::Redundant)));
    assert!(world.grants(id, &[DUBLIN, FRANKFURT], &admin()).is_ok());
}

#[test]
fn k1_nobody_but_an_org_admin_answers_for_the_customer() {
    for stranger in [support(), prober()] {
        let (mut world, id) = World::asked();
        let granted = world.grants(id, &[DUBLIN, FRANKFURT], &stranger);
        assert!(matches!(granted, Err(Refusal::Forbidden { .. })), "{granted:?}");
        assert!(matches!(world.declines(id, &stranger), Err(Refusal::Forbidden { .. })));
    }
}

#[test]
fn k1_the_keys_have_the_newest_template_that_was_proven_and_before_that_the_one_of_the_beginning() {
    let mut world = World::active();
    assert_eq!(world.policy.template_version(), KEY_POLICY_VERSION);
    let at = Timestamp::UNIX_EPOCH;
    let (granted, declined) = (AccessAnswer::Granted { at }, AccessAnswer::Declined { at });
    for (version, answer, expected) in [
        ("v1", declined.clone(), KEY_POLICY_VERSION),
        ("v2", granted.clone(), "v2"),
        ("v3", granted, "v3"),
        ("v4", declined, "v3"),
        ("v5", AccessAnswer::Open, "v3"),
    ] {
        world
            .policy
            .access_requests
            .push(AccessRequest { version: version.parse().unwrap(), ..request(answer) });
        assert_eq!(world.policy.template_version(), expected, "after {version}");
    }
}
