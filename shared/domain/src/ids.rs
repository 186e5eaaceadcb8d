//! Opaque identifiers. All of them are UUIDs and mean nothing outside; they may stand in logs, in
//! CloudTrail and in URLs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::invalid::{Invalid, shown};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps an identifier that was made elsewhere.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The identifier itself.
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                Uuid::try_parse(text).map(Self).map_err(|_| {
                    Invalid::new(
                        format!("`{}` is not an identifier", shown(text)),
                        "use the identifier exactly as an earlier answer gave it",
                    )
                })
            }
        }
    };
}

id! {
    /// An organisation, as it appears in encryption contexts and key policies (spec K3): random, so
    /// that nobody can guess another organisation's.
    OrganisationId
}
id! {
    /// An organisation's one encryption policy.
    PolicyId
}
id! {
    /// One app on one site.
    InstanceId
}
id! {
    /// A job that moves a policy to new keys; UUIDv7, so newer jobs sort later.
    ReencryptionId
}
id! {
    /// A support ticket; UUIDv7, so newer tickets sort later.
    TicketId
}
id! {
    /// A data key (one purpose and version of one instance), as it stands in a record's header.
    DataKeyId
}
id! {
    /// One effect of one decision; receivers use it to apply the effect once.
    EffectId
}
id! {
    /// Joins everything that one request or message caused, across functions and in the audit log.
    CorrelationId
}
