//! `proof`: runs the simulation, the model or the conformance check by hand.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use claviger_proof::conform::replay;
use claviger_proof::model::{BOUNDED, DEEP, Production, Search};
use claviger_proof::sim::{Options, Outcome, broken_on_two_threads, every_step, run};
use claviger_proof::twin::Twin;

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
        /// One search of its own, within these bounds: organisations, regions, changes, faults, support's acts, steps of
        /// the clock, probes and messages at once, states.
        #[arg(long, num_args = 9, conflicts_with = "deep")]
        within: Option<Vec<usize>>,
    },
    /// Repeat, fail and break off each step of each use case; in the end everything has to be as if nothing had happened.
    Steps {
        /// Those of one scenario alone.
        #[arg(long)]
        scenario: Option<String>,
    },
    /// Break an invariant on purpose, and print whether the checks catch it: that line and no other.
    Twin {
        /// Which: I1 to I8.
        invariant: String,
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

fn model(deep: bool, within: Option<&[usize]>) -> ExitCode {
    let searches = match within {
        Some(bounds) => vec![Search::within(bounds)],
        None if deep => DEEP.to_vec(),
        None => BOUNDED.to_vec(),
    };
    let mut states = 0;
    for search in searches {
        let found = search.run(&Production);
        states += found.states;
        eprintln!(
            "{search} states={} transitions={} complete={}",
            found.states, found.transitions, found.complete
        );
        if let Some((invariant, what, way)) = found.violation {
            way.iter().for_each(|step| println!("{step}"));
            println!("{invariant}: {what}");
            println!("proof model states={states} violations=1");
            return ExitCode::FAILURE;
        }
        if search.complete && !found.complete {
            eprintln!("{search} was to reach its own end, and did not");
            return ExitCode::FAILURE;
        }
    }
    println!("proof model states={states} violations=0");
    ExitCode::SUCCESS
}

fn steps(scenario: Option<&str>) -> ExitCode {
    let all = every_step(scenario);
    let broken = broken_on_two_threads(&all, None);
    for one in &broken {
        println!("{:?}\n  {}", one.step, one.what);
    }
    println!("proof steps runs={} violations={}", all.len(), broken.len());
    if broken.is_empty() && !all.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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

fn twin(invariant: &str) -> ExitCode {
    let Some(twin) = Twin::ALL.into_iter().find(|twin| twin.invariant().eq_ignore_ascii_case(invariant))
    else {
        eprintln!("`{invariant}` is no invariant; there are I1 to I8");
        return ExitCode::FAILURE;
    };
    let (line, caught) = twin.line(twin.shows().as_ref());
    println!("{line}");
    if caught { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match &arguments.command {
        Some(Command::Model { deep, within }) => return model(*deep, within.as_deref()),
        Some(Command::Steps { scenario }) => return steps(scenario.as_deref()),
        Some(Command::Conform { file, ambiguity_seconds, in_transit_seconds }) => {
            return conform(file, *ambiguity_seconds, *in_transit_seconds);
        }
        Some(Command::Twin { invariant }) => return twin(invariant),
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
