use claviger_app::messages::ProbeAnswer;
use claviger_app::ports::{Clock, Policies, StoreError};
use claviger_app::request_error::RequestError;
use claviger_app::request_restoration::*;
use claviger_domain::decide::Refusal;
use claviger_domain::event::Origin;
use claviger_domain::ids::TicketId;
use claviger_domain::observation::ProbeRound;
use claviger_domain::observation::{Observation, RefusalKind};
use claviger_domain::policy::EncryptionPolicy;
use claviger_testkit::builders::{
    self, a_byok_enrolment, a_round, an_enrolment, an_organisation, by_admin, by_support,
    commit_active_policy, cut_off, parsed,
};
use claviger_testkit::{FakeClock, MemoryWorld, SequentialIds};
use jiff::SignedDuration;

struct Stage {
    world: MemoryWorld,
    clock: FakeClock,
    suspended: EncryptionPolicy,
}

async fn stage() -> Stage {
    let (world, clock) = (MemoryWorld::new(), FakeClock::default());
    let acme = an_organisation("acme");
    let enrolment = an_enrolment("222222222222", "europe");
    let active = commit_active_policy(&world, &acme, &enrolment, clock.now()).await;
    let now = clock.advance(SignedDuration::from_secs(60));
    let decision = cut_off(&active, now);
    world.commit_policy(Some(&active), &decision).await.unwrap();
    clock.advance(SignedDuration::from_secs(60));
    Stage { world, clock, suspended: decision.next }
}

impl Stage {
    fn answer(&self, change: impl FnOnce(&mut ProbeRound)) {
        let mut round = a_round(&self.suspended, Observation::Usable, self.clock.now());
        change(&mut round);
        self.world.prober_answers(Ok(ProbeAnswer::Probed { rounds: vec![round] }));
    }

    async fn ask(&self, ticket: TicketId, origin: &Origin) -> Result<EncryptionPolicy, RequestError> {
        let (world, settings) = (&self.world, builders::settings());
        RequestRestoration { policies: world, prober: world, clock: &self.clock, settings }
            .run(&parsed("acme"), ticket, false, origin)
            .await
    }

    fn ticket(&self) -> TicketId {
        self.suspended.ticket.unwrap()
    }
}

#[tokio::test]
async fn s1_an_admin_asks_on_the_ticket_and_asking_again_changes_nothing() {
    let stage = stage().await;
    stage.answer(|_| {});
    let policy = stage.ask(stage.ticket(), &by_admin()).await.unwrap();
    assert_eq!(policy.lifecycle.slug(), "restoring");
    assert!(!policy.fence.is_open(), "the fence opens only after the restorer has proven every key");
    let again = stage.ask(stage.ticket(), &by_admin()).await.unwrap();
    assert_eq!(again.version, policy.version);
}

#[tokio::test]
async fn s1_nobody_else_may_ask_and_no_key_is_touched_for_them() {
    let stage = stage().await;
    let refused = stage.ask(stage.ticket(), &by_support()).await;
    assert!(matches!(refused, Err(RequestError::Refused(Refusal::Forbidden { .. }))));
    let other = TicketId::from_uuid(SequentialIds::uuid(9));
    let refused = stage.ask(other, &by_admin()).await;
    assert!(matches!(refused, Err(RequestError::Refused(Refusal::WrongTicket { .. }))));
    assert!(stage.world.take_probe_requests().is_empty());
}

#[tokio::test]
async fn s2_what_still_refuses_is_named_by_region() {
    let stage = stage().await;
    stage.answer(|round| {
        let refused = Observation::Refused(RefusalKind::KeyDisabled);
        round.observations.insert(parsed("eu-west-1"), refused);
    });
    let refused = stage.ask(stage.ticket(), &by_admin()).await;
    let Err(RequestError::Refused(Refusal::KeysNotUsable { faults })) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(faults.keys().map(|region| region.as_str()).collect::<Vec<_>>(), ["eu-west-1"]);
}

#[tokio::test]
async fn a_restoration_is_decided_anew_when_a_sweep_was_faster() {
    let stage = stage().await;
    stage.world.fail_changes([StoreError::Conflict, StoreError::Conflict]);
    stage.answer(|_| {});
    let policy = stage.ask(stage.ticket(), &by_admin()).await.unwrap();
    assert_eq!(policy.lifecycle.slug(), "restoring");
}

#[tokio::test]
async fn s3_after_the_window_self_service_is_refused() {
    let (world, clock) = (MemoryWorld::new(), FakeClock::default());
    let acme = an_organisation("acme");
    let enrolment = a_byok_enrolment("222222222222", "europe");
    let active = commit_active_policy(&world, &acme, &enrolment, clock.now()).await;
    let decision = cut_off(&active, clock.advance(SignedDuration::from_secs(60)));
    world.commit_policy(Some(&active), &decision).await.unwrap();
    clock.advance(SignedDuration::from_hours(24 * 15));
    let stage = Stage { world, clock, suspended: decision.next };
    let refused = stage.ask(stage.ticket(), &by_admin()).await;
    assert!(matches!(refused, Err(RequestError::Refused(Refusal::WindowLapsed))));
}
