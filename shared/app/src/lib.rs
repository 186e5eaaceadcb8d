//! Use cases, a file a verb, and the ports that they need, as narrow traits.
//!
//! A use case loads, asks the domain to decide, commits, and answers. It knows no AWS and no HTTP.

pub mod check_enrolment;
pub mod deliver_effect;
pub mod error;
pub mod fan_out;
pub mod follow_hint;
pub mod hand_out_data_key;
pub mod hear_key_event;
pub mod messages;
pub mod ports;
pub mod probe_keys;
pub mod probe_now;
pub mod prove_policies;
pub mod prove_restoration;
pub mod provision_instance;
pub mod report_probes;
pub mod settings;
pub mod sweep;
pub mod verify_policy;
