//! After the window, support carries out what an org admin asked for on the ticket (spec S1, S3).

use claviger_domain::decide::{Refusal, asked_since};
use claviger_domain::event::{Origin, PolicyEvent};
use claviger_domain::ids::TicketId;
use claviger_domain::organisation::Organisation;
use claviger_domain::policy::{EncryptionPolicy, Lifecycle};
use claviger_domain::ticket::TicketRequest;
use jiff::Timestamp;

use crate::messages::{ProbeAnswer, ProbeRequest};
use crate::ports::{CallError, Clock, Policies, Prober, Tickets};
use crate::request_error::RequestError;
use crate::settings::Settings;
use crate::settle::Settle;

/// Carries a restoration out for an org admin.
pub struct CarryOutRestoration<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Where the request is.
    pub tickets: &'a dyn Tickets,
    /// Who probes.
    pub prober: &'a dyn Prober,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl CarryOutRestoration<'_> {
    /// Probes every region once and, if all answer, hands over to the restorer.
    ///
    /// # Errors
    /// When the policy has not lapsed, the ticket is another one or bears no request of somebody who is an
    /// org admin today, or keys still refuse.
    pub async fn run(
        &self,
        organisation: &Organisation,
        ticket: TicketId,
        origin: &Origin,
    ) -> Result<EncryptionPolicy, RequestError> {
        let settle = Settle { policies: self.policies, clock: self.clock, settings: self.settings };
        let policy = settle.load(&organisation.name).await?;
        // What is wrong with the state is said before what is wrong with the ticket.
        match policy.lifecycle {
            Lifecycle::Lapsed { .. } => {}
            Lifecycle::Restoring { .. } => return Ok(policy),
            Lifecycle::Suspended { .. } => return Err(Refusal::Forbidden { who: "an org admin" }.into()),
            Lifecycle::Requested { .. }
            | Lifecycle::Verifying { .. }
            | Lifecycle::Active { .. }
            | Lifecycle::Closed { .. }
            | Lifecycle::Rejected { .. } => {
                return Err(Refusal::IllegalForState { lifecycle: policy.standing() }.into());
            }
        }
        if policy.ticket != Some(ticket) {
            return Err(Refusal::WrongTicket { expected: policy.ticket }.into());
        }
        let asked = self.request_on(organisation, &policy, ticket).await?;
        let asked = asked.ok_or_else(|| RequestError::NotNow {
            reason: "the ticket bears no org admin's request that was not carried out yet".to_owned(),
            help: "an org admin asks on it first, after each restoration that stopped: `POST .../tickets/{ticketId}/comments` with \
                   `{\"body\": \"...\", \"request\": \"restoration\"}`"
                .to_owned(),
        })?;
        let request = ProbeRequest::ProbeNow { organisation: organisation.name.clone(), rounds: 1 };
        let round = match self.prober.probe(&request).await? {
            ProbeAnswer::Probed { rounds } => rounds.into_iter().next_back(),
            ProbeAnswer::Checked { .. } | ProbeAnswer::Unwrapped { .. } | ProbeAnswer::Made { .. } => None,
        };
        let round = round.ok_or_else(|| CallError {
            what: "the prober",
            reason: "it answered without a round".to_owned(),
        })?;
        let (asked_at, TicketRequest { by: asked_by, into_degraded, .. }) = asked;
        let carried = PolicyEvent::RestorationCarriedOut { ticket, asked_by, asked_at, into_degraded, round };
        settle.run(&organisation.name, &carried, origin).await
    }

    /// INVARIANT (S1, E3): the newest request on the ticket that waits to be carried out, by somebody who is an org admin
    /// at this moment.
    async fn request_on(
        &self,
        organisation: &Organisation,
        policy: &EncryptionPolicy,
        ticket: TicketId,
    ) -> Result<Option<(Timestamp, TicketRequest)>, RequestError> {
        let Some(ticket) = self.tickets.ticket(&organisation.name, ticket).await? else {
            return Ok(None);
        };
        let waiting = ticket.comments.iter().rev().filter(|comment| asked_since(policy, comment.at));
        let mut asked = waiting.filter_map(|comment| Some((comment.at, comment.request.as_ref()?)));
        let asked = asked.find(|(_, request)| organisation.admins.contains(&request.by));
        Ok(asked.map(|(at, request)| (at, request.clone())))
    }
}
