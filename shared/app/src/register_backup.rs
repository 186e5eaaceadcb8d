//! The vendor's machines say which backups hold an organisation's data (spec X4): the ledger counts them.

use claviger_domain::enrolment::parsed;
use claviger_domain::invalid::{Invalid, InvalidField, shown};
use claviger_domain::values::OrganisationName;
use jiff::Timestamp;
use serde_json::Value;

use crate::ports::{Backups, Policies, StoreError};
use crate::reencryption::Backup;
use crate::request_error::{ATTEMPTS, RequestError};

/// Registers backups.
pub struct RegisterBackup<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// Where backups are registered.
    pub backups: &'a dyn Backups,
}

/// A backup's name.
struct Id(String);

impl std::str::FromStr for Id {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
        if (1..=128).contains(&text.len()) && text.bytes().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        let reason = format!("`{}` is not a backup's name", shown(text));
        Err(Invalid::new(reason, "use 1 to 128 of letters, digits and `-_.:/`"))
    }
}

struct Instant(Timestamp);

impl std::str::FromStr for Instant {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || {
            let help = "write it like `2027-01-15T00:00:00Z`";
            Invalid::new(format!("`{}` is not an instant", shown(text)), help)
        };
        text.parse().map(Self).map_err(|_| wrong())
    }
}

/// Parses the registration of a backup.
///
/// # Errors
/// Every fault, each with its field, reason and remedy.
pub fn parse_backup(body: &Value) -> Result<Backup, Vec<InvalidField>> {
    let mut faults = Vec::new();
    let id: Option<Id> = parsed(body, "id", &mut faults);
    let taken_at: Option<Instant> = parsed(body, "takenAt", &mut faults);
    let expires_at: Option<Instant> = parsed(body, "expiresAt", &mut faults);
    let generation = body.get("generation").and_then(Value::as_u64).filter(|generation| *generation > 0);
    if generation.is_none() {
        let help = "send the generation of the keys when it was taken, a number from 1";
        faults.push(Invalid::new("it is missing, or no generation", help).at("generation"));
    }
    let holds = body.get("holdsWrappedKeys").and_then(Value::as_bool);
    if holds.is_none() {
        let help = "send `true` if it holds wrapped data keys of its own, else `false`";
        faults.push(Invalid::new("it is missing, or not a truth value", help).at("holdsWrappedKeys"));
    }
    let brought_back_at: Option<Instant> = match body.get("broughtBackAt") {
        None => None,
        Some(_) => parsed(body, "broughtBackAt", &mut faults),
    };
    if let (Some(taken), Some(brought)) = (&taken_at, &brought_back_at)
        && brought.0 < taken.0
    {
        let help = "send when the stores were last brought back from it, or leave it out";
        faults.push(Invalid::new("it is before `takenAt`", help).at("broughtBackAt"));
    }
    if let (Some(taken), Some(expires)) = (&taken_at, &expires_at)
        && expires.0 <= taken.0
    {
        let help = "a backup expires after it was taken";
        faults.push(Invalid::new("it is not after `takenAt`", help).at("expiresAt"));
    }
    match (id, taken_at, expires_at, generation, holds) {
        (Some(id), Some(taken_at), Some(expires_at), Some(generation), Some(holds_wrapped_keys))
            if faults.is_empty() =>
        {
            let (taken_at, expires_at) = (taken_at.0, expires_at.0);
            let brought_back_at = brought_back_at.map(|at| at.0);
            Ok(Backup { id: id.0, taken_at, expires_at, generation, holds_wrapped_keys, brought_back_at })
        }
        _ => Err(faults),
    }
}

impl RegisterBackup<'_> {
    /// Registers a backup, or says anew how it is; gives what is registered from now on. That the stores were brought back
    /// from it is not forgotten by who does not say so again.
    ///
    /// # Errors
    /// When the organisation has no policy, the generation is not there yet, data keys that it needs are removed, or the
    /// store fails.
    pub async fn run(&self, organisation: &OrganisationName, backup: Backup) -> Result<Backup, RequestError> {
        let policy = self.policies.policy(organisation).await?;
        let policy = policy.ok_or(RequestError::NotFound { what: "the encryption policy" })?;
        if backup.generation > policy.generation {
            let reason = format!("the keys are of generation {}", policy.generation);
            let help = "send the generation of the keys when the backup was taken";
            return Err(RequestError::Invalid(vec![Invalid::new(reason, help).at("generation")]));
        }
        let known = self.backups.backup(organisation, &backup.id).await?;
        // A name that came to stand for another backup would hide what became of the first.
        if let Some(known) = known.as_ref().filter(|known| known.taken_at != backup.taken_at) {
            let reason = format!("the backup of this name was taken at {}", known.taken_at);
            let help = "give another backup another `id`";
            return Err(RequestError::Invalid(vec![Invalid::new(reason, help).at("takenAt")]));
        }
        let brought_back_at = backup.brought_back_at.max(known.and_then(|known| known.brought_back_at));
        let backup = Backup { brought_back_at, ..backup };
        // A registration beside it raised the version of the same head first.
        for _ in 0..ATTEMPTS {
            match self.backups.save_backup(organisation, &backup).await {
                Ok(()) => return Ok(backup),
                Err(StoreError::Conflict) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }
}
