//! Notes that were read a moment ago, in the clear: what an app keeps beside the library, and therefore
//! what it has to drop itself when an organisation is cut off. That is what `on_close` is for.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use claviger_envelope::Closed;

/// How many notes are kept for each organisation and site.
const MOST: usize = 8;

type Place = (String, String);
type Records = HashMap<Place, Vec<(String, Vec<u8>)>>;

/// Recently read notes. Nothing is answered from here without asking the library first; it only spares
/// the table.
#[derive(Default)]
pub struct RecentNotes {
    records: Mutex<Records>,
    /// What was dropped when the library said that an instance is closed, until the order comes that is answered
    /// with it: the fence is read before any order arrives.
    dropped: Mutex<HashMap<Place, usize>>,
}

impl RecentNotes {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a note's record.
    pub fn keep(&self, organisation: &str, site: &str, id: &str, record: &[u8]) {
        let mut records = self.records();
        let notes = records.entry((organisation.to_owned(), site.to_owned())).or_default();
        notes.retain(|(known, _)| known != id);
        if notes.len() >= MOST {
            notes.remove(0);
        }
        notes.push((id.to_owned(), record.to_vec()));
    }

    /// A note's record.
    pub fn record(&self, organisation: &str, site: &str, id: &str) -> Option<Vec<u8>> {
        let records = self.records();
        let notes = records.get(&(organisation.to_owned(), site.to_owned()))?;
        notes.iter().find(|(known, _)| known == id).map(|(_, record)| record.clone())
    }

    fn drop_place(&self, place: &Place) -> usize {
        self.records().remove(place).map_or(0, |notes| notes.len())
    }

    fn dropped(&self) -> MutexGuard<'_, HashMap<Place, usize>> {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what is kept of an organisation's site; says how much that was, with what was dropped when it was closed.
    pub fn drop_site(&self, organisation: &str, site: &str) -> usize {
        let place = (organisation.to_owned(), site.to_owned());
        let before = self.dropped().remove(&place).unwrap_or_default();
        before.saturating_add(self.drop_place(&place))
    }

    /// Drops what is kept of the instances that the library says are closed.
    pub fn drop_closed(&self, closed: &Closed) {
        for instance in &closed.instances {
            let place = (instance.organisation.clone(), instance.site.clone());
            let dropped = self.drop_place(&place);
            tracing::info!(site = instance.site, dropped, "an instance is cut off");
            let mut known = self.dropped();
            let count = known.entry(place).or_default();
            *count = count.saturating_add(dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claviger_envelope::{CloseCause, InstanceName};

    #[test]
    fn r7_an_order_is_answered_with_what_was_dropped_when_the_fence_closed() {
        let recent = RecentNotes::default();
        for id in ["a", "b"] {
            recent.keep("acme", "acme-eng", id, b"record");
        }
        recent.keep("globex", "globex-eng", "a", b"record");
        let closed = Closed {
            cause: CloseCause::Fence,
            policy_id: None,
            organisation_id: None,
            instances: vec![InstanceName {
                organisation: "acme".to_owned(),
                site: "acme-eng".to_owned(),
                app: "jira".to_owned(),
            }],
        };
        recent.drop_closed(&closed);
        assert!(recent.record("acme", "acme-eng", "a").is_none());
        recent.keep("acme", "acme-eng", "c", b"record");
        assert_eq!(recent.drop_site("acme", "acme-eng"), 3);
        assert_eq!(recent.drop_site("acme", "acme-eng"), 0, "told once");
        assert!(recent.record("globex", "globex-eng", "a").is_some());
    }
}
