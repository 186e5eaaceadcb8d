//! Starts the customers' side of AWS on one local port.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use claviger_customer_cloud::cloud::{Cloud, Config, EventTarget};
use claviger_customer_cloud::server;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// KMS, STS and IAM of any number of customer accounts, over the real AWS protocols. For tests only.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 4600)]
    port: u16,
    /// The vendor's AWS (ministack); empty: the vendor's account is an account like the others.
    #[arg(long, default_value = "http://127.0.0.1:4566")]
    vendor_endpoint: String,
    #[arg(long, default_value = "111111111111")]
    vendor_account: String,
    /// The function that receives the customers' events; empty: none does.
    #[arg(long, default_value = "claviger-key-events")]
    events_function: String,
    /// Where that function is invoked; the vendor's endpoint unless given.
    #[arg(long)]
    events_endpoint: Option<String>,
    #[arg(long, default_value = "eu-central-1")]
    events_region: String,
}

impl Arguments {
    fn config(self) -> Config {
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let vendor_endpoint = given(self.vendor_endpoint);
        let events_endpoint = self.events_endpoint.and_then(given).or_else(|| vendor_endpoint.clone());
        let events = given(self.events_function)
            .zip(events_endpoint)
            .map(|(function, endpoint)| EventTarget { endpoint, function, region: self.events_region });
        Config { vendor_account: self.vendor_account, vendor_endpoint, events }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let port = arguments.port;
    let listener = match TcpListener::bind(("127.0.0.1", port)).await {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!(
                "customer-cloud: cannot listen on 127.0.0.1:{port}: {error}; stop what uses it or give --port"
            );
            return ExitCode::FAILURE;
        }
    };
    let address =
        listener.local_addr().map_or_else(|_| format!("127.0.0.1:{port}"), |address| address.to_string());
    println!("customer-cloud ready on http://{address}");
    let stopped = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! { _ = terminate.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
            }
            Err(_) => drop(tokio::signal::ctrl_c().await),
        }
    };
    tokio::select! {
        () = stopped => ExitCode::SUCCESS,
        never = server::serve(listener, Arc::new(Cloud::new(arguments.config()))) => match never {},
    }
}
