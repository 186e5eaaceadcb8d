//! Which stores an app has, as one text of JSON: for the environment of a worker.

use super::dynamodb::{DynamoDbLayout, DynamoDbRecords};
#[cfg(feature = "s3")]
use super::s3::{S3Layout, S3Records};
use crate::store::RecordStore;
use crate::together::Together;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One store of an app: `{"app": "jira", "dynamodb": {"table": "notes", …}}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct StoreConfig {
    /// As in the vendor's own addresses.
    pub app: String,
    #[serde(flatten)]
    pub kind: StoreKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub enum StoreKind {
    #[serde(rename = "dynamodb")]
    DynamoDb(DynamoDbLayout),
    #[cfg(feature = "s3")]
    #[serde(rename = "s3")]
    S3(S3Layout),
}

/// The text is no list of stores.
#[derive(Debug, thiserror::Error)]
#[error("the configuration of record stores cannot be read")]
pub struct ConfigError(#[from] serde_json::Error);

/// Reads a JSON list of [`StoreConfig`], or nothing, and gives each app its store, or its stores as one.
///
/// # Errors
/// The text is not such a list; the source says where.
pub fn open(
    text: &str,
    aws: &aws_config::SdkConfig,
) -> Result<BTreeMap<String, Arc<dyn RecordStore>>, ConfigError> {
    let configs: Vec<StoreConfig> =
        if text.trim().is_empty() { Vec::new() } else { serde_json::from_str(text)? };
    let mut apps = BTreeMap::<String, Vec<Arc<dyn RecordStore>>>::new();
    for StoreConfig { app, kind } in configs {
        let store: Arc<dyn RecordStore> = match kind {
            StoreKind::DynamoDb(layout) => {
                Arc::new(DynamoDbRecords::new(aws_sdk_dynamodb::Client::new(aws), layout))
            }
            #[cfg(feature = "s3")]
            StoreKind::S3(layout) => Arc::new(S3Records::new(super::s3::client(aws), layout)),
        };
        apps.entry(app).or_default().push(store);
    }
    let together = |stores: Vec<_>| -> Arc<dyn RecordStore> {
        match <[_; 1]>::try_from(stores) {
            Ok([only]) => only,
            Err(stores) => Arc::new(Together::new(stores)),
        }
    };
    Ok(apps.into_iter().map(|(app, stores)| (app, together(stores))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aws() -> aws_config::SdkConfig {
        aws_config::SdkConfig::builder().behavior_version(aws_config::BehaviorVersion::latest()).build()
    }

    #[test]
    fn each_app_gets_its_stores() -> Result<(), ConfigError> {
        let text = r#"[
            {"app": "jira", "dynamodb": {"table": "notes", "partition": "{organisation}/{site}",
                "sort": "{record}", "dataType": "note"}},
            {"app": "confluence", "dynamodb": {"table": "pages", "partitionKey": "id", "sortKey": null,
                "partition": "{organisation}/{site}/{type}/{record}", "attribute": "body"}}
        ]"#;
        let apps = open(text, &aws())?;
        assert_eq!(apps.keys().collect::<Vec<_>>(), ["confluence", "jira"]);
        Ok(())
    }

    #[test]
    fn a_configuration_that_is_not_understood_is_refused() {
        for text in [
            "{}",
            r#"[{"app": "jira"}]"#,
            r#"[{"app": "jira", "dynamodb": {"partition": "{organisation}"}}]"#,
            r#"[{"app": "jira", "dynamodb": {"table": "t", "partition": "{organisation}", "sorted": "{record}"}}]"#,
            r#"[{"app": "jira", "dynamodb": {"table": "t", "partition": "{tenant}"}}]"#,
        ] {
            assert!(open(text, &aws()).is_err(), "{text}");
        }
    }
}
