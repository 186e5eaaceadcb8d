use claviger_app::ports::{Beat, Clock, Policies};
use claviger_app::show_policy::*;
use claviger_domain::observation::RefusalKind;
use claviger_domain::policy::KeyHealth;
use claviger_testkit::builders::{self, an_enrolment, an_organisation, commit_active_policy, cut_off};
use claviger_testkit::{FakeClock, MemoryWorld};
use jiff::SignedDuration;

#[tokio::test]
async fn s3_a_suspended_policy_shows_its_window_its_ticket_and_each_key_with_its_remedy() {
    let (world, clock) = (MemoryWorld::new(), FakeClock::default());
    let acme = an_organisation("acme");
    let now = clock.now();
    let active = commit_active_policy(&world, &acme, &an_enrolment("222222222222", "europe"), now).await;
    let later = clock.advance(SignedDuration::from_secs(60));
    world.commit_policy(Some(&active), &cut_off(&active, later)).await.unwrap();
    clock.advance(SignedDuration::from_hours(24 * 11));
    let settings = builders::settings();
    let show = ShowPolicy { policies: &world, watch_list: &world, clock: &clock, settings };
    let view = serde_json::to_value(show.run(&acme.name).await.unwrap()).unwrap();
    assert_eq!(view["lifecycle"], "suspended");
    assert_eq!(view["window"]["phase"], "best-effort");
    assert_eq!(view["fence"]["open"], false);
    assert_eq!(view["fence"]["causes"][0], "key");
    assert_eq!(view["keys"][1]["health"], "disabled");
    assert!(view["keys"][1]["help"].as_str().unwrap().contains("enable-key"));
    assert!(view["ticketId"].is_string());
    assert_eq!(view["cutOffBoundSeconds"], 100);
}

#[tokio::test]
async fn a_probe_is_as_old_as_the_last_sweep_that_got_an_answer() {
    let (world, clock) = (MemoryWorld::new(), FakeClock::default());
    let acme = an_organisation("acme");
    let policy =
        commit_active_policy(&world, &acme, &an_enrolment("222222222222", "europe"), clock.now()).await;
    let swept_at = clock.advance(SignedDuration::from_secs(60));
    let settings = builders::settings();
    let show = ShowPolicy { policies: &world, watch_list: &world, clock: &clock, settings };
    for (unproven, expected) in [(vec![], Some(swept_at)), (vec![(policy.id, swept_at)], policy.probed_at)] {
        let unproven = unproven.into_iter().collect();
        let beat =
            Beat { swept_at, watched_until: swept_at, unproven, mass_failure: false, refused: 0, open: 0 };
        assert_eq!(show.view(&policy, Some(&beat)).keys[0].last_probe_at, expected);
    }
}

#[tokio::test]
async fn r4_an_ambiguous_refusal_says_from_when_on_it_counts_and_a_definite_one_does_not() {
    let (world, clock) = (MemoryWorld::new(), FakeClock::at("2026-11-23T09:00:00Z"));
    let acme = an_organisation("acme");
    let mut policy =
        commit_active_policy(&world, &acme, &an_enrolment("222222222222", "europe"), clock.now()).await;
    let settings = builders::settings();
    let show = ShowPolicy { policies: &world, watch_list: &world, clock: &clock, settings };
    let mut help = |kind, refused_since, stands| {
        for key in policy.keys.values_mut() {
            key.health = KeyHealth::Refused { kind, refused_since, stands };
        }
        show.view(&policy, None).keys[0].help.clone().unwrap()
    };
    let denied = RefusalKind::AccessDenied;
    let now = clock.now();
    let waits = help(denied, Some(now), false);
    assert!(
        waits.contains("put-key-policy") && waits.ends_with("if it lasts until 2026-11-23T09:01:00Z"),
        "{waits}"
    );
    assert!(help(denied, None, false).ends_with("so it does not count while that lasts"));
    assert!(!help(denied, Some(now), true).contains("not counted"));
    assert!(!help(RefusalKind::KeyDisabled, Some(now), true).contains("not counted"));
}
