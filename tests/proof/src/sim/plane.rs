//! The data plane: processes with the library itself, on clocks that the world moves.

use std::sync::Arc;

use async_trait::async_trait;
use claviger_app::hand_out_data_key::{HandOutDataKey, HandOutError, KeyRequest};
use claviger_app::ports::{DataKeyChoice, WatchList};
use claviger_app::prove_policies::{Proof as Proven, ProvePolicies, Proved};
use claviger_domain::effect::Order;
use claviger_domain::ids::DataKeyId;
use claviger_domain::values::{Region, ShardId};
use claviger_envelope::fence::{FenceError, FencedPolicy, WatchedShard};
use claviger_envelope::source::{DataKey, Proof, ProofResult, SourceError, Wanted};
use claviger_envelope::testing::FakeClock as PlaneClock;
use claviger_envelope::{Config, Envelope, FenceReader, FenceSnapshot, InstanceName, KeyBytes, KeySource};
use claviger_testkit::builders;
use jiff::SignedDuration;

use super::ports::{Ports, alive};
use super::world::{World, settings};
use crate::twin::Twin;

/// A process of an app.
pub struct Process {
    /// Its library.
    pub library: Envelope,
    /// Its app.
    pub app: &'static str,
    fence: Fence,
}

impl Process {
    /// A process that starts now.
    pub fn start(world: &Arc<World>, number: usize, (role, app): (&'static str, &'static str)) -> Self {
        let clock = Arc::new(PlaneClock::default());
        clock.step_wall(world.now() - clock.now().wall);
        world.state().clocks.insert(number, (Arc::clone(&clock), 0));
        let fence = Fence { world: Arc::clone(world), early: Early::default(), turn: Arc::default() };
        let broker = Broker { world: Arc::clone(world), role, number: number % 2 };
        // A fixed window for gathering proofs: the library draws its length at random.
        let config = Config { proof_window: std::time::Duration::ZERO, ..Config::default() };
        let library = Envelope::builder()
            .fence(fence.clone())
            .keys(broker)
            .config(config)
            .clock(clock)
            .manual()
            .start()
            .expect("fence and keys are there");
        Self { library, app, fence }
    }

    /// Reads the fence. The twin's library is told of the read only when it is over.
    pub async fn poll(library: Envelope, fence: Fence) {
        if fence.world.is(Twin::LeaseFromAfterTheRead) {
            let _turn = fence.turn.lock().await;
            let early = fence.snapshot().await;
            *fence.early.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(early);
            let _ = library.poll().await;
            return;
        }
        let _ = library.poll().await;
    }

    /// What a poll needs.
    pub fn for_poll(&self) -> (Envelope, Fence) {
        (self.library.clone(), self.fence.clone())
    }
}

/// The fence over the tables in memory: each read is of one instant, and its answer takes time.
#[derive(Clone)]
pub struct Fence {
    world: Arc<World>,
    early: Early,
    turn: Arc<tokio::sync::Mutex<()>>,
}

type Early = Arc<std::sync::Mutex<Option<Result<FenceSnapshot, FenceError>>>>;

impl Fence {
    async fn snapshot(&self) -> Result<FenceSnapshot, FenceError> {
        let world = &self.world;
        let there = world.between(1, 40);
        world.pause(there).await;
        let down = {
            let state = world.state();
            state.fence_down_until > world.now()
        };
        if down {
            return Err(FenceError("injected".into()));
        }
        let mut snapshot = FenceSnapshot::default();
        let orgs = world.state().orgs.clone();
        for org in &orgs {
            let Some((policy, _)) = org.policy else { continue };
            if let Some(item) = world.store.fence(policy) {
                snapshot.policies.push(FencedPolicy {
                    policy_id: policy.to_string(),
                    organisation_id: item.organisation.to_string(),
                    epoch: item.fence.epoch.0,
                    closed: !item.fence.is_open(),
                    min_write_generation: u32::try_from(item.fence.min_write_generation).unwrap_or(u32::MAX),
                });
            }
        }
        for shard in 0..settings().shards {
            if let Ok(Some(beat)) = world.store.last_beat(ShardId(shard)).await {
                snapshot.shards.push(WatchedShard {
                    shard,
                    watched_until: beat.watched_until.as_millisecond(),
                    unproven: beat.unproven.keys().map(ToString::to_string).collect(),
                });
            }
        }
        // Some answers are under way for most of a lease.
        let slow = world.state().fence_slow_until > world.now();
        let back = if slow || world.chance(20) {
            world.fault(|| "a read of the fence takes long".to_owned());
            world.between(5_000, 28_000)
        } else {
            world.between(1, 40)
        };
        world.pause(back).await;
        Ok(snapshot)
    }
}

