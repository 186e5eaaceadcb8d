//! Notes: a small multi-tenant app of a vendor. Every note is encrypted under its organisation's keys with
//! `claviger-envelope`, and the app obeys suspension. It has no right to any key and none to the registry.
//!
//! `PUT` and `GET /{org}/{site}/notes/{id}`, the body as it is.

mod cache;
mod commands;
mod http;
mod problem;
mod store;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aws_config::BehaviorVersion;
use clap::Parser;
use claviger_envelope::aws::{Broker, FenceTable};
use claviger_envelope::{Closed, Config, Envelope};
use tracing_subscriber::EnvFilter;

use crate::cache::RecentNotes;
use crate::commands::Commands;
use crate::store::NotesTable;

/// What the app is told by its environment.
#[derive(Debug, Parser)]
struct Options {
    /// The port on which it listens, on 127.0.0.1.
    #[arg(long, env = "NOTES_PORT", default_value_t = 4700)]
    port: u16,
    /// Its table.
    #[arg(long, env = "NOTES_TABLE")]
    table: String,
    /// Its queue of commands from claviger's bus.
    #[arg(long, env = "NOTES_QUEUE_URL")]
    queue_url: String,
    /// The fence.
    #[arg(long, env = "CLAVIGER_FENCE_TABLE")]
    fence_table: String,
    /// How many copies the fence has.
    #[arg(long, env = "CLAVIGER_FENCE_COPIES", default_value_t = 4)]
    fence_copies: u32,
    /// The key broker's Function URL.
    #[arg(long, env = "CLAVIGER_BROKER_URL")]
    broker_url: String,
    /// How long a lease lasts.
    #[arg(long, env = "CLAVIGER_LEASE_MS", default_value_t = 30_000)]
    lease_ms: u64,
    /// How often the fence is read.
    #[arg(long, env = "CLAVIGER_POLL_MS", default_value_t = 5_000)]
    poll_ms: u64,
    /// claviger's API, for acknowledgements.
    #[arg(long, env = "CLAVIGER_API")]
    api: String,
    /// The token of the vendor's own machines.
    #[arg(long, env = "SYSTEM_TOKEN", hide_env_values = true)]
    system_token: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).init();
    let options = Options::parse();
    let aws = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let recent = Arc::new(RecentNotes::default());
    let dropping = Arc::clone(&recent);
    let config = Config {
        lease: Duration::from_millis(options.lease_ms),
        poll: Duration::from_millis(options.poll_ms),
        ..Config::default()
    };
    let envelope = Envelope::builder()
        .fence(FenceTable::new(&aws, &options.fence_table, options.fence_copies))
        .keys(Broker::new(&aws, &options.broker_url)?)
        .config(config)
        .on_close(move |closed: &Closed| dropping.drop_closed(closed))
        .start()?;
    let commands =
        Commands::new(&aws, &options.queue_url, &options.api, options.system_token, Arc::clone(&recent));
    tokio::spawn(commands.run());
    let table = NotesTable::new(&aws, &options.table);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
    let listener = tokio::net::TcpListener::bind(address).await?;
    tracing::info!(%address, "notes is listening");
    axum::serve(listener, http::router(envelope, table, recent)).await?;
    Ok(())
}
