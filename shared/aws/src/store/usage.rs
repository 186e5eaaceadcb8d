//! What organisations' keys were used for: one item an organisation and day, an attribute a number.
//!
//! It is added to by many processes, so the numbers are added, never set. One transaction with a token of the caller's:
//! the same again within ten minutes adds nothing, whatever became of the first answer.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_sdk_dynamodb::types::{TransactWriteItem, Update};
use claviger_app::ports::{StoreError, UsageRecords};
use claviger_app::usage::{DayOfUse, KeyUse, RETENTION_DAYS, Tally, UsageDelta, Uses};
use claviger_domain::ids::OrganisationId;
use claviger_domain::values::KeyArn;
use jiff::ToSpan;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::items::{Item, key_item, number, number_of, text, text_of, unavailable, unbuilt};
use super::names::{EXPIRES_AT, PK, SK, USAGE_PREFIX};
use super::transaction::failure;
use super::{DynamoStore, names};

/// `<number>|<payer>|<operation>|<purpose>|<key's ARN, or region>`
fn attribute(number: &str, what: &KeyUse) -> String {
    let KeyUse { operation, purpose, region, key, payer } = what;
    let place = key.as_ref().map_or(region.as_str(), KeyArn::as_str);
    [number, payer.as_str(), operation, purpose.as_deref().unwrap_or_default(), place].join("|")
}

/// Which number of which use an attribute is; none for the others.
fn use_of(attribute: &str) -> Option<(&str, KeyUse)> {
    let mut parts = attribute.split('|');
    let (number, payer, operation) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
    let (purpose, place) = (parts.next()?, parts.next()?);
    let key: Option<KeyArn> = place.parse().ok();
    let region = match &key {
        Some(key) => key.region().clone(),
        None => place.parse().ok()?,
    };
    let purpose = Some(purpose).filter(|purpose| !purpose.is_empty()).map(str::to_owned);
    Some((number, KeyUse { operation: operation.to_owned(), purpose, region, key, payer }))
}

const CALLS: &str = "calls";
const DENIED: &str = "denied";
const THROTTLED: &str = "throttled";
const UNANSWERED: &str = "unanswered";

