//! Carries an effect out of the outbox to where it takes place: at least once, applied once.

use claviger_domain::effect::{Effect, Order, OutboxRow};
use claviger_domain::ids::{InstanceId, TicketId};
use claviger_domain::ticket::{Ticket, TicketComment, TicketStatus};
use jiff::SignedDuration;

use crate::error::{ATTEMPTS, WorkError};
use crate::messages::AppOrder;
use crate::ports::{Bus, Clock, Instances, Outbox, StoreError, Tickets};
use crate::tickets::json_length;
use crate::webhooks::Webhooks;

/// Rows that the stream has not brought after this long are swept.
const OVERDUE: SignedDuration = SignedDuration::from_secs(60);

/// A row that fails waits as long again as it has waited, but no longer than this.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(10);

/// A row that has failed for this long is somebody's to look at.
const HOPELESS: SignedDuration = SignedDuration::from_hours(1);

/// All comments of a ticket together as JSON, in bytes. It is one item of the store, which takes 400 KB: beyond that
/// no comment could ever be delivered. Above what people may write, so that they silence nobody.
const FULL: usize = 300_000;

/// The last that is written on a ticket that is full.
const LAST_WORDS: &str = "This ticket is full. What happens from now on is not written here any more: the audit log \
                          has it, `GET .../audit`. If you need an answer, reach support another way.";

/// Delivers effects.
pub struct DeliverEffect<'a> {
    /// The rows that wait.
    pub outbox: &'a dyn Outbox,
    /// Tickets.
    pub tickets: &'a dyn Tickets,
    /// Instances, for what their apps are told.
    pub instances: &'a dyn Instances,
    /// The bus.
    pub bus: &'a dyn Bus,
    /// Whom notices go to.
    pub webhooks: Webhooks<'a>,
    /// The time.
    pub clock: &'a dyn Clock,
}

