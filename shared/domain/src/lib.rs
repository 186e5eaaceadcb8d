//! The domain of claviger: what an organisation, its encryption policy and its app instances are,
//! and the one pure function that decides what happens to them.
//!
//! Nothing here does I/O, reads a clock or an environment, or logs. Every function is synchronous
//! and total; time comes in as `now`. What must not happen cannot be written down: states are enums
//! that carry their data, values are parsed once, at the edge.

pub mod access;
pub mod authorisation;
pub mod calendar;
pub mod catalogue;
pub mod closing;
pub mod data_keys;
pub mod decide;
pub mod effect;
pub mod enrolment;
pub mod event;
pub mod fact;
pub mod fence;
pub mod heard;
pub mod ids;
pub mod instance;
pub mod invalid;
pub mod key_access;
pub mod key_policy;
pub mod observation;
pub mod organisation;
pub mod outlook;
pub mod policy;
pub mod reencryption;
pub mod ticket;
pub mod values;
pub mod vendor;
