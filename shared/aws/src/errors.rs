//! The one table from an SDK error to what it says about a customer's key.
//!
//! Codes are matched, never messages; what is not in the table is our own fault, so nothing that AWS invents tomorrow
//! suspends anybody (spec R3, I2). Sources: the KMS and STS API references, "Common errors" included.

use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use claviger_app::ports::KeyError;
use claviger_domain::observation::{NoAnswerKind, Observation, RefusalKind};

/// Which call failed: the same code means different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// An operation under a customer's key.
    CustomerKey,
    /// AssumeRole of a role in a customer's account: it may refuse us.
    CustomerRole,
    /// AssumeRole of the vendor's key-access role: no customer has a say in that.
    OwnRole,
}

/// What a service's error code says. `status` is the answer's HTTP status, for codes that are not known.
pub fn classify(call: Call, code: Option<&str>, status: Option<u16>) -> Observation {
    let code = code.unwrap_or_default();
    match (call, code) {
        (Call::CustomerKey, "DisabledException") => Observation::Refused(RefusalKind::KeyDisabled),
        (Call::CustomerKey, "AccessDeniedException") => Observation::Refused(RefusalKind::AccessDenied),
        (Call::CustomerKey, "NotFoundException") => Observation::Refused(RefusalKind::KeyNotFound),
        // The key's state does not allow it. Ambiguous as it stands; DescribeKey knows which state that is (see
        // `claviger_app::explain_refusal`).
        (Call::CustomerKey, "KMSInvalidStateException") => Observation::Refused(RefusalKind::InvalidState),
        // Role gone, trust denied, wrong external id, SCP: they cannot be told apart.
        (Call::CustomerRole, "AccessDenied") => Observation::Refused(RefusalKind::RoleDenied),
        (Call::CustomerKey | Call::CustomerRole | Call::OwnRole, _) => {
            Observation::NoAnswer(no_answer(code, status))
        }
    }
}

fn no_answer(code: &str, status: Option<u16>) -> NoAnswerKind {
    match code {
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "SlowDown"
        | "PriorRequestNotComplete" => NoAnswerKind::Throttled,
        "KeyUnavailableException"
        | "DependencyTimeoutException"
        | "KMSInternalException"
        | "InternalFailure"
        | "InternalError"
        | "InternalServerError"
        | "InternalServerException"
        | "InternalServiceError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "RequestTimeout"
        | "RequestTimeoutException" => NoAnswerKind::Unreachable,
        // Known, and ours: quotas, credentials, requests that should not have been sent like this.
        "LimitExceededException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationTokenError"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "NotAuthorized"
        | "OptInRequired"
        | "RegionDisabledException"
        | "AccessDenied"
        | "AccessDeniedException"
        | "CustomKeyStoreInvalidStateException"
        | "CustomKeyStoreNotFoundException"
        | "DryRunOperationException"
        | "InvalidGrantTokenException"
        | "IncorrectKeyException"
        | "InvalidCiphertextException"
        | "InvalidKeyUsageException"
        | "InvalidArnException"
        | "MalformedPolicyDocument"
        | "PackedPolicyTooLarge"
        | "SerializationException"
        | "UnknownOperationException"
        | "UnsupportedOperationException"
        | "ValidationError"
        | "ValidationException" => NoAnswerKind::OurFault,
        // Unknown: the status may still say that the service was ill, or wanted us to slow down.
        _ => match status {
            Some(429) => NoAnswerKind::Throttled,
            Some(500..=599) => NoAnswerKind::Unreachable,
            Some(_) | None => NoAnswerKind::OurFault,
        },
    }
}

