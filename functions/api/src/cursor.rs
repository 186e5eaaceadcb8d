//! Pages of lists: `?limit=` and `?cursor=`. A cursor is opaque and bound to its list and organisation.

use std::collections::HashMap;

use axum::extract::FromRequestParts;
use axum::extract::Query;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use claviger_domain::invalid::{Invalid, InvalidField};
use claviger_lambda::problem::Problem;
use http::request::Parts;

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
    pub fn page(&self, list: &List<'_>) -> Result<(Option<String>, u16), Problem> {
        Ok((self.cursor(list)?, self.limit()?.unwrap_or(USUAL)))
    }

    /// Where a page of this list starts.
    pub fn cursor(&self, list: &List<'_>) -> Result<Option<String>, Problem> {
        let opened = self.text("cursor").map(|text| list.opened(text)).transpose();
        opened.map_err(|fault| Problem::invalid(vec![fault]))
    }
}

/// A list of an organisation's, or of the vendor's where `owner` is empty.
#[derive(Debug, Clone, Copy)]
pub struct List<'a> {
    /// Which list.
    pub name: &'a str,
    /// Whose.
    pub owner: &'a str,
}

impl List<'_> {
    fn prefix(&self) -> String {
        format!("{}\n{}\n", self.name, self.owner)
    }

    /// A cursor as it is shown.
    pub fn sealed(&self, cursor: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{}{cursor}", self.prefix()))
    }

    /// A cursor as the store knows it. One of another list or organisation is refused; one that somebody
    /// made up can lead nowhere but into this list, because the store adds the rest of the key.
    fn opened(&self, text: &str) -> Result<String, InvalidField> {
        let bytes = if text.len() <= 1024 { BASE64_URL_SAFE_NO_PAD.decode(text).ok() } else { None };
        let opened = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "#-_:.".contains(letter);
        opened
            .as_deref()
            .and_then(|text| text.strip_prefix(&self.prefix()))
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

    #[test]
    fn i7_a_cursor_opens_only_the_list_and_organisation_that_gave_it() {
        let ours = List { name: "tickets", owner: "acme" };
        let sealed = ours.sealed("0192#x");
        assert_eq!(ours.opened(&sealed).unwrap(), "0192#x");
        for other in [List { name: "tickets", owner: "globex" }, List { name: "audit", owner: "acme" }] {
            assert!(other.opened(&sealed).is_err());
        }
        for wrong in ["", "x", "=", &ours.sealed(""), &ours.sealed("a\nb"), &"A".repeat(2000)] {
            assert!(ours.opened(wrong).is_err(), "{wrong}");
        }
    }
}
