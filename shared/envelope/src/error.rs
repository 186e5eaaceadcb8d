//! What can go wrong, each with its remedy. No message carries a key, a plaintext or a ciphertext.

/// Why the library gave out nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The customer withdrew its keys, or the vendor closed the policy. Sticky until restored (HTTP 409).
    #[error("the organisation's encryption policy is suspended")]
    Suspended,
    /// Nothing is known against the keys, but nothing proves them either (HTTP 503). Heals by itself.
    #[error("keys are temporarily unavailable: {reason}")]
    TemporarilyUnavailable { reason: Unavailable },
    /// The broker knows no such app instance, or this caller is not entitled to it.
    #[error("no such app instance for this caller")]
    NotEntitled,
    /// The record names a data key that this app instance does not have.
    #[error("the record's data key is not one of this app instance")]
    UnknownDataKey,
    /// The record was changed, cut, or belongs to another context. The context is associated data of the
    /// ciphertext, so nothing can tell these apart, and the library does not pretend to.
    #[error("the record was changed or does not belong to this context")]
    TamperedOrWrongContext,
    /// A chunk of a stream is missing, doubled, out of order, changed, or of another context.
    #[error("chunk {chunk} of the stream is missing, out of order, changed or of another context")]
    BrokenStream { chunk: u32 },
    /// The record's key generation is older than what the policy still lets anybody write.
    #[error("generation {generation} is too old to be written, the least is {least}")]
    GenerationTooOld { generation: u32, least: u32 },
    #[error("{bytes} bytes are more than a single record may have ({most})")]
    TooLarge { bytes: usize, most: usize },
    /// A part of the context is longer than its length field can say.
    #[error("`{part}` of the context is longer than 65535 bytes")]
    ContextTooLong { part: &'static str },
    #[error("not a record of this library: {why}")]
    MalformedRecord { why: &'static str },
    #[error("record version {version} is unknown to this build")]
    UnknownVersion { version: u8 },
    /// Only the synchronous calls answer so: the key is not in the cache, or needs a fresh proof.
    #[error("the key is not ready in this process")]
    NotCached,
    /// Something in the process itself failed, such as the system's source of randomness.
    #[error("the library itself failed: {what}")]
    Internal { what: &'static str },
}

/// Why a batch came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {record} of the batch")]
pub struct BatchError {
    /// The first record that could not be done, counted from 0.
    pub record: usize,
    /// Why not. What is not about a record (a lease that is over, say) would have stopped any other too.
    #[source]
    pub error: EnvelopeError,
}

/// The stable names of the situations, so that they can be counted without a lock.
pub(crate) const SLUGS: [&str; 13] = [
    "suspended",
    "temporarily-unavailable",
    "not-found",
    "unknown-data-key",
    "tampered-or-wrong-context",
    "broken-stream",
    "generation-too-old",
    "too-large",
    "context-too-long",
    "malformed-record",
    "unknown-version",
    "not-cached",
    "internal",
];

/// What was missing. Slugs, so that they can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unavailable {
    #[error("this process holds no fresh lease")]
    Lease,
    #[error("nobody is watching the keys and no proof could be had")]
    Unproven,
    #[error("the key broker could not be reached")]
    Broker,
    #[error("the customer's key store gave no answer")]
    KeyStore,
    #[error("the key was closed while it was being fetched")]
    Overtaken,
    #[error("the data key was written with as often as it may be, and there is no newer version")]
    WornOut,
}

impl EnvelopeError {
    pub(crate) const fn unavailable(reason: Unavailable) -> Self {
        Self::TemporarilyUnavailable { reason }
    }

    /// What whoever reads this may do about it.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Suspended => {
                "an org admin enables the keys in every region and asks for restoration on the ticket; do not retry"
            }
            Self::TemporarilyUnavailable { reason } => match reason {
                Unavailable::Lease => {
                    "check that this process can read the fence table; retry in a few seconds"
                }
                Unavailable::Unproven | Unavailable::Broker | Unavailable::KeyStore => {
                    "retry in a few seconds; it heals by itself"
                }
                Unavailable::WornOut => {
                    "retry in a minute; a newer version was asked for, and if none comes, look at the provisioner"
                }
                Unavailable::Overtaken => "retry once; if the policy was suspended the next answer says so",
            },
            Self::NotEntitled => {
                "check organisation, site and app, and that the app's role is listed for this app in the broker"
            }
            Self::UnknownDataKey => "check that the record belongs to this app instance and cell",
            Self::TamperedOrWrongContext => {
                "check organisation, site, app, data type and record id; if they are right, restore the record"
            }
            Self::BrokenStream { .. } => "discard what was read of this object and restore it",
            Self::GenerationTooOld { .. } => {
                "encrypt again with the current key; a re-encryption is under way"
            }
            Self::TooLarge { .. } => "use the chunked form (`encrypt_stream`)",
            Self::ContextTooLong { .. } => "shorten it, for instance to a digest",
            Self::MalformedRecord { .. } => "check that the bytes were stored whole and are a record at all",
            Self::UnknownVersion { .. } => "update this app's version of the library",
            Self::NotCached => "use the asynchronous call",
            Self::Internal { .. } => "restart the process and report it",
        }
    }

    /// The stable name of the situation: problem type, metric and runbook share it.
    #[must_use]
    pub const fn slug(&self) -> &'static str {
        #[expect(clippy::indexing_slicing, reason = "a test names every error's slug")]
        SLUGS[self.number()]
    }

    /// Which of [`SLUGS`] it is.
    pub(crate) const fn number(&self) -> usize {
        match self {
            Self::Suspended => 0,
            Self::TemporarilyUnavailable { .. } => 1,
            Self::NotEntitled => 2,
            Self::UnknownDataKey => 3,
            Self::TamperedOrWrongContext => 4,
            Self::BrokenStream { .. } => 5,
            Self::GenerationTooOld { .. } => 6,
            Self::TooLarge { .. } => 7,
            Self::ContextTooLong { .. } => 8,
            Self::MalformedRecord { .. } => 9,
            Self::UnknownVersion { .. } => 10,
            Self::NotCached => 11,
            Self::Internal { .. } => 12,
        }
    }

    /// Whether the same call may succeed later without anybody acting.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        matches!(self, Self::TemporarilyUnavailable { .. } | Self::NotCached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_own_slug_and_a_remedy() {
        let why = "";
        let all = [
            (EnvelopeError::Suspended, "suspended"),
            (EnvelopeError::unavailable(Unavailable::Lease), "temporarily-unavailable"),
            (EnvelopeError::NotEntitled, "not-found"),
            (EnvelopeError::UnknownDataKey, "unknown-data-key"),
            (EnvelopeError::TamperedOrWrongContext, "tampered-or-wrong-context"),
            (EnvelopeError::BrokenStream { chunk: 1 }, "broken-stream"),
            (EnvelopeError::GenerationTooOld { generation: 1, least: 2 }, "generation-too-old"),
            (EnvelopeError::TooLarge { bytes: 2, most: 1 }, "too-large"),
            (EnvelopeError::ContextTooLong { part: "record id" }, "context-too-long"),
            (EnvelopeError::MalformedRecord { why }, "malformed-record"),
            (EnvelopeError::UnknownVersion { version: 9 }, "unknown-version"),
            (EnvelopeError::NotCached, "not-cached"),
            (EnvelopeError::Internal { what: why }, "internal"),
        ];
        assert_eq!(all.len(), SLUGS.len());
        for (number, (error, slug)) in all.iter().enumerate() {
            assert_eq!((error.number(), error.slug()), (number, *slug));
            assert!(!error.help().is_empty());
        }
    }
}
