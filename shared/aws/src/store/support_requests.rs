//! Requests that wait for support, or to be worked off.

use async_trait::async_trait;
use claviger_app::ports::{Page, StoreError, SupportRequest, SupportRequests};
use uuid::Uuid;

use super::items::document;
use super::pages::{Direction, Range};
use super::transaction::{Condition, Otherwise, Transaction};
use super::{DynamoStore, names};

#[async_trait]
impl SupportRequests for DynamoStore {
    async fn support_requests(
        &self,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<SupportRequest>, StoreError> {
        let range = Range {
            table: &self.tables.control,
            pk: names::REQUESTS.to_owned(),
            prefix: "",
            direction: Direction::Forward,
        };
        self.page(&range, cursor, limit).await
    }

    async fn support_request(&self, id: Uuid) -> Result<Option<SupportRequest>, StoreError> {
        self.load(&names::request(id)).await
    }
}

impl DynamoStore {
    /// The request is there exactly while it is not done: somebody has to decide on it, or it has to be worked off.
    pub(super) fn request_of(
        &self,
        transaction: &mut Transaction,
        before: Option<SupportRequest>,
        after: Option<SupportRequest>,
    ) -> Result<(), StoreError> {
        let control = &self.tables.control;
        match (before, after) {
            (_, Some(request)) => {
                let item = document(&names::request(request.id), &request, [])?;
                transaction.put(control, item, Condition::none(), Otherwise::Conflict)
            }
            (Some(request), None) => {
                let key = names::request(request.id);
                transaction.delete(control, &key, Condition::none(), Otherwise::Conflict)
            }
            (None, None) => Ok(()),
        }
    }
}
