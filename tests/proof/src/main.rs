//! `proof`: runs the simulation, the model or the conformance check by hand.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use claviger_proof::sim::{Options, Outcome, run};

/// Checks the invariants of claviger by machine.
#[derive(Debug, Parser)]
#[command(name = "proof")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Run this seed only, and print what happened if an invariant breaks.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds, from 0.
    #[arg(long, default_value_t = 24)]
    seeds: u64,
    /// Episodes of each seed.
    #[arg(long, default_value_t = 30)]
    depth: u32,
    /// Print what happens even if nothing breaks (with `--seed`).
    #[arg(long)]
    trace: bool,
}

#[derive(Debug, Subcommand)]
enum Command {}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let started = Instant::now();
    let (first, count) = arguments.seed.map_or((0, arguments.seeds), |seed| (seed, 1));
    let mut all = Outcome::default();
    for seed in first..first + count {
        let options = Options { seed, episodes: arguments.depth, twin: None, traced: arguments.seed.is_some() };
        let outcome = run(options);
        if arguments.trace || (arguments.seed.is_some() && !outcome.violations.is_empty()) {
            for line in &outcome.trace {
                println!("{line}");
            }
        }
        for violation in &outcome.violations {
            println!("seed {seed}: {} at {}: {}", violation.invariant, violation.at, violation.what);
        }
        all.add(&outcome);
    }
    println!("{}", claviger_proof::summary(count, &all));
    eprintln!("{:?}", started.elapsed());
    if all.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
