//! What becomes of an app instance: approval, orders and their answers, and the end of its site.

use claviger_domain::decide::Refusal;
use claviger_domain::effect::{Effect, Order};
use claviger_domain::event::{Actor, InstanceEvent, Origin};
use claviger_domain::fact::AuditHead;
use claviger_domain::fence::Epoch;
use claviger_domain::ids::{InstanceId, OrganisationId, PolicyId, TicketId};
use claviger_domain::instance::{
    Acknowledgement, AppInstance, InstanceDecision, InstanceStatus, SiteDeletion, create, decide_instance,
};
use jiff::{SignedDuration, Timestamp};
use rstest::rstest;
use uuid::Uuid;

use crate::support::{admin, by, prober, support};

const LATER: SignedDuration = SignedDuration::from_hours(1);
const FAMILY: PolicyId = PolicyId::from_uuid(Uuid::from_u128(9));

fn now() -> Timestamp {
    "2027-01-15T10:00:00Z".parse().unwrap()
}

fn records() -> Origin {
    by(Actor::System("records".parse().unwrap()))
}

fn instance(status: InstanceStatus) -> AppInstance {
    AppInstance {
        id: InstanceId::from_uuid(Uuid::from_u128(11)),
        organisation: OrganisationId::from_uuid(Uuid::from_u128(1)),
        organisation_name: "acme".parse().unwrap(),
        policy: Some(PolicyId::from_uuid(Uuid::from_u128(2))),
        site: "acme-eng".parse().unwrap(),
        app: "jira".parse().unwrap(),
        realm: None,
        status,
        epoch: Epoch(5),
        acknowledged: None,
        deletion: None,
        former_site: None,
        audit: AuditHead::default(),
        version: 3,
    }
}

fn requested() -> InstanceStatus {
    InstanceStatus::Requested { at: now(), by: "ada".parse().unwrap(), due_at: now() + LATER }
}

/// One of each, in the order of a life.
fn every_status() -> [InstanceStatus; 8] {
    let at = now();
    [
        requested(),
        InstanceStatus::Provisioning { since: at, due_at: at + LATER },
        InstanceStatus::Active { since: at },
        InstanceStatus::Suspended { since: at },
        InstanceStatus::NotEncrypted { since: at, suspended_since: None },
        InstanceStatus::Rejected { at, reason: "no".to_owned() },
        InstanceStatus::Erasing { since: at, counted: Some(7) },
        InstanceStatus::Deleted { at, data_keys: 7 },
    ]
}

fn decided(
    instance: &AppInstance,
    event: &InstanceEvent,
    origin: &Origin,
) -> Result<InstanceDecision, Refusal> {
    decide_instance(instance, event, origin, now() + LATER)
}

/// In which states an event is accepted, by the words of the states.
fn accepted_in(
    event: &InstanceEvent,
    origin: &Origin,
    prepare: impl Fn(&mut AppInstance),
) -> Vec<&'static str> {
    let accepts = |status: &InstanceStatus| {
        let mut instance = instance(status.clone());
        prepare(&mut instance);
        decided(&instance, event, origin).is_ok()
    };
    every_status().iter().filter(|status| accepts(status)).map(InstanceStatus::slug).collect()
}

fn deleted(instance: &mut AppInstance) {
    let ticket = TicketId::from_uuid(Uuid::from_u128(4));
    instance.deletion = Some(SiteDeletion { at: now(), erase_at: now() + LATER, ticket: Some(ticket) });
}

#[test]
fn e3_a_request_that_is_approved_gets_its_first_data_key_and_keeps_its_due_date() {
    let waiting = instance(requested());
    let approved = decided(&waiting, &InstanceEvent::InstanceApproved, &support()).unwrap();
    assert_eq!(
        approved.next.status,
        InstanceStatus::Provisioning { since: now() + LATER, due_at: now() + LATER }
    );
    let effects: Vec<_> = approved.outbox.iter().map(|row| row.effect.clone()).collect();
    assert_eq!(effects, [Effect::ProvisionInstance { instance: waiting.id }]);
    assert_eq!((approved.next.version, approved.next.audit.seq), (4, 1));
    let again = decided(&approved.next, &InstanceEvent::InstanceApproved, &support());
    assert!(matches!(again, Err(Refusal::Redundant)), "{again:?}");
    assert_eq!(accepted_in(&InstanceEvent::InstanceApproved, &support(), |_| {}), ["requested"]);
}

