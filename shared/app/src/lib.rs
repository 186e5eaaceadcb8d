//! Use cases, a file a verb, and the ports that they need, as narrow traits.
//!
//! A use case loads, asks the domain to decide, commits, and answers. It knows no AWS and no HTTP.

pub mod access_requests;
pub mod acknowledge_order;
pub mod add_instance_directly;
pub mod as_of;
pub mod carry_out_restoration;
pub mod check_enrolment;
pub mod deliver_effect;
pub mod enrol;
pub mod error;
pub mod fan_out;
pub mod follow_hint;
pub mod hand_out_data_key;
pub mod hear_key_event;
pub mod hint_budget;
pub mod list_instances;
mod make_keys;
pub mod messages;
pub mod pass_deadlines;
pub mod ports;
pub mod probe_keys;
pub mod probe_now;
pub mod promises;
pub mod prove_permissions;
pub mod prove_policies;
pub mod prove_restoration;
pub mod provision_instance;
pub mod put_organisation;
pub mod read_audit;
pub mod report_probes;
pub mod request_error;
pub mod request_instance;
pub mod request_restoration;
pub mod settings;
mod settle;
pub mod show_key_policy;
pub mod show_policy;
pub mod support_requests;
pub mod suspend_by_vendor;
pub mod sweep;
pub mod tickets;
pub mod unwrapped_keys;
pub mod validate_enrolment;
pub mod verify_policy;
pub mod webhooks;
