//! The other peer: Tink's AES-256-GCM with a keyset in memory. It derives no key a message and commits to none, so it
//! does less than ours; it has no data keys of a customer and no lease to look at either.

use crate::Result;
use crate::measure::cpu_nanos;
use tink_core::Aead;

pub struct Peer {
    aead: Box<dyn Aead>,
}

impl Peer {
    pub fn new() -> Result<Self> {
        tink_aead::init();
        let keyset = tink_core::keyset::Handle::new(&tink_aead::aes256_gcm_key_template())?;
        Ok(Self { aead: tink_aead::new(&keyset)? })
    }

    /// Nanoseconds of an encryption and of a decryption, in one run.
    pub fn run(&self, plain: &[u8], aad: &[u8]) -> Result<[f64; 2]> {
        let rounds = if plain.len() > 10_000 { 20 } else { 2_000 };
        let mut sealed = self.aead.encrypt(plain, aad)?;
        let began = cpu_nanos();
        for _ in 0..rounds {
            sealed = self.aead.encrypt(plain, aad)?;
        }
        let seal = (cpu_nanos() - began) / f64::from(rounds);
        let began = cpu_nanos();
        for _ in 0..rounds {
            if self.aead.decrypt(&sealed, aad)?.len() != plain.len() {
                return Err("the peer gave another plaintext".into());
            }
        }
        Ok([seal, (cpu_nanos() - began) / f64::from(rounds)])
    }
}
