//! Shows what an organisation's keys were used for, to be held against its CloudTrail, and what the requests cost.

use std::cmp::Reverse;

use claviger_domain::ids::OrganisationId;
use claviger_domain::invalid::{Invalid, InvalidField, shown};
use claviger_domain::values::{KeyArn, Region};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::Serialize;

use super::{KeyUse, Payer, Tally};
use crate::ports::UsageRecords;
use crate::request_error::RequestError;
use crate::settings::Settings;

/// Days that counts are kept: more than a year, so that this month can be held against last year's.
pub const RETENTION_DAYS: i32 = 400;
/// Days of one answer at most.
const MOST_DAYS: i32 = 100;
/// Days without a wish.
const USUAL_DAYS: i32 = 30;

/// Which days are asked for, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageQuery {
    /// From this day, UTC.
    pub from: Date,
    /// To this day.
    pub to: Date,
}

fn day(text: &str, field: &str, faults: &mut Vec<InvalidField>) -> Option<Date> {
    let parsed = Some(text).filter(|text| text.len() == 10).and_then(|text| text.parse::<Date>().ok());
    if parsed.is_none() {
        let reason = format!("`{}` is not a day", shown(text));
        faults.push(Invalid::new(reason, "write it like `2026-11-22`; days are UTC").at(field));
    }
    parsed
}

fn days_before(day: Date, days: i32) -> Date {
    day.checked_sub(days.days()).unwrap_or(Date::MIN)
}

impl UsageQuery {
    /// The wishes of a request; without any, the last thirty days.
    ///
    /// # Errors
    /// Every fault, each with its field, reason and remedy.
    pub fn parse(from: Option<&str>, to: Option<&str>, now: Timestamp) -> Result<Self, Vec<InvalidField>> {
        let mut faults = Vec::new();
        let today = now.to_zoned(TimeZone::UTC).date();
        let to = match to {
            Some(text) => day(text, "to", &mut faults),
            None => Some(today),
        };
        let from = match from {
            Some(text) => day(text, "from", &mut faults),
            None => to.map(|to| days_before(to, USUAL_DAYS - 1)),
        };
        let (Some(from), Some(to)) = (from, to) else {
            return Err(faults);
        };
        let fault = if from > to {
            Invalid::new("it is after `to`", "give a `from` that is not after `to`")
        } else if from < days_before(to, MOST_DAYS - 1) {
            let help = format!("ask for {MOST_DAYS} days at most; counts are kept for {RETENTION_DAYS} days");
            Invalid::new("the period is too long", help)
        } else {
            return Ok(Self { from, to });
        };
        Err(vec![fault.at("from")])
    }
}

/// One way in which a key was used on one day.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageRow {
    /// The day, UTC.
    pub day: Date,
    /// Where.
    pub region: Region,
    /// The key; none for calls about no single key.
    pub key_arn: Option<KeyArn>,
    /// As CloudTrail spells it in `eventName`.
    pub operation: String,
    /// The purpose in the encryption context; none for calls that have no context.
    pub purpose: Option<String>,
    /// Calls that KMS answered, whatever it said.
    pub calls: i64,
    /// Of those, refused with access denied.
    pub denied: i64,
    /// Of those, throttled.
    pub throttled: i64,
    /// Calls that were sent and not answered: KMS may have seen them.
    pub unanswered: i64,
    /// Events to expect in the CloudTrail of the key's owner.
    pub cloud_trail_events: i64,
    /// In whose account the calls were made, which is billed for them.
    pub billed_to: Payer,
    /// What the requests cost.
    pub cost_usd: f64,
}

/// What an organisation's keys were used for.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageAnswer {
    /// The first day of the period.
    pub from: Date,
    /// The last.
    pub to: Date,
    /// The uses, newest day first.
    pub items: Vec<UsageRow>,
    /// Where the next page starts.
    pub next_cursor: Option<String>,
    /// Calls that KMS answered in the whole period.
    pub total: i64,
    /// Of those, refused with access denied.
    pub denied: i64,
    /// Of those, throttled.
    pub throttled: i64,
    /// Calls that were sent and not answered.
    pub unanswered: i64,
    /// Events to expect in the CloudTrail of the keys' owner.
    pub cloud_trail_events: i64,
    /// What the requests of the whole period cost.
    pub cost_usd: f64,
    /// Of that, billed to the vendor's account.
    pub billed_to_vendor_usd: f64,
    /// Of that, billed to the customer's own account.
    pub billed_to_customer_usd: f64,
    /// The price of 10,000 requests.
    pub price_per_10000_usd: f64,
    /// Seconds after which a process that is at work has written what it counted.
    pub written_every_seconds: i64,
    /// How to read it.
    pub help: &'static str,
}

