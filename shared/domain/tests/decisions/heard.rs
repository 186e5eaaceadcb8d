//! What an event said is shown as it is, or not at all.

use claviger_domain::decide::Refusal;
use claviger_domain::event::PolicyEvent;
use claviger_domain::heard::{CallerArn, HeardChange};
use claviger_domain::key_access::{CustomerRole, KeyAccess};
use rstest::rstest;

use crate::reencryption::said;
use crate::support::{DISABLED, USABLE, World, acme, prober};

const ADA: &str = "arn:aws:sts::222222222222:assumed-role/SecurityAdmin/ada";

#[rstest]
#[case::a_session(ADA)]
#[case::a_user("arn:aws:iam::222222222222:user/ops/ada")]
#[case::another_partition("arn:aws-us-gov:iam::222222222222:root")]
#[case::every_sign_that_iam_allows("arn:aws:iam::222222222222:role/a+b=c,d.e@f_g-h")]
#[case::as_long_as_may_be(&format!("arn:aws:iam::222222222222:role/{}", "a".repeat(512 - 31)))]
fn r9_who_made_a_call_is_shown_as_cloudtrail_names_it(#[case] text: &str) {
    let caller: CallerArn = text.parse().unwrap();
    assert_eq!((caller.to_string(), String::from(caller)), (text.to_owned(), text.to_owned()));
}

#[rstest]
#[case::nothing("")]
#[case::a_name("ada")]
#[case::another_service("arn:aws:kms:eu-central-1:222222222222:key/1")]
#[case::not_from_the_beginning("x:aws:iam::222222222222:root")]
#[case::a_line_of_its_own("arn:aws:iam::222222222222:role/a\nYour keys are fine.")]
#[case::markup("arn:aws:iam::222222222222:role/<b>")]
#[case::a_space("arn:aws:iam::222222222222:role/a b")]
#[case::too_long(&format!("arn:aws:iam::222222222222:role/{}", "a".repeat(512 - 30)))]
fn r9_what_could_alter_how_a_ticket_reads_is_no_caller(#[case] text: &str) {
    assert!(text.parse::<CallerArn>().is_err());
    assert!(serde_json::from_value::<CallerArn>(text.into()).is_err());
}

#[test]
fn r9_a_ticket_says_what_the_event_said_and_that_nobody_verified_it() {
    let heard = HeardChange {
        slug: "key-disabled".to_owned(),
        by: Some(ADA.parse().unwrap()),
        at: Some("2027-01-15T10:11:12.345Z".parse().unwrap()),
        key: None,
        role: None,
    };
    assert_eq!(
        heard.line(),
        format!(
            "According to an event of your account, not verified by us: key-disabled by {ADA} at 2027-01-15T10:11:12Z."
        )
    );
    let little = HeardChange { by: None, at: None, ..heard };
    assert!(little.line().ends_with("key-disabled by somebody."), "{}", little.line());
}

fn change(slug: &str, key: Option<&str>, role: Option<&str>) -> HeardChange {
    HeardChange {
        slug: slug.to_owned(),
        by: None,
        at: None,
        key: key.map(|key| key.parse().unwrap()),
        role: role.map(|role| role.parse().unwrap()),
    }
}

const OURS: Option<&str> = Some("arn:aws:kms:eu-west-1:222222222222:key/bb");
const ANOTHER: Option<&str> = Some("arn:aws:kms:eu-west-1:222222222222:key/cc");

#[rstest]
#[case::of_its_key("key-disabled", OURS, None, (true, true))]
#[case::of_another_key("key-disabled", ANOTHER, None, (false, false))]
#[case::of_a_key_that_is_not_named("key-disabled", None, None, (true, true))]
#[case::of_its_role("role-deleted", None, Some("key-management"), (false, true))]
#[case::of_another_role("role-deleted", None, Some("billing"), (false, false))]
#[case::of_a_role_that_is_not_named("role-policy-changed", None, None, (false, true))]
#[case::of_trust("trust-policy-changed", None, Some("key-management"), (false, true))]
#[case::of_a_new_role("role-created", None, Some("key-management"), (false, true))]
#[case::of_its_key_and_another_role("grant-created", OURS, Some("billing"), (true, false))]
#[case::of_another_key_and_its_role("grant-created", ANOTHER, Some("key-management"), (false, false))]
fn r8_a_change_concerns_whose_key_or_role_it_names(
    #[case] slug: &str,
    #[case] key: Option<&str>,
    #[case] role: Option<&str>,
    #[case] (of_cmk, of_byok): (bool, bool),
) {
    let heard = change(slug, key, role);
    let mut world = World::active();
    assert_eq!(heard.concerns(&world.policy), of_cmk, "keys reached by their policies");
    let arn = "arn:aws:iam::222222222222:role/security/key-management".parse().unwrap();
    world.policy.access = KeyAccess::Role(CustomerRole { arn, external_id: acme().external_id });
    assert_eq!(heard.concerns(&world.policy), of_byok, "keys reached through a role");
}

