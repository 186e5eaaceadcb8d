//! `suspender`: tells every app instance of a cut-off organisation to stop. The fence has cut it off
//! already; this makes apps drop what they hold in the clear.

use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent};
use claviger_app::error::WorkError;
use claviger_app::fan_out::CarryOrder;
use claviger_app::messages::FanOut;
use claviger_domain::effect::{Effect, Order};
use claviger_lambda::{batch, work};

/// Work of the queue: the root of a fan-out, or one of its pages.
pub type Work = work::Work<FanOut>;

/// The use case of this function.
pub struct Suspender<'a> {
    /// Carries the order.
    pub carry: CarryOrder<'a>,
}

impl Suspender<'_> {
    /// Handles the messages of one invocation.
    pub async fn handle(&self, event: SqsEvent) -> SqsBatchResponse {
        batch::run_sqs(event, |work| self.work(work)).await
    }

    async fn work(&self, work: Work) -> Result<(), WorkError> {
        let page = match work {
            Work::Page(page) => page,
            Work::Effect(row) => match row.effect {
                Effect::SuspendInstances { epoch } => FanOut::root(&row, epoch),
                Effect::OpenTicket { .. }
                | Effect::CommentTicket { .. }
                | Effect::ResolveTicket { .. }
                | Effect::VerifyPolicy
                | Effect::ProvisionInstance { .. }
                | Effect::ProveRestoration
                | Effect::ReplaceKey { .. }
                | Effect::EraseDataKeys
                | Effect::EraseInstance { .. }
                | Effect::RemoveDataKeys { .. }
                | Effect::Reencrypt { .. }
                | Effect::RestoreInstances { .. }
                | Effect::TellApp { .. } => {
                    return Err(WorkError::NotThere { what: "a rule for this effect" });
                }
            },
        };
        self.carry.run(Order::Suspend, &page).await
    }
}
