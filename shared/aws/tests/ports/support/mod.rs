//! An embedded DynamoDB with our tables, and a server that answers what it is told to.

pub mod tables;
pub mod wire;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;

/// A configuration that leads to this endpoint and nowhere else.
pub fn sdk_config(endpoint: &str) -> SdkConfig {
    sdk_config_as("111111111111", endpoint)
}

/// The same, with this access key id: an emulator's way to tell accounts apart.
pub fn sdk_config_as(access_key: &str, endpoint: &str) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .endpoint_url(endpoint)
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            access_key, "test", None, None, "test",
        )))
        .build()
}
