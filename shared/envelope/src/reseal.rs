//! A record of one data key becomes one of another, and its plaintext never leaves the library.
//!
//! The plaintext lies in the buffer of the new record only, where its ciphertext then takes its place; if
//! anything fails in between, the buffer is wiped. So there is no buffer in the clear that somebody could forget.

use crate::cipher::{Chunk, MessageCipher};
use crate::clock::Now;
use crate::error::{EnvelopeError, Unavailable};
use crate::format::{
    Context, HEADER_LEN, Header, MAX_RECORD, STREAM_HEADER_LEN, TAG_LEN, VERSION_STREAM, stream_aad,
    write_aad,
};
use crate::instance::{BRIEF, GONE, Instance, Purpose, fresh, give_up, stream_header};
use crate::metrics::Counters;
use crate::run::committed;
use crate::secret::MessageKey;
use crate::source::Wanted;
use crate::store::KeyEntry;
use crate::thread::{Parts, ThreadCache, with_mine};
use std::sync::Arc;

/// A record or a stream as it was read.
struct Sealed<'a> {
    context: &'a Context<'a>,
    header: Header,
    /// The stream's header and chunks, or the record, whole.
    bytes: &'a [u8],
}

/// The keys of one turn: where they lie in the thread's cache, and the lease under which they were found.
struct Turn {
    epoch: u64,
    reader: usize,
    writer: usize,
}

/// What should be asked for anew: the key that was read with, the key that was written with.
type Worn = [Option<Arc<KeyEntry>>; 2];

impl Instance {
    /// Opens a record, or a whole stream, and seals it anew under the current key, fetching or proving keys if
    /// need be. The answer is of the same version and length. Whatever is wrong with the record is an error,
    /// never an answer.
    ///
    /// # Errors
    /// `GenerationTooOld` while there is no key of at least the generation `least`; else as [`Self::decrypt`]
    /// and [`Self::encrypt`].
    pub async fn reseal(
        &self,
        context: &Context<'_>,
        record: &[u8],
        least: u32,
    ) -> Result<Vec<u8>, EnvelopeError> {
        let mut out = Vec::new();
        self.reseal_into(context, record, least, &mut out).await?;
        Ok(out)
    }

