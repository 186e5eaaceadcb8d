//! Says what a refusal means where KMS's answer alone does not: DescribeKey knows the key's state. The only place that
//! asks it for that; a broker does not, for what it meets is a hint, whatever it means.

use claviger_domain::observation::{NoAnswerKind, Observation, RefusalKind};

use crate::ports::{CustomerKeys, KeyError, KeyRef};

/// Whether it was KMS that answered, or did not: where the customer's role lets nobody in, nobody asked it.
pub(crate) const fn reached_kms(seen: Observation) -> bool {
    !matches!(seen, Observation::Refused(RefusalKind::RoleDenied))
}

/// The refusal about which DescribeKey is asked, if it is one.
pub(crate) const fn to_explain(seen: Observation) -> Option<RefusalKind> {
    match seen {
        // KMS was not reached: there is nothing that DescribeKey could explain.
        Observation::Refused(RefusalKind::RoleDenied) => None,
        Observation::Refused(kind) if !kind.is_definite() => Some(kind),
        Observation::Usable | Observation::Refused(_) | Observation::NoAnswer(_) => None,
    }
}

/// What a failed call says about a key. An ambiguous refusal that the key's state explains is what the state says;
/// where DescribeKey is denied too, it stays ambiguous.
pub async fn explained(keys: &dyn CustomerKeys, key: KeyRef<'_>, error: &KeyError) -> Observation {
    let Some(ambiguous) = to_explain(error.observation) else {
        return match error.observation {
            // A success cannot come with an error; were it so, it is our fault, not the customer's.
            Observation::Usable => Observation::NoAnswer(NoAnswerKind::OurFault),
            seen @ (Observation::Refused(_) | Observation::NoAnswer(_)) => seen,
        };
    };
    let described = keys.describe(key).await;
    let state = described.as_ref().map(|found| found.state.as_str()).map_err(|no| no.observation);
    with_state(ambiguous, state)
}

/// An ambiguous refusal together with what DescribeKey answered.
fn with_state(kind: RefusalKind, described: Result<&str, Observation>) -> Observation {
    match (described, kind) {
        (Ok("Disabled"), _) => Observation::Refused(RefusalKind::KeyDisabled),
        (Ok("PendingDeletion" | "PendingReplicaDeletion"), _) => {
            Observation::Refused(RefusalKind::KeyPendingDeletion)
        }
        (Ok("PendingImport"), _) => Observation::Refused(RefusalKind::KeyPendingImport),
        (Ok("Unavailable"), _) => Observation::Refused(RefusalKind::KeyUnavailable),
        (Ok("Creating" | "Updating"), _) => Observation::NoAnswer(NoAnswerKind::Unreachable),
        // A key that works, and that we may not use; or a custom key store that is disconnected.
        (Ok("Enabled"), _) => Observation::Refused(kind),
        // `Invalid state` is about a state. While nobody says which, or it is one that nobody knows, it says nothing.
        (Ok(_), RefusalKind::InvalidState) => Observation::NoAnswer(NoAnswerKind::OurFault),
        (Err(Observation::NoAnswer(why)), RefusalKind::InvalidState) => Observation::NoAnswer(why),
        (Ok(_) | Err(_), _) => Observation::Refused(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const AMBIGUOUS: [RefusalKind; 3] =
        [RefusalKind::AccessDenied, RefusalKind::KeyNotFound, RefusalKind::InvalidState];

    const fn refused(kind: RefusalKind) -> Observation {
        Observation::Refused(kind)
    }
    const fn silent(kind: NoAnswerKind) -> Observation {
        Observation::NoAnswer(kind)
    }

    #[rstest]
    #[case("PendingDeletion", refused(RefusalKind::KeyPendingDeletion))]
    #[case("PendingReplicaDeletion", refused(RefusalKind::KeyPendingDeletion))]
    #[case("PendingImport", refused(RefusalKind::KeyPendingImport))]
    #[case("Unavailable", refused(RefusalKind::KeyUnavailable))]
    #[case("Disabled", refused(RefusalKind::KeyDisabled))]
    #[case("Creating", silent(NoAnswerKind::Unreachable))]
    #[case("Updating", silent(NoAnswerKind::Unreachable))]
    fn r3_an_ambiguous_refusal_is_what_the_keys_state_says(
        #[case] state: &str,
        #[case] expected: Observation,
    ) {
        for kind in AMBIGUOUS {
            assert_eq!(with_state(kind, Ok(state)), expected, "{kind:?}");
        }
    }

    #[test]
    fn r4_a_key_that_is_enabled_or_in_a_state_of_tomorrow_leaves_a_refusal_ambiguous_or_says_nothing() {
        for kind in AMBIGUOUS {
            assert_eq!(with_state(kind, Ok("Enabled")), refused(kind));
        }
        assert_eq!(with_state(RefusalKind::InvalidState, Ok("Hibernating")), silent(NoAnswerKind::OurFault));
        assert_eq!(
            with_state(RefusalKind::AccessDenied, Ok("Hibernating")),
            refused(RefusalKind::AccessDenied)
        );
    }

    #[rstest]
    #[case::denied(refused(RefusalKind::AccessDenied), refused(RefusalKind::InvalidState))]
    #[case::throttled(silent(NoAnswerKind::Throttled), silent(NoAnswerKind::Throttled))]
    #[case::silent(silent(NoAnswerKind::Unreachable), silent(NoAnswerKind::Unreachable))]
    fn r4_without_describe_key_no_refusal_is_definite(
        #[case] described: Observation,
        #[case] expected: Observation,
    ) {
        assert_eq!(with_state(RefusalKind::InvalidState, Err(described)), expected);
        for kind in AMBIGUOUS {
            let seen = with_state(kind, Err(described));
            assert!(!matches!(seen, Observation::Refused(kind) if kind.is_definite()), "{kind:?}");
        }
    }
}
