//! XAES-256-GCM (C2SP) with the key-commitment extension of IACR ePrint 2025/758.
//!
//! Five AES blocks derive the message key and the commitment from a key schedule that is prepared once; the
//! message itself goes through AES-256-GCM of aws-lc.

use crate::error::EnvelopeError;
use crate::format::{COMMITMENT_LEN, NONCE_LEN, TAG_LEN};
use crate::secret::{KEY_LEN, MessageKey};
use aes::Aes256Enc;
use aes::cipher::{BlockEncrypt, KeyInit};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A data key ready to derive message keys. No `Debug`, no `Clone`; the schedule wipes itself when dropped.
#[derive(ZeroizeOnDrop)]
pub(crate) struct PreparedKey {
    /// Wipes itself. Version 0.8 of `aes` on purpose: from 0.9 on, its wide back end copies every round key,
    /// and so the data key, to the stack of each call; `tests/memory.rs` finds them there.
    #[zeroize(skip)]
    schedule: Aes256Enc,
    /// The CMAC subkey K1.
    subkey: [u8; 16],
}

impl PreparedKey {
    #[inline(never)]
    pub(crate) fn new(key: &[u8; KEY_LEN]) -> Self {
        let schedule = Aes256Enc::new(key.into());
        let mut block = aes::Block::default();
        schedule.encrypt_block(&mut block);
        let l = u128::from_be_bytes(block.into());
        // Doubling in GF(2^128), without a branch on the secret's top bit.
        let subkey = ((l << 1) ^ ((l >> 127) * 0x87)).to_be_bytes();
        block.zeroize();
        Self { schedule, subkey }
    }

    /// The message key of XAES-256-GCM and the key commitment, for one nonce.
    #[inline]
    pub(crate) fn derive(&self, nonce: &[u8; NONCE_LEN]) -> (MessageKey, [u8; COMMITMENT_LEN]) {
        let (u, v) = halves(nonce);
        let m1 = xor(&join4([0, 1, b'X', 0], u), &self.subkey);
        let m2 = xor(&join4([0, 2, b'X', 0], u), &self.subkey);
        let x = join4(*b"XCMT", u);
        let mut first: [aes::Block; 3] = [m1.into(), m2.into(), x.into()];
        self.schedule.encrypt_blocks(&mut first);
        let [k1, k2, x] = &mut first;

        let mut key = MessageKey::new([0; KEY_LEN]);
        let (low, high) = key.split_at_mut(16);
        low.copy_from_slice(k1);
        high.copy_from_slice(k2);
        k1.as_mut_slice().zeroize();
        k2.as_mut_slice().zeroize();

        let chain = xor(&(*x).into(), &self.subkey);
        let w1 = xor(&join12(v, [0, 1, 0, 1]), &chain);
        let w2 = xor(&join12(v, [0, 1, 0, 2]), &chain);
        let mut second: [aes::Block; 2] = [w1.into(), w2.into()];
        self.schedule.encrypt_blocks(&mut second);
        let [c1, c2] = second;
        let mut commitment = [0; COMMITMENT_LEN];
        let (low, high) = commitment.split_at_mut(16);
        low.copy_from_slice(&c1);
        high.copy_from_slice(&c2);
        (key, commitment)
    }
}

#[inline]
fn halves(nonce: &[u8; NONCE_LEN]) -> ([u8; 12], [u8; 12]) {
    let mut u = [0; 12];
    let mut v = [0; 12];
    let (low, high) = nonce.split_at(12);
    u.copy_from_slice(low);
    v.copy_from_slice(high);
    (u, v)
}

#[inline]
fn join4(a: [u8; 4], b: [u8; 12]) -> [u8; 16] {
    let mut out = [0; 16];
    let (low, high) = out.split_at_mut(4);
    low.copy_from_slice(&a);
    high.copy_from_slice(&b);
    out
}

#[inline]
fn join12(a: [u8; 12], b: [u8; 4]) -> [u8; 16] {
    let mut out = [0; 16];
    let (low, high) = out.split_at_mut(12);
    low.copy_from_slice(&a);
    high.copy_from_slice(&b);
    out
}

#[inline]
fn xor(a: &[u8; 16], b: &[u8; 16]) -> [u8; 16] {
    (u128::from_ne_bytes(*a) ^ u128::from_ne_bytes(*b)).to_ne_bytes()
}

