//! Shows re-encryptions: how far each is, and the ledger of what still needs the old keys (spec X2, X4).

use claviger_domain::data_keys::FormerDataKeys;
use claviger_domain::decide::ADVICE;
use claviger_domain::ids::{ReencryptionId, TicketId};
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::reencryption::{Depth, FormerKeys, Outcome, Phase, Reencryption};
use claviger_domain::values::{KeyArn, OrganisationName, Region};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::ports::{Backups, Checkpoints, Clock, Policies, StoreError};
use crate::reencryption::{Backup, JobProgress};
use crate::request_error::RequestError;

/// Entries of a page of what is read.
const LIST: u16 = 200;

/// A job as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReencryptionView {
    /// Its identifier.
    pub id: ReencryptionId,
    /// `preparing`, `rewriting`, `scanning`, `waiting`, `finishing`, `cancelling`, `completed` or `cancelled`.
    pub status: &'static str,
    /// What is moved.
    pub depth: Depth,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Since when an org admin has it stand still.
    pub paused_at: Option<Timestamp>,
    /// Why it stands still by itself, and where; it goes on by itself.
    pub stopped: Option<String>,
    /// Whether it can be cancelled: the policy has its old keys still.
    pub cancellable: bool,
    /// When the policy got the new keys.
    pub switched_at: Option<Timestamp>,
    /// From when on the second of the two scans may begin.
    pub next_scan_at: Option<Timestamp>,
    /// The new keys.
    pub keys: Vec<NewKeyView>,
    /// Their generation.
    pub generation: u64,
    /// The ticket that tells of it.
    pub ticket_id: TicketId,
    /// How far it is.
    pub progress: ProgressView,
    /// What still needs older keys, newest first.
    pub ledger: Vec<LedgerView>,
    /// What to weigh before and while it runs.
    pub advice: &'static str,
    /// Which version of the policy this is.
    pub etag: String,
}

/// A regional key of a job as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewKeyView {
    /// Where.
    pub region: Region,
    /// Which.
    pub key_arn: KeyArn,
}

/// How far a job is, as it is shown: records of the pass that is under way.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgressView {
    /// Which pass over the data; none before and after them.
    pub pass: Option<u32>,
    /// Records that were gone through in this pass.
    pub done: u64,
    /// Records in all; none while nobody knows.
    pub total: Option<u64>,
    /// Whether the total is an estimate: exact only when the pass is through.
    pub estimated: bool,
    /// Records a second.
    pub rate_per_second: Option<f64>,
    /// About how many seconds are left of this pass.
    pub seconds_left: Option<u64>,
    /// Records that were written anew, in all passes.
    pub rewritten: u64,
    /// Records that the app wrote in the same moment: its write stays.
    pub lost_races: u64,
    /// Data keys that were gone through.
    pub data_keys: u64,
    /// Parts of this pass that are through.
    pub shards_done: u64,
    /// Parts of this pass.
    pub shards: u64,
    /// What stands in the way of some part.
    pub fault: Option<String>,
}

/// What still needs former keys, as it is shown (spec X4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerView {
    /// Their generation.
    pub generation: u64,
    /// The keys.
    pub keys: Vec<NewKeyView>,
    /// When others took their place.
    pub replaced_at: Timestamp,
    /// Data-key versions that only they wrap.
    pub data_keys: Option<u64>,
    /// Records under data keys of theirs, by the last scan; none before one.
    pub records: Option<u64>,
    /// Old versions of objects under such data keys, by the last scan.
    pub object_versions: Option<u64>,
    /// Registered backups that need them.
    pub backups: Vec<String>,
    /// Whether they can be deleted without a loss.
    pub safe_to_delete: bool,
    /// Why not, or why.
    pub why: Vec<String>,
    /// What became of the data keys of this generation: they are kept for the backups that need them.
    pub former_data_keys: FormerDataKeysView,
}

/// What became of the data keys of a former generation, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FormerDataKeysView {
    /// `kept`, `removing` or `removed`.
    pub state: &'static str,
    /// Since when; none for those that are kept.
    pub since: Option<Timestamp>,
    /// What needs those that are kept.
    pub needed: Option<String>,
}

