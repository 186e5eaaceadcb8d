//! Shows an organisation its encryption policy: where it stands, each key's health, what is due.

use claviger_domain::access::{AccessRequest, AccessStanding, KeyPermission, TemplateVersion};
use claviger_domain::calendar::{DatedPhase, business_days_after, dated_phases, window_phase};
use claviger_domain::catalogue::{Mode, WindowPhase};
use claviger_domain::fence::{Cause, Epoch};
use claviger_domain::ids::{PolicyId, TicketId};
use claviger_domain::key_access::RoleArn;
use claviger_domain::outlook::{Countdown, Loophole, MaterialShare, Outlook, RunsOut};
use claviger_domain::policy::{EncryptionPolicy, KeyHealth, Lifecycle, RegionalKey};
use claviger_domain::reencryption::Depth;
use claviger_domain::values::{AccountId, ContextTag, KeyArn, OrganisationName, Realm, Region};
use claviger_domain::vendor::{Ground, VendorSuspension};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::close_organisation::ClosingView;
use crate::ports::{Beat, Clock, Policies, WatchList};
use crate::request_error::RequestError;
use crate::settings::Settings;
use crate::show_reencryption::{NewKeyView, key_views};

/// A policy as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyView {
    /// Its identifier.
    pub id: PolicyId,
    /// Where it stands.
    pub lifecycle: &'static str,
    /// Why, where somebody gave a reason.
    pub reason: Option<String>,
    /// Whether some regions refuse while others work.
    pub degraded: bool,
    /// Whether data is being moved to new keys.
    pub reencrypting: bool,
    /// How the keys are held.
    pub mode: Mode,
    /// Where the data lives.
    pub realm: Realm,
    /// The customer's account.
    pub aws_account_id: AccountId,
    /// The customer's key-management role (BYOK).
    pub role_arn: Option<RoleArn>,
    /// The label in every encryption context.
    pub context_tag: ContextTag,
    /// One entry a region.
    pub keys: Vec<KeyView>,
    /// What the data plane obeys.
    pub fence: FenceView,
    /// The open ticket of a revocation; without one, that of a suspension by the vendor.
    pub ticket_id: Option<TicketId>,
    /// The vendor's own suspension, if there is one.
    pub vendor_suspension: Option<VendorSuspensionView>,
    /// What a support agent said about a mistake and a second one has not confirmed (spec S7).
    pub lift_proposal: Option<LiftProposalView>,
    /// A new key that a second org admin has to confirm.
    pub key_change_proposal: Option<KeyChangeView>,
    /// A re-encryption that waits for a second org admin.
    pub reencryption_proposal: Option<ReencryptionProposalView>,
    /// The organisation is leaving.
    pub closing: Option<ClosingView>,
    /// The restoration window; none while nothing is cut off.
    pub window: Option<WindowView>,
    /// When a request is due (spec E10), a restoration that was asked for too (spec S5).
    pub due_at: Option<Timestamp>,
    /// Within how many seconds a definite refusal in every region cuts access off, without any event.
    pub cut_off_bound_seconds: i64,
    /// What the vendor asked for since (spec K1).
    pub access_requests: Vec<AccessView>,
    /// Which version of it this is; `lastProbeAt` and the window's phase move on within one.
    pub etag: String,
}

/// A regional key as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyView {
    /// Where.
    pub region: Region,
    /// Which.
    pub key_arn: KeyArn,
    /// What is believed about it.
    pub health: &'static str,
    /// Since when.
    pub since: Timestamp,
    /// When it was last probed.
    pub last_probe_at: Option<Timestamp>,
    /// What to do, if anything.
    pub help: Option<String>,
    /// How its material is renewed (spec K2); none before it was described.
    pub rotation: Option<RotationView>,
    /// What will take effect, soonest first (spec K4).
    pub countdowns: Vec<CountdownView>,
    /// Ways in for others than the organisation that were found open (spec E12).
    pub loopholes: Vec<LoopholeView>,
    /// Whether an org admin restored access without it.
    pub given_up: bool,
    /// The key that is to take its place.
    pub replacement: Option<KeyArn>,
}

