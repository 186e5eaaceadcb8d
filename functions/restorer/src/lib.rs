//! `restorer`: probes again, opens the fence, and tells every app instance that it may work again.

use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent};
use claviger_app::error::WorkError;
use claviger_app::fan_out::CarryOrder;
use claviger_app::messages::{DataKeyPage, FanOut};
use claviger_app::prove_restoration::ProveRestoration;
use claviger_domain::effect::{Effect, Order};
use claviger_lambda::{batch, work};
use serde::Deserialize;

/// Work of the queue: what was decided, or a further page of it.
pub type Work = work::Work<Page>;

/// A further page.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Page {
    /// Of data keys.
    DataKeys(Box<DataKeyPage>),
    /// Of a fan-out.
    FanOut(FanOut),
}

/// The use cases of this function.
pub struct Restorer<'a> {
    /// Probes again and opens the fence.
    pub prove: ProveRestoration<'a>,
    /// Carries the order.
    pub carry: CarryOrder<'a>,
}

impl Restorer<'_> {
    /// Handles the messages of one invocation.
    pub async fn handle(&self, event: SqsEvent) -> SqsBatchResponse {
        batch::run_sqs(event, |work| self.work(work)).await
    }

    async fn work(&self, work: Work) -> Result<(), WorkError> {
        let row = match work {
            Work::Page(Page::FanOut(page)) => return self.carry.run(Order::Restore, &page).await,
            Work::Page(Page::DataKeys(page)) => return self.prove.page(&page).await,
            Work::Effect(row) => row,
        };
        match row.effect {
            Effect::ProveRestoration => self.prove.run(&row).await,
            Effect::RestoreInstances { epoch } => {
                self.carry.run(Order::Restore, &FanOut::root(&row, epoch)).await
            }
            Effect::OpenTicket { .. }
            | Effect::CommentTicket { .. }
            | Effect::ResolveTicket { .. }
            | Effect::VerifyPolicy
            | Effect::ProvisionInstance { .. }
            | Effect::SuspendInstances { .. }
            | Effect::ReplaceKey { .. }
            | Effect::EraseDataKeys
            | Effect::EraseInstance { .. }
            | Effect::RemoveDataKeys { .. }
            | Effect::Reencrypt { .. }
            | Effect::TellApp { .. } => Err(WorkError::NotThere { what: "a rule for this effect" }),
        }
    }
}