/// AES-256-GCM under one message key.
pub(crate) struct MessageCipher {
    key: LessSafeKey,
    nonce: [u8; 12],
}

impl MessageCipher {
    #[inline]
    pub(crate) fn new(key: &MessageKey, nonce: &[u8; NONCE_LEN]) -> Result<Self, EnvelopeError> {
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(|_| refused())?;
        Ok(Self { key: LessSafeKey::new(key), nonce: halves(nonce).1 })
    }

    /// Encrypts `plaintext` into `out`, which has room for the tag at its end.
    #[inline]
    pub(crate) fn seal(
        &self,
        chunk: Chunk,
        aad: &[u8],
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<(), EnvelopeError> {
        let (ciphertext, tag) = out.split_at_mut_checked(plaintext.len()).ok_or_else(refused)?;
        self.key
            .seal_out_of_place_scatter(self.nonce(chunk), Aad::from(aad), plaintext, ciphertext, &[], tag)
            .map_err(|_| refused())
    }

    /// Decrypts into `out`. If the tag does not fit, `out` is wiped.
    #[inline]
    pub(crate) fn open(
        &self,
        chunk: Chunk,
        aad: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<(), NotAuthentic> {
        let (ciphertext, tag) =
            sealed.split_at_checked(sealed.len().wrapping_sub(TAG_LEN)).ok_or(NotAuthentic)?;
        let opened = self.key.open_separate_gather(self.nonce(chunk), Aad::from(aad), ciphertext, tag, out);
        opened.map_err(|_| {
            out.zeroize();
            NotAuthentic
        })
    }

    #[inline]
    fn nonce(&self, chunk: Chunk) -> Nonce {
        let mut nonce = self.nonce;
        if let Chunk::Of { counter, last } = chunk {
            let mut mask = [0; 12];
            let (_, end) = mask.split_at_mut(7);
            let (count, flag) = end.split_at_mut(4);
            count.copy_from_slice(&counter.to_be_bytes());
            flag.copy_from_slice(&[u8::from(last)]);
            for (byte, mask) in nonce.iter_mut().zip(mask) {
                *byte ^= mask;
            }
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Which part of a message is meant. A record in one piece uses the nonce as it is.
#[derive(Clone, Copy)]
pub(crate) enum Chunk {
    Whole,
    Of { counter: u32, last: bool },
}

pub(crate) struct NotAuthentic;

fn refused() -> EnvelopeError {
    EnvelopeError::Internal { what: "AES-256-GCM refused its input" }
}

/// Compares without leaking where the difference is.
#[inline]
pub(crate) fn same(a: &[u8; COMMITMENT_LEN], b: &[u8; COMMITMENT_LEN]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xaes_256_gcm::Xaes256Gcm;
    use xaes_256_gcm::aead::{Aead, KeyInit as _, Payload};

    fn seal(key: &[u8; 32], nonce: &[u8; 24], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let (message_key, _) = PreparedKey::new(key).derive(nonce);
        let mut out = vec![0; plaintext.len() + TAG_LEN];
        let sealed = MessageCipher::new(&message_key, nonce)
            .and_then(|cipher| cipher.seal(Chunk::Whole, aad, plaintext, &mut out));
        assert!(sealed.is_ok());
        out
    }

    #[test]
    fn the_published_vectors_of_c2sp_hold() {
        let nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX";
        for (key, aad, expected) in [
            ([1; 32], b"".as_slice(), "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
            ([3; 32], b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
        ] {
            assert_eq!(hex::encode(seal(&key, nonce, aad, b"XAES-256-GCM")), expected);
        }
    }

    proptest! {
        #[test]
        fn any_message_is_what_another_implementation_of_xaes_makes(
            key: [u8; 32], nonce: [u8; 24], aad: Vec<u8>, plaintext: Vec<u8>,
        ) {
            let oracle = Xaes256Gcm::new(&key.into());
            let payload = Payload { msg: &plaintext, aad: &aad };
            let expected = oracle.encrypt(&nonce.into(), payload);
            prop_assert_eq!(Ok(seal(&key, &nonce, &aad, &plaintext)), expected.map_err(|_| ()));
        }

        #[test]
        fn commitments_of_different_keys_differ(a: [u8; 32], b: [u8; 32], nonce: [u8; 24]) {
            prop_assume!(a != b);
            prop_assert_ne!(PreparedKey::new(&a).derive(&nonce).1, PreparedKey::new(&b).derive(&nonce).1);
        }
    }
}
