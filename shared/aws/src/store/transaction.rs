//! One conditional transaction, and what it means when it is cancelled.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, ConditionCheck, Delete, Put, TransactWriteItem, Update,
};
use claviger_app::ports::StoreError;

use super::DynamoStore;
use super::items::{Item, key_item, unavailable, unbuilt};
use super::names::Key;

/// What must be true of an item, as it is stored, for the transaction to happen.
#[derive(Debug, Clone, Default)]
pub(super) struct Condition {
    expression: Option<String>,
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Condition {
    /// Nothing.
    pub(super) fn none() -> Self {
        Self::default()
    }

    /// There is no such item.
    pub(super) fn absent() -> Self {
        Self::that("attribute_not_exists(pk)")
    }

    /// A condition expression.
    pub(super) fn that(expression: &str) -> Self {
        Self { expression: Some(expression.to_owned()), ..Self::default() }
    }

    /// Fills in a `:value`.
    #[must_use]
    pub(super) fn with(mut self, placeholder: &str, value: AttributeValue) -> Self {
        self.values.insert(placeholder.to_owned(), value);
        self
    }

    /// Fills in a `#name`.
    #[must_use]
    pub(super) fn naming(mut self, placeholder: &str, name: &str) -> Self {
        self.names.insert(placeholder.to_owned(), name.to_owned());
        self
    }

    fn parts(self) -> Parts {
        Parts {
            expression: self.expression,
            names: Some(self.names).filter(|names| !names.is_empty()),
            values: Some(self.values).filter(|values| !values.is_empty()),
        }
    }
}

/// A condition as requests take it: DynamoDB refuses empty maps of placeholders.
struct Parts {
    expression: Option<String>,
    names: Option<HashMap<String, String>>,
    values: Option<HashMap<String, AttributeValue>>,
}

/// What it means when a condition does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// Somebody else was first.
    Conflict,
    /// Something unique is taken.
    Taken(&'static str),
    /// Data keys that it needs are removed.
    DataKeysGone,
}

impl From<Otherwise> for StoreError {
    fn from(otherwise: Otherwise) -> Self {
        match otherwise {
            Otherwise::Conflict => Self::Conflict,
            Otherwise::Taken(what) => Self::Taken { what },
            Otherwise::DataKeysGone => Self::DataKeysGone,
        }
    }
}

/// The writes of one transaction, in the order in which their conditions are reported.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    writes: Vec<TransactWriteItem>,
    otherwise: Vec<Otherwise>,
}

impl Transaction {
    pub(super) fn put(
        &mut self,
        table: &str,
        item: Item,
        condition: Condition,
        otherwise: Otherwise,
    ) -> Result<(), StoreError> {
        let Parts { expression, names, values } = condition.parts();
        let put = Put::builder()
            .table_name(table)
            .set_item(Some(item))
            .set_condition_expression(expression)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .build()
            .map_err(unbuilt)?;
        self.push(TransactWriteItem::builder().put(put).build(), otherwise);
        Ok(())
    }

    /// An update; the values of the condition serve the update expression too.
    pub(super) fn update(
        &mut self,
        table: &str,
        key: &Key,
        expression: &str,
        condition: Condition,
        otherwise: Otherwise,
    ) -> Result<(), StoreError> {
        let Parts { expression: condition, names, values } = condition.parts();
        let update = Update::builder()
            .table_name(table)
            .set_key(Some(key_item(key)))
            .update_expression(expression)
            .set_condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .build()
            .map_err(unbuilt)?;
        self.push(TransactWriteItem::builder().update(update).build(), otherwise);
        Ok(())
    }

    pub(super) fn delete(
        &mut self,
        table: &str,
        key: &Key,
        condition: Condition,
        otherwise: Otherwise,
    ) -> Result<(), StoreError> {
        let Parts { expression, names, values } = condition.parts();
        let delete = Delete::builder()
            .table_name(table)
            .set_key(Some(key_item(key)))
            .set_condition_expression(expression)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .build()
            .map_err(unbuilt)?;
        self.push(TransactWriteItem::builder().delete(delete).build(), otherwise);
        Ok(())
    }

    /// A condition on an item that is not written.
    pub(super) fn check(
        &mut self,
        table: &str,
        key: &Key,
        condition: Condition,
        otherwise: Otherwise,
    ) -> Result<(), StoreError> {
        let Parts { expression, names, values } = condition.parts();
        let check = ConditionCheck::builder()
            .table_name(table)
            .set_key(Some(key_item(key)))
            .set_condition_expression(expression)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .build()
            .map_err(unbuilt)?;
        self.push(TransactWriteItem::builder().condition_check(check).build(), otherwise);
        Ok(())
    }

    fn push(&mut self, write: TransactWriteItem, otherwise: Otherwise) {
        self.writes.push(write);
        self.otherwise.push(otherwise);
    }
}

impl DynamoStore {
    /// All of it, or nothing.
    ///
    /// The SDK repeats a lost request with the same token, so a repeat of what was done answers success.
    pub(super) async fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        let Transaction { writes, otherwise } = transaction;
        let answer = self.client.transact_write_items().set_transact_items(Some(writes)).send().await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) => Err(failure(&error, &otherwise)),
        }
    }
}

pub(super) fn failure<R>(
    error: &SdkError<TransactWriteItemsError, R>,
    otherwise: &[Otherwise],
) -> StoreError {
    match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
            meaning(cancelled.cancellation_reasons(), otherwise)
        }
        Some(TransactWriteItemsError::TransactionInProgressException(_)) => StoreError::Conflict,
        Some(_) | None => unavailable(error),
    }
}

/// A condition that does not hold is a fact about the store, so the first of them, in the order of the writes, is
/// the answer; only without one, that another transaction was under way; only then, capacity.
fn meaning(reasons: &[CancellationReason], otherwise: &[Otherwise]) -> StoreError {
    let codes = || reasons.iter().map(|reason| reason.code().unwrap_or("None"));
    let failed = codes()
        .zip(otherwise)
        .find_map(|(code, otherwise)| (code == "ConditionalCheckFailed").then_some(*otherwise));
    if let Some(otherwise) = failed {
        return otherwise.into();
    }
    if codes().any(|code| code == "TransactionConflict" || code == "DuplicateItem") {
        return StoreError::Conflict;
    }
    let reason = codes().find(|code| *code != "None").unwrap_or("TransactionCanceledException");
    StoreError::Unavailable { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::nobody_else(&["None", "ConditionalCheckFailed"], StoreError::Taken { what: "site" })]
    #[case::the_first_counts(&["ConditionalCheckFailed", "ConditionalCheckFailed"], StoreError::Conflict)]
    #[case::a_fact_before_a_race(&["TransactionConflict", "ConditionalCheckFailed"], StoreError::Taken { what: "site" })]
    #[case::a_race(&["None", "TransactionConflict"], StoreError::Conflict)]
    #[case::capacity(&["None", "ThrottlingError"], StoreError::Unavailable { reason: "ThrottlingError".into() })]
    #[case::no_reason(&[], StoreError::Unavailable { reason: "TransactionCanceledException".into() })]
    fn a_cancelled_transaction_says_why(#[case] codes: &[&str], #[case] expected: StoreError) {
        let reasons: Vec<CancellationReason> =
            codes.iter().map(|code| CancellationReason::builder().code(*code).build()).collect();
        assert_eq!(meaning(&reasons, &[Otherwise::Conflict, Otherwise::Taken("site")]), expected);
    }
}
