//! Where each app's records lie, from the deploy parameter.

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use claviger_domain::values::App;
use claviger_envelope::Envelope;
use claviger_lambda::env::SettingsError;
use claviger_reencrypt::Rewriter;
use claviger_reencrypt::aws::open;

const NAME: &str = "CLAVIGER_RECORD_STORES";

/// A rewriter for each app that the text names.
///
/// # Errors
/// When the text is no list of stores, or names what is no app.
pub fn rewriters(
    text: &str,
    envelope: &Envelope,
    sdk: &SdkConfig,
) -> Result<BTreeMap<App, Rewriter>, SettingsError> {
    let text = if text.trim().is_empty() { "[]" } else { text };
    let wrong = |reason: String| {
        SettingsError::new(
            NAME,
            reason,
            "correct the deploy parameter RecordStores: shared/reencrypt/README.md",
        )
    };
    let stores = open(text, sdk).map_err(|error| wrong(claviger_lambda::observe::chain(&error)))?;
    let rewriter = |(app, store): (String, _)| -> Result<(App, Rewriter), SettingsError> {
        let app: App = app.parse().map_err(|error| wrong(format!("{error}")))?;
        Ok((app, Rewriter::new(envelope.clone(), store)))
    };
    stores.into_iter().map(rewriter).collect()
}
