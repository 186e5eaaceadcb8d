//! What people do beside revoking and asking for restoration: re-encryptions, new keys for lost ones, suspensions by the
//! vendor, mistakes, leaving, backups. By the use cases that the API calls.

use std::sync::Arc;

use claviger_app::access_requests::{AnswerAccess, PublishTemplate};
use claviger_app::add_instance_directly::AddInstanceDirectly;
use claviger_app::close_organisation::CloseOrganisation;
use claviger_app::messages::ProbeMessage;
use claviger_app::ports::{Clock, Organisations, Policies};
use claviger_app::put_organisation::{Feed, PutOrganisation};
use claviger_app::register_backup::RegisterBackup;
use claviger_app::request_error::RequestError;
use claviger_app::request_reencryption::RequestReencryption;
use claviger_app::request_replacement::RequestReplacement;
use claviger_app::sites::Sites;
use claviger_app::steer_reencryption::{Steer, SteerReencryption};
use claviger_app::suspend_by_vendor::SuspendByVendor;
use claviger_domain::catalogue::Mode;
use claviger_domain::event::{Actor, Origin};
use claviger_domain::fence::Cause;
use claviger_domain::key_access::KeyAccess;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::reencryption::Depth;
use claviger_domain::values::{KeyArn, ShardId};
use claviger_domain::vendor::Ground;
use claviger_testkit::builders;
use serde_json::{Value, json};

use super::checks::now_or_never;
use super::kms::Standing;
use super::ports::Ports;
use super::run::{DAY, Sim};
use super::script::Act;
use super::world::{Copied, Event, Message, at, settings};

/// Two support agents.
pub const AGENTS: [&str; 2] = ["agent", "other-agent"];

fn by_system() -> Origin {
    Origin { actor: Actor::System(builders::parsed("system")), ..builders::by_support() }
}

fn by_agent(who: &str) -> Origin {
    Origin { actor: Actor::Support(builders::parsed(who)), ..builders::by_support() }
}

impl Sim {
    /// A policy as it is stored.
    pub(super) fn policy(&self, org: usize) -> Option<EncryptionPolicy> {
        let name = self.world.state().orgs.get(org)?.name.clone();
        now_or_never(self.world.store.policy(&name))?.ok()?
    }