const HELP: &str = "Days are UTC. Compare `cloudTrailEvents` with the KMS events of your CloudTrail whose caller is the \
    vendor's key-access role, or a session named `claviger-...` of your role: per day, region, `eventName` and \
    `claviger:purpose` of the encryption context. A refused call from another account is logged in the caller's trail \
    only, so it is not expected in yours; a throttled or unanswered call may be there or not. These counts are written \
    some time after the calls and never twice; what a process had not written when it ended is missing. So they may be \
    below your CloudTrail, which is the reference, and are never above it.";

impl Tally {
    /// Events in the trail of the key's owner: a call that is denied across accounts is logged at its caller only.
    const fn cloud_trail_events(self, payer: Payer) -> i64 {
        match payer {
            Payer::Vendor => self.calls.saturating_sub(self.denied),
            Payer::Customer => self.calls,
        }
    }
}

/// Where a row stands in the list: the newest day first.
type Place = (Reverse<Date>, String);

/// Of letters, digits and hyphens, with `#` between: what a cursor may hold.
fn place(day: Date, what: &KeyUse) -> Place {
    let key = what.key.as_ref().map(|key| (key.account().as_str(), key_id(key)));
    let (account, id) = key.unwrap_or_default();
    let purpose = what.purpose.as_deref().unwrap_or_default();
    let text = [&what.operation, purpose, what.payer.as_str(), what.region.as_str(), account, id].join("#");
    (Reverse(day), text)
}

fn key_id(key: &KeyArn) -> &str {
    key.as_str().rsplit('/').next().unwrap_or_default()
}

/// A place as a cursor, and back.
fn cursor_of((Reverse(day), text): &Place) -> String {
    format!("{day}#{text}")
}

fn place_of(cursor: &str) -> Option<Place> {
    let (day, text) = cursor.split_once('#')?;
    Some((Reverse(day.parse().ok()?), text.to_owned()))
}

/// Shows the counts.
pub struct ShowUsage<'a> {
    /// Where they are.
    pub records: &'a dyn UsageRecords,
    /// Deploy parameters.
    pub settings: &'a Settings,
}

impl ShowUsage<'_> {
    /// The uses of a period, `limit` rows at a time; the sums are of the whole period, whatever the page.
    ///
    /// # Errors
    /// When the store fails, or the cursor is none.
    pub async fn run(
        &self,
        organisation: OrganisationId,
        query: UsageQuery,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<UsageAnswer, RequestError> {
        let days = self.records.usage(organisation, query.from, query.to).await?;
        let price = self.settings.kms_price;
        let mut sum = Tally::default();
        let (mut vendor, mut customer, mut events) = (0_i64, 0_i64, 0_i64);
        let mut rows: Vec<(Place, UsageRow)> = Vec::new();
        for of in &days {
            for (what, tally) in of.uses.iter().filter(|(_, tally)| !tally.is_nothing()) {
                sum = sum.plus(*tally);
                let seen = tally.cloud_trail_events(what.payer);
                events = events.saturating_add(seen);
                let payer = match what.payer {
                    Payer::Vendor => &mut vendor,
                    Payer::Customer => &mut customer,
                };
                *payer = payer.saturating_add(tally.calls);
                rows.push((
                    place(of.day, what),
                    UsageRow {
                        day: of.day,
                        region: what.region.clone(),
                        key_arn: what.key.clone(),
                        operation: what.operation.clone(),
                        purpose: what.purpose.clone(),
                        calls: tally.calls,
                        denied: tally.denied,
                        throttled: tally.throttled,
                        unanswered: tally.unanswered,
                        cloud_trail_events: seen,
                        billed_to: what.payer,
                        cost_usd: price.of(tally.calls),
                    },
                ));
            }
        }
        rows.sort_by(|(one, _), (other, _)| one.cmp(other));
        if let Some(cursor) = cursor {
            let after = place_of(cursor).ok_or_else(|| {
                let help = "use `nextCursor` of the page before, exactly, on the same path";
                RequestError::Invalid(vec![
                    Invalid::new("it is not a cursor of this list", help).at("cursor"),
                ])
            })?;
            rows.retain(|(place, _)| *place > after);
        }
        let limit = usize::from(limit.clamp(1, 200));
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|(place, _)| cursor_of(place));
        Ok(UsageAnswer {
            from: query.from,
            to: query.to,
            items: rows.into_iter().map(|(_, row)| row).collect(),
            next_cursor,
            total: sum.calls,
            denied: sum.denied,
            throttled: sum.throttled,
            unanswered: sum.unanswered,
            cloud_trail_events: events,
            cost_usd: price.of(sum.calls),
            billed_to_vendor_usd: price.of(vendor),
            billed_to_customer_usd: price.of(customer),
            price_per_10000_usd: price.per_10000_usd(),
            written_every_seconds: self.settings.usage_flush.as_secs(),
            help: HELP,
        })
    }
}