fn numbers(tally: Tally) -> [(&'static str, i64); 4] {
    [
        (CALLS, tally.calls),
        (DENIED, tally.denied),
        (THROTTLED, tally.throttled),
        (UNANSWERED, tally.unanswered),
    ]
}

/// When a day is forgotten, in epoch seconds.
fn forgotten_at(day: Date) -> Result<i64, StoreError> {
    let last = day.checked_add(RETENTION_DAYS.days()).map_err(unbuilt)?;
    Ok(last.to_zoned(TimeZone::UTC).map_err(unbuilt)?.timestamp().as_second())
}

fn update_of(table: &str, delta: &UsageDelta) -> Result<Update, StoreError> {
    let mut names = HashMap::from([("#e".to_owned(), EXPIRES_AT.to_owned())]);
    let mut values = HashMap::from([(":e".to_owned(), number(forgotten_at(delta.day)?))]);
    let mut added: Vec<String> = Vec::new();
    for (what, tally) in &delta.uses {
        for (name, count) in numbers(*tally) {
            if count != 0 {
                let n = added.len();
                names.insert(format!("#{n}"), attribute(name, what));
                values.insert(format!(":{n}"), number(count));
                added.push(format!("#{n} :{n}"));
            }
        }
    }
    Update::builder()
        .table_name(table)
        .set_key(Some(key_item(&names::usage(delta.organisation, delta.day))))
        .update_expression(format!("SET #e = :e ADD {}", added.join(", ")))
        .set_expression_attribute_names(Some(names))
        .set_expression_attribute_values(Some(values))
        .build()
        .map_err(unbuilt)
}

fn day_of(item: &Item) -> Result<DayOfUse, StoreError> {
    let sk = text_of(item, SK)?;
    let day = sk.strip_prefix(USAGE_PREFIX).and_then(|day| day.parse().ok());
    let day = day.ok_or_else(|| StoreError::Corrupt { reason: format!("`{sk}` is no day of use") })?;
    let mut uses = Uses::new();
    for name in item.keys() {
        let Some((of, what)) = use_of(name) else { continue };
        let count: i64 = number_of(item, name)?;
        let tally = uses.entry(what).or_default();
        match of {
            CALLS => tally.calls = count,
            DENIED => tally.denied = count,
            THROTTLED => tally.throttled = count,
            UNANSWERED => tally.unanswered = count,
            _ => {}
        }
    }
    Ok(DayOfUse { day, uses })
}

#[async_trait]
impl UsageRecords for DynamoStore {
    async fn add_usage(&self, delta: &UsageDelta) -> Result<(), StoreError> {
        if delta.uses.values().all(|tally| tally.is_nothing()) {
            return Ok(());
        }
        let update = update_of(&self.tables.control, delta)?;
        let answer = self
            .client
            .transact_write_items()
            .transact_items(TransactWriteItem::builder().update(update).build())
            .client_request_token(delta.id.to_string())
            .customize()
            // The caller tries again, by the time of day: a process may stand still in the middle of a try.
            .config_override(aws_sdk_dynamodb::config::Builder::new().retry_config(RetryConfig::disabled()))
            .send()
            .await;
        match answer.map(drop).map_err(|error| failure(&error, &[])) {
            // What DynamoDB does not take, it will not take later.
            Err(StoreError::Unavailable { reason }) if reason.starts_with("Validation") => {
                Err(StoreError::Corrupt { reason })
            }
            other => other,
        }
    }

    async fn usage(
        &self,
        organisation: OrganisationId,
        from: Date,
        to: Date,
    ) -> Result<Vec<DayOfUse>, StoreError> {
        let (from, to) = (names::usage(organisation, from), names::usage(organisation, to));
        let mut days = Vec::new();
        let mut start: Option<Item> = None;
        loop {
            let query = self
                .client
                .query()
                .table_name(&self.tables.control)
                .consistent_read(true)
                .set_exclusive_start_key(start.take())
                .key_condition_expression("#pk = :pk AND #sk BETWEEN :from AND :to")
                .expression_attribute_names("#pk", PK)
                .expression_attribute_names("#sk", SK)
                .expression_attribute_values(":pk", text(&from.pk))
                .expression_attribute_values(":from", text(&from.sk))
                .expression_attribute_values(":to", text(&to.sk));
            let answer = query.send().await.map_err(|error| unavailable(&error))?;
            for item in answer.items.unwrap_or_default() {
                days.push(day_of(&item)?);
            }
            start = answer.last_evaluated_key;
            if start.is_none() {
                return Ok(days);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claviger_app::usage::Payer;

    fn a_use(purpose: Option<&str>, key: Option<&str>, payer: Payer) -> KeyUse {
        KeyUse {
            operation: "Decrypt".to_owned(),
            purpose: purpose.map(str::to_owned),
            region: "eu-central-1".parse().unwrap(),
            key: key.map(|key| key.parse().unwrap()),
            payer,
        }
    }

    #[test]
    fn k3_a_use_is_an_attribute_and_back() {
        let arn = "arn:aws:kms:eu-central-1:222222222222:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        for what in [
            a_use(Some("canary"), Some(arn), Payer::Vendor),
            a_use(None, Some(arn), Payer::Customer),
            a_use(None, None, Payer::Customer),
        ] {
            let name = attribute(CALLS, &what);
            assert_eq!(use_of(&name), Some((CALLS, what)), "{name}");
        }
        for other in ["pk", "sk", "expiresAt", "calls|nobody|Decrypt||eu-central-1"] {
            assert_eq!(use_of(other), None, "{other}");
        }
    }
}