    /// As [`Self::reseal`], into a buffer that is reused.
    ///
    /// # Errors
    /// As [`Self::reseal`]; `out` is then empty.
    pub async fn reseal_into(
        &self,
        context: &Context<'_>,
        record: &[u8],
        least: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        let mut attempt = 0;
        let error = loop {
            let error = match self.reseal_now(context, record, least, out) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            attempt += 1;
            let ready = match &error {
                // The fence may know of a generation that this process has not seen yet.
                EnvelopeError::GenerationTooOld { .. } if attempt <= 3 => self.client.poll().await,
                EnvelopeError::NotCached
                | EnvelopeError::TemporarilyUnavailable {
                    reason: Unavailable::Lease | Unavailable::Unproven | Unavailable::Overtaken,
                } if attempt <= 3 => Ok(()),
                _ => break error,
            };
            Counters::add(&self.client.counters.misses, 1);
            if let Err(error) = ready {
                break error;
            }
            if let Err(error) = self.both_ready(record).await {
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

    /// Reseals with keys that are already in the process; never waits.
    ///
    /// # Errors
    /// `NotCached` if [`Self::reseal`] would have to ask the broker; `out` is empty after any error.
    pub fn try_reseal_into(
        &self,
        context: &Context<'_>,
        record: &[u8],
        least: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        self.counted(self.reseal_now(context, record, least, out))
    }

    async fn both_ready(&self, record: &[u8]) -> Result<(), EnvelopeError> {
        let header = Header::parse(record)?;
        self.client.ready(&self.state, Wanted::DataKey(header.data_key_id)).await?;
        self.client.ready(&self.state, Wanted::Current { newer_than: None }).await?;
        Ok(())
    }

    fn reseal_now(
        &self,
        context: &Context<'_>,
        record: &[u8],
        least: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        let header = match Header::parse(record) {
            Ok(header) => header,
            Err(error) => {
                give_up(out);
                return Err(error);
            }
        };
        let sealed = Sealed { context, header, bytes: record };
        let worn = with_mine(|cache| self.reseal_with(cache, &sealed, least, out))
            .unwrap_or(Err(GONE))
            .inspect_err(|_| give_up(out))?;
        for (entry, purpose) in worn.into_iter().zip([Purpose::Read(&header), Purpose::Write]) {
            if let Some(entry) = entry {
                self.refresh(&entry, purpose);
            }
        }
        Ok(())
    }

    /// As `operate`, with two keys: something brief is tried with the clocks as they were read last.
    fn reseal_with(
        &self,
        cache: &mut ThreadCache,
        sealed: &Sealed<'_>,
        least: u32,
        out: &mut Vec<u8>,
    ) -> Result<Worn, EnvelopeError> {
        let client = &*self.client;
        if sealed.bytes.len() <= BRIEF
            && let Some((now, tick)) = cache.last(client.number)
            && let Ok(turn) = self.turn(cache, sealed, least, now, out)
            && client.clock.tick() == tick
            && self.recheck_both(cache, &turn, now).is_ok()
        {
            return Ok(count_both(cache, &turn, now));
        }
        let (now, tick) = cache.now(client.number, &client.clock);
        let turn = self.turn(cache, sealed, least, now, out)?;
        let after = if client.clock.tick() == tick { now } else { client.clock.now() };
        self.recheck_both(cache, &turn, after)?;
        Ok(count_both(cache, &turn, now))
    }

    fn turn(
        &self,
        cache: &mut ThreadCache,
        sealed: &Sealed<'_>,
        least: u32,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Result<Turn, EnvelopeError> {
        let lease = &self.client.lease;
        if !lease.fresh(now) {
            return Err(EnvelopeError::unavailable(Unavailable::Lease));
        }
        let epoch = lease.epoch();
        let writer = self.find(cache, Purpose::Write, epoch, now)?;
        let reader = self.find(cache, Purpose::Read(&sealed.header), epoch, now)?;
        // Making room for the reader may have taken the writer's place.
        if cache.writer(self.state.number) != Some(writer) {
            return Err(EnvelopeError::NotCached);
        }
        let entry = &cache.parts(writer).ok_or(EnvelopeError::NotCached)?.entry.entry;
        entry.policy.may_write(entry.generation)?;
        if entry.generation < least {
            return Err(EnvelopeError::GenerationTooOld { generation: entry.generation, least });
        }
        let turn = Turn { epoch, reader, writer };
        if sealed.header.version == VERSION_STREAM {
            reseal_stream(cache, &turn, sealed, out)?;
        } else {
            reseal_record(cache, &turn, sealed, out)?;
        }
        Ok(turn)
    }

    fn recheck_both(&self, cache: &mut ThreadCache, turn: &Turn, now: Now) -> Result<(), EnvelopeError> {
        self.recheck(cache, turn.reader, turn.epoch, now)?;
        self.recheck(cache, turn.writer, turn.epoch, now)
    }
}

fn count_both(cache: &mut ThreadCache, turn: &Turn, now: Now) -> Worn {
    [turn.reader, turn.writer].map(|index| cache.count(index, 1, now))
}

fn reseal_record(
    cache: &mut ThreadCache,
    turn: &Turn,
    sealed: &Sealed<'_>,
    out: &mut Vec<u8>,
) -> Result<(), EnvelopeError> {
    let text = sealed.bytes.get(HEADER_LEN..).unwrap_or_default();
    let length = text
        .len()
        .checked_sub(TAG_LEN)
        .ok_or(EnvelopeError::MalformedRecord { why: "it is shorter than its tag" })?;
    if length > MAX_RECORD {
        return Err(EnvelopeError::TooLarge { bytes: length, most: MAX_RECORD });
    }
    out.clear();
    out.reserve_exact(sealed.bytes.len());
    out.resize(HEADER_LEN, 0);

    let Parts { index, entry, aad, last_read, .. } =
        cache.parts(turn.reader).ok_or(EnvelopeError::NotCached)?;
    write_aad(aad, &entry.entry.aad, sealed.context)?;
    last_read
        .of(index, entry, &sealed.header)?
        .open(Chunk::Whole, aad, text, out)
        .map_err(|_| EnvelopeError::TamperedOrWrongContext)?;

    let Parts { index, entry, pool, aad, run, moment, .. } =
        cache.parts(turn.writer).ok_or(EnvelopeError::NotCached)?;
    let mut header = Header::empty(sealed.header.version);
    write_aad(aad, &entry.entry.aad, sealed.context)?;
    let cipher = run.next(index, entry, pool, moment, &mut header)?;
    header.overwrite(out);
    cipher.seal_in_place(Chunk::Whole, aad, out, HEADER_LEN)
}

/// Chunk by chunk, of the size that the stream has.
fn reseal_stream(
    cache: &mut ThreadCache,
    turn: &Turn,
    sealed: &Sealed<'_>,
    out: &mut Vec<u8>,
) -> Result<(), EnvelopeError> {
    let (_, size) = stream_header(sealed.bytes)?;
    let chunks = sealed.bytes.get(STREAM_HEADER_LEN..).unwrap_or_default();
    let mut key = MessageKey::empty();

    let Parts { entry, .. } = cache.parts(turn.reader).ok_or(EnvelopeError::NotCached)?;
    entry.key.derive(&sealed.header.nonce, &mut key);
    committed(entry, key.seed(), &sealed.header)?;
    let from_aad = stream_aad(&entry.entry.aad, size, sealed.context)?;
    let from = MessageCipher::new(&key, &sealed.header.nonce)?;

    let Parts { entry, pool, moment, .. } = cache.parts(turn.writer).ok_or(EnvelopeError::NotCached)?;
    let mut header = Header::empty(VERSION_STREAM);
    fresh(entry, pool, moment, &mut key, &mut header)?;
    let to_aad = stream_aad(&entry.entry.aad, size, sealed.context)?;
    let to = MessageCipher::new(&key, &header.nonce)?;

    out.clear();
    out.reserve_exact(sealed.bytes.len());
    header.begin(out);
    out.extend_from_slice(&size.to_be_bytes());
    // There is always a last chunk: a stream without any was cut.
    let whole = usize::try_from(size).unwrap_or(MAX_RECORD) + TAG_LEN;
    let last = chunks.chunks(whole).count().saturating_sub(1);
    if chunks.is_empty() {
        return Err(EnvelopeError::BrokenStream { chunk: 0 });
    }
    for (index, chunk) in chunks.chunks(whole).enumerate() {
        let counter = u32::try_from(index).map_err(|_| EnvelopeError::BrokenStream { chunk: u32::MAX })?;
        let place = Chunk::Of { counter, last: index == last };
        let start = out.len();
        from.open(place, &from_aad, chunk, out)
            .map_err(|_| EnvelopeError::BrokenStream { chunk: counter })?;
        to.seal_in_place(place, &to_aad, out, start)?;
    }
    Ok(())
}
