//! The resources, a file each.

pub mod access_requests;
pub mod app_instances;
pub mod audit;
pub mod backups;
pub mod catalogue;
pub mod closing;
pub mod console;
pub mod encryption_policy;
pub mod key_policy;
pub mod openapi;
pub mod organizations;
pub mod reencryptions;
pub mod regional_keys;
pub mod restorations;
pub mod sites;
pub mod support;
pub mod support_organizations;
pub mod tickets;
pub mod usage;