#[test]
fn e3_nobody_but_support_approves_or_rejects() {
    let rejected = InstanceEvent::InstanceRejected { reason: "r".to_owned() };
    for origin in [admin(), prober(), records()] {
        assert_eq!(accepted_in(&InstanceEvent::InstanceApproved, &origin, |_| {}), [""; 0]);
        assert_eq!(accepted_in(&rejected, &origin, |_| {}), [""; 0]);
    }
    assert_eq!(accepted_in(&rejected, &support(), |_| {}), ["requested"]);
}

#[test]
fn a_new_instance_is_provisioned_at_once_only_where_nobody_has_to_approve() {
    for status in every_status() {
        let at_once = matches!(status, InstanceStatus::Provisioning { .. });
        let made = create(instance(status), &admin(), now());
        let effects: Vec<_> = made.outbox.iter().map(|row| row.effect.clone()).collect();
        let expected = at_once.then_some(Effect::ProvisionInstance { instance: made.next.id });
        assert_eq!(effects, expected.into_iter().collect::<Vec<_>>(), "{}", made.next.status.slug());
        assert_eq!(made.fact.state, made.next.status.slug());
    }
}

#[test]
fn an_instance_is_active_once_it_has_a_data_key_and_never_falls_behind_its_own_epoch() {
    let waiting = instance(InstanceStatus::Provisioning { since: now(), due_at: now() });
    for (epoch, expected) in [(4, 5), (5, 5), (6, 6)] {
        let event = InstanceEvent::InstanceProvisioned { epoch: Epoch(epoch) };
        let next = decided(&waiting, &event, &prober()).unwrap().next;
        assert_eq!((next.status.slug(), next.epoch), ("active", Epoch(expected)));
        let again = decided(&next, &event, &prober());
        assert!(matches!(again, Err(Refusal::Redundant)), "{again:?}");
    }
    let event = InstanceEvent::InstanceProvisioned { epoch: Epoch(6) };
    assert_eq!(accepted_in(&event, &prober(), |_| {}), ["provisioning"]);
}

#[rstest]
#[case::suspend(Order::Suspend, "suspended")]
#[case::restore(Order::Restore, "active")]
fn r9_an_order_counts_only_if_its_epoch_is_newer_than_the_last(#[case] order: Order, #[case] then: &str) {
    let of = |epoch| match order {
        Order::Suspend => InstanceEvent::SuspensionOrdered { epoch: Epoch(epoch) },
        Order::Restore => InstanceEvent::RestorationOrdered { epoch: Epoch(epoch) },
    };
    let told = instance(InstanceStatus::Active { since: now() });
    assert!(matches!(decided(&told, &of(4), &prober()), Err(Refusal::Stale)));
    assert!(matches!(decided(&told, &of(5), &prober()), Err(Refusal::Redundant)));
    let newer = decided(&told, &of(6), &prober()).unwrap();
    assert_eq!((newer.next.status.slug(), newer.next.epoch), (then, Epoch(6)));
    let effects: Vec<_> = newer.outbox.iter().map(|row| row.effect.clone()).collect();
    assert_eq!(effects, [Effect::TellApp { instance: told.id, order, epoch: Epoch(6) }]);
    assert_eq!(accepted_in(&of(6), &prober(), |_| {}), ["active", "suspended"]);
}

#[test]
fn a6_the_unencrypted_of_a_family_are_told_in_the_name_of_the_familys_policy_and_stay_unencrypted() {
    let suspension = |epoch| InstanceEvent::FamilySuspensionOrdered { epoch: Epoch(epoch), policy: FAMILY };
    let restoration = |epoch| InstanceEvent::FamilyRestorationOrdered { epoch: Epoch(epoch), policy: FAMILY };
    let free = instance(InstanceStatus::NotEncrypted { since: now(), suspended_since: None });
    assert!(matches!(decided(&free, &suspension(5), &prober()), Err(Refusal::Redundant)));
    assert!(matches!(decided(&free, &suspension(4), &prober()), Err(Refusal::Stale)));

    let told = decided(&free, &suspension(6), &prober()).unwrap();
    assert_eq!(
        told.next.status,
        InstanceStatus::NotEncrypted { since: now(), suspended_since: Some(now() + LATER) }
    );
    let rows: Vec<_> = told.outbox.iter().map(|row| (row.policy, row.effect.clone())).collect();
    let order = Effect::TellApp { instance: free.id, order: Order::Suspend, epoch: Epoch(6) };
    assert_eq!(rows, [(FAMILY, order)]);
    assert_eq!(told.next.unanswered_since(), Some(now() + LATER));

    let back = decided(&told.next, &restoration(7), &prober()).unwrap();
    assert_eq!(back.next.status, InstanceStatus::NotEncrypted { since: now(), suspended_since: None });
    assert_eq!((back.next.epoch, back.next.unanswered_since()), (Epoch(7), None));
    assert_eq!(accepted_in(&suspension(6), &prober(), |_| {}), ["not-encrypted"]);
}

