//! The adapters of a function, made from its environment once a process. Each function takes those that
//! its role allows.

use std::sync::Arc;
use std::time::Duration;

use claviger_app::settings::Settings;
use claviger_app::usage::{FlushUsage, UsageMeter};
use claviger_aws::bus::EventBridgeBus;
use claviger_aws::clock::SystemClock;
use claviger_aws::ids::RandomIds;
use claviger_aws::keys::{KmsKeys, MeteredKeys, parse_canary_keys};
use claviger_aws::prober::LambdaProber;
use claviger_aws::queues::SqsQueues;
use claviger_aws::store::{DynamoStore, Tables};
use claviger_domain::values::Region;
use jiff::SignedDuration;

use crate::env::{self, SettingsError};
use crate::start::settings_from_env;

/// What every function has, and the makers of what some have.
pub struct Adapters {
    /// Deploy parameters.
    pub settings: Settings,
    /// The tables.
    pub store: DynamoStore,
    /// The time.
    pub clock: SystemClock,
    /// Identifiers.
    pub ids: RandomIds,
    /// Counts the calls on customers' keys.
    pub meter: Arc<UsageMeter>,
    sdk: &'static aws_config::SdkConfig,
}

impl Adapters {
    /// Reads the environment. Nothing is called yet.
    ///
    /// # Errors
    /// Names the first variable that is missing or wrong.
    pub async fn from_env() -> Result<Self, SettingsError> {
        let sdk = claviger_aws::sdk_config().await;
        let tables = Tables {
            control: env::required("CLAVIGER_CONTROL_TABLE")?,
            facts: env::required("CLAVIGER_FACTS_TABLE")?,
            registry: env::required("CLAVIGER_REGISTRY_TABLE")?,
            fence: env::required("CLAVIGER_FENCE_TABLE")?,
        };
        let copies = env::parsed_or("CLAVIGER_FENCE_COPIES", 4)?;
        let settings = settings_from_env()?;
        Ok(Self {
            meter: Arc::new(UsageMeter::new(settings.usage_flush)),
            settings,
            store: DynamoStore::from_config(sdk, tables, copies),
            clock: SystemClock,
            ids: RandomIds,
            sdk,
        })
    }

    /// Customers' keys and the control probes, through the key-access role; every call is counted.
    ///
    /// # Errors
    /// Names the variable that is missing or wrong.
    pub fn keys(&self) -> Result<MeteredKeys<SystemClock>, SettingsError> {
        const CANARIES: &str = "CLAVIGER_CANARY_KEYS";
        let timeout = env::millis_or("CLAVIGER_KEY_CALL_TIMEOUT_MS", SignedDuration::from_secs(5))?;
        let canaries = parse_canary_keys(&env::optional(CANARIES).unwrap_or_default()).map_err(|error| {
            SettingsError::new(CANARIES, error.to_string(), "correct the deploy parameter CanaryKeys")
        })?;
        let timeout = Duration::try_from(timeout).unwrap_or(Duration::from_secs(5));
        let role = self.settings.vendor.key_access_role.clone();
        let keys = KmsKeys::new(self.sdk, role, timeout, canaries);
        Ok(keys.metered(Arc::clone(&self.meter), SystemClock))
    }

    /// Writes what was counted.
    pub fn usage(&self) -> FlushUsage<'_> {
        FlushUsage { meter: &self.meter, records: &self.store, ids: &self.ids, clock: &self.clock }
    }

    /// The prober's queue, and the function's own if it has one.
    ///
    /// # Errors
    /// Names the variable that is missing.
    pub fn queues(&self) -> Result<SqsQueues, SettingsError> {
        let queues = SqsQueues::new(self.sdk).with_probe_queue(env::required("CLAVIGER_PROBE_QUEUE_URL")?);
        Ok(match env::optional("CLAVIGER_WORK_QUEUE_URL") {
            Some(url) => queues.with_work_queue(url),
            None => queues,
        })
    }

    /// The broker's queues: the prober's, and the provisioner's.
    ///
    /// # Errors
    /// Names the variable that is missing.
    pub fn broker_queues(&self) -> Result<SqsQueues, SettingsError> {
        Ok(self.queues()?.with_provisioner_queue(env::required("CLAVIGER_PROVISIONER_QUEUE_URL")?))
    }

    /// The queues of a re-encryption: of its steps, and of its shards. The planner has both, a worker the second.
    ///
    /// # Errors
    /// Names the variable that is missing.
    pub fn reencryption_queues(&self) -> Result<SqsQueues, SettingsError> {
        let queues = SqsQueues::new(self.sdk).with_shard_queue(env::required("CLAVIGER_SHARD_QUEUE_URL")?);
        Ok(match env::optional("CLAVIGER_WORK_QUEUE_URL") {
            Some(url) => queues.with_work_queue(url),
            None => queues,
        })
    }

    /// How AWS is reached, for a function that brings clients of its own.
    pub const fn sdk(&self) -> &'static aws_config::SdkConfig {
        self.sdk
    }

    /// The outbox's queues: notices that wait, what was given up, and what was not delivered.
    ///
    /// # Errors
    /// Names the variable that is missing.
    pub fn outbox_queues(&self) -> Result<SqsQueues, SettingsError> {
        let dead = env::optional("CLAVIGER_DEAD_LETTERS").unwrap_or_default();
        let dead = dead.split(',').map(str::trim).filter(|arn| !arn.is_empty()).map(str::to_owned);
        let queues = SqsQueues::new(self.sdk).with_dead_letters(dead);
        let queues = queues.with_undelivered(env::required("CLAVIGER_UNDELIVERED_QUEUE_URL")?);
        Ok(queues.with_webhook_queue(env::required("CLAVIGER_WEBHOOK_QUEUE_URL")?))
    }

    /// The bus.
    ///
    /// # Errors
    /// Names the variable that is missing.
    pub fn bus(&self) -> Result<EventBridgeBus, SettingsError> {
        Ok(EventBridgeBus::new(self.sdk, env::required("CLAVIGER_BUS")?))
    }

    /// The prober, called synchronously.
    ///
    /// # Errors
    /// Names the variable that is missing.
    pub fn prober(&self) -> Result<LambdaProber, SettingsError> {
        Ok(LambdaProber::new(self.sdk, env::required("CLAVIGER_PROBER_FUNCTION")?))
    }

    /// The region that this function runs in.
    ///
    /// # Errors
    /// When Lambda did not say.
    pub fn region(&self) -> Result<Region, SettingsError> {
        env::parsed("AWS_REGION")
    }
}
