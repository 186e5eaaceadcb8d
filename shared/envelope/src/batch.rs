//! Many records at once: one look at cache, clocks, lease and policy before the records of a data key, and one after
//! them, however many they are.

use crate::cipher::Chunk;
use crate::error::{BatchError, EnvelopeError, Unavailable};
use crate::format::{Context, Header, write_aad};
use crate::gcm::NotAuthentic;
use crate::instance::{Instance, Purpose, give_up, seal_record, sealed_record, waits};
use crate::metrics::Counters;
use crate::source::Wanted;
use crate::store::KeyEntry;
use crate::thread::Parts;
use std::sync::Arc;

/// About so many bytes are done between two looks: a close waits for no more than that.
const TURN: usize = 1024 * 1024;

/// A record of a batch that is to be opened.
struct Sealed<'a> {
    header: Header,
    sealed: &'a [u8],
    /// Its place in the batch.
    place: usize,
}

impl Instance {
    /// Encrypts many records with one look at cache, lease and policy before, and one after.
    ///
    /// # Errors
    /// As [`Self::try_encrypt`], with the first record that could not be done; nothing is appended to `out` then.
    pub fn try_encrypt_batch(
        &self,
        records: &[(Context<'_>, &[u8])],
        out: &mut Vec<Vec<u8>>,
    ) -> Result<(), BatchError> {
        let mut at = 0;
        let sealed = self.counted(self.seal_all(records, out, &mut at));
        sealed.map_err(|error| BatchError { record: at, error })
    }

    /// As [`Self::try_encrypt_batch`], fetching or proving the key if need be.
    ///
    /// # Errors
    /// As [`Self::encrypt`], with the first record that could not be done.
    pub async fn encrypt_batch(&self, records: &[(Context<'_>, &[u8])]) -> Result<Vec<Vec<u8>>, BatchError> {
        let (mut out, mut at) = (Vec::new(), 0);
        let wanted = Wanted::Current { newer_than: None };
        let sealed = self.with_key(wanted, || self.seal_all(records, &mut out, &mut at)).await;
        sealed.map(|()| out).map_err(|error| BatchError { record: at, error })
    }

    /// Decrypts many records, of one data key or of several, with one look at cache, lease and policy before the records
    /// of each data key and one after. What is appended to `out` is in the order of `records`.
    ///
    /// # Errors
    /// As [`Self::try_decrypt`], with the first record that could not be done; nothing is appended to `out` then.
    pub fn try_decrypt_batch(
        &self,
        records: &[(Context<'_>, &[u8])],
        out: &mut Vec<Vec<u8>>,
    ) -> Result<(), BatchError> {
        let mut at = 0;
        let opened = read(records, &mut at).and_then(|sealed| self.open_all(records, &sealed, out, &mut at));
        self.counted(opened).map_err(|error| BatchError { record: at, error })
    }

    /// As [`Self::try_decrypt_batch`], fetching or proving the keys if need be.
    ///
    /// # Errors
    /// As [`Self::decrypt`], with the first record that could not be done.
    pub async fn decrypt_batch(&self, records: &[(Context<'_>, &[u8])]) -> Result<Vec<Vec<u8>>, BatchError> {
        let (mut out, mut at) = (Vec::new(), 0);
        let opened = self.opened(records, &mut out, &mut at).await;
        opened.map(|()| out).map_err(|error| BatchError { record: at, error })
    }

    async fn opened(
        &self,
        records: &[(Context<'_>, &[u8])],
        out: &mut Vec<Vec<u8>>,
        at: &mut usize,
    ) -> Result<(), EnvelopeError> {
        let sealed = self.counted(read(records, at))?;
        let mut attempt = 0;
        let error = loop {
            let error = match self.open_all(records, &sealed, out, at) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            attempt += 1;
            if !waits(&error) || attempt > 3 {
                break error;
            }
            Counters::add(&self.client.counters.misses, 1);
            // Every data key of the batch, so that it is not begun anew for each that is missing.
            if let Err(error) = self.all_ready(&sealed, at).await {
                break error;
            }
        };
        let error = match error {
            EnvelopeError::NotCached => EnvelopeError::unavailable(Unavailable::Overtaken),
            other => other,
        };
        self.client.counters.refused(&error);
        Err(error)
    }

    async fn all_ready(&self, sealed: &[Sealed<'_>], at: &mut usize) -> Result<(), EnvelopeError> {
        for of_one in sealed.chunk_by(same_data_key) {
            let Some(first) = of_one.first() else { continue };
            *at = first.place;
            self.client.ready(&self.state, Wanted::DataKey(first.header.data_key_id)).await?;
        }
        Ok(())
    }

    fn seal_all(
        &self,
        records: &[(Context<'_>, &[u8])],
        out: &mut Vec<Vec<u8>>,
        at: &mut usize,
    ) -> Result<(), EnvelopeError> {
        let before = out.len();
        out.reserve(records.len());
        let mut looks = Looks::default();
        let mut done = 0;
        let result = loop {
            let Some(rest) = records.get(done..).filter(|rest| !rest.is_empty()) else {
                break looks.again(self);
            };
            *at = done;
            let turn = self.operate(Purpose::Write, false, |mut parts| {
                let (mut used, mut bytes) = (0, 0);
                for (context, plaintext) in rest {
                    if bytes > TURN {
                        break;
                    }
                    let mut record = Vec::new();
                    seal_record(&mut parts, context, plaintext, &mut record)
                        .inspect_err(|_| *at = done + used)?;
                    out.push(record);
                    bytes += plaintext.len();
                    used += 1;
                }
                Ok((many(used), (used, parts.entry.entry.clone())))
            });
            match turn {
                Ok((used, entry)) => done += looks.at(used, entry),
                Err(error) => break Err(error),
            }
        };
        result.inspect_err(|_| out.truncate(before))
    }

    /// `sealed` is `records` in the order of their data keys.
    fn open_all(
        &self,
        records: &[(Context<'_>, &[u8])],
        sealed: &[Sealed<'_>],
        out: &mut Vec<Vec<u8>>,
        at: &mut usize,
    ) -> Result<(), EnvelopeError> {
        let before = out.len();
        out.resize_with(before + records.len(), Vec::new);
        let result = match out.get_mut(before..) {
            Some(opened) => self.open_each(records, sealed, opened, at),
            None => Err(EnvelopeError::Internal { what: "a batch has no room" }),
        };
        result.inspect_err(|_| {
            out.iter_mut().skip(before).for_each(give_up);
            out.truncate(before);
        })
    }

    fn open_each(
        &self,
        records: &[(Context<'_>, &[u8])],
        sealed: &[Sealed<'_>],
        opened: &mut [Vec<u8>],
        at: &mut usize,
    ) -> Result<(), EnvelopeError> {
        let mut looks = Looks::default();
        for mut rest in sealed.chunk_by(same_data_key) {
            while let Some(first) = rest.first() {
                *at = first.place;
                let (used, entry) = self.operate(Purpose::Read(&first.header), false, |mut parts| {
                    let (mut used, mut bytes) = (0, 0);
                    for record in rest {
                        if bytes > TURN {
                            break;
                        }
                        let (context, out) = match (records.get(record.place), opened.get_mut(record.place)) {
                            (Some((context, _)), Some(out)) => (context, out),
                            _ => return Err(EnvelopeError::Internal { what: "a batch has no such record" }),
                        };
                        open_record(&mut parts, context, record, out).inspect_err(|_| *at = record.place)?;
                        bytes += record.sealed.len();
                        used += 1;
                    }
                    Ok((many(used), (used, parts.entry.entry.clone())))
                })?;
                rest = rest.get(looks.at(used, entry)..).unwrap_or_default();
            }
        }
        looks.again(self)
    }
}

/// The data keys of a batch that was done in several turns.
#[derive(Default)]
struct Looks(Vec<Arc<KeyEntry>>);

impl Looks {
    /// So many records were done with this one.
    fn at(&mut self, used: usize, entry: Arc<KeyEntry>) -> usize {
        if !self.0.last().is_some_and(|last| Arc::ptr_eq(last, &entry)) {
            self.0.push(entry);
        }
        used
    }

    /// INVARIANT (I1): nothing leaves without a look with the clocks as they are at the end, and what was done first
    /// leaves with what was done last.
    fn again(&self, instance: &Instance) -> Result<(), EnvelopeError> {
        self.0.iter().try_for_each(|entry| instance.check(entry))
    }
}

fn many(used: usize) -> u32 {
    u32::try_from(used).unwrap_or(u32::MAX)
}

fn same_data_key(one: &Sealed<'_>, other: &Sealed<'_>) -> bool {
    one.header.data_key_id == other.header.data_key_id
}

/// The records in the order of their data keys; those of one data key as they come, so that those of a run still share
/// their message key.
fn read<'a>(records: &[(Context<'_>, &'a [u8])], at: &mut usize) -> Result<Vec<Sealed<'a>>, EnvelopeError> {
    let mut all = Vec::with_capacity(records.len());
    for (place, (_, record)) in records.iter().enumerate() {
        *at = place;
        let (header, sealed) = sealed_record(record)?;
        all.push(Sealed { header, sealed, place });
    }
    all.sort_by_key(|record| record.header.data_key_id);
    Ok(all)
}

fn open_record(
    parts: &mut Parts<'_>,
    context: &Context<'_>,
    record: &Sealed<'_>,
    out: &mut Vec<u8>,
) -> Result<(), EnvelopeError> {
    let Parts { index, entry, aad, last_read, .. } = parts;
    write_aad(aad, &entry.entry.aad, context)?;
    let cipher = last_read.of(*index, entry, &record.header)?;
    let opened = cipher.open(Chunk::Whole, aad, record.sealed, out);
    opened.map_err(|NotAuthentic| EnvelopeError::TamperedOrWrongContext)
}
