use claviger_app::ports::{Clock, StoreError, Tickets};
use claviger_app::request_error::RequestError;
use claviger_app::tickets::*;
use claviger_domain::authorisation::Role;
use claviger_domain::ids::TicketId;
use claviger_domain::ticket::Ticket;
use claviger_domain::ticket::TicketStatus;
use claviger_testkit::{FakeClock, MemoryWorld, SequentialIds};

#[tokio::test]
async fn a_comment_is_kept_when_another_comes_at_the_same_moment() {
    let (world, clock) = (MemoryWorld::new(), FakeClock::default());
    let ticket = Ticket {
        id: TicketId::from_uuid(SequentialIds::uuid(1)),
        organisation: "acme".parse().unwrap(),
        title: "CMK revocation started for AWS account 222222222222".to_owned(),
        status: TicketStatus::Open,
        opened_at: clock.now(),
        resolved_at: None,
        comments: Vec::new(),
        version: 1,
    };
    world.save_ticket(&ticket).await.unwrap();
    world.fail_changes([StoreError::Conflict]);
    let people = PeoplesTickets { tickets: &world, clock: &clock };
    people.comment(&ticket.organisation, ticket.id, "keys are back", Role::OrgAdmin, None).await.unwrap();
    let known = people.list(&ticket.organisation, None, 10).await.unwrap().items;
    assert_eq!(known[0].comments[0].author, "org-admin");
    assert_eq!(known[0].status, TicketStatus::Open);
    let foreign = people.comment(&"globex".parse().unwrap(), ticket.id, "hm", Role::OrgAdmin, None).await;
    assert!(matches!(foreign, Err(RequestError::NotFound { .. })));
}