#[async_trait]
impl FenceReader for Fence {
    async fn read(&self) -> Result<FenceSnapshot, FenceError> {
        let early = self.early.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        match early {
            Some(early) => early,
            None => self.snapshot().await,
        }
    }
}

/// The key broker, as the library reaches it.
struct Broker {
    world: Arc<World>,
    role: &'static str,
    number: usize,
}

/// Asks the broker for a data key, with production's use case.
pub async fn ask(
    world: &Arc<World>,
    broker: usize,
    request: &KeyRequest,
) -> Result<claviger_app::hand_out_data_key::HandedOut, HandOutError> {
    let ports = Ports::new(world, Order::Suspend, "hand-out-data-key");
    let home: Region = builders::parsed("eu-central-1");
    let hand = HandOutDataKey {
        policies: &*ports,
        instances: &*ports,
        registry: &*ports,
        keys: &*ports,
        hints: &*ports,
        newer: &*ports,
        cache: &world.brokers[broker],
        lifetime: SignedDuration::from_mins(5),
        home: &home,
        ids: &*ports,
        clock: &*ports,
        settings: settings(),
    };
    let mut request = request.clone();
    if world.is(Twin::OwnerInsteadOfCaller)
        && let Ok(Some(owner)) = claviger_app::ports::Instances::site_owner(&world.store, &request.site).await
    {
        request.organisation = owner;
    }
    // A broker that dies gives no answer, and the caller's patience ends.
    let unavailable = || HandOutError::Unavailable { reason: "the broker died".to_owned() };
    alive(&ports, hand.run(&request)).await.unwrap_or_else(|| Err(unavailable()))
}

#[async_trait]
impl KeySource for Broker {
    async fn fetch(&self, instance: &InstanceName, wanted: Wanted) -> Result<DataKey, SourceError> {
        let request = KeyRequest {
            caller_role: self.role.to_owned(),
            organisation: builders::parsed(&instance.organisation),
            site: builders::parsed(&instance.site),
            app: builders::parsed(&instance.app),
            choice: match wanted {
                Wanted::Current { .. } => DataKeyChoice::Current,
                Wanted::DataKey(id) => DataKeyChoice::Id(DataKeyId::from_uuid(id)),
            },
            newer_than: match wanted {
                Wanted::Current { newer_than } => newer_than,
                Wanted::DataKey(_) => None,
            },
        };
        let answer = ask(&self.world, self.number, &request).await;
        let back = self.world.between(1, 60);
        self.world.pause(back).await;
        let key = answer.map_err(|error| match error {
            HandOutError::NotFound => SourceError::NotFound,
            HandOutError::Suspended => SourceError::Suspended,
            HandOutError::Unavailable { .. } => SourceError::TemporarilyUnavailable,
        })?;
        let bytes: [u8; 32] = key.key.as_slice().try_into().map_err(|_| SourceError::NotFound)?;
        Ok(DataKey {
            policy_id: key.policy.to_string(),
            organisation_id: key.organisation.to_string(),
            instance_id: key.instance.to_string(),
            shard: key.shard.0,
            epoch: key.epoch.0,
            generation: u32::try_from(key.generation).unwrap_or(u32::MAX),
            data_key_id: key.id.as_uuid(),
            version: key.version,
            current: key.current,
            key: KeyBytes::fill_with(|out| {
                out.copy_from_slice(&bytes);
                Ok::<_, SourceError>(())
            })?,
            not_after: key.not_after.as_millisecond(),
            proven_until: key.proven_until.as_millisecond(),
            created_at: Some(key.created_at.as_millisecond()),
            kms_calls: key.kms_calls,
        })
    }

    async fn prove(&self, policies: &[String]) -> Result<Vec<Proof>, SourceError> {
        let ports = Ports::new(&self.world, Order::Suspend, "prove-policies");
        let prove = ProvePolicies {
            policies: &*ports,
            proofs: &*ports,
            probe: ports.probe_keys(),
            clock: &*ports,
            timer: &*ports,
            settings: settings(),
        };
        let ids: Vec<_> = policies.iter().map(|id| builders::parsed(id)).collect();
        let proofs = alive(&ports, prove.run(&ids)).await;
        let proofs = proofs.ok_or_else(|| SourceError::Unreachable("the broker died".to_owned()))?;
        let back = self.world.between(1, 60);
        self.world.pause(back).await;
        let proof = |proved: Proved| {
            let (result, until) = match proved.proof {
                Proven::Proven { until } => (ProofResult::Proven, until.as_millisecond()),
                Proven::Suspended => (ProofResult::Suspended, 0),
                Proven::Unavailable => (ProofResult::Unavailable, 0),
            };
            Proof {
                policy_id: proved.policy.to_string(),
                result,
                proven_until: until,
                kms_calls: proved.kms_calls,
            }
        };
        Ok(proofs.into_iter().map(proof).collect())
    }
}