/// What a failed call of the SDK says.
pub fn key_error<E>(call: Call, error: &SdkError<E, HttpResponse>) -> KeyError
where
    E: ProvideErrorMetadata,
{
    let (observation, code) = match error {
        SdkError::ServiceError(service) => {
            let code = service.err().code();
            let status = service.raw().status().as_u16();
            (classify(call, code, Some(status)), code.unwrap_or("no-code"))
        }
        SdkError::TimeoutError(_) => (Observation::NoAnswer(NoAnswerKind::Unreachable), "timeout"),
        // Connection, TLS, DNS: the way there. A request that our own client could not build is ours.
        SdkError::DispatchFailure(failure) if failure.is_user() => {
            (Observation::NoAnswer(NoAnswerKind::OurFault), "request-not-sent")
        }
        SdkError::DispatchFailure(_) => (Observation::NoAnswer(NoAnswerKind::Unreachable), "no-connection"),
        SdkError::ResponseError(answer) => {
            let status = answer.raw().status().as_u16();
            (classify(call, None, Some(status)), "unreadable-answer")
        }
        SdkError::ConstructionFailure(_) => {
            (Observation::NoAnswer(NoAnswerKind::OurFault), "request-not-built")
        }
        _ => (Observation::NoAnswer(NoAnswerKind::OurFault), "unknown"),
    };
    let request_id = error.request_id().map(str::to_owned);
    KeyError { observation, code: code.to_owned(), request_id }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_kms::error::{ConnectorError, ErrorMetadata};
    use aws_sdk_kms::operation::decrypt::DecryptError;
    use rstest::rstest;

    const fn refused(kind: RefusalKind) -> Observation {
        Observation::Refused(kind)
    }
    const fn silent(kind: NoAnswerKind) -> Observation {
        Observation::NoAnswer(kind)
    }

    #[rstest]
    #[case::disabled("DisabledException", 400, refused(RefusalKind::KeyDisabled))]
    #[case::denied("AccessDeniedException", 400, refused(RefusalKind::AccessDenied))]
    #[case::not_found("NotFoundException", 400, refused(RefusalKind::KeyNotFound))]
    #[case::invalid_state("KMSInvalidStateException", 400, refused(RefusalKind::InvalidState))]
    #[case::key_unavailable("KeyUnavailableException", 500, silent(NoAnswerKind::Unreachable))]
    #[case::dependency("DependencyTimeoutException", 503, silent(NoAnswerKind::Unreachable))]
    #[case::internal("KMSInternalException", 500, silent(NoAnswerKind::Unreachable))]
    #[case::throttled("ThrottlingException", 400, silent(NoAnswerKind::Throttled))]
    #[case::limit("LimitExceededException", 400, silent(NoAnswerKind::OurFault))]
    #[case::expired("ExpiredTokenException", 400, silent(NoAnswerKind::OurFault))]
    #[case::no_credentials("UnrecognizedClientException", 400, silent(NoAnswerKind::OurFault))]
    #[case::missing_token("MissingAuthenticationTokenException", 400, silent(NoAnswerKind::OurFault))]
    #[case::signature("InvalidSignatureException", 403, silent(NoAnswerKind::OurFault))]
    #[case::grant("InvalidGrantTokenException", 400, silent(NoAnswerKind::OurFault))]
    #[case::incorrect_key("IncorrectKeyException", 400, silent(NoAnswerKind::OurFault))]
    #[case::ciphertext("InvalidCiphertextException", 400, silent(NoAnswerKind::OurFault))]
    #[case::usage("InvalidKeyUsageException", 400, silent(NoAnswerKind::OurFault))]
    #[case::validation("ValidationException", 400, silent(NoAnswerKind::OurFault))]
    #[case::dry_run("DryRunOperationException", 400, silent(NoAnswerKind::OurFault))]
    // Of calls that make keys in a custom key store or change one; a key whose store is disconnected answers
    // `KMSInvalidStateException`, and DescribeKey says `Unavailable`.
    #[case::key_store("CustomKeyStoreInvalidStateException", 400, silent(NoAnswerKind::OurFault))]
    fn r3_each_answer_of_kms_has_its_class(
        #[case] code: &str,
        #[case] status: u16,
        #[case] expected: Observation,
    ) {
        assert_eq!(classify(Call::CustomerKey, Some(code), Some(status)), expected);
    }

    #[rstest]
    #[case(Some("FancyNewException"), 400)]
    #[case(Some("KeyMelancholyException"), 403)]
    #[case(Some(""), 404)]
    #[case(None, 200)]
    #[case(Some("disabledexception"), 400)]
    #[case(Some("AccessDenied"), 400)]
    fn r3_a_code_that_nobody_knows_is_our_own_fault(#[case] code: Option<&str>, #[case] status: u16) {
        let seen = classify(Call::CustomerKey, code, Some(status));
        assert_eq!(seen, silent(NoAnswerKind::OurFault));
    }

    #[rstest]
    #[case(None, 503, NoAnswerKind::Unreachable)]
    #[case(Some("FancyNewException"), 500, NoAnswerKind::Unreachable)]
    #[case(None, 429, NoAnswerKind::Throttled)]
    fn r3_an_unknown_answer_of_an_ill_service_is_no_answer(
        #[case] code: Option<&str>,
        #[case] status: u16,
        #[case] expected: NoAnswerKind,
    ) {
        assert_eq!(classify(Call::CustomerKey, code, Some(status)), silent(expected));
    }

    /// The client's own words for what went wrong on the way: nobody at KMS has said anything.
    #[rstest]
    #[case::dns(ConnectorError::io("failed to lookup address information: Name or service not known".into()))]
    #[case::tls(ConnectorError::io("invalid peer certificate: Expired".into()))]
    #[case::refused(ConnectorError::io("connection refused".into()))]
    #[case::connect_timeout(ConnectorError::timeout("connect timed out".into()))]
    #[case::anything_else(ConnectorError::other("AccessDeniedException".into(), None))]
    fn r3_a_name_that_does_not_resolve_and_whatever_else_fails_on_the_way_is_no_refusal(
        #[case] failure: ConnectorError,
    ) {
        let error: SdkError<DecryptError, HttpResponse> = SdkError::dispatch_failure(failure);
        for call in [Call::CustomerKey, Call::CustomerRole, Call::OwnRole] {
            let seen = key_error(call, &error);
            assert_eq!(
                (seen.observation, seen.code.as_str()),
                (silent(NoAnswerKind::Unreachable), "no-connection")
            );
        }
    }

    #[test]
    fn r3_a_request_that_our_own_client_could_not_send_is_ours() {
        let failure = ConnectorError::user("no such scheme".into());
        let error: SdkError<DecryptError, HttpResponse> = SdkError::dispatch_failure(failure);
        let seen = key_error(Call::CustomerKey, &error);
        assert_eq!(seen.observation, silent(NoAnswerKind::OurFault));
    }

    /// What each kind of failure says, whatever status comes with it.
    #[test]
    fn r3_an_answer_that_came_counts_by_its_code_and_one_that_did_not_or_cannot_be_read_is_no_refusal() {
        let answer = |status: u16| HttpResponse::new(status.try_into().unwrap(), "?".into());
        let said = |code: &str, status: u16| {
            let metadata = ErrorMetadata::builder().code(code).build();
            SdkError::service_error(DecryptError::generic(metadata), answer(status))
        };
        let failures = [
            (said("DisabledException", 400), refused(RefusalKind::KeyDisabled), "DisabledException"),
            (
                said("KeyUnavailableException", 400),
                silent(NoAnswerKind::Unreachable),
                "KeyUnavailableException",
            ),
            (said("ExpiredTokenException", 500), silent(NoAnswerKind::OurFault), "ExpiredTokenException"),
            (SdkError::timeout_error("late"), silent(NoAnswerKind::Unreachable), "timeout"),
            (SdkError::response_error("?", answer(200)), silent(NoAnswerKind::OurFault), "unreadable-answer"),
            (
                SdkError::response_error("?", answer(503)),
                silent(NoAnswerKind::Unreachable),
                "unreadable-answer",
            ),
            (SdkError::construction_failure("?"), silent(NoAnswerKind::OurFault), "request-not-built"),
        ];
        for (error, expected, code) in failures {
            let seen = key_error(Call::CustomerKey, &error);
            assert_eq!((seen.observation, seen.code.as_str()), (expected, code));
        }
    }

    #[rstest]
    #[case::customer(Call::CustomerRole, "AccessDenied", refused(RefusalKind::RoleDenied))]
    #[case::our_own_role(Call::OwnRole, "AccessDenied", silent(NoAnswerKind::OurFault))]
    #[case::expired(Call::CustomerRole, "ExpiredToken", silent(NoAnswerKind::OurFault))]
    #[case::no_such_id(Call::CustomerRole, "InvalidClientTokenId", silent(NoAnswerKind::OurFault))]
    #[case::region(Call::CustomerRole, "RegionDisabledException", silent(NoAnswerKind::OurFault))]
    #[case::throttled(Call::CustomerRole, "Throttling", silent(NoAnswerKind::Throttled))]
    #[case::ill(Call::OwnRole, "InternalFailure", silent(NoAnswerKind::Unreachable))]
    #[case::disabled_is_no_word_of_sts(
        Call::CustomerRole,
        "DisabledException",
        silent(NoAnswerKind::OurFault)
    )]
    fn r4_a_refused_role_is_a_refusal_only_if_the_role_is_the_customers(
        #[case] call: Call,
        #[case] code: &str,
        #[case] expected: Observation,
    ) {
        assert_eq!(classify(call, Some(code), Some(403)), expected);
    }

    proptest::proptest! {
        /// Total: whatever AWS invents, only what is listed above as the customer's word is one.
        #[test]
        fn r3_whatever_code_and_status_come_only_the_listed_ones_refuse(
            code in proptest::option::of("[A-Za-z.#]{0,40}"),
            status in proptest::option::of(100_u16..600),
            call in 0_usize..3,
        ) {
            let call = [Call::CustomerKey, Call::CustomerRole, Call::OwnRole][call];
            let listed: &[&str] = match call {
                Call::CustomerKey => {
                    &["DisabledException", "AccessDeniedException", "NotFoundException", "KMSInvalidStateException"]
                }
                Call::CustomerRole => &["AccessDenied"],
                Call::OwnRole => &[],
            };
            let refused = matches!(classify(call, code.as_deref(), status), Observation::Refused(_));
            proptest::prop_assert_eq!(refused, code.is_some_and(|code| listed.contains(&code.as_str())));
        }
    }
}