#[test]
fn r9_a_restoration_passes_its_epoch_on_to_one_that_was_never_told_to_stop_so_that_no_late_order_does() {
    let suspension = |epoch| InstanceEvent::FamilySuspensionOrdered { epoch: Epoch(epoch), policy: FAMILY };
    let restoration = InstanceEvent::FamilyRestorationOrdered { epoch: Epoch(7), policy: FAMILY };
    let free = instance(InstanceStatus::NotEncrypted { since: now(), suspended_since: None });
    let passed = decided(&free, &restoration, &prober()).unwrap();
    assert_eq!((&passed.next.status, passed.next.epoch), (&free.status, Epoch(7)));
    assert!(passed.outbox.is_empty(), "its app has nothing to do");
    assert!(matches!(decided(&passed.next, &suspension(6), &prober()), Err(Refusal::Stale)));
    assert!(matches!(decided(&passed.next, &restoration, &prober()), Err(Refusal::Redundant)));
    assert_eq!(decided(&passed.next, &suspension(8), &prober()).unwrap().next.status.slug(), "suspended");
}

#[test]
fn an_answer_counts_once_and_only_for_the_order_that_was_given_last() {
    let of = |epoch| InstanceEvent::OrderAcknowledged { epoch: Epoch(epoch), evicted: 12 };
    let mut told = instance(InstanceStatus::Suspended { since: now() });
    assert!(matches!(decided(&told, &of(4), &prober()), Err(Refusal::Stale)));
    let early = decided(&told, &of(6), &prober());
    assert!(matches!(early, Err(Refusal::IllegalForState { .. })), "no such order was given: {early:?}");
    let answered = decided(&told, &of(5), &prober()).unwrap().next;
    let expected = Acknowledgement { epoch: Epoch(5), at: now() + LATER, evicted: 12 };
    assert_eq!(answered.acknowledged, Some(expected));
    assert!(matches!(decided(&answered, &of(5), &prober()), Err(Refusal::Redundant)));
    // An answer to the order before does not stand in the way of this one's.
    told.acknowledged = Some(Acknowledgement { epoch: Epoch(4), at: now(), evicted: 1 });
    assert_eq!(decided(&told, &of(5), &prober()).unwrap().next.acknowledged, Some(expected));
}

#[test]
fn an_answer_is_waited_for_while_an_order_to_suspend_has_none_of_its_own_epoch() {
    for status in every_status() {
        let waits = matches!(status, InstanceStatus::Suspended { .. });
        assert_eq!(instance(status.clone()).unanswered_since(), waits.then(now), "{}", status.slug());
    }
    let mut told = instance(InstanceStatus::Suspended { since: now() });
    for (epoch, waits) in [(4, true), (5, false), (6, false)] {
        told.acknowledged = Some(Acknowledgement { epoch: Epoch(epoch), at: now(), evicted: 0 });
        assert_eq!(told.unanswered_since().is_some(), waits, "an answer to {epoch}");
    }
}

#[test]
fn a4_nobody_but_the_vendors_records_says_what_becomes_of_a_site() {
    let erase_at = now() + LATER;
    for event in [
        InstanceEvent::SiteRenamed { from: "acme-eng".parse().unwrap(), to: "acme-ops".parse().unwrap() },
        InstanceEvent::SiteDeleted { erase_at, title: "t".to_owned() },
        InstanceEvent::SiteDeletionCancelled,
    ] {
        let accepted = [accepted_in(&event, &records(), deleted), accepted_in(&event, &records(), |_| {})];
        assert!(!accepted.concat().is_empty(), "{}", event.slug());
        for origin in [admin(), support(), prober()] {
            assert_eq!(accepted_in(&event, &origin, deleted), [""; 0], "{}", event.slug());
            assert_eq!(accepted_in(&event, &origin, |_| {}), [""; 0], "{}", event.slug());
        }
    }
}

