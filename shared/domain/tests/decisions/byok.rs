//! An organisation whose keys we make: what is decided on the way to them.

use claviger_domain::decide::Refusal;
use claviger_domain::event::PolicyEvent;
use claviger_domain::key_access::KeyAccess;
use claviger_domain::observation::ProbeRound;
use rstest::rstest;

use crate::support::{DUBLIN, FRANKFURT, USABLE, World, acme, prober, region, support as agent};

fn made(frankfurt: &str, dublin: &str) -> PolicyEvent {
    let keys = [(region(FRANKFURT), frankfurt.parse().unwrap()), (region(DUBLIN), dublin.parse().unwrap())];
    PolicyEvent::KeysCreated { keys: keys.into() }
}

const MADE_IN_FRANKFURT: &str = "arn:aws:kms:eu-central-1:222222222222:key/aa";
const MADE_IN_DUBLIN: &str = "arn:aws:kms:eu-west-1:222222222222:key/bb";

#[test]
fn e8_an_organisation_has_one_mode_and_byok_remembers_the_role_and_its_external_id() {
    let world = World::byok_approved();
    assert_eq!(world.policy.mode(), claviger_domain::catalogue::Mode::Byok);
    let role = world.policy.access.role().unwrap();
    assert_eq!(role.external_id, acme().external_id);
    assert!(world.policy.keys.is_empty(), "its keys are made once support has approved");
    assert_eq!(World::requested().policy.access, KeyAccess::KeyPolicy);
    let facts = serde_json::to_string(&world.facts).unwrap();
    assert!(!facts.contains(acme().external_id.as_str()), "the external id is not in the audit trail");
}

#[test]
fn e7_byok_keys_are_made_in_every_region_of_the_realm_before_they_are_proven() {
    let mut world = World::byok_approved();
    let (canaries, round) =
        ([].into(), ProbeRound { observations: [].into(), ..world.round(USABLE, USABLE) });
    world.happens(PolicyEvent::KeysVerified { canaries, round }, &prober()).unwrap_err();
    let only: PolicyEvent =
        PolicyEvent::KeysCreated { keys: [(region(FRANKFURT), MADE_IN_FRANKFURT.parse().unwrap())].into() };
    assert!(matches!(world.happens(only, &prober()), Err(Refusal::KeysNotUsable { .. })));
    let in_paris = "arn:aws:kms:eu-west-3:222222222222:key/cc".parse().unwrap();
    let elsewhere = PolicyEvent::KeysCreated {
        keys: [(region(FRANKFURT), MADE_IN_FRANKFURT.parse().unwrap()), (region("eu-west-3"), in_paris)]
            .into(),
    };
    let refused = world.happens(elsewhere, &prober());
    assert!(
        matches!(refused, Err(Refusal::KeysNotUsable { .. })),
        "as many, but not the realm's: {refused:?}"
    );
    world.happens(made(MADE_IN_FRANKFURT, MADE_IN_DUBLIN), &prober()).unwrap();
    assert_eq!(world.policy.keys.len(), 2);
    assert_eq!(world.policy.lifecycle.slug(), "verifying");
    let again = world.happens(made(MADE_IN_FRANKFURT, MADE_IN_DUBLIN), &prober());
    assert!(matches!(again, Err(Refusal::Redundant)));
    let canaries = [(region(FRANKFURT), "QQ==".to_owned()), (region(DUBLIN), "QQ==".to_owned())].into();
    let round = world.round(USABLE, USABLE);
    world.happens(PolicyEvent::KeysVerified { canaries, round }, &prober()).unwrap();
    assert_eq!(world.policy.lifecycle.slug(), "active");
}

#[rstest]
#[case::another_account("arn:aws:kms:eu-central-1:333333333333:key/aa", MADE_IN_DUBLIN)]
#[case::another_region("arn:aws:kms:eu-west-1:222222222222:key/aa", MADE_IN_DUBLIN)]
fn e7_a_key_made_elsewhere_is_none_of_the_organisations(#[case] frankfurt: &str, #[case] dublin: &str) {
    let mut world = World::byok_approved();
    let refused = world.happens(made(frankfurt, dublin), &prober());
    assert!(matches!(refused, Err(Refusal::KeysNotUsable { .. })));
}

#[test]
fn e8_no_key_is_made_for_an_organisation_that_made_its_own() {
    let mut world = World::requested();
    world.happens(PolicyEvent::EnrolmentApproved, &agent()).unwrap();
    let refused = world.happens(made(MADE_IN_FRANKFURT, MADE_IN_DUBLIN), &prober());
    assert!(matches!(refused, Err(Refusal::IllegalForState { .. })));
}
