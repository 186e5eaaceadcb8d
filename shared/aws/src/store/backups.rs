//! Backups that the vendor registered.

use async_trait::async_trait;
use claviger_app::ports::{Backups, Page, StoreError};
use claviger_app::reencryption::Backup;
use claviger_domain::values::OrganisationName;

use super::items::{document, unavailable};
use super::pages::{Direction, Range};
use super::{DynamoStore, names};

#[async_trait]
impl Backups for DynamoStore {
    async fn save_backup(&self, organisation: &OrganisationName, backup: &Backup) -> Result<(), StoreError> {
        let item = document(&names::backup(organisation, &backup.id), backup, [])?;
        let put = self.client.put_item().table_name(&self.tables.control).set_item(Some(item));
        put.send().await.map(drop).map_err(|error| unavailable(&error))
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
