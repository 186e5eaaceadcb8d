//! What an error of an SDK means for a batch.

use crate::store::RecordStoreError;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

/// Codes with which a store says that it wants less at a time.
const THROTTLED: [&str; 8] = [
    "ThrottlingException",
    "ThrottledException",
    "Throttling",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "SlowDown",
    "TooManyRequestsException",
];

/// The error's code and the call, never what the service says about it: that may quote the item.
pub(super) fn trouble<E: ProvideErrorMetadata>(
    call: &'static str,
    error: &SdkError<E, HttpResponse>,
) -> RecordStoreError {
    let (code, status) = match error {
        SdkError::ServiceError(answer) => (answer.err().code(), answer.raw().status().as_u16()),
        SdkError::ConstructionFailure(_) => {
            return RecordStoreError::Refused { reason: format!("{call}: the request could not be made") };
        }
        SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) => (None, 503),
        SdkError::ResponseError(_) => (None, 502),
        _ => (None, 500),
    };
    let reason = format!("{call}: {}", code.unwrap_or("no answer"));
    match code {
        Some(code) if THROTTLED.contains(&code) => RecordStoreError::Throttled,
        // Two writes met; the next look decides.
        Some("TransactionConflictException" | "OperationAborted") => RecordStoreError::Unavailable { reason },
        // Credentials that ran out are renewed; rights that are missing are not.
        Some("ExpiredToken" | "ExpiredTokenException" | "RequestTimeout") => {
            RecordStoreError::Unavailable { reason }
        }
        _ if status == 429 => RecordStoreError::Throttled,
        _ if status >= 500 => RecordStoreError::Unavailable { reason },
        _ => RecordStoreError::Refused { reason },
    }
}

pub(super) fn refused(reason: impl Into<String>) -> RecordStoreError {
    RecordStoreError::Refused { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::config::http::HttpResponse;
    use aws_sdk_dynamodb::error::ErrorMetadata;
    use aws_sdk_dynamodb::operation::scan::ScanError;

    fn answered(code: &str, status: u16) -> Option<RecordStoreError> {
        let metadata = ErrorMetadata::builder().code(code).message("quotes the item").build();
        let response = HttpResponse::new(status.try_into().ok()?, "".into());
        Some(trouble("dynamodb:Scan", &SdkError::service_error(ScanError::generic(metadata), response)))
    }

    #[test]
    fn i2_only_what_will_not_heal_is_a_refusal() {
        for code in ["ThrottlingException", "ProvisionedThroughputExceededException", "SlowDown"] {
            assert_eq!(answered(code, 400), Some(RecordStoreError::Throttled), "{code}");
        }
        for (code, status) in
            [("InternalServerError", 500), ("ServiceUnavailable", 503), ("ExpiredTokenException", 400)]
        {
            let error = answered(code, status);
            assert!(matches!(error, Some(RecordStoreError::Unavailable { .. })), "{code}: {error:?}");
        }
        for (code, status) in [("AccessDeniedException", 400), ("NoSuchBucket", 404)] {
            let reason = format!("dynamodb:Scan: {code}");
            assert_eq!(answered(code, status), Some(RecordStoreError::Refused { reason }));
        }
        let silent = SdkError::<ScanError, HttpResponse>::timeout_error("slow");
        assert!(matches!(trouble("dynamodb:Scan", &silent), RecordStoreError::Unavailable { .. }));
    }
}
