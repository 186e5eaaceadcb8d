//! `reencryption-planner`: carries the jobs that move policies to new keys from phase to phase, a bounded step a
//! message. A schedule takes up what a lost message left.

use aws_lambda_events::event::sqs::SqsEvent;
use claviger_app::carry_reencryption::CarryReencryption;
use claviger_app::error::WorkError;
use claviger_app::reencryption::JobStep;
use claviger_app::usage::FlushUsage;
use claviger_lambda::batch;
use claviger_lambda::work::Work;
use serde::Deserialize;
use serde_json::{Value, json};

/// What the function is invoked with.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Input {
    /// Messages of its queue.
    Queue(SqsEvent),
    /// The schedule's tick.
    Tick(Tick),
}

/// The schedule's tick.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Tick {
    /// Take up every job that nobody is at.
    Tick,
}

/// The use case of this function.
pub struct Planner<'a> {
    /// Carries jobs.
    pub carry: CarryReencryption<'a>,
    /// Writes how often keys were used.
    pub usage: FlushUsage<'a>,
}

impl Planner<'_> {
    /// Handles one invocation.
    ///
    /// # Errors
    /// When the list of jobs cannot be read; the schedule comes again. A message that fails is a partial failure.
    pub async fn handle(&self, input: Input) -> Result<Value, lambda_runtime::Error> {
        match input {
            Input::Queue(event) => {
                let failures = batch::run_sqs(event, |work| self.work(work)).await;
                // There is work now and then only: what waits for the next may wait for days.
                self.usage.all().await;
                Ok(serde_json::to_value(failures)?)
            }
            Input::Tick(Tick::Tick) => {
                let open = self.carry.tick().await?;
                tracing::info!(open_reencryptions = open, "open re-encryptions were taken up");
                Ok(json!({ "openReencryptions": open }))
            }
        }
    }

    async fn work(&self, work: Work<JobStep>) -> Result<(), WorkError> {
        match work {
            Work::Effect(row) => self.carry.run(&row).await,
            Work::Page(step) => self.carry.step(&step).await,
        }
    }
}