/// How a key's material is renewed, as it is shown. Nobody has to tell us of it: old data stays readable, new data
/// uses the new material.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationView {
    /// Whether AWS renews it by itself; none where we may not ask.
    pub enabled: Option<bool>,
    /// When other material than before was first seen; none while that never happened.
    pub last_seen_at: Option<Timestamp>,
    /// How much is still wrapped under older material; none before it was counted, within an hour of the rotation.
    pub old_material: Option<MaterialShareView>,
}

/// How many data keys a key wraps under material that it had before its last rotation, as it is shown. They stay
/// readable; a re-encryption brings them under new material.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MaterialShareView {
    /// Those under older material.
    pub data_keys: u64,
    /// All that it wraps.
    pub of: u64,
    /// The first of the second, from 0 to 1.
    pub share: f64,
    /// When they were counted.
    pub counted_at: Timestamp,
}

/// Something that will take effect, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CountdownView {
    /// What.
    pub what: RunsOut,
    /// When.
    pub at: Timestamp,
    /// How much time is left.
    pub remaining_seconds: i64,
}

/// A way in for others than the organisation, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoopholeView {
    /// Which check of an enrolment it would fail.
    pub what: Loophole,
    /// What was seen, and what closes it.
    pub help: String,
}

fn rotation(outlook: &Outlook) -> RotationView {
    // What was counted before a rotation says nothing of it.
    let counted = outlook.described.share.filter(|share| Some(share.counted_at) >= outlook.rotated_at);
    RotationView {
        enabled: outlook.described.rotates,
        last_seen_at: outlook.rotated_at,
        old_material: counted.map(material_share),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share is shown, not reckoned with")]
fn material_share(counted: MaterialShare) -> MaterialShareView {
    let MaterialShare { data_keys, under_old, counted_at } = counted;
    let share = if data_keys == 0 { 0.0 } else { under_old as f64 / data_keys as f64 };
    MaterialShareView { data_keys: under_old, of: data_keys, share, counted_at }
}

fn countdowns(outlook: &Outlook, now: Timestamp) -> Vec<CountdownView> {
    let view = |countdown: Countdown| CountdownView {
        what: countdown.what,
        at: countdown.at,
        remaining_seconds: countdown.at.duration_since(now).as_secs().max(0),
    };
    outlook.described.countdowns().into_iter().map(view).collect()
}

fn loopholes(policy: &EncryptionPolicy, key: &RegionalKey) -> Vec<LoopholeView> {
    let open = key.outlook.iter().flat_map(|known| known.described.open());
    open.map(|what| LoopholeView { what, help: what.told(&key.arn, &policy.access) }).collect()
}

/// The fence as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FenceView {
    /// Whether keys may be used.
    pub open: bool,
    /// Why not.
    pub causes: Vec<Cause>,
    /// How often it changed.
    pub epoch: Epoch,
}

/// The restoration window as it is shown (spec S3).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WindowView {
    /// What can be promised now.
    pub phase: WindowPhase,
    /// Until when; none for the last phase.
    pub ends_at: Option<Timestamp>,
    /// How much of the phase is left; none for the last.
    pub remaining_seconds: Option<i64>,
    /// The cut-off, from which everything counts.
    pub cut_off_at: Timestamp,
    /// Every phase with its dates.
    pub phases: Vec<DatedPhase>,
}

/// A mistake that waits for a second support agent, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiftProposalView {
    /// When the first agent said so.
    pub at: Timestamp,
    /// Until when a second one may.
    pub until: Timestamp,
    /// Why.
    pub reason: String,
}

/// A new key that waits for a second org admin, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyChangeView {
    /// In which region.
    pub region: Region,
    /// Which key.
    pub key_arn: KeyArn,
    /// When the first admin asked.
    pub at: Timestamp,
    /// Until when a second one may.
    pub until: Timestamp,
}

/// A re-encryption that waits for a second org admin, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReencryptionProposalView {
    /// The new keys; none where the service makes them.
    pub keys: Vec<NewKeyView>,
    /// What is moved.
    pub depth: Depth,
    /// When the first admin asked.
    pub at: Timestamp,
    /// Until when a second one may.
    pub until: Timestamp,
    /// The ticket that tells of it.
    pub ticket_id: TicketId,
}

/// A suspension by the vendor as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VendorSuspensionView {
    /// Since when.
    pub since: Timestamp,
    /// Why, in the agent's words.
    pub reason: String,
    /// Its own ticket.
    pub ticket_id: TicketId,
    /// `ordered`, or `access-request`: how it ends depends on it.
    pub ground: &'static str,
    /// How it ends.
    pub help: &'static str,
}