impl FormerDataKeysView {
    fn of(
        policy: &EncryptionPolicy,
        former: &FormerKeys,
        backups: &[Backup],
        (now, in_transit): (Timestamp, SignedDuration),
    ) -> Self {
        let (state, since) = match former.data_keys {
            FormerDataKeys::Kept => ("kept", None),
            FormerDataKeys::Removing { since } => ("removing", Some(since)),
            FormerDataKeys::Removed { at } => ("removed", Some(at)),
        };
        let freed = policy.frees_data_keys(former.generation, backups, in_transit, now);
        let needed = freed.err().filter(|_| former.data_keys.are_kept());
        Self { state, since, needed: needed.map(|need| need.words()) }
    }
}

/// Shows re-encryptions.
pub struct ShowReencryption<'a> {
    /// Where policies are.
    pub policies: &'a dyn Policies,
    /// How far jobs are.
    pub checkpoints: &'a dyn Checkpoints,
    /// What the vendor keeps of old data.
    pub backups: &'a dyn Backups,
    /// The time.
    pub clock: &'a dyn Clock,
    /// The in-transit period.
    pub in_transit: SignedDuration,
}

/// What is shown of a job and does not lie in its policy. By default that of a job that has just been asked for.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    progress: Option<JobProgress>,
    backups: Vec<Backup>,
}

/// A job, whether it has ended or not.
struct Known<'p> {
    job: &'p Reencryption,
    ended: Option<(Outcome, Timestamp)>,
}

impl ShowReencryption<'_> {
    /// Every job of an organisation, newest first. There are few: each moves everything.
    ///
    /// # Errors
    /// When it has no policy, or the store fails.
    pub async fn list(&self, organisation: &OrganisationName) -> Result<Vec<ReencryptionView>, RequestError> {
        let policy = self.load(organisation).await?;
        let mut views = Vec::new();
        for known in known(&policy) {
            let beside = self.beside(organisation, known.job.id).await?;
            views.push(self.view(&policy, &known, &beside));
        }
        Ok(views)
    }

    /// One job.
    ///
    /// # Errors
    /// When it is not there, or the store fails.
    pub async fn run(
        &self,
        organisation: &OrganisationName,
        id: ReencryptionId,
    ) -> Result<ReencryptionView, RequestError> {
        let policy = self.load(organisation).await?;
        let beside = self.beside(organisation, id).await?;
        self.of(&policy, id, &beside)
    }

    /// What lies beside the policy. Whoever decides something asks beforehand: an answer that fails after the decision has
    /// the caller ask again for what is done already.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn beside(
        &self,
        organisation: &OrganisationName,
        id: ReencryptionId,
    ) -> Result<Beside, StoreError> {
        let progress = self.checkpoints.progress(id).await?;
        let backups = all_backups(self.backups, organisation).await?;
        Ok(Beside { progress, backups })
    }

    /// One job of a policy, with what lies beside it.
    ///
    /// # Errors
    /// When it is not there.
    pub fn of(
        &self,
        policy: &EncryptionPolicy,
        id: ReencryptionId,
        beside: &Beside,
    ) -> Result<ReencryptionView, RequestError> {
        let found = known(policy).into_iter().find(|known| known.job.id == id);
        let found = found.ok_or(RequestError::NotFound { what: "the re-encryption" })?;
        Ok(self.view(policy, &found, beside))
    }

    async fn load(&self, organisation: &OrganisationName) -> Result<EncryptionPolicy, RequestError> {
        let policy = self.policies.policy(organisation).await?;
        policy.ok_or(RequestError::NotFound { what: "the encryption policy" })
    }

    fn view(&self, policy: &EncryptionPolicy, known: &Known<'_>, beside: &Beside) -> ReencryptionView {
        let job = known.job;
        let Beside { progress, backups } = beside;
        let now = self.clock.now();
        let open = known.ended.is_none();
        let hindrance = policy.hindrance().filter(|_| open);
        let former = policy.former_keys.iter().rev().filter(|former| former.generation < job.generation);
        ReencryptionView {
            id: job.id,
            status: match known.ended {
                None => job.phase.slug(),
                Some((Outcome::Completed, _)) => "completed",
                Some((Outcome::Cancelled, _)) => "cancelled",
            },
            depth: job.depth,
            requested_at: job.requested_at,
            ended_at: known.ended.map(|(_, at)| at),
            paused_at: job.paused.filter(|_| open),
            stopped: hindrance.map(|hindrance| format!("while {}: {}", job.phase.slug(), hindrance.words())),
            cancellable: open && job.phase == Phase::Preparing,
            switched_at: job.switched_at,
            next_scan_at: match job.phase {
                Phase::Waiting { clean_since, .. } if open => Some(clean_since + self.in_transit),
                _ => None,
            },
            keys: key_views(job.keys.iter()),
            generation: job.generation,
            ticket_id: job.ticket,
            progress: progress_view(progress.as_ref(), job, open, now),
            ledger: if job.switched_at.is_none() {
                Vec::new()
            } else {
                former
                    .map(|former| {
                        let of = (job, progress.as_ref(), open);
                        ledger(policy, former, of, backups, (now, self.in_transit))
                    })
                    .collect()
            },
            advice: ADVICE,
            etag: crate::as_of::tag(policy.id.as_uuid(), policy.version),
        }
    }
}

