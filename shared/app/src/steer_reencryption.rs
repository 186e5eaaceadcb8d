//! An org admin has a re-encryption stand still, go on, or, before its point of no return, cancelled (spec X2).

use claviger_domain::event::{Origin, PolicyEvent};
use claviger_domain::ids::ReencryptionId;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::OrganisationName;

use crate::ports::{Clock, Policies};
use crate::request_error::RequestError;
use crate::settings::Settings;
use crate::settle::Settle;

/// What the org admin wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    /// That it stands still.
    Pause,
    /// That it goes on.
    Resume,
    /// That it never was.
    Cancel,
}

/// Steers a re-encryption.
pub struct SteerReencryption<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl SteerReencryption<'_> {
    /// The policy as it is afterwards. What is so already changes nothing and is no error.
    ///
    /// # Errors
    /// When there is no such job under way, or it has passed its point of no return.
    pub async fn run(
        &self,
        organisation: &OrganisationName,
        job: ReencryptionId,
        steer: Steer,
        origin: &Origin,
    ) -> Result<EncryptionPolicy, RequestError> {
        let settle = Settle { policies: self.policies, clock: self.clock, settings: self.settings };
        let policy = settle.load(organisation).await?;
        let open = policy.reencryption.as_ref().is_some_and(|known| known.id == job);
        if !open && !policy.reencryptions.iter().any(|ended| ended.job.id == job) {
            return Err(RequestError::NotFound { what: "the re-encryption" });
        }
        if !open {
            return Err(RequestError::NotNow {
                reason: "the re-encryption has ended".to_owned(),
                help: "`GET .../reencryptions/{id}` shows how".to_owned(),
            });
        }
        let event = match steer {
            Steer::Pause => PolicyEvent::ReencryptionPaused { job },
            Steer::Resume => PolicyEvent::ReencryptionResumed { job },
            Steer::Cancel => PolicyEvent::ReencryptionCancelled { job },
        };
        settle.run(organisation, &event, origin).await
    }
}
