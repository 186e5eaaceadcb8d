//! The registry of wrapped data keys.

use async_trait::async_trait;
use claviger_app::ports::{DataKeyChoice, DataKeyRegistry, StoreError, WrappedDataKey};
use claviger_domain::ids::InstanceId;
use claviger_domain::instance::AppInstance;
use claviger_domain::policy::EncryptionPolicy;

use super::items::{aggregate, document, item, number, number_of, text, text_of, unavailable};
use super::names::{self, DOC, VERSION};
use super::pages::{Direction, Range};
use super::transaction::{Condition, Otherwise, Transaction};
use super::{DynamoStore, policies};

const PURPOSE: &str = "purpose";

#[async_trait]
impl DataKeyRegistry for DynamoStore {
    async fn data_key(
        &self,
        instance: InstanceId,
        purpose: &str,
        choice: DataKeyChoice,
    ) -> Result<Option<WrappedDataKey>, StoreError> {
        let registry = &self.tables.registry;
        let version = match choice {
            DataKeyChoice::Current => {
                let range = Range {
                    table: registry,
                    pk: names::registry_partition(instance),
                    prefix: &names::data_key_prefix(purpose),
                    direction: Direction::Backward,
                };
                return self.items(&range, None, Some(1)).await?.first().map(aggregate).transpose();
            }
            DataKeyChoice::Version(version) => version,
            DataKeyChoice::Id(id) => {
                let pointer = self.get(registry, &names::data_key_pointer(instance, id)).await?;
                let Some(pointer) = pointer else {
                    return Ok(None);
                };
                if text_of(&pointer, PURPOSE)? != purpose {
                    return Ok(None);
                }
                number_of(&pointer, VERSION)?
            }
        };
        let found = self.get(registry, &names::data_key(instance, purpose, version)).await?;
        found.as_ref().map(aggregate).transpose()
    }

    async fn data_keys(&self, instance: InstanceId) -> Result<Vec<WrappedDataKey>, StoreError> {
        let range = Range {
            table: &self.tables.registry,
            pk: names::registry_partition(instance),
            prefix: names::DATA_KEY_PREFIX,
            direction: Direction::Forward,
        };
        self.items(&range, None, None).await?.iter().map(aggregate).collect()
    }

    async fn rewrap_data_key(&self, known: &WrappedDataKey, next: &WrappedDataKey) -> Result<(), StoreError> {
        let place = names::data_key(known.instance, &known.purpose, known.version);
        // The document is written by us alone, so what was read is what is compared, byte for byte.
        let was = document(&place, known, [])?.remove(DOC);
        let put = self.client.put_item().table_name(&self.tables.registry);
        put.set_item(Some(document(&place, next, [])?))
            .condition_expression("#doc = :known")
            .expression_attribute_names("#doc", DOC)
            .set_expression_attribute_values(was.map(|was| [(":known".to_owned(), was)].into()))
            .send()
            .await
            .map(drop)
            .map_err(|error| unavailable(&error))
    }

    async fn rewrap_data_key_of(
        &self,
        known: &WrappedDataKey,
        next: &WrappedDataKey,
        policy: &EncryptionPolicy,
    ) -> Result<(), StoreError> {
        let place = names::data_key(known.instance, &known.purpose, known.version);
        let was = document(&place, known, [])?.remove(DOC).unwrap_or_else(|| text(""));
        let as_known = Condition::that("#doc = :known").naming("#doc", DOC).with(":known", was);
        let mut transaction = Transaction::default();
        let next = document(&place, next, [])?;
        transaction.put(&self.tables.registry, next, as_known, Otherwise::Conflict)?;
        let (as_read, otherwise) = policies::condition_on(Some(policy));
        transaction.check(
            &self.tables.control,
            &names::policy(&policy.organisation_name),
            as_read,
            otherwise,
        )?;
        self.commit(transaction).await
    }

    async fn erase_data_key(&self, key: &WrappedDataKey) -> Result<(), StoreError> {
        let registry = &self.tables.registry;
        let mut transaction = Transaction::default();
        let place = names::data_key(key.instance, &key.purpose, key.version);
        transaction.delete(registry, &place, Condition::none(), Otherwise::Conflict)?;
        let pointer = names::data_key_pointer(key.instance, key.id);
        transaction.delete(registry, &pointer, Condition::none(), Otherwise::Conflict)?;
        self.commit(transaction).await
    }

    async fn add_data_key(&self, key: &WrappedDataKey) -> Result<(), StoreError> {
        self.commit(self.adding(key)?).await
    }

    async fn add_data_key_of(
        &self,
        key: &WrappedDataKey,
        policy: &EncryptionPolicy,
        instance: &AppInstance,
    ) -> Result<(), StoreError> {
        let control = &self.tables.control;
        let mut transaction = self.adding(key)?;
        let (as_read, otherwise) = policies::condition_on(Some(policy));
        transaction.check(control, &names::policy(&policy.organisation_name), as_read, otherwise)?;
        let as_read = Condition::that("#version = :version")
            .naming("#version", VERSION)
            .with(":version", number(instance.version));
        let place = names::instance(&instance.organisation_name, instance.id);
        transaction.check(control, &place, as_read, Otherwise::Conflict)?;
        self.commit(transaction).await
    }

    async fn remove_data_key(&self, known: &WrappedDataKey) -> Result<(), StoreError> {
        self.commit(self.removing(known)?).await
    }
}

impl DynamoStore {
    /// A data key and its pointer away, if the data key is as it was read.
    pub(super) fn removing(&self, known: &WrappedDataKey) -> Result<Transaction, StoreError> {
        let registry = &self.tables.registry;
        let place = names::data_key(known.instance, &known.purpose, known.version);
        let was = document(&place, known, [])?.remove(DOC).unwrap_or_else(|| text(""));
        let mut transaction = Transaction::default();
        let as_known = Condition::that("#doc = :known").naming("#doc", DOC).with(":known", was);
        transaction.delete(registry, &place, as_known, Otherwise::Conflict)?;
        let pointer = names::data_key_pointer(known.instance, known.id);
        transaction.delete(registry, &pointer, Condition::none(), Otherwise::Conflict)?;
        Ok(transaction)
    }

    /// A new data key and its pointer.
    fn adding(&self, key: &WrappedDataKey) -> Result<Transaction, StoreError> {
        let registry = &self.tables.registry;
        let mut transaction = Transaction::default();
        let place = names::data_key(key.instance, &key.purpose, key.version);
        let wrapped = document(&place, key, [])?;
        transaction.put(registry, wrapped, Condition::absent(), Otherwise::Conflict)?;
        let pointer = item(
            &names::data_key_pointer(key.instance, key.id),
            [(PURPOSE, text(&key.purpose)), (VERSION, number(key.version))],
        );
        transaction.put(registry, pointer, Condition::absent(), Otherwise::Conflict)?;
        Ok(transaction)
    }
}
