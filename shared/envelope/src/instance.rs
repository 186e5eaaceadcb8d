//! One app instance's handle: the hot path.
//!
//! A hit takes the thread's own lock, reads two clocks (mostly one cheap tick), derives a message key, encrypts
//! and looks at lease and policy again before anything leaves.

use crate::cipher::{Chunk, MessageCipher, same};
use crate::client::Inner;
use crate::clock::Now;
use crate::error::{EnvelopeError, Unavailable};
use crate::format::{
    Context, HEADER_LEN, Header, MAX_RECORD, OVERHEAD, TAG_LEN, VERSION_RECORD, VERSION_STREAM, write_aad,
};
use crate::metrics::Counters;
use crate::source::{InstanceName, Wanted};
use crate::store::{InstanceState, KeyEntry, Unusable};
use crate::stream::{CHUNK_SIZE, StreamDecryptor, StreamEncryptor};
use crate::thread::{Parts, ThreadCache, ThreadEntry, with_mine};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use zeroize::{Zeroize, Zeroizing};

/// Encrypts and decrypts the records of one app instance. Clones are cheap.
#[derive(Clone)]
pub struct Instance {
    pub(crate) client: Arc<Inner>,
    pub(crate) state: Arc<InstanceState>,
}

const GONE: EnvelopeError = EnvelopeError::Internal { what: "the thread is ending" };

impl Instance {
    pub(crate) const fn new(client: Arc<Inner>, state: Arc<InstanceState>) -> Self {
        Self { client, state }
    }

    #[must_use]
    pub fn name(&self) -> &InstanceName {
        &self.state.name
    }

    /// Encrypts one record, fetching or proving the key if need be.
    ///
    /// # Errors
    /// Any but `NotCached`; each has a remedy ([`EnvelopeError::help`]).
    pub async fn encrypt(&self, context: &Context<'_>, plaintext: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        let mut out = Vec::new();
        self.encrypt_into(context, plaintext, &mut out).await?;
        Ok(out)
    }

    /// As [`Self::encrypt`], into a buffer that is reused. What it held before is gone.
    ///
    /// # Errors
    /// As [`Self::encrypt`]; `out` is then empty.
    pub async fn encrypt_into(
        &self,
        context: &Context<'_>,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        self.with_key(Wanted::Current { newer_than: None }, || self.try_encrypt_into(context, plaintext, out))
            .await
    }

    /// Decrypts one record, fetching or proving the key if need be.
    ///
    /// # Errors
    /// Any but `NotCached`.
    pub async fn decrypt(&self, context: &Context<'_>, record: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        let mut out = Vec::new();
        self.decrypt_into(context, record, &mut out).await?;
        Ok(out)
    }

    /// As [`Self::decrypt`], into a buffer that is reused.
    ///
    /// # Errors
    /// As [`Self::decrypt`]; `out` is then empty.
    pub async fn decrypt_into(
        &self,
        context: &Context<'_>,
        record: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        let header = Header::parse(record).inspect_err(|error| self.client.counters.refused(error.slug()))?;
        self.with_key(Wanted::DataKey(header.data_key_id), || self.try_decrypt_into(context, record, out))
            .await
    }

    /// Encrypts with a key that is already in the process; never waits.
    ///
    /// # Errors
    /// `NotCached` if [`Self::encrypt`] would have to ask the broker.
    pub fn try_encrypt(&self, context: &Context<'_>, plaintext: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        let mut out = Vec::new();
        self.try_encrypt_into(context, plaintext, &mut out)?;
        Ok(out)
    }

