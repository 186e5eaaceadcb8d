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
/// data-key id and generation
const FIXED_LEN: usize = 16 + 4;
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

/// A nonce in its two halves *U* and *V*, each in a block of its own as the derivation wants it. What the
/// processor put together in small pieces it must wait for when it reads the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nonce {
    /// 0^32 ‖ U
    pub(crate) u: [u8; 16],
    /// V ‖ 0^32
    pub(crate) v: [u8; 16],
}

impl Nonce {
    /// From the block of a record that ends in *U* and the one that begins with *V*.
    #[inline]
    fn within(mut u: [u8; 16], mut v: [u8; 16]) -> Self {
        const LAST: [u8; 16] = [0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255];
        const FIRST: [u8; 16] = [255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0];
        for ((u, v), (last, first)) in u.iter_mut().zip(&mut v).zip(LAST.iter().zip(&FIRST)) {
            *u &= last;
            *v &= first;
        }
        Self { u, v }
    }
}

/// The clear part of a record. What it says is only believed once the record was decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub version: u8,
    pub data_key_id: Uuid,
    pub generation: u32,
    pub(crate) nonce: Nonce,
    pub(crate) commitment: [u8; COMMITMENT_LEN],
}

impl Header {
    /// To be filled in.
    pub(crate) const fn empty(version: u8) -> Self {
        let (data_key_id, nonce) = (Uuid::nil(), Nonce { u: [0; 16], v: [0; 16] });
        Self { version, data_key_id, generation: 0, nonce, commitment: [0; COMMITMENT_LEN] }
    }

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
        let (_, commitment) = take::<NONCE_LEN>(rest)?;
        let (commitment, _) = take::<COMMITMENT_LEN>(commitment)?;
        let (_, ends_in_u) = header.split_at(1 + 16);
        let (u, begins_with_v) = take::<16>(ends_in_u)?;
        let (v, _) = take::<16>(begins_with_v)?;
        Ok(Self {
            version,
            data_key_id: Uuid::from_bytes(*id),
            generation: u32::from_be_bytes(*generation),
            nonce: Nonce::within(*u, *v),
            commitment: *commitment,
        })
    }

    /// Makes `out` begin anew with the header.
    #[inline]
    pub(crate) fn begin(&self, out: &mut Vec<u8>) {
        out.clear();
        out.resize(HEADER_LEN, 0);
        self.overwrite(out);
    }

    /// Writes the header over the bytes with which `out` begins.
    #[inline]
    pub(crate) fn overwrite(&self, out: &mut [u8]) {
        let Some(bytes) = out.first_chunk_mut::<HEADER_LEN>() else { return };
        // Constant ranges of a constant length, straight to where they stay: no check is left at run time.
        let (version, rest) = bytes.split_at_mut(1);
        let (id, rest) = rest.split_at_mut(16);
        let (generation, rest) = rest.split_at_mut(4);
        let (u, rest) = rest.split_at_mut(NONCE_LEN / 2);
        let (v, commitment) = rest.split_at_mut(NONCE_LEN / 2);
        version.copy_from_slice(&[self.version]);
        id.copy_from_slice(self.data_key_id.as_bytes());
        generation.copy_from_slice(&self.generation.to_be_bytes());
        u.copy_from_slice(self.nonce.u.split_at(4).1);
        v.copy_from_slice(self.nonce.v.split_at(12).0);
        commitment.copy_from_slice(&self.commitment);
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

/// The beginning of the associated data: the same for every record that a data key writes.
pub(crate) fn aad_of_key(
    data_key_id: Uuid,
    generation: u32,
    organisation_id: &str,
    instance_id: &str,
) -> Result<Box<[u8]>, EnvelopeError> {
    let mut aad = Vec::with_capacity(1 + FIXED_LEN + 4 + organisation_id.len() + instance_id.len());
    aad.push(VERSION_RECORD);
    aad.extend_from_slice(data_key_id.as_bytes());
    aad.extend_from_slice(&generation.to_be_bytes());
    push_part(&mut aad, "organisation id", organisation_id)?;
    push_part(&mut aad, "instance id", instance_id)?;
    Ok(aad.into())
}

/// Writes the whole associated data of a record into `aad`, which is cleared first.
#[inline]
pub(crate) fn write_aad(
    aad: &mut Vec<u8>,
    of_key: &[u8],
    context: &Context<'_>,
) -> Result<(), EnvelopeError> {
    aad.clear();
    aad.extend_from_slice(of_key);
    push_part(aad, "data type", context.data_type)?;
    push_part(aad, "record id", context.record_id)
}

/// The associated data of every chunk of a stream.
pub(crate) fn stream_aad(
    of_key: &[u8],
    chunk_size: u32,
    context: &Context<'_>,
) -> Result<Vec<u8>, EnvelopeError> {
    let mut aad = Vec::new();
    write_aad(&mut aad, of_key, context)?;
    aad.splice(..1, [VERSION_STREAM]);
    aad.splice(1 + FIXED_LEN..1 + FIXED_LEN, chunk_size.to_be_bytes());
    Ok(aad)
}

#[inline]
fn push_part(aad: &mut Vec<u8>, part: &'static str, value: &str) -> Result<(), EnvelopeError> {
    let length = u16::try_from(value.len()).map_err(|_| EnvelopeError::ContextTooLong { part })?;
    aad.extend_from_slice(&length.to_be_bytes());
    aad.extend_from_slice(value.as_bytes());
    Ok(())
}