#[test]
fn a4_a_site_is_renamed_from_the_name_that_it_has() {
    let event = |from: &str, to: &str| InstanceEvent::SiteRenamed {
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
    };
    let active = instance(InstanceStatus::Active { since: now() });
    let renamed = decided(&active, &event("acme-eng", "acme-ops"), &records()).unwrap().next;
    assert_eq!((renamed.site.as_str(), renamed.former_site), ("acme-ops", Some("acme-eng".parse().unwrap())));
    assert!(matches!(decided(&active, &event("x", "acme-eng"), &records()), Err(Refusal::Redundant)));
    assert!(matches!(decided(&active, &event("x", "acme-ops"), &records()), Err(Refusal::Stale)));
    assert_eq!(
        accepted_in(&event("acme-eng", "acme-ops"), &records(), |_| {}),
        ["requested", "provisioning", "active", "suspended", "not-encrypted", "erasing"]
    );
}

#[test]
fn a4_a_deleted_site_changes_nothing_of_any_app_until_its_time_is_over() {
    let erase_at = now() + LATER + LATER;
    let event = InstanceEvent::SiteDeleted { erase_at, title: "t".to_owned() };
    let told = |status: InstanceStatus| decided(&instance(status), &event, &records());
    for status in every_status() {
        let word = status.slug();
        let result = told(status.clone());
        match word {
            "not-encrypted" => {
                let decision = result.unwrap();
                assert_eq!(decision.next.status, status, "it keeps its place");
                let expected = SiteDeletion { at: now() + LATER, erase_at, ticket: None };
                assert_eq!(decision.next.deletion, Some(expected));
                assert!(decision.outbox.is_empty());
                let again = decided(&decision.next, &event, &records());
                assert!(matches!(again, Err(Refusal::Redundant)), "{again:?}");
            }
            "requested" | "provisioning" | "active" | "suspended" => {
                let decision = result.unwrap();
                assert_eq!(decision.next.status.slug(), word, "everything goes on as before");
                let deletion = decision.next.deletion.clone().unwrap();
                assert_eq!((deletion.at, deletion.erase_at), (now() + LATER, erase_at));
                let [row] = decision.outbox.as_slice() else { panic!("one ticket") };
                let Effect::OpenTicket { ticket, title, body } = &row.effect else {
                    panic!("{:?}", row.effect)
                };
                assert_eq!((Some(*ticket), title.as_str()), (deletion.ticket, "t"));
                assert!(body.contains("`acme-eng`") && body.contains("2027-01-15T12:00:00Z"), "{body}");
                let again = decided(&decision.next, &event, &records());
                assert!(matches!(again, Err(Refusal::Redundant)), "{again:?}");
            }
            "erasing" | "deleted" => assert!(matches!(result, Err(Refusal::Redundant)), "{word}"),
            _ => assert!(matches!(result, Err(Refusal::IllegalForState { .. })), "{word}"),
        }
    }
}

#[test]
fn a4_a_deletion_is_taken_back_until_the_erasure_begins() {
    let event = InstanceEvent::SiteDeletionCancelled;
    let mut active = instance(InstanceStatus::Active { since: now() });
    assert!(matches!(decided(&active, &event, &records()), Err(Refusal::SiteNotDeleted)));
    deleted(&mut active);
    let ticket = active.deletion.clone().unwrap().ticket;
    let back = decided(&active, &event, &records()).unwrap();
    assert_eq!(back.next.deletion, None);
    assert!(
        matches!(&back.outbox.first().unwrap().effect, Effect::ResolveTicket { ticket: of, .. } if Some(*of) == ticket)
    );
    for status in every_status().into_iter().skip(6) {
        let mut gone = instance(status);
        deleted(&mut gone);
        assert!(matches!(decided(&gone, &event, &records()), Err(Refusal::ErasureBegan)));
    }
}