    /// Somebody calls the API once; a refusal, or an answer that was lost, is left at that.
    fn calls<F, Fut, T>(&mut self, name: &'static str, call: F)
    where
        F: FnOnce(Arc<Ports>) -> Fut,
        Fut: Future<Output = Result<T, RequestError>> + 'static,
    {
        self.invoke(name, None, |ports| {
            let call = call(Arc::clone(&ports));
            async move {
                let answer = call.await;
                if let Err(error) = &answer {
                    ports.world.note(|| format!("not granted: {error:?}"));
                }
                answer.is_ok()
            }
        });
    }

    /// The customer makes a key in every region of its realm.
    fn new_keys(&self, org: usize) -> Vec<KeyArn> {
        let mut state = self.world.state();
        let steps = state.steps.is_some();
        let truth = &mut state.orgs[org];
        // Who repeats a call that gave no answer, names the same keys.
        truth.made = if steps { 1 } else { truth.made + 1 };
        let (account, id, number) = (truth.account.clone(), truth.id, truth.made + 1);
        let regions = settings().catalogue.regions(&builders::parsed(truth.realm)).unwrap_or_default();
        let keys: Vec<KeyArn> =
            regions.iter().map(|region| builders::a_key(account.as_str(), region.as_str(), number)).collect();
        for key in &keys {
            self.world.kms.create(key, id);
            state.owners.insert(key.clone(), org);
        }
        keys
    }

    /// An org admin asks for all data to move to new keys: to its own, or, where the service makes them, to those.
    pub(super) fn reencrypt(&mut self, org: usize, depth: Depth, own_keys: bool) {
        let mode = self.world.state().orgs[org].mode;
        let keys = if mode == Mode::Cmk || own_keys {
            let keys = self.new_keys(org);
            Value::from_iter(keys.iter().map(|arn| json!({ "region": arn.region(), "keyArn": arn.as_str() })))
        } else {
            Value::Null
        };
        let body = json!({ "depth": depth.slug(), "keys": keys });
        let name = self.world.state().orgs[org].name.clone();
        self.calls("request-reencryption", |ports| async move {
            let organisation = ports.world.store.organisation(&name).await?;
            let organisation = organisation.ok_or(RequestError::NotFound { what: "the organisation" })?;
            let (policies, prober, clock) = (&*ports, &*ports, &*ports);
            let request = RequestReencryption { policies, prober, clock, settings: settings() };
            request.run(&organisation, &body, &builders::by_admin()).await
        });
    }

    /// An org admin has the job stand still, go on, or be cancelled.
    pub(super) fn steer(&mut self, org: usize, steer: Steer) {
        let Some(policy) = self.policy(org) else { return };
        let Some(job) = policy.reencryption.as_ref().map(|job| job.id) else { return };
        let name = policy.organisation_name;
        self.calls("steer-reencryption", |ports| async move {
            let (policies, clock) = (&*ports, &*ports);
            let steering = SteerReencryption { policies, clock, settings: settings() };
            steering.run(&name, job, steer, &builders::by_admin()).await
        });
    }

    /// The customer changes the keys to which a job moves, before the policy has them.
    pub(super) fn change_new(&self, org: usize, key: Option<usize>, to: Standing) {
        let job = self.policy(org).and_then(|policy| policy.reencryption);
        let arns: Vec<KeyArn> = job.map(|job| job.keys.into_values().collect()).unwrap_or_default();
        let now = self.world.now();
        for (index, arn) in arns.iter().enumerate() {
            // After the switch they are the policy's own, of which one may be lost for good.
            let is_gone = self.world.state().gone.contains(arn);
            if !is_gone && key.is_none_or(|key| key == index) {
                let spread = now + self.world.between(0, 4_000);
                self.world.kms.change(arn, to, now, spread);
            }
        }
    }

    /// The customer deletes the keys that its policy had before: the job said that nothing needs them any more.
    pub(super) fn lose_former(&self, org: usize) {
        let former = self.policy(org).map(|policy| policy.former_keys).unwrap_or_default();
        let now = self.world.now();
        for arn in former.iter().flat_map(|former| former.keys.values()) {
            self.world.kms.change(arn, Standing::PendingDeletion, now, now);
            self.world.state().gone.insert(arn.clone());
        }
    }

    /// The key of one region is destroyed, with the others as they are.
    pub(super) fn lose_for_good(&self, org: usize) {
        let truth = self.world.state().orgs[org].clone();
        let is_gone = |arn| self.world.state().gone.contains(arn);
        if truth.mode == Mode::Byok || truth.keys.len() < 2 || truth.keys.iter().any(is_gone) {
            return;
        }
        self.lose_first(org);
    }

    /// The same, of a key that the service made too.
    pub(super) fn lose_first(&self, org: usize) {
        let truth = self.world.state().orgs[org].clone();
        let now = self.world.now();
        if let Some(arn) = truth.keys.first() {
            self.world.note(|| format!("{arn} is lost for good"));
            let deleted = self.world.chance(500);
            let standing = if deleted { Standing::Deleted } else { Standing::PendingDeletion };
            self.world.kms.change(arn, standing, now, now + 2_000);
            self.world.state().gone.insert(arn.clone());
        }
    }

    /// An org admin names a new key for one that was given up.
    pub(super) fn replace_lost(&mut self, org: usize) {
        let Some(policy) = self.policy(org) else { return };
        let gone = self.world.state().gone.clone();
        let lost = policy.keys.iter().find(|(_, key)| gone.contains(&key.arn));
        let Some((region, _)) = lost.filter(|(_, key)| key.replacement.is_none()) else { return };
        let region = region.clone();
        let key = match policy.access {
            KeyAccess::KeyPolicy => {
                let Some(key) = self.new_keys(org).into_iter().find(|key| *key.region() == region) else {
                    return;
                };
                Some(key)
            }
            // It is made through the role.
            KeyAccess::Role(_) => None,
        };
        let name = policy.organisation_name;
        self.calls("request-replacement", |ports| async move {
            let organisation = ports.world.store.organisation(&name).await?;
            let organisation = organisation.ok_or(RequestError::NotFound { what: "the organisation" })?;
            let (policies, prober, clock) = (&*ports, &*ports, &*ports);
            let replacement = RequestReplacement { policies, prober, clock, settings: settings() };
            replacement.run(&organisation, &region, key, &builders::by_admin()).await
        });
    }

    /// Support suspends an organisation for the vendor.
    pub(super) fn vendor_suspends(&mut self, org: usize) {
        let name = self.world.state().orgs[org].name.clone();
        self.calls("suspend-by-vendor", |ports| async move {
            let (policies, prober, clock) = (&*ports, &*ports, &*ports);
            let support = SuspendByVendor { policies, prober, clock, settings: settings() };
            support.suspend(&name, Ground::Ordered, "unpaid", &by_agent(AGENTS[0])).await
        });
    }

    /// Support lifts that again.
    pub(super) fn vendor_lifts(&mut self, org: usize) {
        let name = self.world.state().orgs[org].name.clone();
        self.calls("lift-by-vendor", |ports| async move {
            let (policies, prober, clock) = (&*ports, &*ports, &*ports);
            let support = SuspendByVendor { policies, prober, clock, settings: settings() };
            support.lift(&name, Cause::Vendor, "paid", &by_agent(AGENTS[0])).await
        });
    }

    /// An agent calls a suspension by the keys a mistake.
    pub(super) fn is_a_mistake(&mut self, org: usize, who: &'static str) {
        let name = {
            let mut state = self.world.state();
            let now = self.world.clock.now().as_millisecond();
            state.orgs[org].agents.push((builders::parsed(who), now));
            state.orgs[org].name.clone()
        };
        self.calls("call-it-a-mistake", |ports| async move {
            let (policies, prober, clock) = (&*ports, &*ports, &*ports);
            let support = SuspendByVendor { policies, prober, clock, settings: settings() };
            support.lift(&name, Cause::Key, "it never was revoked", &by_agent(who)).await
        });
    }

    /// An organisation wants to leave, or to stay after all.
    pub(super) fn leaves(&mut self, org: usize, leaves: bool) {
        let name = {
            let mut state = self.world.state();
            state.orgs[org].leaves |= leaves;
            state.orgs[org].name.clone()
        };
        self.calls("close-organisation", |ports| async move {
            let (policies, clock) = (&*ports, &*ports);
            let close = CloseOrganisation { policies, clock, settings: settings() };
            let admin = builders::by_admin();
            if leaves { close.ask(&name, &admin).await } else { close.cancel(&name, &admin).await }
        });
    }

    /// Support publishes a key-policy template that asks for one permission more.
    pub(super) fn publish(&mut self) {
        self.calls("publish-template", |ports| async move {
            let publish = PublishTemplate {
                templates: &*ports,
                policies: &*ports,
                watch_list: &*ports,
                clock: &*ports,
                settings: settings(),
            };
            let permissions = [builders::parsed("kms:DescribeKey")].into();
            let decide_by = builders::instant("2027-02-28T00:00:00Z");
            publish.run(builders::parsed("2027-01-15"), permissions, decide_by, &by_agent(AGENTS[0])).await
        });
    }

    /// An org admin answers the newest access request.
    pub(super) fn answer_access(&mut self, org: usize, accepts: bool) {
        let name = self.world.state().orgs[org].name.clone();
        self.calls("answer-access", |ports| async move {
            let answer = AnswerAccess {
                templates: &*ports,
                policies: &*ports,
                prober: &*ports,
                clock: &*ports,
                settings: settings(),
            };
            let asked = answer.list(&name, builders::by_admin().correlation).await?.into_iter().next();
            let id = asked.ok_or(RequestError::NotFound { what: "the access request" })?.id;
            let admin = builders::by_admin();
            if accepts {
                answer.accept(&name, id, &admin).await
            } else {
                answer.decline(&name, id, &admin).await
            }
        });
    }

    /// The vendor's customer records say what they said, without the plan of an app.
    pub(super) fn feed(&mut self, org: usize) {
        let name = self.world.state().orgs[org].name.clone();
        let body = json!({
            "plans": { "jira": "enterprise" }, "government": false, "admins": ["admin"], "auditors": [],
        });
        self.calls("put-organisation", |ports| async move {
            let put = PutOrganisation {
                organisations: &*ports,
                policies: &*ports,
                instances: &*ports,
                ids: &*ports,
                clock: &*ports,
                settings: settings(),
            };
            let feed = Feed::parse(&body, &settings().catalogue).map_err(RequestError::Invalid)?;
            put.run(&name, feed, &by_system()).await
        });
    }

    /// An app is added to a site without a request.
    pub(super) fn add_directly(&mut self, org: usize) {
        let name = self.world.state().orgs[org].name.clone();
        self.calls("add-instance-directly", |ports| async move {
            let organisation = ports.world.store.organisation(&name).await?;
            let organisation = organisation.ok_or(RequestError::NotFound { what: "the organisation" })?;
            let add = AddInstanceDirectly {
                policies: &*ports,
                instances: &*ports,
                ids: &*ports,
                clock: &*ports,
                settings: settings(),
            };
            let site = builders::parsed(&format!("{name}-site"));
            add.run(&organisation, &site, &builders::parsed("jira-service-management"), &by_system()).await
        });
    }

    /// The vendor's records give an organisation's site another name.
    pub(super) fn rename_site(&mut self, org: usize) {
        let name = self.world.state().orgs[org].name.clone();
        self.calls("rename-site", |ports| async move {
            let organisation = ports.world.store.organisation(&name).await?;
            let organisation = organisation.ok_or(RequestError::NotFound { what: "the organisation" })?;
            let (policies, instances, clock) = (&*ports, &*ports, &*ports);
            let sites = Sites { policies, instances, clock, settings: settings() };
            let [from, to] = ["site", "renamed"].map(|end| builders::parsed(&format!("{name}-{end}")));
            sites.rename(&organisation, &from, &to, &by_system()).await
        });
    }

    /// The vendor's records say that an organisation's site was deleted, or is to be kept after all.
    pub(super) fn delete_site(&mut self, org: usize, keep: bool) {
        let name = self.world.state().orgs[org].name.clone();
        let called = if keep { "keep-site" } else { "delete-site" };
        self.calls(called, |ports| async move {
            let organisation = ports.world.store.organisation(&name).await?;
            let organisation = organisation.ok_or(RequestError::NotFound { what: "the organisation" })?;
            let (policies, instances, clock) = (&*ports, &*ports, &*ports);
            let sites = Sites { policies, instances, clock, settings: settings() };
            let site = builders::parsed(&format!("{name}-site"));
            if keep {
                sites.keep(&organisation, &site, &by_system()).await
            } else {
                sites.delete(&organisation, &site, &by_system()).await
            }
        });
    }

    /// The vendor backs an organisation's records up, and says so.
    pub(super) fn back_up(&mut self, org: usize, days: i64) {
        let Some(policy) = self.policy(org) else { return };
        let number = {
            let now = self.world.now();
            let mut state = self.world.state();
            let ours = state.records.iter().filter(|((whose, ..), _)| *whose == org);
            let records = ours.map(|(place, record)| (place.clone(), record.clone())).collect();
            state.backups.push(Copied {
                org,
                taken_at: now,
                expires_at: now + days * DAY,
                generation: policy.generation,
                brought_back_at: None,
                told: false,
                records,
            });
            state.backups.len() - 1
        };
        self.tell_backup(number);
    }

    /// The vendor loses its storage and brings its oldest backup back, and says so: what was written since is the vendor's
    /// own loss.
    pub(super) fn bring_back(&mut self, org: usize) {
        let now = self.world.now();
        let oldest = {
            let mut state = self.world.state();
            let mut all = state.backups.iter_mut().enumerate();
            let found = all.find(|(_, backup)| backup.org == org && now < backup.expires_at);
            found.map(|(number, backup)| {
                (backup.brought_back_at, backup.told) = (Some(now), false);
                (number, backup.records.clone())
            })
        };
        let Some((number, records)) = oldest else { return };
        self.world.fault(|| "the vendor brings a backup back".to_owned());
        self.world.state().brought_back.insert(org);
        self.world.brings_back(org, records);
        self.tell_backup(number);
    }

    /// The vendor says how a backup is, again and again until it is answered.
    pub(super) fn tell_backup(&mut self, number: usize) {
        let world = Arc::clone(&self.world);
        let Some(copied) = world.state().backups.get(number).filter(|backup| !backup.told).cloned() else {
            return;
        };
        world.later(20_000, Event::Act(Act::TellBackup { number }));
        let name = world.state().orgs[copied.org].name.clone();
        let backup = claviger_domain::data_keys::Backup {
            id: format!("backup-{number}"),
            taken_at: at(copied.taken_at),
            expires_at: at(copied.expires_at),
            generation: copied.generation,
            holds_wrapped_keys: false,
            brought_back_at: copied.brought_back_at.map(at),
        };
        self.invoke("register-backup", None, |ports| async move {
            let register = RegisterBackup { policies: &*ports, backups: &*ports };
            let answer = register.run(&name, backup).await;
            if matches!(answer, Err(RequestError::DataKeysGone(_))) {
                world.violated("I6", format!("backup {number} comes too late"));
            }
            let mut state = world.state();
            if let Some(backup) = state.backups.get_mut(number)
                && answer.is_ok()
                && backup.brought_back_at == copied.brought_back_at
            {
                backup.told = true;
            }
            true
        });
    }

    /// AWS renews the material of every key, and the prober describes them.
    pub(super) fn rotate(&self) {
        self.world.kms.rotate();
        for shard in 0..settings().shards {
            let message = Message::Probe(ProbeMessage::Describe { shard: ShardId(shard) });
            let wait = self.world.between(5, 20_000);
            self.world.send(message, wait);
        }
    }
}
