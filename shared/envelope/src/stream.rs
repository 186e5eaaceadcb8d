//! Large objects in chunks: constant memory; a missing, doubled or moved chunk is noticed; the lease is looked at
//! for every chunk.

use crate::cipher::{Chunk, MessageCipher};
use crate::error::EnvelopeError;
use crate::format::{Header, STREAM_HEADER_LEN, TAG_LEN};
use crate::instance::{Instance, Wiped};
use crate::source::Wanted;
use crate::store::KeyEntry;
use std::sync::Arc;
use zeroize::Zeroize;

/// Plaintext bytes of every chunk but the last.
pub const CHUNK_SIZE: u32 = 64 * 1024;

/// What both directions share: whose key it is, and that it may still be used.
struct Permit {
    instance: Instance,
    entry: Arc<KeyEntry>,
}

impl Permit {
    /// Looks at lease and policy; a key that ran out of time is asked for anew.
    async fn check(&mut self) -> Result<(), EnvelopeError> {
        match self.instance.check(&self.entry) {
            Ok(()) => return Ok(()),
            Err(EnvelopeError::NotCached | EnvelopeError::TemporarilyUnavailable { .. }) => {}
            Err(error) => return Err(error),
        }
        let wanted = Wanted::DataKey(self.entry.data_key_id);
        self.entry = self.instance.client.ready(&self.instance.state, wanted).await?;
        Ok(())
    }

    /// Before output leaves.
    fn recheck(&self) -> Result<(), EnvelopeError> {
        self.instance.check(&self.entry)
    }
}

/// Encrypts a stream. Write [`Self::header`] first, then whatever `update` and `finish` append.
pub struct StreamEncryptor {
    permit: Permit,
    header: Box<[u8]>,
    aad: Vec<u8>,
    cipher: MessageCipher,
    counter: u32,
    buffer: Wiped,
}

impl StreamEncryptor {
    pub(crate) fn new(
        instance: Instance,
        entry: Arc<KeyEntry>,
        header: Header,
        aad: Vec<u8>,
        cipher: MessageCipher,
    ) -> Self {
        let mut bytes = Vec::with_capacity(STREAM_HEADER_LEN);
        header.begin(&mut bytes);
        bytes.extend_from_slice(&CHUNK_SIZE.to_be_bytes());
        let buffer = Wiped::new(Vec::with_capacity(CHUNK_SIZE as usize));
        Self { permit: Permit { instance, entry }, header: bytes.into(), aad, cipher, counter: 0, buffer }
    }

    #[must_use]
    pub const fn header(&self) -> &[u8] {
        &self.header
    }

    /// Takes plaintext and appends the chunks that became full.
    ///
    /// # Errors
    /// As [`Instance::encrypt`]; the stream is then to be thrown away.
    pub async fn update(&mut self, mut plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        while !plaintext.is_empty() {
            if self.buffer.len() == CHUNK_SIZE as usize {
                self.flush(false, out).await?;
            }
            let room = CHUNK_SIZE as usize - self.buffer.len();
            let (now, later) = plaintext.split_at(room.min(plaintext.len()));
            self.buffer.extend_from_slice(now);
            plaintext = later;
        }
        Ok(())
    }

    /// Appends the last chunk. A stream without it is refused as truncated.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub async fn finish(mut self, out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        self.flush(true, out).await
    }

    async fn flush(&mut self, last: bool, out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        self.permit.check().await?;
        let before = out.len();
        // With room to spare: a chunk at a time and exactly, a large object would be moved once a chunk.
        out.reserve(self.buffer.len() + TAG_LEN);
        let chunk = Chunk::Of { counter: self.counter, last };
        let done = self.cipher.seal(chunk, &self.aad, &self.buffer, out).and_then(|()| self.permit.recheck());
        if let Err(error) = done {
            out.truncate(before);
            return Err(error);
        }
        self.buffer.zeroize();
        self.counter = self.counter.checked_add(1).ok_or(EnvelopeError::TooLarge {
            bytes: usize::MAX,
            most: u32::MAX as usize * CHUNK_SIZE as usize,
        })?;
        Ok(())
    }
}

/// Decrypts a stream. What `update` appends is authentic and in order; that it is *whole* is only known when
/// `finish` succeeds.
pub struct StreamDecryptor {
    permit: Permit,
    chunk: usize,
    aad: Vec<u8>,
    cipher: MessageCipher,
    counter: u32,
    buffer: Vec<u8>,
}

impl StreamDecryptor {
    pub(crate) fn new(
        instance: Instance,
        entry: Arc<KeyEntry>,
        size: u32,
        aad: Vec<u8>,
        cipher: MessageCipher,
    ) -> Self {
        let chunk = size as usize + TAG_LEN;
        // The size comes from outside and is bounded by the caller; memory is taken as bytes arrive.
        Self { permit: Permit { instance, entry }, chunk, aad, cipher, counter: 0, buffer: Vec::new() }
    }

    /// Takes sealed bytes, without the header, and appends the plaintext of the chunks that are complete.
    ///
    /// # Errors
    /// `BrokenStream`, or as [`Instance::decrypt`]; everything read so far is then to be thrown away.
    pub async fn update(&mut self, mut sealed: &[u8], out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        while !sealed.is_empty() {
            // A full chunk is only known not to be the last once a byte follows it.
            if self.buffer.len() == self.chunk {
                self.open(false, out).await?;
            }
            let room = self.chunk - self.buffer.len();
            let (now, later) = sealed.split_at(room.min(sealed.len()));
            self.buffer.extend_from_slice(now);
            sealed = later;
        }
        Ok(())
    }

    /// Opens the last chunk.
    ///
    /// # Errors
    /// `BrokenStream` if it is not the last one.
    pub async fn finish(mut self, out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        self.open(true, out).await
    }

    async fn open(&mut self, last: bool, out: &mut Vec<u8>) -> Result<(), EnvelopeError> {
        let broken = EnvelopeError::BrokenStream { chunk: self.counter };
        self.permit.check().await?;
        let before = out.len();
        out.reserve(self.buffer.len());
        let chunk = Chunk::Of { counter: self.counter, last };
        let done = match self.cipher.open(chunk, &self.aad, &self.buffer, out) {
            Ok(()) => self.permit.recheck(),
            Err(_) => Err(broken.clone()),
        };
        if let Err(error) = done {
            out.get_mut(before..).unwrap_or_default().zeroize();
            out.truncate(before);
            return Err(error);
        }
        self.buffer.clear();
        self.counter = self.counter.checked_add(1).ok_or(broken)?;
        Ok(())
    }
}
