//! How an app names what it stores: `{organisation}/{site}/{app}/{type}/{record}`.
//!
//! A store must find a place's records, and for each of them the context under which the app sealed it. Both follow
//! from the names that the app gives its items, so a store is set up by configuration and not by code.

use crate::store::Place;
use serde::Deserialize;

/// A name with blanks: `{organisation}`, `{site}`, `{app}`, `{type}` (the data type) and `{record}` (the record id).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Organisation,
    Site,
    App,
    Type,
    Record,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` names no items: {why}")]
pub struct PatternError {
    pattern: String,
    why: &'static str,
}

/// What an item's name says beyond its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    pub data_type: Option<String>,
    pub record_id: Option<String>,
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;
    fn try_from(pattern: String) -> Result<Self, PatternError> {
        Self::parse(&pattern)
    }
}

impl Pattern {
    /// # Errors
    /// A blank that is unknown, not closed, there twice, or borders on another so that nobody can tell them apart.
    pub fn parse(pattern: &str) -> Result<Self, PatternError> {
        let wrong = |why| PatternError { pattern: pattern.to_owned(), why };
        let mut parts = Vec::new();
        let mut rest = pattern;
        while !rest.is_empty() {
            if let Some(inside) = rest.strip_prefix('{') {
                let (blank, after) = inside.split_once('}').ok_or_else(|| wrong("a brace is not closed"))?;
                let part = match blank {
                    "organisation" => Part::Organisation,
                    "site" => Part::Site,
                    "app" => Part::App,
                    "type" => Part::Type,
                    "record" => Part::Record,
                    _ => {
                        return Err(wrong(
                            "a blank is none of `organisation`, `site`, `app`, `type`, `record`",
                        ));
                    }
                };
                if parts.contains(&part) {
                    return Err(wrong("a blank is there twice"));
                }
                if parts.last().is_some_and(|before| !matches!(before, Part::Text(_))) {
                    return Err(wrong("two blanks border on each other"));
                }
                parts.push(part);
                rest = after;
            } else {
                let (text, after) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
                parts.push(Part::Text(text.to_owned()));
                rest = after;
            }
        }
        Ok(Self { parts })
    }

    /// The name as far as it follows from the place alone.
    #[must_use]
    pub fn prefix(&self, of: &Place) -> String {
        self.parts.iter().map_while(|part| part.of(of)).collect()
    }

    /// The whole name, if it follows from the place alone.
    #[must_use]
    pub fn whole(&self, of: &Place) -> Option<String> {
        self.parts.iter().map(|part| part.of(of)).collect()
    }

    /// What a name says, if it is one of this place's. The last blank takes the rest; another one ends where the
    /// text after it is found first.
    #[must_use]
    pub fn read(&self, of: &Place, name: &str) -> Option<Named> {
        let mut named = Named::default();
        let mut rest = name;
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            if let Some(text) = part.of(of) {
                rest = rest.strip_prefix(text)?;
                continue;
            }
            let (blank, after) = match parts.peek().and_then(|next| next.of(of)) {
                Some(text) => rest.split_at(rest.find(text)?),
                None => (rest, ""),
            };
            rest = after;
            let to = if *part == Part::Type { &mut named.data_type } else { &mut named.record_id };
            *to = Some(blank.to_owned()).filter(|blank| !blank.is_empty());
            to.as_ref()?;
        }
        rest.is_empty().then_some(named)
    }
}

impl Part {
    /// What stands here for a place; `None`: that depends on the record.
    fn of<'a>(&'a self, place: &'a Place) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Organisation => Some(&place.organisation),
            Self::Site => Some(&place.site),
            Self::App => Some(&place.app),
            Self::Type | Self::Record => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { organisation: "acme".into(), site: "acme-eng".into(), app: "jira".into() }
    }

    fn read(pattern: &str, name: &str) -> Option<(Option<String>, Option<String>)> {
        let named = Pattern::parse(pattern).ok()?.read(&place(), name)?;
        Some((named.data_type, named.record_id))
    }

    #[test]
    fn a_name_gives_back_type_and_record_and_only_those_of_its_place() {
        let full = "{organisation}/{site}/{app}/{type}/{record}";
        let found = |data_type: &str, record: &str| Some((Some(data_type.into()), Some(record.into())));
        assert_eq!(read(full, "acme/acme-eng/jira/note/n-1"), found("note", "n-1"));
        assert_eq!(read(full, "acme/acme-eng/jira/note/a/b"), found("note", "a/b"));
        assert_eq!(read("{record}", "n/1"), Some((None, Some("n/1".into()))));
        assert_eq!(read("x/{record}.bin", "x/n-1.bin"), Some((None, Some("n-1".into()))));
        for stranger in
            ["acme/acme-eng/jira2/note/n-1", "acme/acme-eng/jira/note", "acme/acme-eng/jira//n", ""]
        {
            assert_eq!(read(full, stranger), None, "{stranger}");
        }
        assert_eq!(read("x/{record}.bin", "x/n-1.bin.old"), None);
    }

    #[test]
    fn a_place_is_filled_in_as_far_as_it_goes() -> Result<(), PatternError> {
        let full = Pattern::parse("{organisation}/{site}/{app}/{type}/{record}")?;
        assert_eq!(full.prefix(&place()), "acme/acme-eng/jira/");
        assert_eq!(full.whole(&place()), None);
        assert_eq!(
            Pattern::parse("{organisation}/{site}")?.whole(&place()).as_deref(),
            Some("acme/acme-eng")
        );
        Ok(())
    }

    #[test]
    fn what_cannot_be_read_back_is_no_pattern() {
        for pattern in ["{record", "{tenant}/{record}", "{type}{record}", "{record}/{record}"] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}
