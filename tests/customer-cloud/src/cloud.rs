//! The state that all services share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::calls::Calls;
use crate::events::Events;
use crate::faults::Faults;
use crate::iam::Iam;
use crate::identity::Sessions;
use crate::vault::Vault;
use crate::vendor::Vendor;

/// Where changes are told: a Lambda function behind an AWS endpoint.
#[derive(Clone, Debug)]
pub struct EventTarget {
    pub endpoint: String,
    pub function: String,
    pub region: String,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub vendor_account: String,
    /// Without it the vendor's account is an account like the others.
    pub vendor_endpoint: Option<String>,
    pub events: Option<EventTarget>,
}

pub struct Cloud {
    pub vendor: Option<Arc<Vendor>>,
    pub events: Events,
    keys: Mutex<Keys>,
    iam: Mutex<Iam>,
    sessions: Mutex<Sessions>,
    faults: Mutex<Faults>,
    calls: Mutex<Calls>,
}

impl Cloud {
    pub fn new(config: Config) -> Self {
        let vendor = config
            .vendor_endpoint
            .map(|endpoint| Arc::new(Vendor::new(endpoint, config.vendor_account.clone())));
        Cloud {
            vendor,
            events: Events::new(config.events, config.vendor_account),
            keys: Mutex::default(),
            iam: Mutex::default(),
            sessions: Mutex::default(),
            faults: Mutex::default(),
            calls: Mutex::default(),
        }
    }

    /// The vendor's AWS, when `account` is the vendor's and lives there.
    pub fn vendor_of(&self, account: &str) -> Option<&Arc<Vendor>> {
        self.vendor.as_ref().filter(|vendor| vendor.account == account)
    }

    pub fn keys(&self) -> MutexGuard<'_, Keys> {
        lock(&self.keys)
    }

    pub fn iam(&self) -> MutexGuard<'_, Iam> {
        lock(&self.iam)
    }

    pub fn sessions(&self) -> MutexGuard<'_, Sessions> {
        lock(&self.sessions)
    }

    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    pub fn calls(&self) -> MutexGuard<'_, Calls> {
        lock(&self.calls)
    }
}

/// A panic in one request must not end the others.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All keys, by account and region.
#[derive(Default)]
pub struct Keys {
    vaults: HashMap<(String, String), Vault>,
}

impl Keys {
    pub fn vault(&mut self, account: &str, region: &str) -> &mut Vault {
        self.vaults.entry((account.to_owned(), region.to_owned())).or_default()
    }

    /// Which account has this key in this region.
    pub fn account_of(&self, key_id: &str, region: &str) -> Option<String> {
        let mut places = self.vaults.iter().filter(|((_, place), _)| place == region);
        places
            .find(|(_, vault)| vault.state.keys.contains_key(key_id))
            .map(|((account, _), _)| account.clone())
    }

    /// Whether the key lives anywhere or lived once.
    pub fn known(&self, key_id: &str) -> bool {
        self.vaults
            .values()
            .any(|vault| vault.state.keys.contains_key(key_id) || vault.deleted.contains(key_id))
    }

    pub fn count(&self) -> usize {
        self.vaults.values().map(|vault| vault.state.keys.len()).sum()
    }
}