fn known(policy: &EncryptionPolicy) -> Vec<Known<'_>> {
    let open = policy.reencryption.iter().map(|job| Known { job, ended: None });
    let ended = policy.reencryptions.iter().rev();
    open.chain(ended.map(|ended| Known { job: &ended.job, ended: Some((ended.outcome, ended.at)) })).collect()
}

/// Keys as they are shown.
pub(crate) fn key_views<'k>(keys: impl Iterator<Item = (&'k Region, &'k KeyArn)>) -> Vec<NewKeyView> {
    keys.map(|(region, arn)| NewKeyView { region: region.clone(), key_arn: arn.clone() }).collect()
}

/// How fast something goes on, and how long it will take.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Speed {
    pub rate_per_second: Option<f64>,
    pub seconds_left: Option<u64>,
}

impl Speed {
    /// Of what has been under way since then; none of what is not.
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown, not reckoned with")]
    pub fn of(since: Option<Timestamp>, (done, total): (u64, Option<u64>), now: Timestamp) -> Self {
        let elapsed = since.map(|since| now.duration_since(since).as_secs_f64());
        let rate = elapsed.filter(|elapsed| *elapsed > 0.0 && done > 0).map(|elapsed| done as f64 / elapsed);
        let left = total.map(|total| total.saturating_sub(done));
        let seconds_left = rate.zip(left).map(|(rate, left)| seconds(left as f64 / rate));
        Self { rate_per_second: rate, seconds_left }
    }
}

