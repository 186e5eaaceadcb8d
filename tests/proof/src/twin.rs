//! Broken twins: the system with one defect each, which the checks must catch. They live here, not in the
//! product: a twin wraps a port or the data plane, and only tests choose one.

/// A defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twin {
    /// The lease counts from after the read of the fence.
    LeaseFromAfterTheRead,
    /// The error table takes throttling for a disabled key.
    ThrottlingIsRefusal,
    /// Somebody else beats for the watcher that is dead.
    DeadWatcherBeats,
    /// An order is taken for one of the newest epoch, whatever its own.
    EpochIgnored,
    /// The door takes a support agent's request for an org admin's.
    SupportOpens,
    /// The broker looks for the owner of the site, not at who asks.
    OwnerInsteadOfCaller,
}

impl Twin {
    /// Every twin.
    pub const ALL: [Self; 6] = [
        Self::LeaseFromAfterTheRead,
        Self::ThrottlingIsRefusal,
        Self::DeadWatcherBeats,
        Self::EpochIgnored,
        Self::SupportOpens,
        Self::OwnerInsteadOfCaller,
    ];

    /// The invariant that it breaks.
    pub const fn invariant(self) -> &'static str {
        match self {
            Self::LeaseFromAfterTheRead => "I1",
            Self::ThrottlingIsRefusal => "I2",
            Self::DeadWatcherBeats => "I3",
            Self::EpochIgnored => "I4",
            Self::SupportOpens => "I5",
            Self::OwnerInsteadOfCaller => "I7",
        }
    }
}
