//! Data keys of former generations (spec X4): kept for the backups that need them, and removed when none does any more.
//!
//! After a `rekey` no record of the stores is under an older data key. Backups that were taken before still are, and so is
//! what is brought back from one. What was removed nobody can read again, so everything here errs on the side of keeping.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::policy::{EncryptionPolicy, Lifecycle};
use crate::reencryption::{Depth, EndedReencryption, Outcome};

/// What became of the data keys of a former generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "state")]
pub enum FormerDataKeys {
    /// They are there, wrapped under the keys of this moment. Not stored: it is how everything was before.
    #[default]
    Kept,
    /// Nothing needs them any more, and they are being removed.
    Removing {
        /// Since when.
        since: Timestamp,
    },
    /// They are gone.
    Removed {
        /// Since when.
        at: Timestamp,
    },
}

impl FormerDataKeys {
    /// Whether they are there.
    pub const fn are_kept(&self) -> bool {
        match self {
            Self::Kept => true,
            Self::Removing { .. } | Self::Removed { .. } => false,
        }
    }
}

/// A backup of the vendor's that holds data of an organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    /// The vendor's name for it.
    pub id: String,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// When it is gone.
    pub expires_at: Timestamp,
    /// The generation of the keys when it was taken.
    pub generation: u64,
    /// Whether it holds wrapped data keys of its own. Then only the keys of its generation open it; without, the data
    /// keys that are kept do.
    pub holds_wrapped_keys: bool,
    /// When the stores were last brought back from it: what it holds is in them since, and older data keys with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brought_back_at: Option<Timestamp>,
}

/// What keeps data keys of a former generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// The organisation leaves, or is cut off: nothing goes meanwhile that it did not ask for.
    NotInUse,
    /// A job is open: it goes through every data key.
    Job,
    /// No `rekey` to newer keys has found the stores clean since, old versions of objects included.
    NoRekey,
    /// The stores were brought back from this backup after that.
    BroughtBack {
        /// Which.
        backup: String,
    },
    /// Backups that were taken before the job's end may still be registered.
    Registration {
        /// Until when.
        until: Timestamp,
    },
    /// This backup holds records under them. Of several, the one that lasts longest.
    Backup {
        /// Which.
        backup: String,
        /// Until when: it is gone, and whoever was bringing it back by then has said so.
        until: Timestamp,
    },
}

impl Need {
    /// In words.
    pub fn words(&self) -> String {
        match self {
            Self::NotInUse => "the organisation leaves, or its access is cut off".to_owned(),
            Self::Job => "a re-encryption is under way".to_owned(),
            Self::NoRekey => {
                "no `rekey` since has found everything under newer data keys, old versions of objects \
                              included"
                    .to_owned()
            }
            Self::BroughtBack { backup } => format!(
                "the stores were brought back from the backup `{backup}` and hold what it held: `rekey` moves it"
            ),
            Self::Registration { until } => {
                format!("backups from before the re-encryption's end can be registered until {until:.0}")
            }
            Self::Backup { backup, until } => format!("the backup `{backup}` needs them until {until:.0}"),
        }
    }
}

/// That nothing needs data keys any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freed<'a> {
    /// The job that left no record under them.
    pub by: &'a EndedReencryption,
    /// Of the backups that were taken before, the one that lasted longest.
    pub last: Option<&'a Backup>,
}

impl EncryptionPolicy {
    /// Whether the data keys of a former generation, and of those before it, may go; else what needs them.
    ///
    /// INVARIANT (I6): once this is so for a generation and these backups, it is so for every older one, because the job
    /// that serves the newer serves the older. A backup's `generation` is not asked: it is what the keys were when it was
    /// taken, and its records may be older.
    ///
    /// # Errors
    /// The need that lasts longest, as far as that is known.
    pub fn frees_data_keys<'a>(
        &'a self,
        generation: u64,
        backups: &'a [Backup],
        in_transit: SignedDuration,
        now: Timestamp,
    ) -> Result<Freed<'a>, Need> {
        let by = self.moved_on_from(generation)?;
        // What was brought back after a job was asked for may lie where the job had looked.
        let undone = |job: &&EndedReencryption| {
            backups.iter().find(|backup| {
                let later = |brought: Timestamp| brought >= job.job.requested_at;
                backup.taken_at < job.at && backup.brought_back_at.is_some_and(later)
            })
        };
        let mut brought = None;
        let by = by.into_iter().find(|job| {
            let undone = undone(job);
            brought = brought.or(undone);
            undone.is_none()
        });
        let Some(by) = by else {
            return Err(
                brought.map_or(Need::NoRekey, |backup| Need::BroughtBack { backup: backup.id.clone() })
            );
        };
        // What was taken after the job's end holds nothing older: two clean scans came before it.
        let older = backups.iter().filter(|backup| backup.taken_at < by.at);
        let last = older.max_by_key(|backup| backup.expires_at);
        if let Some(last) = last
            && last.expires_at + in_transit > now
        {
            return Err(Need::Backup { backup: last.id.clone(), until: last.expires_at + in_transit });
        }
        if by.at + in_transit > now {
            return Err(Need::Registration { until: by.at + in_transit });
        }
        Ok(Freed { by, last })
    }

    /// The jobs that left no record under data keys of this generation, oldest first, while nothing of the policy's own is
    /// in the way.
    ///
    /// # Errors
    /// What is.
    pub fn moved_on_from(&self, generation: u64) -> Result<Vec<&EndedReencryption>, Need> {
        if !matches!(self.lifecycle, Lifecycle::Active { .. })
            || !self.fence.is_open()
            || self.closing.is_some()
        {
            return Err(Need::NotInUse);
        }
        if self.reencryption.is_some() {
            return Err(Need::Job);
        }
        let jobs: Vec<_> =
            self.reencryptions.iter().filter(|ended| ended.leaves_nothing_of(generation)).collect();
        if jobs.is_empty() { Err(Need::NoRekey) } else { Ok(jobs) }
    }
}

impl EndedReencryption {
    /// Whether it left nothing of the stores under data keys of this generation. A job that ended before its last scan was
    /// kept here does not say so.
    pub fn leaves_nothing_of(&self, generation: u64) -> bool {
        let moved = match self.job.depth {
            Depth::Rekey => self.job.generation > generation,
            Depth::Rewrap => false,
        };
        let through = match self.outcome {
            Outcome::Completed => true,
            Outcome::Cancelled => false,
        };
        moved && through && self.old_versions == Some(0)
    }
}
