//! Randomness for identifiers.

use claviger_app::ports::Ids;
use uuid::Uuid;

/// The operating system's random numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    fn random(&self) -> Uuid {
        Uuid::new_v4()
    }
}
