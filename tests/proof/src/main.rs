//! `proof`: runs the simulation, the model or the conformance check by hand.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use claviger_proof::conform::replay;
use claviger_proof::model::{Bounds, Found, Production, explore, explore_pair};
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
enum Command {
    /// Explore every state of the model.
    Model {
        /// As far as an hour goes, not as far as a test goes.
        #[arg(long)]
        deep: bool,
    },
    /// Replay an organisation's audit log (one fact a line, as `GET .../audit` prints it) through the deciding functions.
    Conform {
        /// The log.
        file: std::path::PathBuf,
        /// How long an ambiguous refusal has to persist where the log comes from.
        #[arg(long, default_value_t = 60)]
        ambiguity_seconds: i64,
        /// How far apart the two clean scans of a re-encryption have to lie there.
        #[arg(long, default_value_t = 30 * 24 * 3600)]
        in_transit_seconds: i64,
    },
}

fn model(deep: bool) -> ExitCode {
    let (changes, ticks, most) = if deep { (3, 4, 150_000) } else { (2, 2, 6_000) };
    let bounds = |regions| Bounds { regions, changes, faults: 1, support: 2, ticks, states: most };
    let searches: [(&str, &dyn Fn() -> Found); 3] = [
        ("organisations=1 regions=1", &|| explore(&Production, bounds(1))),
        ("organisations=1 regions=2", &|| explore(&Production, bounds(2))),
        ("organisations=2 regions=1", &|| explore_pair(&Production, bounds(1))),
    ];
    let mut states = 0;
    for (name, search) in searches {
        let found = search();
        states += found.states;
        eprintln!(
            "{name} states={} transitions={} complete={}",
            found.states, found.transitions, found.complete
        );
        if let Some((invariant, what, way)) = found.violation {
            way.iter().for_each(|step| println!("{step}"));
            println!("{invariant}: {what}");
            println!("proof model states={states} violations=1");
            return ExitCode::FAILURE;
        }
    }
    println!("proof model states={states} violations=0");
    ExitCode::SUCCESS
}

fn conform(file: &std::path::Path, ambiguity_seconds: i64, in_transit_seconds: i64) -> ExitCode {
    let log = match std::fs::read_to_string(file) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    };
    let mut rules = claviger_testkit::builders::rules();
    rules.ambiguity = jiff::SignedDuration::from_secs(ambiguity_seconds);
    rules.in_transit = jiff::SignedDuration::from_secs(in_transit_seconds);
    let found = replay(&rules, &log);
    found.divergences.iter().for_each(|divergence| println!("{divergence}"));
    println!("proof conformance facts={} divergences={}", found.facts, found.divergences.len());
    if found.divergences.is_empty() && found.facts > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match &arguments.command {
        Some(Command::Model { deep }) => return model(*deep),
        Some(Command::Conform { file, ambiguity_seconds, in_transit_seconds }) => {
            return conform(file, *ambiguity_seconds, *in_transit_seconds);
        }
        None => {}
    }
    let started = Instant::now();
    let (first, count) = arguments.seed.map_or((0, arguments.seeds), |seed| (seed, 1));
    let mut all = Outcome::default();
    for seed in first..first + count {
        let options =
            Options { seed, episodes: arguments.depth, twin: None, traced: arguments.seed.is_some() };
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
