//! `reencryption-worker`: rewrites the records of one shard of a re-encryption, batch by batch. To the data plane it is
//! an app like any other: it holds a lease and is given data keys by the broker.

mod stores;

use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent};
use claviger_app::reencryption::ShardWork;
use claviger_app::rewrite_shard::RewriteShard;
use claviger_lambda::batch;
use jiff::SignedDuration;

pub use stores::rewriters;

/// The use case of this function.
pub struct Worker<'a> {
    /// Works shards.
    pub rewrite: RewriteShard<'a>,
}

impl Worker<'_> {
    /// Handles the messages of one invocation; each is worked for this long, then handed over.
    pub async fn handle(&self, event: SqsEvent, works_for: SignedDuration) -> SqsBatchResponse {
        batch::run_sqs(event, |work: ShardWork| async move { self.rewrite.run(&work, works_for).await }).await
    }
}
