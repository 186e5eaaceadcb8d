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

    /// Drops what is kept of an organisation's site; says how much that was.
    pub fn drop_site(&self, organisation: &str, site: &str) -> usize {
        self.records().remove(&(organisation.to_owned(), site.to_owned())).map_or(0, |notes| notes.len())
    }

    /// Drops what is kept of the instances that the library says are closed.
    pub fn drop_closed(&self, closed: &Closed) {
        for instance in &closed.instances {
            let dropped = self.drop_site(&instance.organisation, &instance.site);
            tracing::info!(site = instance.site, dropped, "an instance is cut off");
        }
    }
}
