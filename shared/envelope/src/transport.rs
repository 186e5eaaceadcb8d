//! How a data key travels from the broker to the library, so that no HTTP or TLS buffer ever holds it in the clear.
//!
//! The library sends a one-time X25519 public key (`transportKey`); the broker answers with the data key sealed to
//! it: its own one-time public key, then AES-256-GCM of the data key under HKDF-SHA256 of the shared secret, salted
//! with both public keys, with a nonce of zeros (the key is used once) and the data-key id as associated data.

use crate::error::EnvelopeError;
use crate::format::TAG_LEN;
use crate::secret::{KEY_LEN, KeyBytes};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand::SystemRandom;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;
use zeroize::{Zeroize, Zeroizing};

const POINT_LEN: usize = 32;
const INFO: &[u8] = b"claviger data key transport v1";

/// The receiving side: one per request.
pub struct Opener {
    private: EphemeralPrivateKey,
    public: [u8; POINT_LEN],
}

impl Opener {
    /// # Errors
    /// `Internal` if the system has no randomness.
    pub fn new() -> Result<Self, EnvelopeError> {
        let (private, public) = one_time()?;
        Ok(Self { private, public })
    }

    /// The request's `transportKey`.
    #[must_use]
    pub fn transport_key(&self) -> String {
        STANDARD.encode(self.public)
    }

    /// Opens the answer's `key` straight into the memory where it stays.
    ///
    /// # Errors
    /// `TamperedOrWrongContext` if it was not sealed to this opener and for this data key.
    pub fn open(self, sealed: &str, data_key_id: Uuid) -> Result<KeyBytes, EnvelopeError> {
        let refused = EnvelopeError::TamperedOrWrongContext;
        let bytes = STANDARD.decode(sealed).map_err(|_| refused.clone())?;
        let (theirs, sealed) = bytes.split_first_chunk::<POINT_LEN>().ok_or_else(|| refused.clone())?;
        let (sealed, tag) = sealed.split_first_chunk::<KEY_LEN>().ok_or_else(|| refused.clone())?;
        let tag: &[u8; TAG_LEN] = tag.try_into().map_err(|_| refused.clone())?;
        let key = agree(self.private, theirs, theirs, &self.public)?;
        KeyBytes::fill_with(|out| {
            key.open_separate_gather(zero_nonce(), Aad::from(data_key_id.as_bytes()), sealed, tag, out)
                .map_err(|_| refused)
        })
    }
}

/// The sending side, for the key broker: seals a data key to the request's `transportKey`.
///
/// # Errors
/// `MalformedRecord` if `transport_key` is not a public key.
pub fn seal_for(
    transport_key: &str,
    data_key_id: Uuid,
    key: &[u8; KEY_LEN],
) -> Result<String, EnvelopeError> {
    let theirs: [u8; POINT_LEN] = STANDARD
        .decode(transport_key)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(EnvelopeError::MalformedRecord { why: "the transport key is not 32 bytes of base64" })?;
    let (private, ours) = one_time()?;
    let cipher = agree(private, &theirs, &ours, &theirs)?;
    let mut sealed = Zeroizing::new([0; KEY_LEN + TAG_LEN]);
    let (ciphertext, tag) = sealed.split_at_mut(KEY_LEN);
    cipher
        .seal_out_of_place_scatter(zero_nonce(), Aad::from(data_key_id.as_bytes()), key, ciphertext, &[], tag)
        .map_err(|_| EnvelopeError::Internal { what: "sealing a data key" })?;
    let mut bytes = ours.to_vec();
    bytes.extend_from_slice(sealed.as_slice());
    Ok(STANDARD.encode(bytes))
}

fn one_time() -> Result<(EphemeralPrivateKey, [u8; POINT_LEN]), EnvelopeError> {
    let failed = |_| EnvelopeError::Internal { what: "no one-time key" };
    let private = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).map_err(failed)?;
    let public = private.compute_public_key().map_err(failed)?;
    let public =
        public.as_ref().try_into().map_err(|_| EnvelopeError::Internal { what: "length of a point" })?;
    Ok((private, public))
}

/// `sender` and `receiver` are the public keys in the order of their roles, so that both sides salt alike.
fn agree(
    private: EphemeralPrivateKey,
    peer: &[u8; POINT_LEN],
    sender: &[u8; POINT_LEN],
    receiver: &[u8; POINT_LEN],
) -> Result<LessSafeKey, EnvelopeError> {
    let refused = EnvelopeError::TamperedOrWrongContext;
    let mut salt = [0; 2 * POINT_LEN];
    let (first, second) = salt.split_at_mut(POINT_LEN);
    first.copy_from_slice(sender);
    second.copy_from_slice(receiver);
    agree_ephemeral(private, UnparsedPublicKey::new(&X25519, peer.as_slice()), refused.clone(), |secret| {
        let mut key = [0; KEY_LEN];
        let made = Salt::new(HKDF_SHA256, &salt)
            .extract(secret)
            .expand(&[INFO], Length)
            .and_then(|okm| okm.fill(&mut key))
            .and_then(|()| UnboundKey::new(&AES_256_GCM, &key));
        key.zeroize();
        made.map(LessSafeKey::new).map_err(|_| refused)
    })
}

struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        KEY_LEN
    }
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_data_key_opens_once_for_its_id_and_for_nobody_else() -> Result<(), EnvelopeError> {
        let id = Uuid::from_u128(7);
        let opener = Opener::new()?;
        let sealed = seal_for(&opener.transport_key(), id, &[9; 32])?;
        assert_eq!(opener.open(&sealed, id)?.expose(), &[9; 32]);

        let opener = Opener::new()?;
        let sealed = seal_for(&opener.transport_key(), id, &[9; 32])?;
        assert!(opener.open(&sealed, Uuid::from_u128(8)).is_err());
        assert!(Opener::new()?.open(&sealed, id).is_err());
        Ok(())
    }

    #[test]
    fn a_data_key_in_the_clear_is_refused() -> Result<(), EnvelopeError> {
        assert!(Opener::new()?.open(&STANDARD.encode([9; 32]), Uuid::nil()).is_err());
        Ok(())
    }
}
