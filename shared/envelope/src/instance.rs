//! One app instance's handle: the hot path.
//!
//! A hit takes the thread's own lock, reads two clocks (mostly one cheap tick), derives a message key, encrypts
//! and looks at lease and policy again before anything leaves.

use crate::cipher::{Chunk, MessageCipher};
use crate::client::Inner;
use crate::clock::Now;
use crate::error::{EnvelopeError, Unavailable};
use crate::format::{
    Context, HEADER_LEN, Header, MAX_RECORD, OVERHEAD, TAG_LEN, VERSION_RECORD, VERSION_STREAM, stream_aad,
    write_aad,
};
use crate::gcm::NotAuthentic;
use crate::metrics::Counters;
use crate::random::{Moment, Pool};
use crate::run::committed;
use crate::secret::MessageKey;
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

/// Bytes that are done long before the kernel's tick moves.
pub(crate) const BRIEF: usize = 16 * 1024;

pub(crate) const GONE: EnvelopeError = EnvelopeError::Internal { what: "the thread is ending" };

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
        self.with_key(Wanted::Current { newer_than: None }, || self.encrypt_now(context, plaintext, out))
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
        let header = self.counted(Header::parse(record))?;
        self.with_key(Wanted::DataKey(header.data_key_id), || self.decrypt_now(context, record, out)).await
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
        self.counted(self.encrypt_now(context, plaintext, out))
    }

    fn encrypt_now(
        &self,
        context: &Context<'_>,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        let brief = plaintext.len() <= BRIEF;
        let result = self.operate(Purpose::Write, brief, |mut parts| {
            seal_record(&mut parts, context, plaintext, out)?;
            Ok((1, ()))
        });
        result.inspect_err(|_| give_up(out))
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
        self.counted(self.decrypt_now(context, record, out))
    }

    fn decrypt_now(
        &self,
        context: &Context<'_>,
        record: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        self.open_record(context, record, out).inspect_err(|_| give_up(out))
    }

    fn open_record(
        &self,
        context: &Context<'_>,
        record: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        let (header, sealed) = sealed_record(record)?;
        self.operate(
            Purpose::Read(&header),
            sealed.len() <= BRIEF + TAG_LEN,
            |Parts { index, entry, aad, last_read, .. }| {
                write_aad(aad, &entry.entry.aad, context)?;
                let cipher = last_read.of(index, entry, &header)?;
                out.clear();
                cipher
                    .open(Chunk::Whole, aad, sealed, out)
                    .map_err(|NotAuthentic| EnvelopeError::TamperedOrWrongContext)?;
                Ok((1, ()))
            },
        )
    }

    /// Begins a stream. Memory is constant: one chunk is buffered.
    ///
    /// # Errors
    /// As [`Self::encrypt`].
    pub async fn encrypt_stream(&self, context: &Context<'_>) -> Result<StreamEncryptor, EnvelopeError> {
        self.with_key(Wanted::Current { newer_than: None }, || self.begin_stream(context)).await
    }

    fn begin_stream(&self, context: &Context<'_>) -> Result<StreamEncryptor, EnvelopeError> {
        self.operate(Purpose::Write, false, |Parts { entry, pool, moment, .. }| {
            let mut key = MessageKey::empty();
            let mut header = Header::empty(VERSION_STREAM);
            fresh(entry, pool, moment, &mut key, &mut header)?;
            let aad = stream_aad(&entry.entry.aad, CHUNK_SIZE, context)?;
            let cipher = MessageCipher::new(&key, &header.nonce)?;
            Ok((1, StreamEncryptor::new(self.clone(), entry.entry.clone(), header, aad, cipher)))
        })
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
        let (parsed, size) = self.counted(stream_header(header))?;
        self.with_key(Wanted::DataKey(parsed.data_key_id), || {
            self.operate(Purpose::Read(&parsed), false, |Parts { entry, .. }| {
                let mut key = MessageKey::empty();
                entry.key.derive(&parsed.nonce, &mut key);
                committed(entry, key.seed(), &parsed)?;
                let aad = stream_aad(&entry.entry.aad, size, context)?;
                let cipher = MessageCipher::new(&key, &parsed.nonce)?;
                Ok((1, StreamDecryptor::new(self.clone(), entry.entry.clone(), size, aad, cipher)))
            })
        })
        .await
    }

    /// Counts a refusal. That the key must be fetched first is none.
    #[inline]
    pub(crate) fn counted<R>(&self, result: Result<R, EnvelopeError>) -> Result<R, EnvelopeError> {
        result.inspect_err(|error| {
            if *error != EnvelopeError::NotCached {
                self.client.counters.refused(error);
            }
        })
    }

    /// Runs a synchronous operation, and again after the key was made ready.
    pub(crate) async fn with_key<R>(
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
            attempt += 1;
            if !waits(&error) || attempt > 3 {
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
        self.client.counters.refused(&error);
        Err(error)
    }

    /// Runs `f` with this thread's key. `f` returns how many records it made or read, and begins anew if it is
    /// run again.
    ///
    /// Something brief is tried with the clocks as they were read last. It counts if the tick after it still is
    /// the one of that reading; else it is thrown away, and done again with the clocks read before and after.
    #[inline]
    pub(crate) fn operate<R>(
        &self,
        purpose: Purpose<'_>,
        brief: bool,
        mut f: impl FnMut(Parts<'_>) -> Result<(u32, R), EnvelopeError>,
    ) -> Result<R, EnvelopeError> {
        let client = &*self.client;
        let mut refresh = None;
        let result = with_mine(|cache| {
            if brief && let Some((now, tick)) = cache.last(client.number) {
                match self.attempt(cache, purpose, now, &mut f) {
                    Ok((epoch, index, used, result)) if client.clock.tick() == tick => {
                        match self.recheck(cache, index, epoch, now) {
                            Ok(()) => {
                                refresh = cache.count(index, used, now);
                                return Ok(result);
                            }
                            // No clock changes that.
                            Err(EnvelopeError::Suspended) => return Err(EnvelopeError::Suspended),
                            Err(_) => {}
                        }
                    }
                    Err(EnvelopeError::Suspended) => return Err(EnvelopeError::Suspended),
                    Ok(_) | Err(_) => {}
                }
            }
            let (now, tick) = cache.now(client.number, &client.clock);
            let (epoch, index, used, result) = self.attempt(cache, purpose, now, &mut f)?;
            let after = if client.clock.tick() == tick { now } else { client.clock.now() };
            self.recheck(cache, index, epoch, after)?;
            refresh = cache.count(index, used, now);
            Ok(result)
        })
        .unwrap_or(Err(GONE));
        if let Some(entry) = refresh {
            self.refresh(&entry, purpose);
        }
        result
    }

    #[inline]
    fn attempt<R>(
        &self,
        cache: &mut ThreadCache,
        purpose: Purpose<'_>,
        now: Now,
        f: &mut impl FnMut(Parts<'_>) -> Result<(u32, R), EnvelopeError>,
    ) -> Result<(u64, usize, u32, R), EnvelopeError> {
        let lease = &self.client.lease;
        if !lease.fresh(now) {
            return Err(EnvelopeError::unavailable(Unavailable::Lease));
        }
        let epoch = lease.epoch();
        let index = self.find(cache, purpose, epoch, now)?;
        let parts = cache.parts(index).ok_or(EnvelopeError::NotCached)?;
        if let Purpose::Write = purpose {
            parts.entry.entry.policy.may_write(parts.entry.entry.generation)?;
        }
        let (used, result) = f(parts)?;
        Ok((epoch, index, used, result))
    }

    /// INVARIANT (I1): nothing leaves without this look, with the clocks as they are at the end.
    #[inline]
    pub(crate) fn recheck(
        &self,
        cache: &mut ThreadCache,
        index: usize,
        epoch: u64,
        now: Now,
    ) -> Result<(), EnvelopeError> {
        let lease = &self.client.lease;
        if !lease.fresh(now) || lease.epoch() != epoch {
            return Err(EnvelopeError::unavailable(Unavailable::Lease));
        }
        let ThreadEntry { entry, .. } = cache.entry(index).ok_or(EnvelopeError::NotCached)?;
        entry.usable(epoch, now).map_err(Unusable::into_error)
    }

    /// As the two looks of a single record, for a chunk of a stream: [`EnvelopeError::NotCached`] if the key
    /// must be asked for anew.
    pub(crate) fn check(&self, entry: &KeyEntry) -> Result<(), EnvelopeError> {
        let client = &*self.client;
        let now = client.clock.now();
        if !client.lease.fresh(now) {
            return Err(EnvelopeError::unavailable(Unavailable::Lease));
        }
        entry.usable(client.lease.epoch(), now).map_err(Unusable::into_error)
    }

    #[inline]
    pub(crate) fn find(
        &self,
        cache: &mut ThreadCache,
        purpose: Purpose<'_>,
        epoch: u64,
        now: Now,
    ) -> Result<usize, EnvelopeError> {
        let number = self.state.number;
        let index = match purpose {
            Purpose::Write => cache.writer(number),
            Purpose::Read(header) => cache.reader(number, header.data_key_id),
        };
        if let Some(index) = index
            && let Some(ThreadEntry { entry, .. }) = cache.entry(index)
            && !purpose.passed(entry)
        {
            match entry.usable(epoch, now) {
                Ok(()) => return Ok(index),
                Err(Unusable::Refused(error)) => return Err(error),
                Err(Unusable::Gone) => {}
            }
        }
        self.install(cache, purpose, epoch, now)
    }

    /// The thread lacks a key that the process may have.
    #[cold]
    #[inline(never)]
    fn install(
        &self,
        cache: &mut ThreadCache,
        purpose: Purpose<'_>,
        epoch: u64,
        now: Now,
    ) -> Result<usize, EnvelopeError> {
        let (store, number) = (&self.client.store, self.state.number);
        let found = match purpose {
            Purpose::Write => store.writer(number),
            Purpose::Read(header) => store.reader(number, header.data_key_id),
        };
        let Some(entry) = found.filter(|entry| !purpose.passed(entry)) else {
            if store.closed(number) {
                return Err(EnvelopeError::Suspended);
            }
            return Err(EnvelopeError::NotCached);
        };
        entry.usable(epoch, now).map_err(Unusable::into_error)?;
        let writer = matches!(purpose, Purpose::Write);
        if writer && self.worn_out(&entry) {
            return Err(EnvelopeError::NotCached);
        }
        cache.install(&entry, writer).ok_or(EnvelopeError::NotCached)
    }

    /// Beyond its hard limit of uses a version is not written with.
    fn worn_out(&self, entry: &KeyEntry) -> bool {
        let worn_out = entry.uses.load(Ordering::Relaxed) > self.client.config.hard_uses;
        if worn_out {
            self.state.outgrow(entry.version);
            entry.supersede();
        }
        worn_out
    }

    #[cold]
    pub(crate) fn refresh(&self, entry: &Arc<KeyEntry>, purpose: Purpose<'_>) {
        if let Purpose::Write = purpose {
            self.worn_out(entry);
        }
        self.client.refresh(&self.state, entry);
    }
}

/// Whether a key that is fetched or proven may help.
pub(crate) const fn waits(error: &EnvelopeError) -> bool {
    matches!(
        error,
        EnvelopeError::NotCached
            | EnvelopeError::GenerationTooOld { .. }
            | EnvelopeError::TemporarilyUnavailable {
                reason: Unavailable::Lease | Unavailable::Unproven | Unavailable::Overtaken
            }
    )
}

/// What a key is looked for.
#[derive(Clone, Copy)]
pub(crate) enum Purpose<'a> {
    Write,
    Read(&'a Header),
}

impl Purpose<'_> {
    /// No longer of use: a newer version is written with.
    #[inline]
    fn passed(self, entry: &KeyEntry) -> bool {
        matches!(self, Self::Write) && entry.superseded()
    }
}

/// Makes a message key under a nonce of its own, and writes both and their commitment where they stay.
#[inline]
pub(crate) fn fresh(
    entry: &ThreadEntry,
    pool: &mut Pool,
    moment: &Moment,
    key: &mut MessageKey,
    header: &mut Header,
) -> Result<(), EnvelopeError> {
    header.data_key_id = entry.entry.data_key_id;
    header.generation = entry.entry.generation;
    pool.nonce(moment, &mut header.nonce)?;
    entry.key.derive(&header.nonce, key);
    entry.key.commit(key.seed(), &header.nonce, &mut header.commitment);
    Ok(())
}

#[inline]
pub(crate) fn seal_record(
    parts: &mut Parts<'_>,
    context: &Context<'_>,
    plaintext: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), EnvelopeError> {
    if plaintext.len() > MAX_RECORD {
        return Err(EnvelopeError::TooLarge { bytes: plaintext.len(), most: MAX_RECORD });
    }
    let Parts { index, entry, pool, aad, run, moment, .. } = parts;
    write_aad(aad, &entry.entry.aad, context)?;
    let mut header = Header::empty(VERSION_RECORD);
    let cipher = run.next(*index, entry, pool, moment, &mut header)?;
    out.clear();
    out.reserve_exact(plaintext.len() + OVERHEAD);
    header.begin(out);
    cipher.seal(Chunk::Whole, aad, plaintext, out)
}

/// Reads the header of a single record, and what it seals.
#[inline]
pub(crate) fn sealed_record(record: &[u8]) -> Result<(Header, &[u8]), EnvelopeError> {
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
    Ok((header, sealed))
}

/// Reads the header of a stream and its chunk size.
pub(crate) fn stream_header(header: &[u8]) -> Result<(Header, u32), EnvelopeError> {
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
    Ok((parsed, size))
}

/// Leaves nothing behind that might be taken for an answer.
#[cold]
pub(crate) fn give_up(out: &mut Vec<u8>) {
    out.zeroize();
}

/// A buffer that is wiped when dropped.
pub(crate) type Wiped = Zeroizing<Vec<u8>>;