/// An access request as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessView {
    /// Its identifier.
    pub id: uuid::Uuid,
    /// The version of the key-policy template.
    pub version: TemplateVersion,
    /// What it asks for.
    pub permissions: Vec<KeyPermission>,
    /// Where it stands.
    pub status: AccessStanding,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// By when to decide.
    pub decide_by: Timestamp,
    /// The ticket that tells of it.
    pub ticket_id: TicketId,
}

impl AccessView {
    /// The request as it stands now.
    pub fn of(request: &AccessRequest, now: Timestamp) -> Self {
        Self {
            id: request.id,
            version: request.version.clone(),
            permissions: request.permissions.iter().copied().collect(),
            status: request.standing(now),
            opened_at: request.opened_at,
            decide_by: request.decide_by,
            ticket_id: request.ticket,
        }
    }
}

/// Shows a policy.
pub struct ShowPolicy<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// When shards were swept.
    pub watch_list: &'a dyn WatchList,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl ShowPolicy<'_> {
    /// The policy of an organisation.
    ///
    /// # Errors
    /// When it has none, or the store fails.
    pub async fn run(&self, organisation: &OrganisationName) -> Result<PolicyView, RequestError> {
        let policy = self.policies.policy(organisation).await?;
        let policy = policy.ok_or(RequestError::NotFound { what: "the encryption policy" })?;
        let beat =
            if policy.lifecycle.is_watched() { self.watch_list.last_beat(policy.shard).await? } else { None };
        Ok(self.view(&policy, beat.as_ref()))
    }

    /// What is shown of a policy, with the last sign of life of its shard.
    pub fn view(&self, policy: &EncryptionPolicy, beat: Option<&Beat>) -> PolicyView {
        // A sweep that got no answer of these keys has not probed them.
        let swept = beat.filter(|beat| !beat.unproven.contains_key(&policy.id)).map(|beat| beat.swept_at);
        let last_probe_at = swept.max(policy.probed_at);
        let now = self.clock.now();
        let keys = policy.keys.iter().map(|(region, key)| KeyView {
            region: region.clone(),
            key_arn: key.arn.clone(),
            health: key.health.slug(),
            since: key.since,
            last_probe_at,
            help: self.help(key),
            rotation: key.outlook.as_ref().map(rotation),
            countdowns: key.outlook.as_ref().map(|known| countdowns(known, now)).unwrap_or_default(),
            loopholes: loopholes(policy, key),
            given_up: key.given_up,
            replacement: key.replacement.as_ref().map(|wanted| wanted.arn.clone()),
        });
        let window = policy.lifecycle.cut_off_at().map(|cut_off_at| {
            let catalogue = &self.settings.catalogue;
            let (phase, ends_at) = window_phase(catalogue, policy.mode(), cut_off_at, now);
            WindowView {
                phase,
                ends_at,
                remaining_seconds: ends_at.map(|end| end.duration_since(now).as_secs().max(0)),
                cut_off_at,
                phases: dated_phases(catalogue, policy.mode(), cut_off_at),
            }
        });
        PolicyView {
            id: policy.id,
            lifecycle: policy.standing(),
            reason: match &policy.lifecycle {
                Lifecycle::Rejected { reason, .. } => Some(reason.clone()),
                _ => None,
            },
            degraded: policy.is_degraded(),
            reencrypting: policy.reencryption.is_some(),
            mode: policy.mode(),
            realm: policy.realm.clone(),
            aws_account_id: policy.account.clone(),
            role_arn: policy.access.role().map(|role| role.arn.clone()),
            context_tag: policy.context_tag.clone(),
            keys: keys.collect(),
            fence: FenceView {
                open: policy.fence.is_open(),
                causes: policy.fence.causes.iter().copied().collect(),
                epoch: policy.fence.epoch,
            },
            ticket_id: policy.ticket.or_else(|| policy.vendor.as_ref().map(|vendor| vendor.ticket)),
            vendor_suspension: policy.vendor.as_ref().map(vendor_view),
            lift_proposal: self.lift_proposal(policy),
            key_change_proposal: self.key_change(policy),
            reencryption_proposal: self.reencryption(policy),
            closing: policy.closing.as_ref().map(|closing| ClosingView::of(closing, now)),
            window,
            due_at: match policy.lifecycle {
                Lifecycle::Requested { due_at, .. } | Lifecycle::Verifying { due_at, .. } => Some(due_at),
                Lifecycle::Restoring { since, .. } => {
                    let due = &self.settings.catalogue.due;
                    Some(business_days_after(due, since, due.restoration_business_days))
                }
                Lifecycle::Active { .. }
                | Lifecycle::Suspended { .. }
                | Lifecycle::Lapsed { .. }
                | Lifecycle::Closed { .. }
                | Lifecycle::Rejected { .. } => None,
            },
            cut_off_bound_seconds: whole_seconds(self.settings.cut_off_bound()),
            access_requests: policy
                .access_requests
                .iter()
                .map(|asked| AccessView::of(asked, self.clock.now()))
                .collect(),
            etag: crate::as_of::tag(policy.id.as_uuid(), policy.version),
        }
    }
}

