//! What people, AWS and accidents do in an episode.

use std::collections::BTreeSet;

use claviger_app::steer_reencryption::Steer;
use claviger_domain::catalogue::Mode;
use claviger_domain::observation::NoAnswerKind;
use claviger_domain::reencryption::Depth;
use claviger_domain::values::Region;

use super::deeds::AGENTS;
use super::kms::Standing;
use super::run::DAY;
use super::world::World;

/// One thing that happens.
#[derive(Debug, Clone)]
pub enum Act {
    /// A customer changes one key, or all of them.
    Change { org: usize, key: Option<usize>, to: Standing },
    /// An org admin asks for restoration, and again later while it is refused.
    Ask { org: usize, left: u32 },
    /// A support agent asks for it, who may not.
    SupportAsks { org: usize },
    /// A region of AWS gives no answers.
    Outage { region: Region, kind: NoAnswerKind, millis: i64 },
    /// A region's control probe fails.
    Ill { region: Region, millis: i64 },
    /// The prober dies.
    WatcherDies { millis: i64 },
    /// It comes back.
    WatcherLives,
    /// The fence's table cannot be read.
    FenceDown { millis: i64 },
    /// Every read of the fence's table takes long.
    FenceSlow { millis: i64 },
    /// How often calls and messages go wrong from now on.
    Chaos { per_mille: u32 },
    /// Somebody sends an event about an account in which nothing happened.
    Forge { org: usize },
    /// Somebody sends an old message again.
    Replay,
    /// An organisation tries to get data keys of another.
    Steal { by: usize, from: usize },
    /// An organisation that does not own the keys tries to enrol them.
    StrangerEnrols { keys_of: usize },
    /// An org admin wants another app.
    NewInstance { org: usize, number: u64 },
    /// Support works its list off.
    Approve,
    /// A process ends and another starts.
    Restart { process: usize },
    /// A process stands still for a while.
    Freeze { process: usize, millis: i64 },
    /// An org admin moves everything to new keys.
    Reencrypt { org: usize, depth: Depth, own_keys: bool },
    /// An org admin has the job stand still, go on, or be cancelled.
    Steer { org: usize, steer: Steer },
    /// A customer changes one of the keys to which a job moves, or all of them.
    ChangeNew { org: usize, key: Option<usize>, to: Standing },
    /// A customer deletes the keys that were replaced.
    LoseFormer { org: usize },
    /// The key of one region is destroyed.
    LoseForGood { org: usize },
    /// An org admin names another for it.
    ReplaceLost { org: usize },
    /// Support suspends for the vendor.
    VendorSuspends { org: usize },
    /// Support lifts that.
    VendorLifts { org: usize },
    /// An agent calls a suspension a mistake.
    Mistake { org: usize, who: &'static str },
    /// An org admin asks to leave.
    Leave { org: usize },
    /// An org admin thinks better of it.
    Stay { org: usize },
    /// The vendor backs its storage up.
    BackUp { org: usize, days: i64 },
    /// The vendor says how a backup is, if it was not answered yet.
    TellBackup { number: usize },
    /// The vendor brings its backup back.
    BringBack { org: usize },
    /// AWS renews every key's material.
    Rotate,
    /// Two more organisations enrol.
    Enrol,
    /// Support publishes a key-policy template.
    Publish,
    /// An org admin accepts, or declines, what it asks for.
    AnswerAccess { org: usize, accepts: bool },
    /// The vendor's customer records say something else of an organisation.
    Feed { org: usize },
    /// An app is added without a request.
    AddDirectly { org: usize },
    /// They give its site another name.
    RenameSite { org: usize },
    /// They delete its site, or keep it after all.
    DeleteSite { org: usize, keep: bool },
}

const MINUTE: i64 = 60_000;

/// Draws the acts of an episode: when, and what.
pub fn episode(world: &World, processes: usize) -> Vec<(i64, Act)> {
    let orgs: Vec<(usize, usize, Vec<Region>, bool, Mode)> = {
        let state = world.state();
        let known = state.orgs.iter().enumerate();
        known
            .map(|(index, org)| {
                let regions = org.keys.iter().map(|key| key.region().clone()).collect();
                (index, org.keys.len(), regions, org.cause_at.is_some(), org.mode)
            })
            .collect()
    };
    let mut acts = Vec::new();
    let draw = |low, high| world.between(low, high);
    let usize_of = |number: i64| usize::try_from(number).unwrap_or(0);
    let length = draw(4, 10) * MINUTE;
    if draw(0, 2) > 0 {
        acts.push((0, Act::Chaos { per_mille: [20, 60, 150][usize_of(draw(0, 2))] }));
    }
    // What was backed up before a job comes back after it.
    let old: BTreeSet<usize> = {
        let (now, state) = (world.now(), world.state());
        let there = state.backups.iter().filter(|backup| now < backup.expires_at);
        there.filter(|backup| backup.taken_at + 30 * DAY < now).map(|backup| backup.org).collect()
    };
    for org in old {
        if draw(0, 3) == 0 {
            acts.push((draw(1_000, length), Act::BringBack { org }));
        }
    }
    let count = draw(1, 5);
    for _ in 0..count {
        let when = draw(1_000, length);
        let (org, keys, regions, closed, mode) =
            &orgs[usize_of(draw(0, i64::try_from(orgs.len()).unwrap_or(1) - 1))];
        let org = *org;
        let region = regions[usize_of(draw(0, i64::try_from(regions.len()).unwrap_or(1) - 1))].clone();
        let standing = match draw(0, 4) {
            0 | 1 => Standing::Disabled,
            2 => Standing::PendingDeletion,
            3 => Standing::Denied { blind: true },
            _ if *mode == Mode::Byok => Standing::RoleDenied,
            _ => Standing::Denied { blind: false },
        };
        match draw(0, 31) {
            // Revocations, most of them taken back sooner or later.
            0..=5 => {
                if *closed {
                    acts.push((when, Act::Change { org, key: None, to: Standing::Usable }));
                    acts.push((when + 15_000, Act::Ask { org, left: 20 }));
                    continue;
                }
                if draw(0, 5) == 0 {
                    acts.push((when, Act::FenceSlow { millis: draw(30_000, 4 * MINUTE) }));
                }
                if standing == Standing::RoleDenied {
                    acts.push((when, Act::Change { org, key: None, to: standing }));
                } else {
                    for key in 0..*keys {
                        let then = when + draw(0, 40_000);
                        acts.push((then, Act::Change { org, key: Some(key), to: standing }));
                    }
                }
                if draw(0, 3) > 0 {
                    let back = when + draw(50_000, 9 * MINUTE);
                    acts.push((back, Act::Change { org, key: None, to: Standing::Usable }));
                    // Now and then an agent means well before the admin has asked, and when everything would work.
                    let mut asked = back + draw(0, 30_000);
                    if draw(0, 3) == 0 {
                        acts.push((back + draw(10_000, 30_000), Act::SupportAsks { org }));
                        asked = back + MINUTE;
                    }
                    acts.push((asked, Act::Ask { org, left: 20 }));
                    if draw(0, 3) == 0 {
                        // Lost again while it is being restored.
                        let lost = back + draw(10_000, 60_000);
                        let key = (standing != Standing::RoleDenied).then_some(0);
                        acts.push((lost, Act::Change { org, key, to: standing }));
                        acts.push((lost + 2 * MINUTE, Act::Change { org, key: None, to: Standing::Usable }));
                        acts.push((lost + 3 * MINUTE, Act::Ask { org, left: 20 }));
                    }
                }
            }
            6 | 7 => {
                let standing = if standing == Standing::RoleDenied { Standing::Disabled } else { standing };
                let key = usize_of(draw(0, i64::try_from(*keys).unwrap_or(1) - 1));
                acts.push((when, Act::Change { org, key: Some(key), to: standing }));
                if draw(0, 1) == 0 {
                    let back = when + draw(8_000, 5 * MINUTE);
                    acts.push((back, Act::Change { org, key: Some(key), to: Standing::Usable }));
                }
            }
            8..=10 => {
                let kind = match draw(0, 2) {
                    0 => NoAnswerKind::Throttled,
                    1 => NoAnswerKind::Unreachable,
                    _ => NoAnswerKind::OurFault,
                };
                acts.push((when, Act::Outage { region, kind, millis: draw(5_000, 12 * MINUTE) }));
            }
            11 => acts.push((when, Act::Ill { region, millis: draw(20_000, 8 * MINUTE) })),
            12 | 13 => {
                let millis = draw(20_000, 10 * MINUTE);
                acts.push((when, Act::WatcherDies { millis }));
                acts.push((when + millis, Act::WatcherLives));
            }
            14 => {
                let millis = draw(5_000, 3 * MINUTE);
                let down = draw(0, 1) == 0;
                acts.push((when, if down { Act::FenceDown { millis } } else { Act::FenceSlow { millis } }));
            }
            15 => acts.push((when, Act::SupportAsks { org })),
            16 => {
                acts.push((when, Act::Forge { org }));
                acts.push((when, Act::Replay));
                acts.push((when + 1_000, Act::Replay));
            }
            17 => {
                let from = (org + 1) % orgs.len();
                acts.push((when, Act::Steal { by: org, from }));
                acts.push((when, Act::StrangerEnrols { keys_of: from }));
            }
            18 => {
                let number = u64::try_from(draw(0, 999_999)).unwrap_or(0);
                acts.push((when, Act::NewInstance { org, number }));
                acts.push((when + draw(1_000, 60_000), Act::Approve));
            }
            19..=25 => moves(world, &mut acts, (org, *keys), standing, when),
            26 => {
                acts.push((when, Act::VendorSuspends { org }));
                if draw(0, 3) > 0 {
                    acts.push((when + draw(5_000, 6 * MINUTE), Act::VendorLifts { org }));
                }
            }
            27 => {
                // It is given back at once, and support, not the customer, sees to it: two agents, or one twice.
                acts.push((when, Act::Change { org, key: None, to: standing }));
                let back = when + 4 * MINUTE;
                acts.push((back, Act::Change { org, key: None, to: Standing::Usable }));
                let second = usize_of(draw(0, 1));
                acts.push((back + draw(10_000, 40_000), Act::Mistake { org, who: AGENTS[0] }));
                acts.push((back + draw(41_000, 90_000), Act::Mistake { org, who: AGENTS[second] }));
            }
            28 => {
                // Fresh, or as old as there is one.
                if draw(0, 2) > 0 {
                    acts.push((when, Act::BackUp { org, days: draw(1, 120) }));
                }
                acts.push((when + draw(MINUTE, 6 * MINUTE), Act::BringBack { org }));
            }
            29 => {
                // The key of a region is destroyed, the other one disabled; the admin goes on without the first.
                acts.push((when, Act::LoseForGood { org }));
                if draw(0, 1) == 0 {
                    acts.push((when + 20_000, Act::Change { org, key: Some(1), to: Standing::Disabled }));
                    let back = when + draw(3, 6) * MINUTE;
                    acts.push((back, Act::Change { org, key: None, to: Standing::Usable }));
                    acts.push((back + 10_000, Act::Ask { org, left: 20 }));
                    acts.push((back + draw(2, 5) * MINUTE, Act::ReplaceLost { org }));
                }
                acts.push((when + 9 * MINUTE, Act::ReplaceLost { org }));
            }
            30 => {
                acts.push((when, Act::Rotate));
                // One of the four may leave, the others always stay.
                let last = orgs.len() - 1;
                if draw(0, 2) == 0 {
                    acts.push((when, Act::Leave { org: last }));
                    acts.push((when + draw(1_000, MINUTE), Act::Approve));
                    if draw(0, 1) == 0 {
                        acts.push((when + 2 * MINUTE, Act::Stay { org: last }));
                    }
                }
            }
            _ => {
                let process = usize_of(draw(0, i64::try_from(processes).unwrap_or(1) - 1));
                let millis = draw(10_000, 6 * MINUTE);
                acts.push((when, Act::Freeze { process, millis }));
                if draw(0, 1) == 0 {
                    acts.push((when + millis + 30_000, Act::Restart { process }));
                }
            }
        }
    }
    acts.push((length + 60_000, Act::Chaos { per_mille: 0 }));
    acts
}

/// Everything moves to new keys, and keys are lost in the middle: new ones, old ones, one region or both; or an admin
/// has it stand still, go on, or be cancelled.
fn moves(
    world: &World,
    acts: &mut Vec<(i64, Act)>,
    (org, keys): (usize, usize),
    standing: Standing,
    when: i64,
) {
    let draw = |low, high| world.between(low, high);
    let depth = if draw(0, 4) == 0 { Depth::Rewrap } else { Depth::Rekey };
    acts.push((when, Act::Reencrypt { org, depth, own_keys: draw(0, 3) == 0 }));
    let one = || {
        let most = i64::try_from(keys).unwrap_or(1) - 1;
        (draw(0, 1) == 0).then(|| usize::try_from(draw(0, most.max(0))).unwrap_or(0))
    };
    let soon = when + draw(500, 20_000);
    let later = when + draw(MINUTE, 5 * MINUTE);
    match draw(0, 9) {
        0 | 1 => {
            acts.push((soon, Act::ChangeNew { org, key: one(), to: standing }));
            acts.push((later, Act::ChangeNew { org, key: None, to: Standing::Usable }));
        }
        2..=4 => {
            // Whatever keys the policy has at this moment.
            let key = if standing == Standing::RoleDenied { None } else { one() };
            acts.push((soon, Act::Change { org, key, to: standing }));
            let back = soon + draw(20_000, 5 * MINUTE);
            acts.push((back, Act::Change { org, key: None, to: Standing::Usable }));
            acts.push((back + 15_000, Act::Ask { org, left: 20 }));
        }
        5 => {
            acts.push((soon, Act::Steer { org, steer: Steer::Pause }));
            if draw(0, 3) > 0 {
                acts.push((later, Act::Steer { org, steer: Steer::Resume }));
            }
        }
        6 => acts.push((soon, Act::Steer { org, steer: Steer::Cancel })),
        7 => {
            acts.push((when - 500, Act::BackUp { org, days: draw(1, 120) }));
            acts.push((later, Act::BringBack { org }));
        }
        // Backups that last longer than the job.
        8 => acts.extend([60, 200].map(|days| (when - 500, Act::BackUp { org, days }))),
        _ => {}
    }
    if draw(0, 2) == 0 {
        acts.push((when + 6 * MINUTE, Act::LoseFormer { org }));
    }
    // What stood still in an earlier episode goes on.
    if draw(0, 1) == 0 {
        acts.push((when + 5_000, Act::Steer { org, steer: Steer::Resume }));
    }
}
