//! What can keep a person's or a machine's request from being granted. One list for the HTTP
//! interface, so that each situation has one answer.

use claviger_domain::decide::Refusal;
use claviger_domain::invalid::InvalidField;

use crate::messages::Check;
use crate::ports::{CallError, StoreError};

/// Why a request was not granted. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Fields of the request are wrong.
    #[error("the request is not valid")]
    Invalid(Vec<InvalidField>),
    /// What the request names is not there.
    #[error("{what} is not there")]
    NotFound {
        /// What.
        what: &'static str,
    },
    /// The organisation, its plan or the thing itself does not allow it (spec E1, E2, A1, A3).
    #[error("{reason}")]
    NotEligible {
        /// Why.
        reason: String,
        /// What to do.
        help: String,
    },
    /// The organisation has its one encryption policy (spec E4, E11).
    #[error("{reason}")]
    AlreadyEnrolled {
        /// In which words: another realm and another mode have their own.
        reason: String,
    },
    /// Data cannot move between realms (spec E11).
    #[error("{reason}")]
    RealmIsFixed {
        /// From which to which.
        reason: String,
    },
    /// There is no way back to keys of the vendor's (spec E11).
    #[error("there is no way back to vendor-managed keys")]
    NoWayBack,
    /// An access request was declined, or nobody answered it in time (spec K1).
    #[error("an access request is not accepted")]
    AccessNotGranted {
        /// Which.
        request: uuid::Uuid,
    },
    /// Keys did not stand their checks (spec E12); all of them are listed.
    #[error("the keys did not stand their checks")]
    NotVerified(Vec<Check>),
    /// A name or key is taken.
    #[error("it is taken")]
    Taken(InvalidField),
    /// A backup holds records under data keys that are removed (spec X4).
    #[error("data keys that it needs are removed")]
    DataKeysGone(InvalidField),
    /// It cannot happen now.
    #[error("{reason}")]
    NotNow {
        /// Why.
        reason: String,
        /// What to do.
        help: String,
    },
    /// The organisation's access is cut off.
    #[error("the organisation is suspended")]
    Suspended,
    /// What support would approve is not allowed any more; it waits on, and can be rejected (spec E3).
    #[error("the request cannot be approved now")]
    NotApproved {
        /// What the request itself would be answered today.
        #[source]
        why: Box<Self>,
    },
    /// The domain refused.
    #[error("it was refused")]
    Refused(#[from] Refusal),
    /// The store failed.
    #[error("the store failed")]
    Store(StoreError),
    /// Another function failed.
    #[error("a call failed")]
    Call(#[from] CallError),
}

impl From<StoreError> for RequestError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Taken { what: "encryption-policy" } => {
                Self::AlreadyEnrolled { reason: "the organisation has its encryption policy".to_owned() }
            }
            StoreError::Taken { what } => Self::Taken(taken(what)),
            StoreError::DataKeysGone => Self::DataKeysGone(InvalidField {
                field: "takenAt".to_owned(),
                reason: "records of a backup of that time are under data keys that are removed: no backup that was \
                         registered needed them any more"
                    .to_owned(),
                help: "the backup cannot be read; delete it, and register backups before others expire".to_owned(),
            }),
            other @ (StoreError::Conflict
            | StoreError::Changed
            | StoreError::Unavailable { .. }
            | StoreError::Corrupt { .. }) => Self::Store(other),
        }
    }
}

/// A name that is taken, as a field of the request. It never says by whom (I7).
pub(crate) fn taken(what: &str) -> InvalidField {
    let (reason, help) = match what {
        "site" => ("the site name is taken", "choose another site name"),
        "app" => ("the app is on this site already", "`GET .../app-instances` lists what is there"),
        "keys" => ("a key is enrolled already", "make new keys for this organisation"),
        "awsAccountId" => (
            "the account is in use by another organisation",
            "use an account that only this organisation uses",
        ),
        _ => ("it is taken", "choose another one"),
    };
    InvalidField { field: what.to_owned(), reason: reason.to_owned(), help: help.to_owned() }
}

/// How often a decision is taken anew when somebody else changed the same thing first.
pub(crate) const ATTEMPTS: u8 = 3;
