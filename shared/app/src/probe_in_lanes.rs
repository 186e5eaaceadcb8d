//! Probes many policies at once, in a limited time, so that a region which does not answer stands in nobody's way:
//! a probe that outlasts a moment leaves its place to the next one, and policies of a region that is slow wait
//! behind all others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;

use claviger_domain::ids::PolicyId;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::Region;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use jiff::SignedDuration;

use crate::ports::Timer;

/// How many policies are probed at once while KMS answers.
const AT_ONCE: usize = 64;
/// How long a probe holds one of those places: KMS answers in a fraction of it.
const PATIENCE: SignedDuration = SignedDuration::from_millis(500);
/// How many are under way at most, slow ones included. Each has a connection to every region of its realm, and a
/// Lambda function has 1,024 files.
pub const MOST_AT_ONCE: usize = 384;
/// So many slow probes, and as many as answered ones, make a region slow.
const SLOW_FROM: usize = 8;

/// A probe under way.
pub type Probing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What came of it.
pub struct Probed<T> {
    /// What the probes that ended saw.
    pub seen: Vec<T>,
    /// The policies whose probe did not begin, or did not end, in time.
    pub left: BTreeSet<PolicyId>,
}

enum Step<'a, T> {
    Answered(Whose, T),
    Outlasted(Whose, Probing<'a, T>),
    Late(PolicyId, T),
}

struct Whose {
    id: PolicyId,
    regions: Vec<Region>,
}

/// Probes policies in this order, but for regions that turn out to be slow, until all are done or the time is over. What
/// is under way then is dropped: a decision is one transaction, so nothing is half done.
pub async fn probe_in_lanes<'a, T: Send + 'a>(
    timer: &'a dyn Timer,
    policies: Vec<EncryptionPolicy>,
    limit: SignedDuration,
    probe: impl Fn(EncryptionPolicy) -> Probing<'a, T>,
) -> Probed<T> {
    let mut left: BTreeSet<PolicyId> = policies.iter().map(|policy| policy.id).collect();
    let mut waiting = VecDeque::from(policies);
    let mut pace = Pace::default();
    let mut running = FuturesUnordered::new();
    let mut young = 0_usize;
    let mut seen = Vec::with_capacity(left.len());
    let mut end = timer.after(limit);
    loop {
        while young < AT_ONCE && running.len() < MOST_AT_ONCE {
            let Some(policy) = waiting.pop_front() else { break };
            young = young.saturating_add(1);
            running.push(begun(timer, policy, &probe));
        }
        let Either::Right((Some(step), _)) = select(&mut end, running.next()).await else {
            break;
        };
        match step {
            Step::Answered(whose, one) => {
                young = young.saturating_sub(1);
                pace.answered(&whose.regions);
                left.remove(&whose.id);
                seen.push(one);
            }
            Step::Outlasted(whose, probing) => {
                young = young.saturating_sub(1);
                if pace.outlasted(&whose.regions) {
                    let (slow, others) =
                        waiting.into_iter().partition::<Vec<_>, _>(|policy| pace.is_slow(policy));
                    waiting = others.into_iter().chain(slow).collect();
                }
                running.push(Box::pin(async move { Step::Late(whose.id, probing.await) }));
            }
            Step::Late(id, one) => {
                left.remove(&id);
                seen.push(one);
            }
        }
    }
    Probed { seen, left }
}

fn begun<'a, T: Send + 'a>(
    timer: &'a dyn Timer,
    policy: EncryptionPolicy,
    probe: &impl Fn(EncryptionPolicy) -> Probing<'a, T>,
) -> Probing<'a, Step<'a, T>> {
    let whose = Whose { id: policy.id, regions: policy.keys.keys().cloned().collect() };
    let probing = probe(policy);
    Box::pin(async move {
        match select(probing, timer.after(PATIENCE)).await {
            Either::Left((seen, _)) => Step::Answered(whose, seen),
            Either::Right(((), probing)) => Step::Outlasted(whose, probing),
        }
    })
}

/// How regions answer, in this one go.
#[derive(Default)]
struct Pace {
    /// Answered in time, and not.
    of: BTreeMap<Region, (usize, usize)>,
    slow: BTreeSet<Region>,
}

impl Pace {
    fn answered(&mut self, regions: &[Region]) {
        for region in regions {
            let known = self.of.entry(region.clone()).or_default();
            known.0 = known.0.saturating_add(1);
        }
    }

    /// Says whether a region turned out to be slow by this.
    fn outlasted(&mut self, regions: &[Region]) -> bool {
        let mut news = false;
        for region in regions {
            let known = self.of.entry(region.clone()).or_default();
            known.1 = known.1.saturating_add(1);
            if known.1 >= SLOW_FROM && known.1 >= known.0 {
                news |= self.slow.insert(region.clone());
            }
        }
        news
    }

    fn is_slow(&self, policy: &EncryptionPolicy) -> bool {
        policy.keys.keys().any(|region| self.slow.contains(region))
    }
}
