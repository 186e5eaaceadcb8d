//! Use cases, a file a verb, and the ports that they need, as narrow traits.
//!
//! A use case loads, asks the domain to decide, commits, and answers. It knows no AWS and no HTTP.

pub mod messages;
pub mod ports;
pub mod settings;
