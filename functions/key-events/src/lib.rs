//! `key-events`: EventBridge events of customers' accounts become hints to probe.

mod event;

pub use event::{Detail, Heard, KeyEvent, Resource};

use claviger_app::hear_key_event::HearKeyEvent;

/// Handles one event.
///
/// # Errors
/// When the store or the queue fails; EventBridge delivers again.
pub async fn handle(hear: &HearKeyEvent<'_>, event: &KeyEvent) -> Result<(), lambda_runtime::Error> {
    match event.heard() {
        Heard::Hint { slug, account } => {
            let probes = hear.run(&account).await?;
            tracing::info!(event.slug = slug, event.id = ?event.detail.event_id, probes, "heard of a change");
        }
        Heard::Ignored { reason } => tracing::debug!(reason, "an event was ignored"),
    }
    Ok(())
}