#[test]
fn r8_what_gives_access_is_told_apart_from_what_takes_it() {
    for slug in ["key-enabled", "key-deletion-cancelled", "key-material-imported", "key-store-connected"] {
        assert!(change(slug, None, None).gives(), "{slug}");
    }
    for slug in ["key-disabled", "key-deletion-scheduled", "role-deleted", "trust-policy-changed", "unknown"]
    {
        assert!(!change(slug, None, None).gives(), "{slug}");
    }
}

#[test]
fn r8_what_an_event_said_is_told_once_on_a_ticket_and_again_on_the_next_one() {
    let mut world = World::active();
    let heard = vec![change("key-disabled", OURS, None)];
    let report = |world: &mut World, frankfurt, dublin| {
        world.later(60);
        let rounds = world.rounds(frankfurt, dublin);
        let event = PolicyEvent::ProbesReported { rounds, heard: heard.clone() };
        let decision = world.happens(event, &prober()).unwrap();
        said(&decision).iter().filter(|body| body.contains("According to an event")).count()
    };
    assert_eq!(report(&mut world, USABLE, DISABLED), 1);
    assert_eq!((world.policy.told_heard.as_slice(), world.policy.told_until), (heard.as_slice(), None));
    assert_eq!(report(&mut world, DISABLED, USABLE), 0, "the same ticket");
    assert_eq!(report(&mut world, USABLE, USABLE), 0, "which is resolved now");
    assert_eq!((world.policy.told_heard.len(), world.policy.told_until), (0, Some(world.now)));
    assert_eq!(report(&mut world, USABLE, DISABLED), 1);
}

#[test]
fn r8_an_event_that_comes_after_its_probe_is_told_by_itself_and_sixteen_at_most_on_one_ticket() {
    let mut world = World::active();
    let report = |world: &mut World, heard: Vec<HeardChange>| {
        world.later(60);
        let rounds = world.rounds(USABLE, DISABLED);
        world.happens(PolicyEvent::ProbesReported { rounds, heard }, &prober())
    };
    let first = report(&mut world, Vec::new()).unwrap();
    assert!(!said(&first)[0].contains("According to an event"), "{:?}", said(&first));
    let late = change("key-disabled", OURS, None);
    let told = report(&mut world, vec![late.clone()]).unwrap();
    assert_eq!(said(&told), [late.line()]);
    assert_eq!(report(&mut world, vec![late]).unwrap_err(), Refusal::Redundant);
    let many =
        |from: u32| (from..from + 20).map(|n| change(&format!("key-disabled-{n}"), OURS, None)).collect();
    let flood = report(&mut world, many(0)).unwrap();
    let lines: Vec<&str> = said(&flood)[0].lines().collect();
    let (last, told) = lines.split_last().unwrap();
    assert_eq!(told.len(), 15);
    assert!(told.iter().all(|line| line.starts_with("According to an event")), "{told:?}");
    assert!(last.contains("your CloudTrail has it"), "{last}");
    assert_eq!(report(&mut world, many(20)).unwrap_err(), Refusal::Redundant);
}

#[test]
fn i8_a_change_is_stored_with_the_key_and_the_role_that_it_names() {
    let heard = change("role-policy-changed", OURS, Some("key-management"));
    let stored = serde_json::to_value(&heard).unwrap();
    assert_eq!((stored["key"].as_str(), stored["role"].as_str()), (OURS, Some("key-management")));
    assert_eq!(serde_json::from_value::<HeardChange>(stored).unwrap(), heard);
}
