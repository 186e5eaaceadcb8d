//! The session of the key-access role: one for every region, renewed ahead of its end.

use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_sdk_sts::operation::assume_role::AssumeRoleOutput;
use claviger_app::ports::KeyError;
use claviger_domain::observation::{NoAnswerKind, Observation};
use tokio::sync::Mutex;
use tracing::warn;

use crate::errors::{Call, key_error};

/// Chained roles may have an hour at most; a changed trust policy does not end a session, so short ones are better.
pub(super) const SESSION_SECONDS: i32 = 900;
const SESSION_NAME: &str = "claviger";
/// From here on a session is renewed.
const AHEAD: Duration = Duration::from_secs(300);
/// With less than this a session counts as over.
pub(super) const MARGIN: Duration = Duration::from_secs(20);
/// After a renewal failed, while the session still lives.
const PAUSE: Duration = Duration::from_secs(15);

/// A role and its current session.
#[derive(Debug)]
pub(super) struct Session {
    sts: aws_sdk_sts::Client,
    role: String,
    current: RwLock<Option<Credentials>>,
    /// Held while the session is renewed: one AssumeRole, whoever asks. Until when not to try again.
    renewal: Mutex<Option<SystemTime>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Fresh,
    Ending,
    Over,
}

fn life(expiry: Option<SystemTime>, now: SystemTime) -> Life {
    let left = expiry.and_then(|expiry| expiry.duration_since(now).ok()).unwrap_or_default();
    if left > AHEAD {
        Life::Fresh
    } else if left > MARGIN {
        Life::Ending
    } else {
        Life::Over
    }
}

impl Session {
    pub(super) fn new(sts: aws_sdk_sts::Client, role: String) -> Self {
        Self { sts, role, current: RwLock::default(), renewal: Mutex::default() }
    }

    fn current(&self) -> Option<Credentials> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn life(&self) -> Life {
        self.current().map_or(Life::Over, |session| life(session.expiry(), SystemTime::now()))
    }

    /// Makes sure that there is a session that lives.
    pub(super) async fn ensure(&self) -> Result<(), KeyError> {
        match self.life() {
            Life::Fresh => return Ok(()),
            Life::Ending => {
                // Somebody else renews it already: what there is will do.
                let Ok(mut pause) = self.renewal.try_lock() else {
                    return Ok(());
                };
                if pause.is_some_and(|until| SystemTime::now() < until) || self.life() == Life::Fresh {
                    return Ok(());
                }
                if let Err(error) = self.renew().await {
                    *pause = SystemTime::now().checked_add(PAUSE);
                    warn!(
                        outcome = error.code,
                        "the key-access session could not be renewed ahead of its end"
                    );
                }
            }
            Life::Over => {
                let _renewal = self.renewal.lock().await;
                if self.life() == Life::Over {
                    self.renew().await?;
                }
            }
        }
        Ok(())
    }

    async fn renew(&self) -> Result<(), KeyError> {
        let answer = self
            .sts
            .assume_role()
            .role_arn(&self.role)
            .role_session_name(SESSION_NAME)
            .duration_seconds(SESSION_SECONDS)
            .send()
            .await
            .map_err(|error| key_error(Call::OwnRole, &error))?;
        let credentials = credentials(answer, "key-access-role")?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(credentials);
        Ok(())
    }
}

/// The credentials of an AssumeRole's answer.
pub(super) fn credentials(answer: AssumeRoleOutput, name: &'static str) -> Result<Credentials, KeyError> {
    let session = answer.credentials.ok_or_else(|| KeyError {
        observation: Observation::NoAnswer(NoAnswerKind::OurFault),
        code: "incomplete-answer".to_owned(),
        request_id: None,
    })?;
    let expiry = SystemTime::try_from(session.expiration).ok();
    let (id, secret, token) = (session.access_key_id, session.secret_access_key, session.session_token);
    Ok(Credentials::new(id, secret, Some(token), expiry, name))
}

impl ProvideCredentials for Session {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let session: provider::Result = self
            .current()
            .ok_or_else(|| CredentialsError::not_loaded("no session of the key-access role yet"));
        future::ProvideCredentials::ready(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Some(900), Life::Fresh)]
    #[case(Some(300), Life::Ending)]
    #[case(Some(21), Life::Ending)]
    #[case(Some(20), Life::Over)]
    #[case(None, Life::Over)]
    fn a_session_is_renewed_before_it_ends(#[case] left: Option<u64>, #[case] expected: Life) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(life(left.map(|left| now + Duration::from_secs(left)), now), expected);
    }
}
