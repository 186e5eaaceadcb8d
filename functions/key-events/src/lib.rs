//! `key-events`: EventBridge events of customers' accounts become hints to probe.

mod event;

pub use event::{Detail, Heard, KeyEvent, Resource, UserIdentity};

use claviger_app::hear_key_event::{HearKeyEvent, HeardOf};

/// Handles one event.
///
/// # Errors
/// When the store or the queue fails; EventBridge delivers again.
pub async fn handle(hear: &HearKeyEvent<'_>, event: &KeyEvent) -> Result<(), lambda_runtime::Error> {
    match event.heard() {
        Heard::Hint { slug, account, change } => match hear.run(&account, &change).await? {
            HeardOf::Stranger => tracing::debug!(event.slug = slug, "an event of a stranger was dropped"),
            HeardOf::Beside => tracing::debug!(event.slug = slug, "an event is about a key of no policy"),
            HeardOf::Covered => tracing::debug!(event.slug = slug, "an event is covered by a probe to come"),
            HeardOf::Queued { probes, wait } => {
                let wait_ms = wait.as_millis();
                let id = event.detail.event_id.as_deref();
                tracing::info!(event.slug = slug, event.id = id, probes, wait_ms, "heard of a change");
            }
        },
        Heard::Ignored { reason } => tracing::debug!(reason, "an event was ignored"),
    }
    Ok(())
}
