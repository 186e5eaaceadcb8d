//! `docs/PROMISES.md` is what the code computes from the template's defaults. `UPDATE_DOCS=1` writes it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fmt::Write;
use std::path::Path;

use claviger_app::promises::Promise;
use claviger_app::settings::{QUEUE, Settings};
use claviger_testkit::builders;
use jiff::SignedDuration;

const BEGIN: &str = "<!-- computed: begin -->";
const END: &str = "<!-- computed: end -->";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The number that stands for `word` (`Default`, `MaxValue`) of a parameter of the template.
fn number(parameter: &str, word: &str) -> i64 {
    let template = std::fs::read_to_string(root().join("template.yaml")).unwrap();
    let lines = template.lines().skip_while(|line| *line != format!("  {parameter}:")).skip(1);
    let mut own = lines.take_while(|line| line.starts_with("    "));
    let found = own.find_map(|line| line.trim().strip_prefix(word)?.strip_prefix(": ")).unwrap();
    found.parse().unwrap()
}

fn seconds(parameter: &str) -> SignedDuration {
    SignedDuration::from_secs(number(parameter, "Default"))
}

fn deployed() -> Settings {
    Settings {
        probe_phase: seconds("ProbePhaseSeconds"),
        lease: seconds("LeaseSeconds"),
        ambiguity: seconds("AmbiguitySeconds"),
        watch_slack: seconds("WatchSlackSeconds"),
        proof_reuse: seconds("ProofReuseSeconds"),
        ..builders::settings().clone()
    }
}

fn table(promises: &[Promise]) -> String {
    let mut text = String::from("| cause | counted from when | sum | bound |\n|---|---|---|---|\n");
    for promise in promises {
        let terms: Vec<String> =
            promise.terms.iter().map(|term| format!("{} {}", term.what, term.at_most.as_secs())).collect();
        writeln!(
            text,
            "| {} | {} | {} | **{} s** |",
            promise.cause,
            promise.from,
            terms.join(" + "),
            promise.bound().as_secs()
        )
        .unwrap();
    }
    text
}

fn computed() -> String {
    let deployed = deployed();
    let economy = Settings {
        probe_phase: SignedDuration::from_secs(number("ProbePhaseSeconds", "MaxValue")),
        ..deployed.clone()
    };
    format!(
        "{BEGIN}\n## As deployed: every key each {} s\n\n{}\n## Economy: every key each {} s\n\n{}\n{END}",
        deployed.probe_phase.as_secs(),
        table(&deployed.promises()),
        economy.probe_phase.as_secs(),
        table(&economy.promises()[1..]),
    )
}

#[test]
fn r6_the_published_bounds_are_the_sums_of_their_terms_from_the_configuration() {
    let path = root().join("docs/PROMISES.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{}{after}", computed());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, wanted).unwrap();
        return;
    }
    assert_eq!(text, wanted, "run UPDATE_DOCS=1 cargo test -p claviger-tests --test promises");
}

#[test]
fn r6_a_definite_refusal_is_cut_off_by_probe_alone_within_100_s_and_an_ambiguous_one_within_180_s() {
    let deployed = deployed();
    assert!(deployed.cut_off_bound() <= SignedDuration::from_secs(100));
    assert!(deployed.ambiguous_cut_off_bound() <= SignedDuration::from_secs(180));
    assert_eq!(deployed.cut_off_bound(), deployed.by_probe().bound());
    assert_eq!(deployed.unwatched_bound(), deployed.unwatched().bound());
}

#[test]
fn r2_a_sweep_its_follow_on_and_a_queue_fit_into_a_phase_and_a_sweep_into_its_function() {
    let deployed = deployed();
    let limit = deployed.sweep_limit();
    assert!(limit * 2 + QUEUE <= deployed.probe_phase, "{limit:?}");
    let text = std::fs::read_to_string(root().join("docs/PROMISES.md")).unwrap();
    assert!(text.contains(&format!("({} s)", limit.as_secs())), "{limit:?} is not in docs/PROMISES.md");
    // The slowest call that begins in time, and the beat after it.
    assert!(seconds("KeyCallTimeoutSeconds") < limit && limit < seconds("FunctionTimeoutSeconds"));
}

#[test]
fn r6_the_readme_publishes_the_same_bounds() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let deployed = deployed();
    for bound in [deployed.cut_off_bound(), deployed.ambiguous_cut_off_bound(), deployed.unwatched_bound()] {
        assert!(readme.contains(&format!("| {} s", bound.as_secs())), "{bound:?} is not in README.md");
    }
}
