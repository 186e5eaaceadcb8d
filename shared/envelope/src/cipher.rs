//! XAES-256-GCM (C2SP) with the key-commitment extension of IACR ePrint 2025/758.
//!
//! Five AES blocks derive the message key and the commitment from a key schedule that is prepared once; the
//! message itself goes through AES-256-GCM of aws-lc.

use crate::error::EnvelopeError;
use crate::format::{COMMITMENT_LEN, NONCE_LEN};
use crate::gcm::{Gcm, NONCE_LEN as GCM_NONCE_LEN, NotAuthentic};
use crate::secret::{KEY_LEN, MessageKey};
use aes::Aes256Enc;
use aes::cipher::{BlockEncrypt, KeyInit};
use std::ops::Deref;
use zeroize::{Zeroize, ZeroizeOnDrop, optimization_barrier};

/// A data key ready to derive message keys. No `Debug`, no `Clone`; the schedule wipes itself when dropped.
#[derive(ZeroizeOnDrop)]
pub(crate) struct PreparedKey {
    /// Wipes itself. Version 0.8 of `aes` on purpose: from 0.9 on, its wide back end copies every round key,
    /// and so the data key, to the stack of each call; `tests/memory.rs` finds them there.
    #[zeroize(skip)]
    schedule: Aes256Enc,
    /// The CMAC subkey K1.
    subkey: u128,
}

impl PreparedKey {
    #[inline(never)]
    pub(crate) fn new(key: &[u8; KEY_LEN]) -> Self {
        let schedule = Aes256Enc::new(key.into());
        let mut block = aes::Block::default();
        schedule.encrypt_block(&mut block);
        let l = u128::from_be_bytes(block.into());
        // Doubling in GF(2^128), without a branch on the secret's top bit.
        let subkey = (l << 1) ^ ((l >> 127) * 0x87);
        block.zeroize();
        Self { schedule, subkey }
    }

    /// The message key of XAES-256-GCM and the key commitment, for one nonce.
    #[inline]
    pub(crate) fn derive(&self, nonce: &[u8; NONCE_LEN]) -> (MessageKey, [u8; COMMITMENT_LEN]) {
        let (u, v) = halves(nonce);
        let block = |number: u128| aes::Block::from(number.to_be_bytes());
        // Both ready before they are needed: what the processor puts together in small pieces it must wait for
        // when it reads the whole.
        let mut second =
            [block((v << 32 | 0x0001_0001) ^ self.subkey), block((v << 32 | 0x0001_0002) ^ self.subkey)];
        let m1 = (0x0001_5800 << 96 | u) ^ self.subkey;
        let m2 = (0x0002_5800 << 96 | u) ^ self.subkey;
        let x = 0x5843_4D54 << 96 | u;
        let mut first = [block(m1), block(m2), block(x)];
        self.schedule.encrypt_blocks(&mut first);
        let [k1, k2, x] = &mut first;
        let key = MessageKey::new(k1, k2);
        for half in [k1, k2] {
            half.fill(0);
            optimization_barrier(half);
        }

        for block in &mut second {
            for (byte, chain) in block.iter_mut().zip(&*x) {
                *byte ^= chain;
            }
        }
        self.schedule.encrypt_blocks(&mut second);
        let [c1, c2] = second;
        let mut commitment = [0; COMMITMENT_LEN];
        let (low, high) = commitment.split_at_mut(16);
        low.copy_from_slice(&c1);
        high.copy_from_slice(&c2);
        (key, commitment)
    }
}

/// The two halves of the nonce as numbers of 96 bits.
#[inline]
fn halves(nonce: &[u8; NONCE_LEN]) -> (u128, u128) {
    let (mut low, mut high) = ([0; 16], [0; 16]);
    low.copy_from_slice(nonce.split_at(16).0);
    high.copy_from_slice(nonce.split_at(8).1);
    (u128::from_be_bytes(low) >> 32, u128::from_be_bytes(high) << 32 >> 32)
}

/// AES-256-GCM under one message key after the other.
pub(crate) struct MessageCipher {
    gcm: Gcm,
    nonce: [u8; GCM_NONCE_LEN],
}

impl MessageCipher {
    /// Without a key: refuses everything.
    pub(crate) fn empty() -> Self {
        Self { gcm: Gcm::new(), nonce: [0; GCM_NONCE_LEN] }
    }

    pub(crate) fn new(key: &MessageKey, nonce: &[u8; NONCE_LEN]) -> Result<Self, EnvelopeError> {
        let mut cipher = Self::empty();
        cipher.set(key, nonce)?;
        Ok(cipher)
    }

    /// With the key of one message, which is wiped when the guard goes.
    #[inline]
    pub(crate) fn keyed(
        &mut self,
        key: &MessageKey,
        nonce: &[u8; NONCE_LEN],
    ) -> Result<Keyed<'_>, EnvelopeError> {
        self.set(key, nonce)?;
        Ok(Keyed(self))
    }

    #[inline]
    fn set(&mut self, key: &MessageKey, nonce: &[u8; NONCE_LEN]) -> Result<(), EnvelopeError> {
        self.nonce.copy_from_slice(nonce.split_at(NONCE_LEN - GCM_NONCE_LEN).1);
        self.gcm.set_key(key)
    }

    /// Appends ciphertext and tag.
    #[inline]
    pub(crate) fn seal(
        &self,
        chunk: Chunk,
        aad: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        self.gcm.seal(&self.nonce(chunk), aad, plaintext, out)
    }

    /// Appends the plaintext. If the tag does not fit, `out` is as it was and what was written is wiped.
    #[inline]
    pub(crate) fn open(
        &self,
        chunk: Chunk,
        aad: &[u8],
        sealed: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), NotAuthentic> {
        self.gcm.open(&self.nonce(chunk), aad, sealed, out)
    }

    #[inline]
    fn nonce(&self, chunk: Chunk) -> [u8; GCM_NONCE_LEN] {
        let mut nonce = self.nonce;
        if let Chunk::Of { counter, last } = chunk {
            let mut mask = [0; GCM_NONCE_LEN];
            let (_, end) = mask.split_at_mut(7);
            let (count, flag) = end.split_at_mut(4);
            count.copy_from_slice(&counter.to_be_bytes());
            flag.copy_from_slice(&[u8::from(last)]);
            for (byte, mask) in nonce.iter_mut().zip(mask) {
                *byte ^= mask;
            }
        }
        nonce
    }
}

/// A cipher while it has a key.
pub(crate) struct Keyed<'a>(&'a mut MessageCipher);

impl Deref for Keyed<'_> {
    type Target = MessageCipher;
    fn deref(&self) -> &MessageCipher {
        self.0
    }
}

impl Drop for Keyed<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.gcm.wipe();
    }
}

/// Which part of a message is meant. A record in one piece uses the nonce as it is.
#[derive(Clone, Copy)]
pub(crate) enum Chunk {
    Whole,
    Of { counter: u32, last: bool },
}

/// Compares without a branch before the end.
#[inline]
pub(crate) fn same(a: &[u8; COMMITMENT_LEN], b: &[u8; COMMITMENT_LEN]) -> bool {
    let differing = a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b));
    std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xaes_256_gcm::Xaes256Gcm;
    use xaes_256_gcm::aead::{Aead, KeyInit as _, Payload};

    fn seal(key: &[u8; 32], nonce: &[u8; 24], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let (message_key, _) = PreparedKey::new(key).derive(nonce);
        let mut out = Vec::new();
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
