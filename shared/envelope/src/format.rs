//! The record format, byte by byte as in `docs/RECORD-FORMAT.md`: parsing, and the associated data.

use crate::error::EnvelopeError;
use uuid::Uuid;

/// A record in one piece.
pub const VERSION_RECORD: u8 = 1;
/// A stream of chunks.
pub const VERSION_STREAM: u8 = 2;

pub(crate) const NONCE_LEN: usize = 24;
pub(crate) const COMMITMENT_LEN: usize = 32;
pub(crate) const TAG_LEN: usize = 16;
/// version, data-key id, generation, nonce, commitment
pub const HEADER_LEN: usize = 1 + 16 + 4 + NONCE_LEN + COMMITMENT_LEN;
/// What a record is longer than its plaintext.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// The largest plaintext of a single record; larger objects go in chunks.
pub const MAX_RECORD: usize = 16 * 1024 * 1024;
/// The stream's header: that of a record and the chunk size.
pub const STREAM_HEADER_LEN: usize = HEADER_LEN + 4;

/// What a record is about, as far as the app knows it. Organisation and instance come from the handle.
/// All four are bound to the ciphertext: a record read under any other context is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Context<'a> {
    pub data_type: &'a str,
    pub record_id: &'a str,
}

impl<'a> Context<'a> {
    #[must_use]
    pub const fn new(data_type: &'a str, record_id: &'a str) -> Self {
        Self { data_type, record_id }
    }
}

/// The clear part of a record. What it says is only believed once the record was decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub version: u8,
    pub data_key_id: Uuid,
    pub generation: u32,
    pub(crate) nonce: [u8; NONCE_LEN],
    pub(crate) commitment: [u8; COMMITMENT_LEN],
}

impl Header {
    /// Reads the header of a record or of a stream.
    ///
    /// # Errors
    /// `MalformedRecord` if there are too few bytes, `UnknownVersion` if a later build wrote it.
    pub fn parse(record: &[u8]) -> Result<Self, EnvelopeError> {
        let version = *record.first().ok_or(EnvelopeError::MalformedRecord { why: "it is empty" })?;
        if version != VERSION_RECORD && version != VERSION_STREAM {
            return Err(EnvelopeError::UnknownVersion { version });
        }
        let header = record
            .first_chunk::<HEADER_LEN>()
            .ok_or(EnvelopeError::MalformedRecord { why: "it is shorter than its header" })?;
        let (_, rest) = header.split_at(1);
        let (id, rest) = take::<16>(rest)?;
        let (generation, rest) = take::<4>(rest)?;
        let (nonce, rest) = take::<NONCE_LEN>(rest)?;
        let (commitment, _) = take::<COMMITMENT_LEN>(rest)?;
        Ok(Self {
            version,
            data_key_id: Uuid::from_bytes(*id),
            generation: u32::from_be_bytes(*generation),
            nonce: *nonce,
            commitment: *commitment,
        })
    }

    #[inline]
    pub(crate) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        // Constant ranges of a constant length: no check is left at run time.
        let (version, rest) = bytes.split_at_mut(1);
        let (id, rest) = rest.split_at_mut(16);
        let (generation, rest) = rest.split_at_mut(4);
        let (nonce, commitment) = rest.split_at_mut(NONCE_LEN);
        version.copy_from_slice(&[self.version]);
        id.copy_from_slice(self.data_key_id.as_bytes());
        generation.copy_from_slice(&self.generation.to_be_bytes());
        nonce.copy_from_slice(&self.nonce);
        commitment.copy_from_slice(&self.commitment);
        bytes
    }
}

fn take<const N: usize>(bytes: &[u8]) -> Result<(&[u8; N], &[u8]), EnvelopeError> {
    bytes
        .split_first_chunk::<N>()
        .ok_or(EnvelopeError::MalformedRecord { why: "it is shorter than its header" })
}

/// The generation of the data key that wrote a record, for stores that refuse older ones.
///
/// # Errors
/// As [`Header::parse`].
pub fn generation_of(record: &[u8]) -> Result<u32, EnvelopeError> {
    Header::parse(record).map(|header| header.generation)
}

/// SHA-256 of a record's header: names this very encryption of the record. A re-encryption writes on the
/// condition that the stored digest is still the one it read.
///
/// # Errors
/// As [`Header::parse`].
pub fn header_digest(record: &[u8]) -> Result<[u8; 32], EnvelopeError> {
    Header::parse(record)?;
    let header = record.get(..HEADER_LEN).unwrap_or_default();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, header);
    digest.as_ref().try_into().map_err(|_| EnvelopeError::Internal { what: "digest length" })
}

/// Appends the part of the associated data that is the same for every record of an app instance.
pub(crate) fn push_ids(
    aad: &mut Vec<u8>,
    organisation_id: &str,
    instance_id: &str,
) -> Result<(), EnvelopeError> {
    push_part(aad, "organisation id", organisation_id)?;
    push_part(aad, "instance id", instance_id)
}

/// Writes the whole associated data into `aad`, which is cleared first.
#[inline]
pub(crate) fn write_aad(
    aad: &mut Vec<u8>,
    version: u8,
    data_key_id: Uuid,
    generation: u32,
    chunk_size: Option<u32>,
    ids: &[u8],
    context: &Context<'_>,
) -> Result<(), EnvelopeError> {
    aad.clear();
    let mut fixed = [0_u8; 21];
    let [first, rest @ ..] = &mut fixed;
    *first = version;
    if let Some((id, last)) = rest.split_first_chunk_mut::<16>() {
        id.copy_from_slice(data_key_id.as_bytes());
        last.copy_from_slice(&generation.to_be_bytes());
    }
    aad.extend_from_slice(&fixed);
    if let Some(size) = chunk_size {
        aad.extend_from_slice(&size.to_be_bytes());
    }
    aad.extend_from_slice(ids);
    push_part(aad, "data type", context.data_type)?;
    push_part(aad, "record id", context.record_id)
}

#[inline]
fn push_part(aad: &mut Vec<u8>, part: &'static str, value: &str) -> Result<(), EnvelopeError> {
    let length = u16::try_from(value.len()).map_err(|_| EnvelopeError::ContextTooLong { part })?;
    aad.extend_from_slice(&length.to_be_bytes());
    aad.extend_from_slice(value.as_bytes());
    Ok(())
}