    /// As [`Self::try_encrypt`], into a buffer that is reused.
    ///
    /// # Errors
    /// As [`Self::try_encrypt`]; `out` is then empty.
    pub fn try_encrypt_into(
        &self,
        context: &Context<'_>,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        let result = self.writing(|parts, tick| {
            seal_record(parts, tick, context, plaintext, out)?;
            Ok(1)
        });
        result.inspect_err(|_| give_up(out))
    }

    /// Encrypts many records with one look at cache, lease and policy before, and one after.
    ///
    /// # Errors
    /// As [`Self::try_encrypt`]; nothing is appended to `out` then.
    pub fn try_encrypt_batch(
        &self,
        records: &[(Context<'_>, &[u8])],
        out: &mut Vec<Vec<u8>>,
    ) -> Result<(), EnvelopeError> {
        let before = out.len();
        out.reserve(records.len());
        let result = self.writing(|parts, tick| {
            let mut used = 0;
            for (context, plaintext) in records {
                let mut record = Vec::new();
                seal_record(parts, tick, context, plaintext, &mut record)?;
                out.push(record);
                used += 1;
            }
            Ok(used)
        });
        result.inspect_err(|_| out.truncate(before))
    }

    /// As [`Self::try_encrypt_batch`], fetching or proving the key if need be.
    ///
    /// # Errors
    /// As [`Self::encrypt`].
    pub async fn encrypt_batch(
        &self,
        records: &[(Context<'_>, &[u8])],
    ) -> Result<Vec<Vec<u8>>, EnvelopeError> {
        let mut out = Vec::new();
        self.with_key(Wanted::Current { newer_than: None }, || self.try_encrypt_batch(records, &mut out))
            .await?;
        Ok(out)
    }

    /// Decrypts with a key that is already in the process; never waits.
    ///
    /// # Errors
    /// `NotCached` if [`Self::decrypt`] would have to ask the broker.
    pub fn try_decrypt(&self, context: &Context<'_>, record: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        let mut out = Vec::new();
        self.try_decrypt_into(context, record, &mut out)?;
        Ok(out)
    }

    /// As [`Self::try_decrypt`], into a buffer that is reused.
    ///
    /// # Errors
    /// As [`Self::try_decrypt`]; `out` is then empty.
    pub fn try_decrypt_into(
        &self,
        context: &Context<'_>,
        record: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        let result = self.reading_record(context, record, out);
        result.inspect_err(|_| give_up(out))
    }

    fn reading_record(
        &self,
        context: &Context<'_>,
        record: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        let header = Header::parse(record)?;
        if header.version != VERSION_RECORD {
            return Err(EnvelopeError::MalformedRecord { why: "it is a stream, not a single record" });
        }
        let sealed = record.get(HEADER_LEN..).unwrap_or_default();
        let length = sealed
            .len()
            .checked_sub(TAG_LEN)
            .ok_or(EnvelopeError::MalformedRecord { why: "it is shorter than its tag" })?;
        if length > MAX_RECORD {
            return Err(EnvelopeError::TooLarge { bytes: length, most: MAX_RECORD });
        }
        self.reading(&header, |Parts { entry, aad, cipher, .. }| {
            let (key, commitment) = entry.key.derive(&header.nonce);
            if header.generation != entry.entry.generation || !same(&commitment, &header.commitment) {
                return Err(EnvelopeError::TamperedOrWrongContext);
            }
            write_aad(
                aad,
                VERSION_RECORD,
                header.data_key_id,
                header.generation,
                None,
                &entry.entry.ids.aad,
                context,
            )?;
            let cipher = cipher.keyed(&key, &header.nonce)?;
            out.clear();
            cipher.open(Chunk::Whole, aad, sealed, out).map_err(|_| EnvelopeError::TamperedOrWrongContext)
        })
    }

    /// Begins a stream. Memory is constant: one chunk is buffered.
    ///
    /// # Errors
    /// As [`Self::encrypt`].
    pub async fn encrypt_stream(&self, context: &Context<'_>) -> Result<StreamEncryptor, EnvelopeError> {
        self.with_key(Wanted::Current { newer_than: None }, || self.begin_stream(context)).await
    }

    fn begin_stream(&self, context: &Context<'_>) -> Result<StreamEncryptor, EnvelopeError> {
        let mut begun = None;
        self.writing(|Parts { entry, pool, .. }, tick| {
            let nonce = pool.nonce(tick.cast_unsigned())?;
            let (key, commitment) = entry.key.derive(&nonce);
            let header = Header {
                version: VERSION_STREAM,
                data_key_id: entry.entry.data_key_id,
                generation: entry.entry.generation,
                nonce,
                commitment,
            };
            let aad = stream_aad(entry, &header, CHUNK_SIZE, context)?;
            let cipher = MessageCipher::new(&key, &nonce)?;
            begun = Some(StreamEncryptor::new(self.clone(), entry.entry.clone(), header, aad, cipher));
            Ok(1)
        })?;
        begun.ok_or(EnvelopeError::NotCached)
    }

    /// Begins to read a stream, given its first [`STREAM_HEADER_LEN`](crate::format::STREAM_HEADER_LEN) bytes.
    ///
    /// # Errors
    /// As [`Self::decrypt`].
    pub async fn decrypt_stream(
        &self,
        context: &Context<'_>,
        header: &[u8],
    ) -> Result<StreamDecryptor, EnvelopeError> {
        let parsed = Header::parse(header)?;
        if parsed.version != VERSION_STREAM {
            return Err(EnvelopeError::MalformedRecord { why: "it is a single record, not a stream" });
        }
        let size = header
            .get(HEADER_LEN..)
            .and_then(|rest| rest.first_chunk::<4>())
            .map(|size| u32::from_be_bytes(*size))
            .ok_or(EnvelopeError::MalformedRecord { why: "it is shorter than its header" })?;
        if size == 0 || size as usize > MAX_RECORD {
            return Err(EnvelopeError::MalformedRecord { why: "its chunk size is out of bounds" });
        }
        self.with_key(Wanted::DataKey(parsed.data_key_id), || {
            let mut begun = None;
            self.reading(&parsed, |Parts { entry, .. }| {
                let (key, commitment) = entry.key.derive(&parsed.nonce);
                if parsed.generation != entry.entry.generation || !same(&commitment, &parsed.commitment) {
                    return Err(EnvelopeError::TamperedOrWrongContext);
                }
                let aad = stream_aad(entry, &parsed, size, context)?;
                let cipher = MessageCipher::new(&key, &parsed.nonce)?;
                begun = Some(StreamDecryptor::new(self.clone(), entry.entry.clone(), size, aad, cipher));
                Ok(())
            })?;
            begun.ok_or(EnvelopeError::NotCached)
        })
        .await
    }

    /// Runs a synchronous operation, and again after the key was made ready.
    async fn with_key<R>(
        &self,
        wanted: Wanted,
        mut operation: impl FnMut() -> Result<R, EnvelopeError>,
    ) -> Result<R, EnvelopeError> {
        let mut attempt = 0;
        let error = loop {
            let error = match operation() {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            let worth_it = matches!(
                error,
                EnvelopeError::NotCached
                    | EnvelopeError::GenerationTooOld { .. }
                    | EnvelopeError::TemporarilyUnavailable {
                        reason: Unavailable::Lease | Unavailable::Unproven | Unavailable::Overtaken
                    }
            );
            attempt += 1;
            if !worth_it || attempt > 3 {
                break error;
            }
            Counters::add(&self.client.counters.misses, 1);
            if let Err(error) = self.client.ready(&self.state, wanted).await {
                break error;
            }
        };
        let error = match error {
            EnvelopeError::NotCached => EnvelopeError::unavailable(Unavailable::Overtaken),
            other => other,
        };
        self.client.counters.refused(error.slug());
        Err(error)
    }

    /// Runs `f` with this thread's key to write with. `f` returns how many records it made.
    #[inline]
    fn writing(
        &self,
        f: impl FnOnce(&mut Parts<'_>, i64) -> Result<u32, EnvelopeError>,
    ) -> Result<(), EnvelopeError> {
        let client = &*self.client;
        let mut refresh = None;
        let result = with_mine(|cache| {
            let (now, tick) = cache.now(client.number, &client.clock);
            if !client.lease.fresh(now) {
                return Err(EnvelopeError::unavailable(Unavailable::Lease));
            }
            let epoch = client.lease.epoch();
            let index = self.writer(cache, epoch, now)?;
            let mut parts = cache.parts(index).ok_or(EnvelopeError::NotCached)?;
            parts.entry.entry.policy.may_write(parts.entry.entry.generation)?;
            let used = f(&mut parts, tick)?;
            let entry = parts.entry;
            self.recheck(&entry.entry, epoch, now, tick)?;
            entry.count(used);
            if entry.entry.times.wants_refresh(now) {
                refresh = Some(entry.entry.clone());
            }
            Ok(())
        })
        .unwrap_or(Err(GONE));
        if let Some(entry) = refresh {
            client_refresh(self, &entry, true);
        }
        result
    }

    #[inline]
    fn reading(
        &self,
        header: &Header,
        f: impl FnOnce(&mut Parts<'_>) -> Result<(), EnvelopeError>,
    ) -> Result<(), EnvelopeError> {
        let client = &*self.client;
        let mut refresh = None;
        let result = with_mine(|cache| {
            let (now, tick) = cache.now(client.number, &client.clock);
            if !client.lease.fresh(now) {
                return Err(EnvelopeError::unavailable(Unavailable::Lease));
            }
            let epoch = client.lease.epoch();
            let index = self.reader(cache, header, epoch, now)?;
            let mut parts = cache.parts(index).ok_or(EnvelopeError::NotCached)?;
            f(&mut parts)?;
            let entry = parts.entry;
            self.recheck(&entry.entry, epoch, now, tick)?;
            entry.count(1);
            if entry.entry.times.wants_refresh(now) {
                refresh = Some(entry.entry.clone());
            }
            Ok(())
        })
        .unwrap_or(Err(GONE));
        if let Some(entry) = refresh {
            client_refresh(self, &entry, false);
        }
        result
    }

    /// INVARIANT (I1): nothing leaves without this look, with the clocks as they are at the end.
    #[inline]
    fn recheck(&self, entry: &KeyEntry, epoch: u64, before: Now, tick: i64) -> Result<(), EnvelopeError> {
        let client = &*self.client;
        let now = if client.clock.tick() == tick { before } else { client.clock.now() };
        if !client.lease.fresh(now) || client.lease.epoch() != epoch {
            return Err(EnvelopeError::unavailable(Unavailable::Lease));
        }
        entry.usable(epoch, now).map_err(|unusable| match unusable {
            Unusable::Gone => EnvelopeError::NotCached,
            Unusable::Refused(error) => error,
        })
    }

    /// As the two looks of a single record, for a chunk of a stream: [`EnvelopeError::NotCached`] if the key
    /// must be asked for anew.
    pub(crate) fn check(&self, entry: &KeyEntry) -> Result<(), EnvelopeError> {
        let client = &*self.client;
        let now = client.clock.now();
        if !client.lease.fresh(now) {
            return Err(EnvelopeError::unavailable(Unavailable::Lease));
        }
        entry.usable(client.lease.epoch(), now).map_err(|unusable| match unusable {
            Unusable::Gone => EnvelopeError::NotCached,
            Unusable::Refused(error) => error,
        })
    }

    #[inline]
    fn writer(&self, cache: &mut ThreadCache, epoch: u64, now: Now) -> Result<usize, EnvelopeError> {
        let number = self.state.number;
        if let Some(index) = cache.writer(number)
            && let Some(entry) = cache.entry(index)
            && !entry.entry.superseded()
        {
            match entry.entry.usable(epoch, now) {
                Ok(()) => return Ok(index),
                Err(Unusable::Refused(error)) => return Err(error),
                Err(Unusable::Gone) => {}
            }
        }
        let found = self.client.store.writer(number).filter(|entry| !entry.superseded());
        self.install(cache, found, epoch, now, true)
    }

    #[inline]
    fn reader(
        &self,
        cache: &mut ThreadCache,
        header: &Header,
        epoch: u64,
        now: Now,
    ) -> Result<usize, EnvelopeError> {
        let number = self.state.number;
        if let Some(index) = cache.reader(number, header.data_key_id)
            && let Some(entry) = cache.entry(index)
        {
            match entry.entry.usable(epoch, now) {
                Ok(()) => return Ok(index),
                Err(Unusable::Refused(error)) => return Err(error),
                Err(Unusable::Gone) => {}
            }
        }
        let found = self.client.store.reader(number, header.data_key_id);
        self.install(cache, found, epoch, now, false)
    }

    /// The thread lacks a key that the process may have.
    #[cold]
    #[inline(never)]
    fn install(
        &self,
        cache: &mut ThreadCache,
        found: Option<Arc<KeyEntry>>,
        epoch: u64,
        now: Now,
        writer: bool,
    ) -> Result<usize, EnvelopeError> {
        let Some(entry) = found else {
            if self.client.store.ids(self.state.number).is_some_and(|ids| ids.policy.closed()) {
                return Err(EnvelopeError::Suspended);
            }
            return Err(EnvelopeError::NotCached);
        };
        match entry.usable(epoch, now) {
            Ok(()) => {}
            Err(Unusable::Gone) => return Err(EnvelopeError::NotCached),
            Err(Unusable::Refused(error)) => return Err(error),
        }
        if writer && entry.uses.load(Ordering::Relaxed) > self.client.config.hard_uses {
            entry.supersede();
            return Err(EnvelopeError::NotCached);
        }
        cache.install(&entry, writer).ok_or(EnvelopeError::NotCached)
    }
}

#[cold]
fn client_refresh(instance: &Instance, entry: &Arc<KeyEntry>, writer: bool) {
    if writer && entry.uses.load(Ordering::Relaxed) > instance.client.config.hard_uses {
        entry.supersede();
    }
    instance.client.refresh(&instance.state, entry, writer);
}

#[inline]
fn seal_record(
    parts: &mut Parts<'_>,
    tick: i64,
    context: &Context<'_>,
    plaintext: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), EnvelopeError> {
    if plaintext.len() > MAX_RECORD {
        return Err(EnvelopeError::TooLarge { bytes: plaintext.len(), most: MAX_RECORD });
    }
    let Parts { entry, pool, aad, cipher } = parts;
    let nonce = pool.nonce(tick.cast_unsigned())?;
    let (key, commitment) = entry.key.derive(&nonce);
    let header = Header {
        version: VERSION_RECORD,
        data_key_id: entry.entry.data_key_id,
        generation: entry.entry.generation,
        nonce,
        commitment,
    };
    write_aad(
        aad,
        VERSION_RECORD,
        header.data_key_id,
        header.generation,
        None,
        &entry.entry.ids.aad,
        context,
    )?;
    out.clear();
    out.reserve_exact(plaintext.len() + OVERHEAD);
    out.extend_from_slice(&header.to_bytes());
    cipher.keyed(&key, &nonce)?.seal(Chunk::Whole, aad, plaintext, out)
}

fn stream_aad(
    entry: &ThreadEntry,
    header: &Header,
    size: u32,
    context: &Context<'_>,
) -> Result<Vec<u8>, EnvelopeError> {
    let mut aad = Vec::new();
    write_aad(
        &mut aad,
        VERSION_STREAM,
        header.data_key_id,
        header.generation,
        Some(size),
        &entry.entry.ids.aad,
        context,
    )?;
    Ok(aad)
}

/// Leaves nothing behind that might be taken for an answer.
#[cold]
fn give_up(out: &mut Vec<u8>) {
    out.zeroize();
}

/// A buffer that is wiped when dropped.
pub(crate) type Wiped = Zeroizing<Vec<u8>>;
