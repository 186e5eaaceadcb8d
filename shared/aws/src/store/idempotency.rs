//! Requests that bear an idempotency key.

use async_trait::async_trait;
use claviger_app::ports::{Idempotency, KeptAnswer, Reservation, Reserve, StoreError};
use uuid::Uuid;

use super::items::{aggregate, item, key_item, number, text, text_of, unavailable, unbuilt};
use super::names::{DOC, EXPIRES_AT};
use super::{DynamoStore, names};

#[async_trait]
impl Idempotency for DynamoStore {
    async fn reserve(&self, reserve: &Reserve<'_>) -> Result<Reservation, StoreError> {
        let key = names::idempotency(reserve.place);
        let reservation = item(
            &key,
            [
                ("request", text(reserve.request)),
                ("holder", text(reserve.holder)),
                ("reservedUntil", number(reserve.until.as_millisecond())),
                (EXPIRES_AT, number(reserve.forgotten_at.as_second())),
            ],
        );
        // What is past its time counts as gone: DynamoDB takes it away only later.
        let free = "attribute_not_exists(pk) OR #expires <= :seconds \
                    OR (attribute_not_exists(#doc) AND reservedUntil <= :millis)";
        let put = self
            .client
            .put_item()
            .table_name(&self.tables.control)
            .set_item(Some(reservation))
            .condition_expression(free)
            .expression_attribute_names("#expires", EXPIRES_AT)
            .expression_attribute_names("#doc", DOC)
            .expression_attribute_values(":seconds", number(reserve.now.as_second()))
            .expression_attribute_values(":millis", number(reserve.now.as_millisecond()))
            .send()
            .await
            .map_err(|error| unavailable(&error));
        match put {
            Ok(_) => return Ok(Reservation::Granted),
            Err(StoreError::Conflict) => {}
            Err(other) => return Err(other),
        }
        // Given back in this moment: whoever asks again gets it.
        let Some(known) = self.get(&self.tables.control, &key).await? else {
            return Ok(Reservation::InProgress);
        };
        if text_of(&known, "request")? != reserve.request {
            return Ok(Reservation::OtherRequest);
        }
        if known.contains_key(DOC) {
            return aggregate(&known).map(Reservation::Answered);
        }
        Ok(Reservation::InProgress)
    }

    async fn keep_answer(&self, place: &str, holder: Uuid, answer: &KeptAnswer) -> Result<(), StoreError> {
        self.client
            .update_item()
            .table_name(&self.tables.control)
            .set_key(Some(key_item(&names::idempotency(place))))
            .update_expression("SET #doc = :doc")
            .condition_expression("holder = :holder")
            .expression_attribute_names("#doc", DOC)
            .expression_attribute_values(":doc", text(serde_json::to_string(answer).map_err(unbuilt)?))
            .expression_attribute_values(":holder", text(holder))
            .send()
            .await
            .map(drop)
            .map_err(|error| unavailable(&error))
    }

    async fn give_back(&self, place: &str, holder: Uuid) -> Result<(), StoreError> {
        let deleted = self
            .client
            .delete_item()
            .table_name(&self.tables.control)
            .set_key(Some(key_item(&names::idempotency(place))))
            .condition_expression("holder = :holder AND attribute_not_exists(#doc)")
            .expression_attribute_names("#doc", DOC)
            .expression_attribute_values(":holder", text(holder))
            .send()
            .await
            .map_err(|error| unavailable(&error));
        match deleted {
            Ok(_) | Err(StoreError::Conflict) => Ok(()),
            Err(other) => Err(other),
        }
    }
}
