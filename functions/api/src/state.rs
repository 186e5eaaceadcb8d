//! What handlers work with.

use std::sync::Arc;

use claviger_app::ports::{
    Audit, Backups, Checkpoints, Clock, HintRecords, Idempotency, Ids, Instances, Organisations,
    OverdueOrders, Policies, Prober, SupportRequests, Templates, Tickets, UsageRecords, WatchList,
};
use claviger_app::settings::Settings;
use claviger_lambda::auth::Authenticator;

/// Every store that the interface needs, as one.
pub trait Stores:
    Organisations
    + Policies
    + Instances
    + SupportRequests
    + OverdueOrders
    + Tickets
    + Audit
    + WatchList
    + Idempotency
    + Templates
    + HintRecords
    + Checkpoints
    + Backups
    + UsageRecords
{
}

impl<T> Stores for T where
    T: Organisations
        + Policies
        + Instances
        + SupportRequests
        + OverdueOrders
        + Tickets
        + Audit
        + WatchList
        + Idempotency
        + Templates
        + HintRecords
        + Checkpoints
        + Backups
        + UsageRecords
{
}

/// The interface's ports and settings.
pub struct Api {
    /// Tells callers apart.
    pub authenticator: Arc<dyn Authenticator>,
    /// The stores.
    pub stores: Arc<dyn Stores>,
    /// Who probes keys.
    pub prober: Arc<dyn Prober>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub ids: Arc<dyn Ids>,
    /// Deploy parameters.
    pub settings: Settings,
}

/// The interface as handlers share it.
pub type Shared = Arc<Api>;

impl Api {
    pub(crate) fn shared(self) -> Shared {
        Arc::new(self)
    }
}
