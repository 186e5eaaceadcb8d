//! `deadlines`: a schedule sees to what comes due by the clock alone: reminders, phases and lapsing of
//! restoration windows, the list of work that is overdue, and access requests that nobody opened.

use claviger_app::pass_deadlines::PassDeadlines;
use serde::Deserialize;
use serde_json::{Value, json};

/// What the function is invoked with.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Input {
    /// The schedule's tick.
    Tick,
}

/// The use case of this function.
pub struct Deadlines<'a> {
    /// Sees to what is due.
    pub pass: PassDeadlines<'a>,
}

impl Deadlines<'_> {
    /// Handles one invocation. Its log line is what the alarms on overdue work count.
    ///
    /// # Errors
    /// When a list cannot be read; the schedule comes again.
    pub async fn handle(&self, input: Input) -> Result<Value, lambda_runtime::Error> {
        let Input::Tick = input;
        let passed = self.pass.run().await?;
        tracing::info!(
            told = passed.told,
            lapsed = passed.lapsed,
            failed = passed.failed,
            overdue_requests = passed.overdue_requests,
            overdue_orders = passed.overdue_orders,
            erasures = passed.erasures,
            removals = passed.removals,
            asked = passed.asked,
            "deadlines were seen to"
        );
        Ok(json!({
            "told": passed.told,
            "lapsed": passed.lapsed,
            "failed": passed.failed,
            "overdueRequests": passed.overdue_requests,
            "overdueOrders": passed.overdue_orders,
            "erasures": passed.erasures,
            "removals": passed.removals,
            "asked": passed.asked,
        }))
    }
}
