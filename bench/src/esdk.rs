//! The peer: the official Encryption SDK for Rust with key commitment, without signatures, on a raw AES keyring.

use crate::Result;
use crate::measure::cpu_nanos;
use aws_esdk::client::Client;
use aws_esdk::material_providers::client::Client as Materials;
use aws_esdk::material_providers::types::keyring::KeyringRef;
use aws_esdk::material_providers::types::material_providers_config::MaterialProvidersConfig;
use aws_esdk::material_providers::types::{AesWrappingAlg, EsdkAlgorithmSuiteId};
use aws_esdk::types::aws_encryption_sdk_config::AwsEncryptionSdkConfig;
use std::collections::HashMap;

pub struct Peer {
    client: Client,
    keyring: KeyringRef,
    context: HashMap<String, String>,
}

impl Peer {
    pub async fn new() -> Result<Self> {
        let materials = Materials::from_conf(MaterialProvidersConfig::builder().build()?)?;
        let keyring = materials
            .create_raw_aes_keyring()
            .key_name("data-key")
            .key_namespace("bench")
            .wrapping_key(vec![7; 32])
            .wrapping_alg(AesWrappingAlg::AlgAes256GcmIv12Tag16)
            .send()
            .await?;
        let context =
            [("organisation", "acme"), ("instance", "acme-eng"), ("type", "note"), ("record", "note-42")];
        Ok(Self {
            client: Client::from_conf(AwsEncryptionSdkConfig::builder().build()?)?,
            keyring,
            context: context.map(|(name, value)| (name.into(), value.into())).into(),
        })
    }

    /// Nanoseconds of an encryption and of a decryption, in one run.
    pub async fn run(&self, plain: &[u8]) -> Result<[f64; 2]> {
        let rounds = if plain.len() > 10_000 { 20 } else { 200 };
        let mut sealed = self.encrypt(plain).await?;
        let began = cpu_nanos();
        for _ in 0..rounds {
            sealed = self.encrypt(plain).await?;
        }
        let seal = (cpu_nanos() - began) / f64::from(rounds);
        let began = cpu_nanos();
        for _ in 0..rounds {
            let sealed = sealed.clone();
            let answer =
                self.client.decrypt().ciphertext(sealed).keyring(self.keyring.clone()).send().await?;
            if answer.plaintext.is_none() {
                return Err("the peer gave no plaintext".into());
            }
        }
        Ok([seal, (cpu_nanos() - began) / f64::from(rounds)])
    }

    async fn encrypt(&self, plain: &[u8]) -> Result<Vec<u8>> {
        let answer = self
            .client
            .encrypt()
            .plaintext(plain)
            .keyring(self.keyring.clone())
            .encryption_context(self.context.clone())
            .algorithm_suite_id(EsdkAlgorithmSuiteId::AlgAes256GcmHkdfSha512CommitKey)
            .send()
            .await?;
        Ok(answer.ciphertext.ok_or("the peer gave no ciphertext")?.into_inner())
    }
}
