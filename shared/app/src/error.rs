//! What can keep the use cases of the functions from finishing.

use claviger_domain::decide::Refusal;

use crate::ports::{CallError, KeyError, StoreError};

/// Why work was not finished. Except where it says otherwise, trying again later may help.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// Another function, a queue or the bus failed.
    #[error("a call failed")]
    Call(#[from] CallError),
    /// A customer's key gave no answer.
    #[error("a key gave no answer")]
    Key(#[from] KeyError),
    /// The domain refused: trying again does not help.
    #[error("it was refused")]
    Refused(#[from] Refusal),
    /// Something that the work names is not there: trying again does not help.
    #[error("{what} is not there")]
    NotThere {
        /// What.
        what: &'static str,
    },
    /// The organisation cannot be worked for now; it heals by itself or by its admin's doing.
    #[error("not now: {reason}")]
    NotNow {
        /// Why.
        reason: &'static str,
    },
}

/// How often a decision is taken anew when somebody else changed the same thing first.
pub(crate) const ATTEMPTS: u8 = 5;
