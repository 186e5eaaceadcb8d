//! What is played in a run that looks at every step: between them the scenarios come to every use case.

use claviger_app::steer_reencryption::Steer;
use claviger_domain::catalogue::Mode;
use claviger_domain::reencryption::Depth;

use super::deeds::AGENTS;
use super::kms::Standing;
use super::run::{FIRST, Newcomer};
use super::script::Act;

/// One thing in a scenario.
#[derive(Debug, Clone)]
pub(super) enum Do {
    /// Somebody does something.
    Act(Act),
    /// Time passes, call by call.
    Minutes(i64),
    /// Time passes in which nothing happens but what schedules do.
    Days(i64),
    /// An app writes a record.
    Write(usize),
    /// An app asks for a newer version of each instance's first data key.
    Newer(usize),
    /// The keys of a job that is asked for now are disabled as soon as they are named.
    LoseNew(usize),
    /// The first of an organisation's keys is lost for good.
    LoseFirst(usize),
    /// The next order comes to no queue.
    ComesToNoQueue,
    /// An organisation's job comes to its end, whatever is in its way.
    JobEnds(usize),
    /// From here on every call counts.
    Mark,
}

/// Who is there, and what happens.
pub(super) struct Scenario {
    /// How it is called.
    pub name: &'static str,
    /// Who is there.
    pub who: &'static [Newcomer],
    /// What happens, one after the other.
    pub plays: Vec<Do>,
}

/// acme holds a key in each of two regions, initech lets us make them in two, globex has one.
const ACME: &[Newcomer] = &[FIRST[0]];
const GLOBEX: &[Newcomer] = &[FIRST[1]];
const INITECH: &[Newcomer] = &[FIRST[2]];
const BOTH: &[Newcomer] = &[FIRST[0], FIRST[2]];
/// The first of those who are there, and the second.
const ONE: usize = 0;
const OTHER: usize = 1;

/// All of them.
pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = of_people();
    all.extend(of_keys());
    all.extend(of_data());
    all
}

fn scenario(name: &'static str, who: &'static [Newcomer], plays: Vec<Do>) -> Scenario {
    Scenario { name, who, plays }
}

const fn act(act: Act) -> Do {
    Do::Act(act)
}

const fn change(to: Standing) -> Do {
    Do::Act(Act::Change { org: ONE, key: None, to })
}

const fn ask() -> Do {
    Do::Act(Act::Ask { org: ONE, left: 4 })
}

const fn reencrypt() -> Do {
    Do::Act(Act::Reencrypt { org: ONE, depth: Depth::Rekey, own_keys: false })
}

const fn steer(steer: Steer) -> Do {
    Do::Act(Act::Steer { org: ONE, steer })
}

/// Enrolling, apps, sites, permissions, leaving.
fn of_people() -> Vec<Scenario> {
    vec![
        scenario("an enrolment", ACME, vec![Do::Mark, act(Act::Enrol), act(Act::Approve), Do::Minutes(4)]),
        scenario(
            "an instance",
            ACME,
            vec![Do::Mark, act(Act::NewInstance { org: ONE, number: 7 }), act(Act::Approve), Do::Minutes(3)],
        ),
        scenario(
            "a site with another name",
            GLOBEX,
            vec![Do::Mark, act(Act::RenameSite { org: ONE }), Do::Minutes(1)],
        ),
        scenario(
            "a site that is deleted",
            GLOBEX,
            vec![
                Do::Mark,
                act(Act::DeleteSite { org: ONE, keep: false }),
                act(Act::DeleteSite { org: ONE, keep: true }),
                act(Act::DeleteSite { org: ONE, keep: false }),
                Do::Minutes(1),
                Do::Days(31),
                Do::Minutes(30),
            ],
        ),
        scenario(
            "an organisation leaves",
            GLOBEX,
            vec![
                Do::Mark,
                act(Act::Leave { org: ONE }),
                act(Act::Approve),
                Do::Minutes(4),
                Do::Days(31),
                Do::Minutes(40),
            ],
        ),
        scenario(
            "an organisation stays",
            GLOBEX,
            vec![Do::Mark, act(Act::Leave { org: ONE }), act(Act::Stay { org: ONE }), Do::Minutes(2)],
        ),
        scenario(
            "a permission is asked for",
            BOTH,
            vec![
                Do::Mark,
                act(Act::Publish),
                Do::Minutes(1),
                act(Act::AnswerAccess { org: ONE, accepts: true }),
                act(Act::AnswerAccess { org: OTHER, accepts: false }),
                Do::Minutes(2),
            ],
        ),
        scenario(
            "the vendor's records",
            GLOBEX,
            vec![Do::Mark, act(Act::Feed { org: ONE }), act(Act::AddDirectly { org: ONE }), Do::Minutes(2)],
        ),
    ]
}

