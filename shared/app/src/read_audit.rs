//! Reads an organisation's audit log (spec K3): facts, chained by hash, oldest first within a chain.

use claviger_domain::fact::Fact;
use claviger_domain::values::OrganisationName;

use crate::ports::{Audit, Page};
use crate::request_error::RequestError;

/// An answer holds about this many bytes of facts, well below what an invocation may return.
const ENOUGH: usize = 3_000_000;

/// Reads the audit log.
pub struct ReadAudit<'a> {
    /// Where facts are.
    pub audit: &'a dyn Audit,
}

impl ReadAudit<'_> {
    /// The facts as lines of JSON: `limit` of them, or, without a limit, as many as an answer holds.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn run(
        &self,
        organisation: &OrganisationName,
        cursor: Option<&str>,
        limit: Option<u16>,
    ) -> Result<Page<String>, RequestError> {
        let mut lines = Vec::new();
        let mut bytes = 0_usize;
        let mut cursor = cursor.map(str::to_owned);
        loop {
            let page = self.audit.facts(organisation, cursor.as_deref(), limit.unwrap_or(200)).await?;
            for fact in &page.items {
                let line = line(fact)?;
                bytes = bytes.saturating_add(line.len());
                lines.push(line);
            }
            cursor = page.next;
            if limit.is_some() || bytes >= ENOUGH || cursor.is_none() {
                return Ok(Page { items: lines, next: cursor });
            }
        }
    }
}

fn line(fact: &Fact) -> Result<String, RequestError> {
    serde_json::to_string(fact).map_err(|error| {
        RequestError::Store(crate::ports::StoreError::Corrupt { reason: format!("a fact: {error}") })
    })
}
