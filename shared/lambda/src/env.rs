//! Settings from environment variables. A wrong one names itself, the reason and the remedy, so that a
//! deployment that cannot work says so in its first log line.

use std::fmt::Display;
use std::str::FromStr;

use jiff::SignedDuration;

/// A variable that is missing or wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {reason}; {remedy}")]
pub struct SettingsError {
    /// Which variable.
    pub variable: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl SettingsError {
    /// Says what is wrong with a variable and what to do.
    pub fn new(variable: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { variable: variable.to_owned(), reason: reason.into(), remedy: remedy.into() }
    }
}

/// Where variables are read from: the process, or a map in tests.
pub struct Variables<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

fn of_process(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl<'a> Variables<'a> {
    /// Variables that `lookup` knows.
    pub const fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup }
    }

    /// The variables of the process.
    pub const fn process() -> Variables<'static> {
        Variables { lookup: &of_process }
    }

    /// A variable's text; an empty one counts as absent, because a template cannot leave one out.
    pub fn optional(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|text| !text.trim().is_empty())
    }

    /// A variable's text.
    ///
    /// # Errors
    /// When it is absent or empty.
    pub fn required(&self, name: &str) -> Result<String, SettingsError> {
        self.optional(name).ok_or_else(|| {
            SettingsError::new(name, "the variable is not set", "set it in the function's environment")
        })
    }

    /// A variable's value.
    ///
    /// # Errors
    /// When it is absent, or cannot be parsed.
    pub fn parsed<T>(&self, name: &str) -> Result<T, SettingsError>
    where
        T: FromStr,
        T::Err: Display,
    {
        let text = self.required(name)?;
        text.parse().map_err(|error: T::Err| {
            SettingsError::new(name, error.to_string(), "correct the deploy parameter that sets it")
        })
    }

    /// A variable's value, or the default when it is absent.
    ///
    /// # Errors
    /// When it cannot be parsed.
    pub fn parsed_or<T>(&self, name: &str, default: T) -> Result<T, SettingsError>
    where
        T: FromStr,
        T::Err: Display,
    {
        if self.optional(name).is_none() { Ok(default) } else { self.parsed(name) }
    }

    /// A time in whole milliseconds, more than none and at most a day, or the default when it is absent.
    ///
    /// # Errors
    /// When it is no such number.
    pub fn millis_or(&self, name: &str, default: SignedDuration) -> Result<SignedDuration, SettingsError> {
        if self.optional(name).is_none() {
            return Ok(default);
        }
        let millis: u32 = self.parsed(name)?;
        if (1..=86_400_000).contains(&millis) {
            return Ok(SignedDuration::from_millis(i64::from(millis)));
        }
        let reason = format!("`{millis}` ms is out of range");
        Err(SettingsError::new(name, reason, "give 1 to 86400000 milliseconds"))
    }
}

/// A variable of the process.
///
/// # Errors
/// When it is absent or empty.
pub fn required(name: &str) -> Result<String, SettingsError> {
    Variables::process().required(name)
}

/// A variable of the process; an empty one counts as absent.
pub fn optional(name: &str) -> Option<String> {
    Variables::process().optional(name)
}

/// A variable's value.
///
/// # Errors
/// When it is absent, or cannot be parsed.
pub fn parsed<T>(name: &str) -> Result<T, SettingsError>
where
    T: FromStr,
    T::Err: Display,
{
    Variables::process().parsed(name)
}

/// A variable's value, or the default when it is absent.
///
/// # Errors
/// When it cannot be parsed.
pub fn parsed_or<T>(name: &str, default: T) -> Result<T, SettingsError>
where
    T: FromStr,
    T::Err: Display,
{
    Variables::process().parsed_or(name, default)
}

/// A time in milliseconds, or the default when it is absent.
///
/// # Errors
/// When it is not 1 to 86,400,000.
pub fn millis_or(name: &str, default: SignedDuration) -> Result<SignedDuration, SettingsError> {
    Variables::process().millis_or(name, default)
}
