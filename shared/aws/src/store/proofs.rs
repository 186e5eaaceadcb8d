//! Proofs that a policy's keys work, shared by all brokers.

use async_trait::async_trait;
use claviger_app::ports::{Proofs, StoreError};
use claviger_domain::ids::PolicyId;
use jiff::Timestamp;

use super::DynamoStore;
use super::items::{item, number, number_of, unavailable};
use super::names::{self, EXPIRES_AT};

const PROVEN_AT: &str = "provenAt";
const CLAIMED_UNTIL: &str = "claimedUntil";
/// A proof counts for seconds; after a day the row is nothing but clutter.
const KEPT_SECONDS: i64 = 24 * 60 * 60;

#[async_trait]
impl Proofs for DynamoStore {
    async fn proven_at(&self, policy: PolicyId) -> Result<Option<Timestamp>, StoreError> {
        let Some(found) = self.get(&self.tables.control, &names::proof(policy)).await? else {
            return Ok(None);
        };
        let millis = number_of(&found, PROVEN_AT)?;
        Timestamp::from_millisecond(millis)
            .map(Some)
            .map_err(|error| StoreError::Corrupt { reason: format!("proof of {policy}: {error}") })
    }

    /// Stored to the millisecond, rounded down: a proof never looks younger than it is.
    async fn record_proof(&self, policy: PolicyId, at: Timestamp) -> Result<(), StoreError> {
        let millis = at.as_millisecond();
        let proof = item(
            &names::proof(policy),
            [(PROVEN_AT, number(millis)), (EXPIRES_AT, number(at.as_second().saturating_add(KEPT_SECONDS)))],
        );
        let answer = self
            .client
            .put_item()
            .table_name(&self.tables.control)
            .set_item(Some(proof))
            .condition_expression("attribute_not_exists(pk) OR provenAt < :at")
            .expression_attribute_values(":at", number(millis))
            .send()
            .await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) => match unavailable(&error) {
                // A newer one is there.
                StoreError::Conflict => Ok(()),
                other => Err(other),
            },
        }
    }

    async fn claim_proof(
        &self,
        policy: PolicyId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let expires = until.as_second().saturating_add(KEPT_SECONDS);
        let claim = item(
            &names::proof_claim(policy),
            [(CLAIMED_UNTIL, number(until.as_millisecond())), (EXPIRES_AT, number(expires))],
        );
        let answer = self
            .client
            .put_item()
            .table_name(&self.tables.control)
            .set_item(Some(claim))
            .condition_expression("attribute_not_exists(pk) OR claimedUntil <= :now")
            .expression_attribute_values(":now", number(now.as_millisecond()))
            .send()
            .await;
        match answer.map_err(|error| unavailable(&error)) {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict) => Ok(false),
            Err(other) => Err(other),
        }
    }
}