impl DeliverEffect<'_> {
    /// Delivers one effect and takes its row away.
    ///
    /// # Errors
    /// When something failed on the way: the row stays and is delivered again.
    pub async fn run(&self, row: &OutboxRow) -> Result<(), WorkError> {
        match &row.effect {
            Effect::OpenTicket { ticket, title, body } => {
                self.open_ticket(row, *ticket, title, body).await?;
            }
            Effect::CommentTicket { ticket, body } => self.comment(row, *ticket, body, false).await?,
            Effect::ResolveTicket { ticket, body } => self.comment(row, *ticket, body, true).await?,
            Effect::TellApp { instance, order, epoch: _ } => {
                self.tell_app(row, *instance, *order).await?;
            }
            Effect::VerifyPolicy
            | Effect::ProvisionInstance { .. }
            | Effect::SuspendInstances { .. }
            | Effect::ProveRestoration
            | Effect::ReplaceKey { .. }
            | Effect::EraseDataKeys
            | Effect::EraseInstance { .. }
            | Effect::RemoveDataKeys { .. }
            | Effect::Reencrypt { .. }
            | Effect::RestoreInstances { .. } => self.bus.publish_effect(row).await?,
        }
        self.webhooks.queue(row).await?;
        Ok(self.outbox.effect_done(&row.organisation, row.id).await?)
    }

    /// Delivers what the stream missed; says how many rows. One that fails is tried again later, behind those that wait
    /// by then: rows of one organisation that can never be delivered keep nobody else's waiting.
    ///
    /// # Errors
    /// When the outbox cannot be read.
    pub async fn sweep(&self) -> Result<usize, WorkError> {
        let rows = self.outbox.overdue_effects(self.clock.now() - OVERDUE, 200).await?;
        let mut delivered = 0_usize;
        for row in &rows {
            match self.run(row).await {
                Ok(()) => delivered = delivered.saturating_add(1),
                Err(error) => self.failed(row, &error).await,
            }
        }
        Ok(delivered)
    }

    async fn failed(&self, row: &OutboxRow, error: &WorkError) {
        let now = self.clock.now();
        let waited = now.duration_since(row.created_at);
        let (effect, policy, waited_s) = (row.id, row.policy, waited.as_secs());
        if waited >= HOPELESS {
            tracing::error!(effect.id = %effect, policy.id = %policy, waited_s, ?error, "an effect cannot be delivered");
        } else {
            tracing::warn!(effect.id = %effect, policy.id = %policy, waited_s, ?error, "an overdue effect failed");
        }
        let again = now + waited.clamp(SignedDuration::ZERO, LONGEST_WAIT) - OVERDUE;
        // It stays where it is, and the next sweep finds it there.
        if let Err(error) = self.outbox.effect_failed(&row.organisation, row.id, again).await {
            tracing::warn!(effect.id = %effect, %error, "an effect that failed keeps its place");
        }
    }

    async fn open_ticket(
        &self,
        row: &OutboxRow,
        id: TicketId,
        title: &str,
        body: &str,
    ) -> Result<(), WorkError> {
        let ticket = Ticket {
            id,
            organisation: row.organisation.clone(),
            title: title.to_owned(),
            status: TicketStatus::Open,
            opened_at: row.created_at,
            resolved_at: None,
            comments: vec![self.words(row, body)],
            version: 1,
        };
        match self.tickets.save_ticket(&ticket).await {
            Ok(()) => Ok(()),
            // Delivered before, if it is there; else somebody else was at the same item.
            Err(StoreError::Conflict) => match self.tickets.ticket(&row.organisation, id).await? {
                Some(_) => Ok(()),
                None => Err(StoreError::Conflict.into()),
            },
            Err(other) => Err(other.into()),
        }
    }

    fn words(&self, row: &OutboxRow, body: &str) -> TicketComment {
        TicketComment {
            effect: Some(row.id),
            at: row.created_at,
            author: "claviger".to_owned(),
            body: body.to_owned(),
            request: None,
        }
    }

    async fn comment(
        &self,
        row: &OutboxRow,
        id: TicketId,
        body: &str,
        resolve: bool,
    ) -> Result<(), WorkError> {
        for _ in 0..ATTEMPTS {
            // Not there yet: the row that opens it is on its way.
            let ticket = self.tickets.ticket(&row.organisation, id).await?;
            let ticket = ticket.ok_or(WorkError::NotThere { what: "the ticket" })?;
            let status = if resolve { TicketStatus::Resolved } else { ticket.status };
            let Some(mut next) = ticket.commented(self.words(row, body), status) else {
                return Ok(());
            };
            let said = |known: &TicketComment| known.effect.is_some() && known.body == LAST_WORDS;
            let closed = ticket.comments.iter().any(said);
            if closed || json_length(&next.comments) > FULL {
                let last = if closed {
                    ticket.with_status(status, row.created_at)
                } else {
                    ticket.commented(self.words(row, LAST_WORDS), status)
                };
                let Some(last) = last else {
                    return Ok(());
                };
                next = last;
            }
            match self.tickets.save_ticket(&next).await {
                Err(StoreError::Conflict) => {}
                other => return Ok(other?),
            }
        }
        Err(StoreError::Conflict.into())
    }

    async fn tell_app(&self, row: &OutboxRow, id: InstanceId, order: Order) -> Result<(), WorkError> {
        let instance = self.instances.instance(id).await?;
        let instance = instance.ok_or(WorkError::NotThere { what: "the app instance" })?;
        if row.epoch < instance.epoch {
            return Ok(());
        }
        let order = AppOrder {
            organisation: row.organisation.clone(),
            instance_id: id,
            site: instance.site.to_string(),
            app: instance.app.to_string(),
            order: match order {
                Order::Suspend => "suspend".to_owned(),
                Order::Restore => "restore".to_owned(),
            },
            epoch: row.epoch,
            correlation_id: row.correlation,
        };
        Ok(self.bus.publish_order(&order).await?)
    }
}
