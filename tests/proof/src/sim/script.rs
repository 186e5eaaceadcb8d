//! What people, AWS and accidents do in an episode.

use claviger_domain::observation::NoAnswerKind;
use claviger_domain::values::Region;

use super::kms::Standing;
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
}

const MINUTE: i64 = 60_000;

/// Draws the acts of an episode: when, and what.
pub fn episode(world: &World, processes: usize) -> Vec<(i64, Act)> {
    let orgs: Vec<(usize, usize, Vec<Region>, bool)> = {
        let state = world.state();
        let known = state.orgs.iter().enumerate();
        known
            .map(|(index, org)| {
                let regions = org.keys.iter().map(|key| key.region().clone()).collect();
                (index, org.keys.len(), regions, org.closed_at.is_some())
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
    let count = draw(1, 5);
    for _ in 0..count {
        let when = draw(1_000, length);
        let (org, keys, regions, closed) =
            &orgs[usize_of(draw(0, i64::try_from(orgs.len()).unwrap_or(1) - 1))];
        let org = *org;
        let region = regions[usize_of(draw(0, i64::try_from(regions.len()).unwrap_or(1) - 1))].clone();
        let standing = match draw(0, 4) {
            0 | 1 => Standing::Disabled,
            2 => Standing::PendingDeletion,
            3 => Standing::Denied { blind: true },
            _ => Standing::Denied { blind: false },
        };
        match draw(0, 19) {
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
                for key in 0..*keys {
                    acts.push((when + draw(0, 40_000), Act::Change { org, key: Some(key), to: standing }));
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
                        acts.push((lost, Act::Change { org, key: Some(0), to: standing }));
                        acts.push((lost + 2 * MINUTE, Act::Change { org, key: None, to: Standing::Usable }));
                        acts.push((lost + 3 * MINUTE, Act::Ask { org, left: 20 }));
                    }
                }
            }
            6 | 7 => {
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