impl ShowPolicy<'_> {
    /// What to do about a key; of an ambiguous refusal also whether, and from when on, it counts (spec R4).
    fn help(&self, key: &RegionalKey) -> Option<String> {
        let help = key.help()?;
        let counts = match key.health {
            KeyHealth::Refused { stands: true, .. }
            | KeyHealth::Unknown
            | KeyHealth::Usable
            | KeyHealth::NoAnswer { .. } => return Some(help),
            KeyHealth::Refused { refused_since: Some(since), stands: false, .. } => {
                let from = since + self.settings.ambiguity;
                format!("it may have another cause than your will, so it counts if it lasts until {from:.0}")
            }
            KeyHealth::Refused { refused_since: None, stands: false, .. } => {
                "our own control probes are refused too, so it does not count while that lasts".to_owned()
            }
        };
        Some(format!("{help}. This refusal is not counted as a revocation yet: {counts}"))
    }

    /// The same for a new key.
    fn key_change(&self, policy: &EncryptionPolicy) -> Option<KeyChangeView> {
        let proposal = policy.key_change.as_ref()?;
        let until = self.confirmed_until(proposal.at);
        (self.clock.now() <= until).then(|| KeyChangeView {
            region: proposal.region.clone(),
            key_arn: proposal.key.clone(),
            at: proposal.at,
            until,
        })
    }

    /// The same for new keys everywhere.
    fn reencryption(&self, policy: &EncryptionPolicy) -> Option<ReencryptionProposalView> {
        let proposal = policy.reencryption_proposal.as_ref()?;
        let until = self.confirmed_until(proposal.at);
        (self.clock.now() <= until).then(|| ReencryptionProposalView {
            keys: key_views(proposal.keys.iter()),
            depth: proposal.depth,
            at: proposal.at,
            until,
            ticket_id: proposal.ticket,
        })
    }

    fn confirmed_until(&self, asked_at: Timestamp) -> Timestamp {
        let hours = i64::from(self.settings.catalogue.key_changes.confirm_within_hours);
        asked_at + SignedDuration::from_hours(hours)
    }

    /// One that nobody confirmed in time is none any more.
    fn lift_proposal(&self, policy: &EncryptionPolicy) -> Option<LiftProposalView> {
        let hours = i64::from(self.settings.catalogue.support.lift_within_hours);
        let proposal = policy.lift.as_ref()?;
        let until = proposal.at + SignedDuration::from_hours(hours);
        (self.clock.now() <= until).then(|| LiftProposalView {
            at: proposal.at,
            until,
            reason: proposal.reason.clone(),
        })
    }
}

fn vendor_view(suspension: &VendorSuspension) -> VendorSuspensionView {
    let (ground, help) = match suspension.ground {
        Ground::Ordered => ("ordered", "answer on its ticket; support lifts it when the reason is gone"),
        Ground::AccessRequest { .. } => (
            "access-request",
            "accept the access request and put its key policy on every key; it ends when the permission is proven",
        ),
    };
    VendorSuspensionView {
        since: suspension.since,
        reason: suspension.reason.clone(),
        ticket_id: suspension.ticket,
        ground,
        help,
    }
}

/// Seconds, rounded up: a bound is never promised shorter than it is.
fn whole_seconds(bound: jiff::SignedDuration) -> i64 {
    bound.as_secs().saturating_add(i64::from(bound.subsec_nanos() > 0))
}
