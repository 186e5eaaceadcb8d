//! Pages of lists: `?limit=` and `?cursor=`. A cursor is opaque and bound to its list and organisation.

use std::collections::HashMap;

use axum::extract::FromRequestParts;
use axum::extract::Query;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use claviger_app::ports::Page;
use claviger_domain::ids::OrganisationId;
use claviger_domain::invalid::{Invalid, InvalidField};
use claviger_lambda::problem::Problem;
use http::request::Parts;
use sha2::{Digest, Sha256};

/// Entries of a page without a limit.
const USUAL: u16 = 50;
/// Entries of a page at most.
const MOST: u16 = 200;

/// The query part of a request's path.
#[derive(Debug, Clone, Default)]
pub struct Asked(HashMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<HashMap<String, String>>::from_request_parts(parts, state).await;
        let invalid = |_| {
            let invalid = Invalid::new("the query cannot be read", "encode it as `name=value&...`");
            Problem::invalid(vec![invalid.at("(query)")])
        };
        Ok(Self(query.map_err(invalid)?.0))
    }
}

impl Asked {
    /// A parameter's value; an empty one counts as absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// A parameter's value, parsed.
    pub fn parsed<T>(&self, name: &str) -> Result<Option<T>, Problem>
    where
        T: std::str::FromStr<Err = Invalid>,
    {
        let value = self.text(name).map(str::parse::<T>).transpose();
        value.map_err(|invalid| Problem::invalid(vec![invalid.at(name)]))
    }

    /// The limit, if one is given.
    pub fn limit(&self) -> Result<Option<u16>, Problem> {
        let Some(text) = self.text("limit") else {
            return Ok(None);
        };
        let limit = text.parse().ok().filter(|limit| (1..=MOST).contains(limit));
        let invalid = || {
            let reason = format!("`{}` is not a limit", claviger_domain::invalid::shown(text));
            Problem::invalid(vec![Invalid::new(reason, format!("give 1 to {MOST}")).at("limit")])
        };
        limit.map(Some).ok_or_else(invalid)
    }

    /// Where a page of this list starts, and how long it is.
    pub fn page(&self, list: &List) -> Result<(Option<String>, u16), Problem> {
        Ok((self.cursor(list)?, self.limit()?.unwrap_or(USUAL)))
    }

    /// A page of a list that is read as a whole, and whose entries have these names. A cursor is the last name of the page
    /// before.
    pub fn page_of<T>(
        &self,
        list: &List,
        all: Vec<T>,
        name: impl Fn(&T) -> String,
    ) -> Result<Page<T>, Problem> {
        let (cursor, limit) = self.page(list)?;
        let mut rest = all.into_iter();
        if let Some(cursor) = cursor {
            rest.by_ref().find(|entry| name(entry) == cursor);
        }
        let mut rest = rest.peekable();
        let items: Vec<T> = rest.by_ref().take(usize::from(limit)).collect();
        let next = items.last().filter(|_| rest.peek().is_some()).map(name);
        Ok(Page { items, next })
    }

    /// Where a page of this list starts.
    pub fn cursor(&self, list: &List) -> Result<Option<String>, Problem> {
        let opened = self.text("cursor").map(|text| list.opened(text)).transpose();
        opened.map_err(|fault| Problem::invalid(vec![fault]))
    }
}

/// A list of an organisation's, or of the vendor's.
#[derive(Debug, Clone, Copy)]
pub struct List {
    /// Which list.
    pub name: &'static str,
    /// Whose; none for the vendor's.
    pub owner: Option<OrganisationId>,
}

/// Bytes of the seal.
const SEAL: usize = 16;

impl List {
    /// What makes a cursor one of this list and organisation: a hash over all three. No secret is in it and
    /// none is needed: docs/adr/0006-cursors-without-a-secret.md.
    fn seal(&self, cursor: &str) -> Vec<u8> {
        let owner = self.owner.map(|owner| owner.to_string()).unwrap_or_default();
        let mut hash = Sha256::new();
        hash.update(b"claviger cursor 1");
        for part in [self.name, &owner, cursor] {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().iter().take(SEAL).copied().collect()
    }

    /// A cursor as it is shown.
    pub fn sealed(&self, cursor: &str) -> String {
        let mut bytes = self.seal(cursor);
        bytes.extend_from_slice(cursor.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// A cursor as the store knows it. One of another list or organisation is refused.
    fn opened(&self, text: &str) -> Result<String, InvalidField> {
        let bytes = if text.len() <= 1024 { BASE64_URL_SAFE_NO_PAD.decode(text).ok() } else { None };
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "#-_:./".contains(letter);
        bytes
            .as_deref()
            .and_then(|bytes| bytes.split_at_checked(SEAL))
            .and_then(|(seal, cursor)| Some((seal, std::str::from_utf8(cursor).ok()?)))
            .filter(|(seal, cursor)| self.seal(cursor) == *seal)
            .map(|(_, cursor)| cursor)
            .filter(|cursor| !cursor.is_empty() && cursor.chars().all(plain))
            .map(str::to_owned)
            .ok_or_else(|| {
                let help = "use `nextCursor` of the page before, exactly, on the same path";
                Invalid::new("it is not a cursor of this list", help).at("cursor")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(number: u128) -> Option<OrganisationId> {
        Some(OrganisationId::from_uuid(uuid::Uuid::from_u128(number)))
    }

    #[test]
    fn i7_a_cursor_opens_only_the_list_and_organisation_that_gave_it() {
        let ours = List { name: "tickets", owner: owner(1) };
        let sealed = ours.sealed("0192#x");
        assert_eq!(ours.opened(&sealed).unwrap(), "0192#x");
        for other in [
            List { name: "tickets", owner: owner(2) },
            List { name: "tickets", owner: None },
            List { name: "audit", owner: owner(1) },
        ] {
            assert!(other.opened(&sealed).is_err());
        }
        for wrong in ["", "x", "=", &ours.sealed(""), &ours.sealed("a\nb"), &"A".repeat(2000)] {
            assert!(ours.opened(wrong).is_err(), "{wrong}");
        }
        let mut changed = BASE64_URL_SAFE_NO_PAD.decode(&sealed).unwrap();
        for at in 0..changed.len() {
            changed[at] ^= 1;
            assert!(ours.opened(&BASE64_URL_SAFE_NO_PAD.encode(&changed)).is_err(), "byte {at}");
            changed[at] ^= 1;
        }
    }
}
