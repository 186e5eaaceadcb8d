//! An organisation leaves (spec E11): an org admin asks, and may think better of it until the erasure begins.

use claviger_domain::catalogue::{Catalogue, Mode};
use claviger_domain::closing::{Closing, ClosingStage};
use claviger_domain::decide::advice;
use claviger_domain::event::{Origin, PolicyEvent};
use claviger_domain::fact::AuditHead;
use claviger_domain::ids::{PolicyId, TicketId};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::{AccountId, KeyArn, OrganisationName, Realm};
use jiff::Timestamp;
use serde::Serialize;

use crate::ports::{Clock, Policies};
use crate::request_error::RequestError;
use crate::settings::Settings;
use crate::settle::Settle;
use crate::usage::RETENTION_DAYS;

/// Asks for the closing, and takes it back.
pub struct CloseOrganisation<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl CloseOrganisation<'_> {
    /// Asks for it. Said twice, it is asked for once.
    ///
    /// # Errors
    /// When there is nothing to close, or the store fails.
    pub async fn ask(
        &self,
        organisation: &OrganisationName,
        origin: &Origin,
    ) -> Result<EncryptionPolicy, RequestError> {
        self.settle().run(organisation, &PolicyEvent::ClosingAsked, origin).await
    }

    /// Takes it back.
    ///
    /// # Errors
    /// When nothing is closing, or the erasure began.
    pub async fn cancel(
        &self,
        organisation: &OrganisationName,
        origin: &Origin,
    ) -> Result<EncryptionPolicy, RequestError> {
        self.settle().run(organisation, &PolicyEvent::ClosingCancelled, origin).await
    }

    fn settle(&self) -> Settle<'_> {
        Settle { policies: self.policies, clock: self.clock, settings: self.settings }
    }

    /// The statement of what was erased.
    ///
    /// # Errors
    /// When nothing was: the organisation is not closed.
    pub async fn statement(&self, organisation: &OrganisationName) -> Result<ErasureStatement, RequestError> {
        let policy = self.policies.policy(organisation).await?;
        let policy = policy.ok_or(RequestError::NotFound { what: "the encryption policy" })?;
        statement(&policy, &self.settings.catalogue)
            .ok_or(RequestError::NotFound { what: "the erasure statement" })
    }
}

/// What an organisation that left can show its own auditors.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ErasureStatement {
    /// Whose data.
    pub organisation: OrganisationName,
    /// Under which policy.
    pub policy_id: PolicyId,
    /// How the keys were held.
    pub mode: Mode,
    /// Where the data lay.
    pub realm: Realm,
    /// The customer's account.
    pub aws_account_id: AccountId,
    /// The customer's keys, under which the data keys were wrapped.
    pub keys: Vec<KeyArn>,
    /// When the closing was asked for.
    pub asked_at: Timestamp,
    /// When access ended.
    pub access_ended_at: Timestamp,
    /// When the last wrapped data key was gone.
    pub erased_at: Timestamp,
    /// How many data keys were deleted.
    pub data_keys: u64,
    /// Of how many app instances.
    pub instances: u64,
    /// The ticket of the closing.
    pub ticket_id: TicketId,
    /// What follows from that.
    pub statement: String,
    /// What is left, and what it is.
    pub remains: Vec<String>,
    /// What to do with the keys.
    pub advice: Vec<String>,
    /// The end of the policy's chain of facts, which holds each step of this.
    pub audit: AuditHead,
}

fn statement(policy: &EncryptionPolicy, catalogue: &Catalogue) -> Option<ErasureStatement> {
    let erasure = policy.erasure.as_ref()?;
    let remains = vec![
        "records stay where they were until the vendor deletes them, backups included: as ciphertext that no key in \
         existence opens"
            .to_owned(),
        format!(
            "what apps had in caches or in transit is gone after {} days at most",
            catalogue.cached_or_in_transit_days
        ),
        "the point-in-time backup of our registry holds the deleted ciphertexts for 35 days more; as before, nobody but \
         your keys opens them"
            .to_owned(),
        "the audit log and the tickets: names, identifiers, times and ARNs, none of the encrypted data".to_owned(),
        format!("counts of KMS calls by day and key, each for {RETENTION_DAYS} days: ARNs, purposes and numbers"),
    ];
    Some(ErasureStatement {
        organisation: policy.organisation_name.clone(),
        policy_id: policy.id,
        mode: policy.mode(),
        realm: policy.realm.clone(),
        aws_account_id: policy.account.clone(),
        keys: policy.keys.values().map(|key| key.arn.clone()).collect(),
        asked_at: erasure.asked_at,
        access_ended_at: erasure.access_ended_at,
        erased_at: erasure.erased_at,
        data_keys: erasure.counted.data_keys,
        instances: erasure.counted.instances,
        ticket_id: erasure.ticket,
        statement: format!(
            "{} data keys of {} app instances existed only as ciphertexts under the keys named here; every one of \
             these ciphertexts is deleted. What was encrypted under them cannot be decrypted by anybody.",
            erasure.counted.data_keys, erasure.counted.instances
        ),
        remains,
        advice: advice(policy),
        audit: policy.audit.clone(),
    })
}

/// A closing that is under way, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClosingView {
    /// How far it has come.
    pub stage: &'static str,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// When support's approval is due.
    pub due_at: Option<Timestamp>,
    /// Until when data can be exported, and the closing cancelled.
    pub export_until: Option<Timestamp>,
    /// How much of that time is left.
    pub remaining_seconds: Option<i64>,
    /// Its own ticket.
    pub ticket_id: TicketId,
    /// What can be done.
    pub help: &'static str,
}

impl ClosingView {
    /// The closing as it stands now.
    pub fn of(closing: &Closing, now: Timestamp) -> Self {
        const CANCEL: &str = "`POST .../encryption-policy/close/cancel` cancels it";
        let (due_at, export_until, help) = match closing.stage {
            ClosingStage::Asked { due_at } => (Some(due_at), None, CANCEL),
            ClosingStage::Exporting { until, .. } => (None, Some(until), CANCEL),
            ClosingStage::Erasing { .. } => (None, None, "nothing to do: there is no way back any more"),
        };
        Self {
            stage: closing.slug(),
            asked_at: closing.asked_at,
            due_at,
            export_until,
            remaining_seconds: export_until.map(|until| until.duration_since(now).as_secs().max(0)),
            ticket_id: closing.ticket,
            help,
        }
    }
}

/// Why nothing new begins while an organisation leaves.
pub(crate) fn is_leaving(policy: &EncryptionPolicy) -> Option<RequestError> {
    policy.closing.as_ref().map(|_| RequestError::NotNow {
        reason: "the organisation is closing".to_owned(),
        help: "cancel the closing first: `POST .../encryption-policy/close/cancel`".to_owned(),
    })
}