#[test]
fn a4_data_keys_go_when_the_time_is_over_and_not_a_moment_before() {
    let event = InstanceEvent::SiteDeletionDue;
    let mut active = instance(InstanceStatus::Active { since: now() });
    assert!(matches!(decided(&active, &event, &prober()), Err(Refusal::Redundant)), "no site was deleted");
    deleted(&mut active);
    let early = decide_instance(&active, &event, &prober(), now() + LATER - SignedDuration::from_secs(1));
    assert!(matches!(early, Err(Refusal::Stale)), "{early:?}");
    let due = decide_instance(&active, &event, &prober(), now() + LATER).unwrap();
    assert_eq!(due.next.status, InstanceStatus::Erasing { since: now() + LATER, counted: None });
    let effects: Vec<_> = due.outbox.iter().map(|row| row.effect.clone()).collect();
    assert!(
        matches!(&effects[..], [Effect::CommentTicket { .. }, Effect::EraseInstance { .. }]),
        "{effects:?}"
    );
    assert_eq!(
        accepted_in(&event, &prober(), deleted),
        ["requested", "provisioning", "active", "suspended", "not-encrypted"]
    );
    let mut erasing = instance(InstanceStatus::Erasing { since: now(), counted: None });
    deleted(&mut erasing);
    assert!(matches!(decided(&erasing, &event, &prober()), Err(Refusal::Redundant)));
}

#[test]
fn a3_what_was_never_encrypted_is_gone_when_the_time_is_over_and_can_be_taken_back_until_then() {
    let due = InstanceEvent::SiteDeletionDue;
    for status in [requested(), InstanceStatus::NotEncrypted { since: now(), suspended_since: None }] {
        let mut marked = instance(status.clone());
        deleted(&mut marked);
        let back = decided(&marked, &InstanceEvent::SiteDeletionCancelled, &records()).unwrap().next;
        assert_eq!((back.status, back.deletion), (status, None));
        let early = decide_instance(&marked, &due, &prober(), now() + LATER - SignedDuration::from_secs(1));
        assert!(matches!(early, Err(Refusal::Stale)), "{early:?}");
        let gone = decide_instance(&marked, &due, &prober(), now() + LATER).unwrap();
        assert_eq!(gone.next.status, InstanceStatus::Deleted { at: now() + LATER, data_keys: 0 });
        assert!(!gone.next.status.holds_place() && gone.next.deletion.is_none());
        assert!(gone.outbox.iter().all(|row| matches!(row.effect, Effect::ResolveTicket { .. })));
        let again = decided(&gone.next, &due, &prober());
        assert!(matches!(again, Err(Refusal::Redundant)), "{again:?}");
    }
    // A request that is rejected meanwhile leaves nothing behind.
    let mut marked = instance(requested());
    deleted(&mut marked);
    let no = InstanceEvent::InstanceRejected { reason: "no".to_owned() };
    let rejected = decided(&marked, &no, &support()).unwrap();
    assert_eq!((rejected.next.status.slug(), rejected.next.deletion), ("rejected", None));
    assert_eq!(rejected.outbox.len(), 1, "its ticket is resolved");
}

#[test]
fn a4_what_there_is_to_erase_is_counted_once_before_the_first_key_goes() {
    let counted = InstanceEvent::DataKeysCounted { data_keys: 9 };
    let erased = InstanceEvent::DataKeysErased;
    let mut erasing = instance(InstanceStatus::Erasing { since: now(), counted: None });
    deleted(&mut erasing);
    let early = decided(&erasing, &erased, &prober());
    assert!(matches!(early, Err(Refusal::IllegalForState { .. })), "nothing was counted yet: {early:?}");
    let known = decided(&erasing, &counted, &prober()).unwrap().next;
    assert_eq!(known.status, InstanceStatus::Erasing { since: now(), counted: Some(9) });
    assert!(matches!(decided(&known, &counted, &prober()), Err(Refusal::Redundant)));
    let gone = decided(&known, &erased, &prober()).unwrap();
    assert_eq!(gone.next.status, InstanceStatus::Deleted { at: now() + LATER, data_keys: 9 });
    assert_eq!(gone.next.deletion, None);
    let [row] = gone.outbox.as_slice() else { panic!("one ticket") };
    assert!(matches!(&row.effect, Effect::ResolveTicket { body, .. } if body.starts_with("9 data keys")));
    assert!(matches!(decided(&gone.next, &erased, &prober()), Err(Refusal::Redundant)));
    assert_eq!(accepted_in(&erased, &prober(), |_| {}), ["erasing"]);
    assert_eq!(accepted_in(&counted, &prober(), |_| {}), [""; 0], "what is erasing there was counted");
}
