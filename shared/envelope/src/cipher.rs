//! XAES-256-GCM (C2SP) with the key-commitment extension of IACR ePrint 2025/758.
//!
//! Five AES blocks derive the message key and the commitment from a key schedule that is prepared once; the
//! message itself goes through AES-256-GCM of aws-lc.

use crate::error::EnvelopeError;
use crate::format::{COMMITMENT_LEN, Nonce};
use crate::gcm::{Gcm, NONCE_LEN as GCM_NONCE_LEN, NotAuthentic};
use crate::secret::{KEY_LEN, MessageKey};
use aes::Aes256Enc;
use aes::cipher::{BlockEncrypt, KeyInit};
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

    /// The message key of XAES-256-GCM that follows from *U*, and the seed of its commitments, where they stay.
    #[inline]
    pub(crate) fn derive(&self, nonce: &Nonce, key: &mut MessageKey) {
        derivation(key.blocks(), &nonce.u, &self.subkey);
        self.schedule.encrypt_blocks(key.blocks());
    }

    /// The key commitment that follows from the seed, which *U* made, and from *V*.
    #[inline]
    pub(crate) fn commit(&self, seed: &aes::Block, nonce: &Nonce, commitment: &mut [u8; COMMITMENT_LEN]) {
        let mut blocks = [aes::Block::default(); 2];
        commitment_of(&mut blocks, &nonce.v, &self.subkey, seed);
        self.schedule.encrypt_blocks(&mut blocks);
        let ([c1, c2], (low, high)) = (blocks, commitment.split_at_mut(16));
        low.copy_from_slice(&c1);
        high.copy_from_slice(&c2);
    }
}

/// What surrounds the halves of the nonce in the blocks that are encrypted.
const M1: [u8; 16] = [0, 1, 0x58, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const M2: [u8; 16] = [0, 2, 0x58, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const X: [u8; 16] = [0x58, 0x43, 0x4D, 0x54, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const C1: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
const C2: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2];

const NOTHING: [u8; 16] = [0; 16];

/// The blocks from which a message key and its seed are made. A call of its own, as the next one: inlined, the blocks would
/// be put together byte by byte, and what was written in small pieces the processor must wait for when it reads the whole.
#[inline(never)]
fn derivation(blocks: &mut [aes::Block; 3], u: &[u8; 16], subkey: &[u8; 16]) {
    let [k1, k2, x] = blocks;
    xor(k1, u, subkey, &M1);
    xor(k2, u, subkey, &M2);
    xor(x, u, &X, &NOTHING);
}

/// The blocks from which a commitment is made.
#[inline(never)]
fn commitment_of(blocks: &mut [aes::Block; 2], v: &[u8; 16], subkey: &[u8; 16], seed: &aes::Block) {
    let mut both = aes::Block::default();
    xor(&mut both, v, subkey, seed.as_ref());
    let [first, second] = blocks;
    xor(first, both.as_ref(), &C1, &NOTHING);
    xor(second, both.as_ref(), &C2, &NOTHING);
}

#[inline(always)]
fn xor(out: &mut aes::Block, a: &[u8; 16], b: &[u8; 16], c: &[u8; 16]) {
    for (((out, a), b), c) in out.iter_mut().zip(a).zip(b).zip(c) {
        *out = a ^ b ^ c;
    }
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

    pub(crate) fn new(key: &MessageKey, nonce: &Nonce) -> Result<Self, EnvelopeError> {
        let mut cipher = Self::empty();
        cipher.set_nonce(nonce);
        cipher.set_key(key)?;
        Ok(cipher)
    }

    #[inline]
    pub(crate) fn set_key(&mut self, key: &MessageKey) -> Result<(), EnvelopeError> {
        self.gcm.set_key(key)
    }

    #[inline]
    pub(crate) fn set_nonce(&mut self, nonce: &Nonce) {
        self.nonce.copy_from_slice(nonce.v.split_at(GCM_NONCE_LEN).0);
    }

    /// Forgets the key.
    pub(crate) fn wipe(&mut self) {
        self.gcm.wipe();
    }

    #[cfg(test)]
    pub(crate) fn is_blank(&self) -> bool {
        self.gcm.is_blank()
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

    /// Turns the plaintext that follows `from` into ciphertext where it lies, and appends the tag.
    #[inline]
    pub(crate) fn seal_in_place(
        &self,
        chunk: Chunk,
        aad: &[u8],
        out: &mut Vec<u8>,
        from: usize,
    ) -> Result<(), EnvelopeError> {
        self.gcm.seal_in_place(&self.nonce(chunk), aad, out, from)
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

    fn in_halves(nonce: &[u8; 24]) -> Nonce {
        let (mut u, mut v) = ([0; 16], [0; 16]);
        u.split_at_mut(4).1.copy_from_slice(nonce.split_at(12).0);
        v.split_at_mut(12).0.copy_from_slice(nonce.split_at(12).1);
        Nonce { u, v }
    }

    fn derived(key: &[u8; 32], nonce: &Nonce) -> (MessageKey, [u8; COMMITMENT_LEN]) {
        let (mut message_key, mut commitment) = (MessageKey::empty(), [0; COMMITMENT_LEN]);
        let prepared = PreparedKey::new(key);
        prepared.derive(nonce, &mut message_key);
        prepared.commit(message_key.seed(), nonce, &mut commitment);
        (message_key, commitment)
    }

    fn seal(key: &[u8; 32], nonce: &[u8; 24], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let nonce = &in_halves(nonce);
        let (message_key, _) = derived(key, nonce);
        let mut out = Vec::new();
        let sealed = MessageCipher::new(&message_key, nonce)
            .and_then(|cipher| cipher.seal(Chunk::Whole, aad, plaintext, &mut out));
        assert!(sealed.is_ok());
        out
    }

    #[test]
    fn the_published_vectors_hold() -> Result<(), Box<dyn std::error::Error>> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
        let mut seen = 0;
        for file in std::fs::read_dir(folder)? {
            let path = file?.path();
            if !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"published-")) {
                continue;
            }
            let vector: std::collections::HashMap<String, String> =
                serde_json::from_slice(&std::fs::read(&path)?)?;
            let text = |name: &str| vector.get(name).ok_or_else(|| format!("`{name}` is missing"));
            let (mut key, mut nonce) = ([0; 32], [0; 24]);
            hex::decode_to_slice(text("key")?, &mut key)?;
            hex::decode_to_slice(text("nonce")?, &mut nonce)?;
            let (mut message_key, commitment) = derived(&key, &in_halves(&nonce));
            let [low, high, _] = message_key.blocks();
            assert_eq!(&hex::encode([*low, *high].concat()), text("messageKey")?, "{}", path.display());
            assert_eq!(&hex::encode(commitment), text("commitment")?, "{}", path.display());
            let (aad, plaintext) = (hex::decode(text("aad")?)?, hex::decode(text("plaintext")?)?);
            assert_eq!(&hex::encode(seal(&key, &nonce, &aad, &plaintext)), text("sealed")?);
            seen += 1;
        }
        assert_eq!(seen, 2);
        Ok(())
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
            let nonce = in_halves(&nonce);
            prop_assert_ne!(derived(&a, &nonce).1, derived(&b, &nonce).1);
        }
    }
}
