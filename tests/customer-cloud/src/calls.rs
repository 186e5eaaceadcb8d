//! The record of calls: what the customers' CloudTrail would show, and more (refused cross-account calls too).

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde::Serialize;

use crate::vault::EncryptionContext;

const KEPT: usize = 50_000;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub time: Timestamp,
    pub request_id: String,
    pub service: &'static str,
    pub operation: String,
    pub caller_account: String,
    pub caller: String,
    /// The account that owns the key or the role.
    pub account: String,
    pub region: String,
    pub resource: String,
    /// `ok` or the error code.
    pub outcome: String,
    pub encryption_context: EncryptionContext,
    pub dry_run: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CounterKey {
    pub account: String,
    pub region: String,
    pub operation: String,
    pub caller_account: String,
    pub outcome: String,
}

#[derive(Default)]
pub struct Calls {
    log: VecDeque<Entry>,
    counters: BTreeMap<CounterKey, u64>,
}

/// Which calls to show.
#[derive(Default)]
pub struct Filter {
    pub account: Option<String>,
    pub operation: Option<String>,
    pub since: Option<Timestamp>,
}

impl Calls {
    pub fn record(&mut self, entry: Entry) {
        let key = CounterKey {
            account: entry.account.clone(),
            region: entry.region.clone(),
            operation: entry.operation.clone(),
            caller_account: entry.caller_account.clone(),
            outcome: entry.outcome.clone(),
        };
        *self.counters.entry(key).or_default() += 1;
        if self.log.len() == KEPT {
            self.log.pop_front();
        }
        self.log.push_back(entry);
    }

    pub fn reset(&mut self) {
        *self = Calls::default();
    }

    pub fn matching<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = &'a Entry> {
        self.log.iter().filter(move |entry| {
            filter.account.as_ref().is_none_or(|account| *account == entry.account)
                && filter.operation.as_ref().is_none_or(|operation| *operation == entry.operation)
                && filter.since.is_none_or(|since| entry.time >= since)
        })
    }

    /// Since the last reset; `since` does not apply to them.
    pub fn counters<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = (&'a CounterKey, u64)> {
        self.counters.iter().map(|(key, count)| (key, *count)).filter(move |(key, _)| {
            filter.account.as_ref().is_none_or(|account| *account == key.account)
                && filter.operation.as_ref().is_none_or(|operation| *operation == key.operation)
        })
    }
}