/// Suspending and restoring, and keys that are lost.
fn of_keys() -> Vec<Scenario> {
    let (usable, disabled) = (Standing::Usable, Standing::Disabled);
    vec![
        scenario(
            "cut off and restored",
            ACME,
            vec![
                // More instances than a page has.
                act(Act::NewInstance { org: ONE, number: 7 }),
                act(Act::Approve),
                Do::Minutes(2),
                Do::Mark,
                change(disabled),
                Do::Minutes(4),
                change(usable),
                Do::Minutes(1),
                ask(),
                Do::Minutes(4),
            ],
        ),
        scenario(
            "an order that comes to no queue",
            GLOBEX,
            vec![Do::Mark, Do::ComesToNoQueue, change(disabled), Do::Minutes(14)],
        ),
        scenario(
            "denied, and a hint",
            ACME,
            vec![
                Do::Mark,
                act(Act::Forge { org: ONE }),
                change(Standing::Denied { blind: true }),
                Do::Minutes(6),
            ],
        ),
        scenario(
            "a key lost for good",
            ACME,
            vec![
                act(Act::NewInstance { org: ONE, number: 7 }),
                act(Act::Approve),
                Do::Minutes(2),
                act(Act::LoseForGood { org: ONE }),
                act(Act::Change { org: ONE, key: Some(1), to: disabled }),
                Do::Minutes(4),
                change(usable),
                Do::Minutes(1),
                Do::Mark,
                ask(),
                Do::Minutes(4),
                act(Act::ReplaceLost { org: ONE }),
                Do::Minutes(8),
            ],
        ),
        scenario(
            "a key that the service made, lost for good",
            INITECH,
            vec![
                Do::LoseFirst(ONE),
                Do::Minutes(4),
                Do::Mark,
                act(Act::ReplaceLost { org: ONE }),
                Do::Minutes(8),
            ],
        ),
        scenario(
            "lapsed and carried out",
            INITECH,
            vec![
                change(Standing::RoleDenied),
                Do::Minutes(6),
                Do::Mark,
                Do::Days(16),
                Do::Minutes(12),
                change(usable),
                Do::Minutes(2),
                ask(),
                Do::Minutes(4),
            ],
        ),
        scenario(
            "the vendor suspends and lifts",
            ACME,
            vec![
                Do::Mark,
                act(Act::VendorSuspends { org: ONE }),
                Do::Minutes(2),
                act(Act::VendorLifts { org: ONE }),
                Do::Minutes(3),
            ],
        ),
        scenario(
            "a mistake",
            ACME,
            vec![
                change(Standing::Denied { blind: true }),
                Do::Minutes(6),
                change(usable),
                Do::Minutes(2),
                Do::Mark,
                act(Act::Mistake { org: ONE, who: AGENTS[0] }),
                act(Act::Mistake { org: ONE, who: AGENTS[1] }),
                Do::Minutes(4),
            ],
        ),
        scenario("material is renewed", INITECH, vec![Do::Mark, act(Act::Rotate), Do::Minutes(3)]),
    ]
}

/// Records and data keys that move.
fn of_data() -> Vec<Scenario> {
    vec![
        scenario(
            "data keys grow old",
            ACME,
            vec![
                Do::Write(ONE),
                Do::Days(2),
                Do::Mark,
                Do::Newer(ONE),
                Do::Minutes(3),
                Do::Newer(ONE),
                Do::Minutes(3),
                Do::Newer(ONE),
                Do::Minutes(1),
            ],
        ),
        scenario(
            "everything moves",
            ACME,
            vec![
                Do::Write(ONE),
                Do::Write(ONE),
                Do::Write(ONE),
                Do::Write(ONE),
                Do::Mark,
                act(Act::BackUp { org: ONE, days: 40 }),
                reencrypt(),
                Do::JobEnds(ONE),
            ],
        ),
        scenario(
            "the last backup expires",
            ACME,
            vec![
                Do::Write(ONE),
                // More instances than a page has.
                act(Act::NewInstance { org: ONE, number: 7 }),
                act(Act::Approve),
                Do::Minutes(2),
                act(Act::BackUp { org: ONE, days: 40 }),
                reencrypt(),
                Do::JobEnds(ONE),
                Do::Mark,
                act(Act::BackUp { org: ONE, days: 200 }),
                Do::Days(60),
                Do::Minutes(7),
            ],
        ),
        scenario(
            "keys made for a job",
            INITECH,
            vec![Do::Write(ONE), Do::Mark, reencrypt(), Do::JobEnds(ONE)],
        ),
        scenario(
            "paused, resumed and cancelled",
            ACME,
            vec![
                // A new key is lost as soon as the job names it, so that it stays before its point of no return.
                Do::LoseNew(ONE),
                reencrypt(),
                Do::Minutes(1),
                Do::Mark,
                steer(Steer::Pause),
                steer(Steer::Resume),
                steer(Steer::Cancel),
                Do::JobEnds(ONE),
            ],
        ),
    ]
}

/// How an organisation that comes later holds its keys: each way has steps of its own.
pub const LATER: [Newcomer; 2] =
    [("umbrella", "666666666666", "europe", Mode::Byok), ("wayne", "777777777777", "india", Mode::Cmk)];