fn progress_view(
    progress: Option<&JobProgress>,
    job: &Reencryption,
    open: bool,
    now: Timestamp,
) -> ProgressView {
    let Some(progress) = progress else {
        return ProgressView {
            pass: None,
            done: 0,
            total: None,
            estimated: true,
            rate_per_second: None,
            seconds_left: None,
            rewritten: 0,
            lost_races: 0,
            data_keys: 0,
            shards_done: 0,
            shards: 0,
            fault: None,
        };
    };
    let counts = progress.counts;
    // A phase that has just begun has counted nothing yet; what was scanned last is what is known.
    let in_pass = open && progress.of == job.phase && job.phase.pass().is_some();
    let through = in_pass && progress.listed && progress.shards_done == progress.shards;
    let scanned = progress.scanned.map(|scanned| scanned.records);
    let (done, total, estimated) = match (in_pass, scanned) {
        (true, _) if through => (counts.seen, Some(counts.seen), false),
        (true, _) => (counts.seen, progress.estimated().or(scanned), true),
        (false, Some(records)) => (records, Some(records), false),
        (false, None) => (0, progress.estimate, true),
    };
    let speed = Speed::of((in_pass && !through).then_some(progress.began_at), (done, total), now);
    ProgressView {
        pass: if open { job.phase.pass() } else { None },
        done,
        total,
        estimated,
        rate_per_second: speed.rate_per_second,
        seconds_left: speed.seconds_left,
        rewritten: progress.rewritten_before.saturating_add(counts.rewritten),
        lost_races: counts.lost_races,
        data_keys: progress.data_keys,
        shards_done: progress.shards_done,
        shards: progress.shards,
        fault: progress.fault.clone().filter(|_| open),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded on both sides before")]
fn seconds(of: f64) -> u64 {
    of.ceil().clamp(0.0, 1e12) as u64
}

/// What still needs keys that a policy had before.
fn ledger(
    policy: &EncryptionPolicy,
    former: &FormerKeys,
    (job, progress, open): (&Reencryption, Option<&JobProgress>, bool),
    backups: &[Backup],
    (now, in_transit): (Timestamp, SignedDuration),
) -> LedgerView {
    let needing = backups.iter().filter(|backup| {
        backup.holds_wrapped_keys && backup.generation <= former.generation && backup.expires_at > now
    });
    let needing: Vec<&Backup> = needing.collect();
    let scanned = progress.and_then(|progress| progress.scanned);
    let rekeyed = |rekey: &Reencryption| rekey.depth == Depth::Rekey && rekey.generation > former.generation;
    let completed = policy
        .reencryptions
        .iter()
        .any(|ended| ended.outcome == Outcome::Completed && rekeyed(&ended.job))
        // The ledger that ends a job is written before it is among those that ended.
        || (!open && rekeyed(job));
    let mut why = Vec::new();
    if !completed {
        why.push(match job.depth {
            Depth::Rekey => {
                "the re-encryption is not completed: two scans must find no record under older data keys".to_owned()
            }
            Depth::Rewrap => {
                "no record was rewritten: records are still under data keys that these keys protected; `rekey` moves \
                 them"
                    .to_owned()
            }
        });
    }
    let versions = scanned.map(|scanned| scanned.old_versions);
    if let Some(versions) = versions.filter(|versions| *versions > 0) {
        why.push(format!(
            "{versions} old versions of objects are under data keys that these keys protected: let them expire, then \
             re-encrypt again"
        ));
    }
    for backup in &needing {
        why.push(format!(
            "the backup `{}` holds keys wrapped by them until {:.0}",
            backup.id, backup.expires_at
        ));
    }
    let safe_to_delete = why.is_empty();
    if safe_to_delete {
        why.push("two scans found nothing under them, and no registered backup needs them".to_owned());
    }
    LedgerView {
        generation: former.generation,
        keys: key_views(former.keys.iter()),
        replaced_at: former.replaced_at,
        data_keys: all_wrapped(job, progress, open).then_some(0),
        records: scanned.map(|scanned| scanned.old),
        object_versions: versions,
        backups: needing.into_iter().map(|backup| backup.id.clone()).collect(),
        safe_to_delete,
        why,
        former_data_keys: FormerDataKeysView::of(policy, former, backups, (now, in_transit)),
    }
}

/// Whether every data key is wrapped under the new keys for certain.
///
/// INVARIANT (X3): the switch took place when every data key had every new wrap. One that was being made in that very
/// moment gets them by the next pass over the instances.
fn all_wrapped(job: &Reencryption, progress: Option<&JobProgress>, open: bool) -> bool {
    let listed = || progress.is_some_and(|progress| progress.of == job.phase && progress.listed);
    match job.phase {
        _ if !open => true,
        Phase::Preparing | Phase::Cancelling => false,
        Phase::Rewriting { pass: 1 } => listed(),
        Phase::Finishing => job.depth == Depth::Rekey,
        Phase::Rewriting { .. } | Phase::Scanning { .. } | Phase::Waiting { .. } => true,
    }
}

/// The ledger of a job that ends with this, in words for its ticket.
pub(crate) fn ledger_words(
    policy: &EncryptionPolicy,
    job: &Reencryption,
    progress: &JobProgress,
    backups: &[Backup],
    at: (Timestamp, SignedDuration),
) -> String {
    let former = policy.former_keys.iter().rev().filter(|former| former.generation < job.generation);
    let lines = former.map(|former| {
        let entry = ledger(policy, former, (job, Some(progress), false), backups, at);
        let keys: Vec<&str> = former.keys.values().map(KeyArn::as_str).collect();
        let verdict = if entry.safe_to_delete { "safe to delete" } else { "NOT safe to delete" };
        format!(
            "- generation {} ({}): {verdict}: {}",
            former.generation,
            keys.join(", "),
            entry.why.join("; ")
        )
    });
    let lines: Vec<String> = lines.collect();
    format!("Ledger of the old keys:\n{}", lines.join("\n"))
}

/// Every registered backup of an organisation.
pub(crate) async fn all_backups(
    backups: &dyn Backups,
    organisation: &OrganisationName,
) -> Result<Vec<Backup>, StoreError> {
    let (mut cursor, mut all) = (None, Vec::new());
    loop {
        let page = backups.backups(organisation, cursor.as_deref(), LIST).await?;
        all.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(all);
        }
    }
}
