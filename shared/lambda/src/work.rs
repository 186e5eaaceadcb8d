//! What waits in the queues of the functions that work effects off.

use std::path::Path;

use aws_lambda_events::event::sqs::SqsEvent;
use claviger_domain::effect::OutboxRow;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::batch;

/// Work of a queue: an effect as it was decided, or a further page of what it began.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Work<P> {
    /// As it was decided.
    Effect(Box<OutboxRow>),
    /// A further page.
    Page(P),
}

/// Reads every file of a folder of sample events as the runner of batches would; says how many there were. The
/// functions' tests hold their `events/` against it.
///
/// # Errors
/// Names the first file that a function would not understand, and why.
pub fn understand_samples<T: DeserializeOwned>(folder: &Path) -> Result<usize, String> {
    let mut seen = 0_usize;
    for entry in std::fs::read_dir(folder).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        let wrong = |reason: String| format!("{}: {reason}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
        let event: SqsEvent = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if event.records.is_empty() {
            return Err(wrong("it has no record".to_owned()));
        }
        for record in &event.records {
            batch::read::<T>(record).map_err(wrong)?;
        }
        seen = seen.saturating_add(1);
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_that_no_function_understands_is_named() {
        let samples = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/suspender"));
        let wrong = understand_samples::<Work<u8>>(samples).unwrap_err();
        assert!(wrong.contains("suspension-page.json"), "{wrong}");
    }
}
