//! Backups that the vendor registered, and data keys of former generations that none of them needs any more.
//!
//! INVARIANT (I6): a registration raises the version of the head and asks whether it comes too late; a removal is decided on
//! the version whose backups were read. So one of them comes first, and the other is refused or sees it.

use async_trait::async_trait;
use claviger_app::ports::{Backups, BackupsHead, DataKeyRemoval, Page, StoreError, WrappedDataKey};
use claviger_app::reencryption::Backup;
use claviger_domain::decide::Decision;
use claviger_domain::policy::EncryptionPolicy;
use claviger_domain::values::OrganisationName;
use jiff::Timestamp;

use super::items::{document, item, number, number_of};
use super::names::VERSION;
use super::pages::{Direction, Range};
use super::transaction::{Condition, Otherwise, Transaction};
use super::{DynamoStore, names};

const REMOVED_BELOW: &str = "removedBelow";
const TAKEN_FROM: &str = "takenFrom";

#[async_trait]
impl Backups for DynamoStore {
    async fn save_backup(&self, organisation: &OrganisationName, backup: &Backup) -> Result<(), StoreError> {
        let control = &self.tables.control;
        let mut transaction = Transaction::default();
        let item = document(&names::backup(organisation, &backup.id), backup, [])?;
        transaction.put(control, item, Condition::none(), Otherwise::Conflict)?;
        let in_time = Condition::that("attribute_not_exists(takenFrom) OR takenFrom <= :taken")
            .naming("#version", VERSION)
            .with(":taken", number(backup.taken_at.as_millisecond()))
            .with(":one", number(1));
        let head = names::backups_head(organisation);
        transaction.update(control, &head, "ADD #version :one", in_time, Otherwise::DataKeysGone)?;
        self.commit(transaction).await
    }

    async fn backup(&self, organisation: &OrganisationName, id: &str) -> Result<Option<Backup>, StoreError> {
        self.load(&names::backup(organisation, id)).await
    }

    async fn backups(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<Backup>, StoreError> {
        let range = Range {
            table: &self.tables.control,
            pk: names::organisation_partition(organisation),
            prefix: names::BACKUP_PREFIX,
            direction: Direction::Forward,
        };
        self.page(&range, cursor, limit).await
    }
}

#[async_trait]
impl DataKeyRemoval for DynamoStore {
    async fn backups_head(&self, organisation: &OrganisationName) -> Result<BackupsHead, StoreError> {
        let found = self.get(&self.tables.control, &names::backups_head(organisation)).await?;
        let Some(found) = found else {
            return Ok(BackupsHead::default());
        };
        let version = number_of(&found, VERSION)?;
        // A head that only registrations have touched.
        if !found.contains_key(TAKEN_FROM) {
            return Ok(BackupsHead { version, ..BackupsHead::default() });
        }
        let taken_from = Timestamp::from_millisecond(number_of(&found, TAKEN_FROM)?)
            .map_err(|error| StoreError::Corrupt { reason: format!("the head of the backups: {error}") })?;
        let removed_below = number_of(&found, REMOVED_BELOW)?;
        Ok(BackupsHead { version, removed_below, taken_from: Some(taken_from) })
    }

    async fn commit_removal(
        &self,
        previous: &EncryptionPolicy,
        decision: &Decision,
        head: &BackupsHead,
    ) -> Result<(), StoreError> {
        let mut transaction = self.of_decision(Some(previous), decision)?;
        let before = head.version.saturating_sub(1);
        let as_read = if before == 0 {
            Condition::absent()
        } else {
            Condition::that("#version = :version")
                .naming("#version", VERSION)
                .with(":version", number(before))
        };
        let place = names::backups_head(&previous.organisation_name);
        let mut next =
            item(&place, [(VERSION, number(head.version)), (REMOVED_BELOW, number(head.removed_below))]);
        if let Some(from) = head.taken_from {
            next.insert(TAKEN_FROM.to_owned(), number(from.as_millisecond()));
        }
        transaction.put(&self.tables.control, next, as_read, Otherwise::Conflict)?;
        self.commit(transaction).await
    }

    async fn remove_former(
        &self,
        organisation: &OrganisationName,
        known: &WrappedDataKey,
    ) -> Result<(), StoreError> {
        let mut transaction = self.removing(known)?;
        let goes =
            Condition::that("removedBelow > :generation").with(":generation", number(known.generation));
        let head = names::backups_head(organisation);
        transaction.check(&self.tables.control, &head, goes, Otherwise::Conflict)?;
        self.commit(transaction).await
    }
}
