//! `key-prober`: the one place where customers' keys are probed. A minute tick plans sweeps, the queue
//! brings sweeps and hints, and other functions ask for a probe and wait.

use aws_lambda_events::event::sqs::SqsEvent;
use claviger_app::check_enrolment::{CheckEnrolment, Checked};
use claviger_app::describe_keys::DescribeKeys;
use claviger_app::error::WorkError;
use claviger_app::follow_hint::FollowHint;
use claviger_app::make_replacement::MakeReplacement;
use claviger_app::messages::{ProbeAnswer, ProbeMessage, ProbeRequest};
use claviger_app::probe_now::ProbeNow;
use claviger_app::prove_permissions::ProvePermissions;
use claviger_app::report_probes::Reason;
use claviger_app::sweep::{PlanSweeps, Sweep, Swept};
use claviger_app::unwrap_data_keys::UnwrapDataKeys;
use claviger_app::usage::FlushUsage;
use claviger_domain::values::ShardId;
use claviger_lambda::batch;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

/// What a sweep leaves of the function's time, for its beat and the message about the rest.
const MARGIN: SignedDuration = SignedDuration::from_secs(4);

/// What the function is invoked with.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Input {
    /// Messages of the probe queue.
    Queue(SqsEvent),
    /// Another function asks and waits.
    Request(ProbeRequest),
    /// The schedule's minute tick.
    Tick(Tick),
}

/// What the schedule says.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Tick {
    /// A minute begins.
    Tick,
    /// It is time to describe keys.
    Describe,
}

/// The use cases of this function.
pub struct KeyProber<'a> {
    /// Plans the sweeps of a minute.
    pub plan: PlanSweeps<'a>,
    /// Sweeps a shard.
    pub sweep: Sweep<'a>,
    /// Follows a hint.
    pub follow: FollowHint<'a>,
    /// Probes while somebody waits.
    pub now: ProbeNow<'a>,
    /// Proves permissions.
    pub permissions: ProvePermissions<'a>,
    /// Describes keys.
    pub describe: DescribeKeys<'a>,
    /// Unwraps data keys where a restoration does without a region.
    pub unwrap: UnwrapDataKeys<'a>,
    /// Makes the key in the place of a lost one.
    pub replacement: MakeReplacement<'a>,
    /// Checks an enrolment that is not stored.
    pub check: CheckEnrolment<'a>,
    /// Writes how often keys were used.
    pub usage: FlushUsage<'a>,
}

impl KeyProber<'_> {
    /// Handles one invocation.
    ///
    /// It has to be done by `until`, when Lambda ends it.
    ///
    /// # Errors
    /// When a store, a queue or a key failed; the caller tries again.
    pub async fn handle(&self, input: Input, until: Timestamp) -> Result<Value, lambda_runtime::Error> {
        match input {
            Input::Tick(Tick::Tick) => {
                let planned = self.plan.run().await?;
                // Metric filters of the template read this line.
                tracing::info!(
                    oldest_proof_seconds = planned.oldest_proof.map(|at| self.seconds_since(at)),
                    unproven_policies = planned.unproven,
                    mass_failures = planned.mass_failures,
                    "the watcher reports"
                );
                Ok(serde_json::json!({ "planned": planned.sweeps }))
            }
            Input::Tick(Tick::Describe) => Ok(serde_json::json!({ "planned": self.describe.plan().await? })),
            Input::Request(request) => Ok(serde_json::to_value(self.answer(request).await?)?),
            Input::Queue(event) => {
                let failures = batch::run_sqs(event, |message| self.work(message, until - MARGIN)).await;
                // Whatever was decided is committed. Where somebody waits for an answer, a later sweep does this.
                self.usage.due().await;
                Ok(serde_json::to_value(failures)?)
            }
        }
    }

    fn seconds_since(&self, at: Timestamp) -> i64 {
        self.plan.clock.now().duration_since(at).as_secs()
    }

    async fn work(&self, message: ProbeMessage, until: Timestamp) -> Result<(), WorkError> {
        match message {
            ProbeMessage::Sweep { shard, due_at } => {
                log_swept(shard, self.sweep.run(shard, due_at, until).await?);
                Ok(())
            }
            ProbeMessage::SweepRest(rest) => {
                log_swept(rest.shard, self.sweep.rest(&rest, until).await?);
                Ok(())
            }
            ProbeMessage::Probe { organisation, attempt, data_key, heard, correlation } => {
                let reason = Reason { met: data_key, heard, mass_failure: None };
                self.follow.run(&organisation, attempt, &reason, correlation).await
            }
            ProbeMessage::FollowUp { organisation, due_at, heard, correlation } => {
                self.follow.when_due(&organisation, due_at, heard, correlation).await
            }
            ProbeMessage::Describe { shard } => {
                let news = self.describe.shard(shard).await?;
                tracing::info!(%shard, news, "the keys of a shard were described");
                Ok(())
            }
            ProbeMessage::DescribeKeys { organisation, correlation } => {
                self.describe.of_organisation(&organisation, correlation).await.map(drop)
            }
        }
    }

    async fn answer(&self, request: ProbeRequest) -> Result<ProbeAnswer, WorkError> {
        match request {
            ProbeRequest::ProbeNow { organisation, rounds } => {
                Ok(ProbeAnswer::Probed { rounds: self.now.run(&organisation, rounds).await? })
            }
            ProbeRequest::ProvePermissions { organisation, permissions } => {
                Ok(ProbeAnswer::Checked { checks: self.permissions.run(&organisation, &permissions).await? })
            }
            ProbeRequest::Check { organisation, external_id, regions, enrolment, granted } => {
                let whose = Checked { organisation, external_id: &external_id, regions: &regions };
                Ok(ProbeAnswer::Checked { checks: self.check.run(whose, &enrolment, &granted).await })
            }
            ProbeRequest::MakeReplacement { organisation, region } => {
                self.replacement.run(&organisation, &region).await
            }
            ProbeRequest::UnwrapDataKeys { organisation, region, cursor } => {
                self.unwrap.run(&organisation, &region, cursor.as_deref()).await
            }
        }
    }
}

fn log_swept(shard: ShardId, swept: Swept) {
    match swept {
        Swept::Late => tracing::debug!(%shard, "a sweep came too late and was dropped"),
        Swept::Already => tracing::debug!(%shard, "a sweep came twice and was dropped"),
        Swept::Done { policies, unproven, left } => {
            tracing::info!(%shard, policies, unproven, left, "a shard was swept");
        }
    }
}
