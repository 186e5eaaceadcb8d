//! `provisioner`: works approved requests off.

use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent};
use claviger_app::erase_data_keys::EraseDataKeys;
use claviger_app::erase_instance::EraseInstance;
use claviger_app::error::WorkError;
use claviger_app::make_newer_data_key::MakeNewerDataKey;
use claviger_app::messages::{DataKeyPage, ErasurePage, NewerDataKey};
use claviger_app::provision_instance::ProvisionInstance;
use claviger_app::remove_data_keys::RemoveDataKeys;
use claviger_app::replace_key::ReplaceKey;
use claviger_app::usage::FlushUsage;
use claviger_app::verify_policy::VerifyPolicy;
use claviger_domain::effect::Effect;
use claviger_lambda::{batch, work};
use serde::Deserialize;

/// Work of the queue: what was decided, a further page of it, or what the broker asks for.
pub type Work = work::Work<Page>;

/// What comes to the queue besides: a further page, or what the broker asks for.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Page {
    /// Of data keys that are wrapped anew.
    DataKeys(Box<DataKeyPage>),
    /// Of data keys that are erased.
    Erasure(Box<ErasurePage>),
    /// A newer version of a data key.
    Newer(NewerDataKey),
}

/// The use cases of this function.
pub struct Provisioner<'a> {
    /// Proves the keys of a policy and makes its canaries.
    pub verify: VerifyPolicy<'a>,
    /// Makes the first data key of an instance.
    pub provision: ProvisionInstance<'a>,
    /// Makes newer versions of data keys.
    pub newer: MakeNewerDataKey<'a>,
    /// Erases the data keys of an organisation that leaves.
    pub erase: EraseDataKeys<'a>,
    /// Erases the data keys of an instance whose site was deleted.
    pub erase_instance: EraseInstance<'a>,
    /// Removes data keys of former generations that no backup needs any more.
    pub remove: RemoveDataKeys<'a>,
    /// Replaces a regional key that is gone for good.
    pub replace: ReplaceKey<'a>,
    /// Writes how often keys were used.
    pub usage: FlushUsage<'a>,
}

impl Provisioner<'_> {
    /// Handles the messages of one invocation.
    pub async fn handle(&self, event: SqsEvent) -> SqsBatchResponse {
        let failures = batch::run_sqs(event, |work| self.work(work)).await;
        // There is work now and then only: what waits for the next may wait for days.
        self.usage.all().await;
        failures
    }

    async fn work(&self, work: Work) -> Result<(), WorkError> {
        let row = match work {
            Work::Page(Page::DataKeys(page)) => return self.replace.page(&page).await,
            Work::Page(Page::Erasure(page)) => {
                let removes = matches!(page.row.effect, Effect::RemoveDataKeys { .. });
                return if removes { self.remove.page(&page).await } else { self.erase.page(&page).await };
            }
            Work::Page(Page::Newer(wanted)) => return self.newer.run(&wanted).await.map(drop),
            Work::Effect(row) => row,
        };
        match row.effect {
            Effect::VerifyPolicy => self.verify.run(&row.organisation, row.correlation).await,
            Effect::ProvisionInstance { instance } => self.provision.run(instance, row.correlation).await,
            Effect::ReplaceKey { .. } => self.replace.run(&row).await,
            Effect::EraseDataKeys => self.erase.run(&row).await,
            Effect::EraseInstance { .. } => self.erase_instance.run(&row).await,
            Effect::RemoveDataKeys { .. } => self.remove.run(&row).await,
            Effect::OpenTicket { .. }
            | Effect::CommentTicket { .. }
            | Effect::ResolveTicket { .. }
            | Effect::SuspendInstances { .. }
            | Effect::ProveRestoration
            | Effect::RestoreInstances { .. }
            | Effect::Reencrypt { .. }
            | Effect::TellApp { .. } => Err(WorkError::NotThere { what: "a rule for this effect" }),
        }
    }
}
