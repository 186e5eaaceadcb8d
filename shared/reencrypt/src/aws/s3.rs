//! Records that are objects of an S3 bucket, with versions or without.

use super::trouble::{refused, trouble};
use crate::names::Pattern;
use crate::store::{Place, RecordPage, RecordStore, RecordStoreError, Replaced, Shard, StoredRecord};
use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ObjectVersion;
use claviger_envelope::format::STREAM_HEADER_LEN;
use futures_util::StreamExt;
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;

/// Headers that are fetched at once.
const AT_ONCE: usize = 16;
/// Objects up to here are read whole with the page: one request instead of two.
const SMALL: i64 = 32 * 1024;

/// Where in a bucket the records are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Layout {
    pub bucket: String,
    /// The objects' keys: `{organisation}/{site}/{app}/{type}/{record}`.
    pub object: Pattern,
    /// The data type of records whose names do not say one.
    #[serde(default)]
    pub data_type: Option<String>,
    /// An object is rewritten in memory; a larger one is refused by name. 256 MiB.
    #[serde(default = "most_bytes")]
    pub most_bytes: i64,
}

const fn most_bytes() -> i64 {
    256 * 1024 * 1024
}

/// A bucket of S3. It needs `s3:ListBucketVersions`, `s3:GetObject`, `s3:GetObjectVersion`, `s3:PutObject`, and for
/// tagged objects `s3:GetObjectTagging` and `s3:PutObjectTagging`.
#[derive(Clone)]
pub struct S3Records {
    client: Client,
    layout: S3Layout,
}

/// A client for this account and region; an emulator, which has no host names for buckets, gets them in the path.
#[must_use]
pub fn client(aws: &aws_config::SdkConfig) -> Client {
    let path_style = aws.endpoint_url().is_some();
    Client::from_conf(aws_sdk_s3::config::Builder::from(aws).force_path_style(path_style).build())
}

/// One version of an object; as JSON it names the record.
struct Object {
    key: String,
    etag: String,
    version: Option<String>,
}

impl Object {
    fn to_text(&self) -> String {
        json!([self.key, self.etag, self.version]).to_string()
    }

    fn parse(text: &str) -> Result<Self, RecordStoreError> {
        serde_json::from_str(text)
            .map(|(key, etag, version)| Self { key, etag, version })
            .map_err(|_| refused("the key is none of this store"))
    }
}

/// What was looked for is not there any more, or is another by now.
fn moved_on<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Option<Replaced> {
    match error.as_service_error().and_then(ProvideErrorMetadata::code) {
        Some("PreconditionFailed" | "ConditionalRequestConflict") => Some(Replaced::Changed),
        Some("NoSuchKey" | "NoSuchVersion" | "NotFound" | "MethodNotAllowed") => Some(Replaced::Gone),
        _ => None,
    }
}

impl S3Records {
    #[must_use]
    pub const fn new(client: Client, layout: S3Layout) -> Self {
        Self { client, layout }
    }

    /// A version's bytes: all of them if there are few, else those of its header. `None`: it is gone.
    async fn read(
        &self,
        object: &Object,
        size: i64,
        whole: bool,
    ) -> Result<Option<Vec<u8>>, RecordStoreError> {
        let mut get =
            self.client.get_object().bucket(&self.layout.bucket).key(&object.key).if_match(&object.etag);
        if let Some(version) = &object.version {
            get = get.version_id(version);
        }
        if !whole && size > SMALL {
            get = get.range(format!("bytes=0-{}", STREAM_HEADER_LEN - 1));
        }
        let answer = match get.send().await {
            Ok(answer) => answer,
            Err(error) if moved_on(&error).is_some() => return Ok(None),
            Err(error) => return Err(trouble("s3:GetObject", &error)),
        };
        if answer.content_length().is_some_and(|length| length > self.layout.most_bytes) {
            let most = self.layout.most_bytes;
            return Err(refused(format!("the object `{}` has more than {most} bytes", object.key)));
        }
        match answer.body.collect().await {
            Ok(body) => Ok(Some(body.to_vec())),
            Err(_) => {
                Err(RecordStoreError::Unavailable { reason: "s3:GetObject: the answer broke off".into() })
            }
        }
    }

    async fn record(
        &self,
        of: &Place,
        version: ObjectVersion,
    ) -> Result<Option<StoredRecord>, RecordStoreError> {
        let (Some(key), Some(etag)) = (version.key, version.e_tag) else { return Ok(None) };
        let Some(named) = self.layout.object.read(of, &key) else { return Ok(None) };
        let Some(data_type) = named.data_type.or_else(|| self.layout.data_type.clone()) else {
            return Err(refused(format!("the data type of `{key}` is neither in its name nor configured")));
        };
        let Some(record_id) = named.record_id else {
            return Err(refused(format!("the name `{key}` says no record id")));
        };
        let noncurrent = !version.is_latest.unwrap_or(true);
        // Of the latest, any later one takes the place: what is read is what the condition of the write looks at.
        let object = Object { key, etag, version: version.version_id.filter(|_| noncurrent) };
        let bytes = self.read(&object, version.size.unwrap_or_default(), false).await?;
        Ok(bytes.map(|bytes| StoredRecord { key: object.to_text(), data_type, record_id, bytes, noncurrent }))
    }

    /// The tags of an object, as the header of a write wants them.
    ///
    /// They are asked for, whatever the count in an answer to GetObject says: S3 leaves it out for whoever may not read
    /// tags, and an object would lose them without a word.
    async fn tags(&self, object: &Object) -> Result<Option<String>, RecordStoreError> {
        let get = self.client.get_object_tagging().bucket(&self.layout.bucket).key(&object.key);
        let answer = get.send().await.map_err(|error| trouble("s3:GetObjectTagging", &error))?;
        let pairs = answer.tag_set().iter();
        let pairs = pairs.map(|tag| format!("{}={}", in_a_query(tag.key()), in_a_query(tag.value())));
        Ok(Some(pairs.collect::<Vec<_>>().join("&")).filter(|pairs| !pairs.is_empty()))
    }
}

/// Percent-encoded, so that nothing in it ends the pair.
fn in_a_query(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// FNV-1a: the same in every build, as the parts of a shard that goes on elsewhere must be.
fn hash(key: &str) -> u64 {
    key.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

#[async_trait]
impl RecordStore for S3Records {
    /// Each shard lists all of the place, a thousand keys a request, and takes the objects whose hash is its own.
    async fn page(
        &self,
        of: &Place,
        shard: Shard,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<RecordPage, RecordStoreError> {
        let no_cursor = |_| refused("the cursor is none of this store");
        let (key, version): (Option<String>, Option<String>) =
            cursor.map(serde_json::from_str).transpose().map_err(no_cursor)?.unwrap_or_default();
        let keys = i32::try_from(limit.saturating_mul(shard.of)).unwrap_or(i32::MAX).clamp(1, 1000);
        let listed = self
            .client
            .list_object_versions()
            .bucket(&self.layout.bucket)
            .prefix(self.layout.object.prefix(of))
            .set_key_marker(key)
            .set_version_id_marker(version)
            .max_keys(keys)
            .send()
            .await
            .map_err(|error| trouble("s3:ListObjectVersions", &error))?;
        let next = listed
            .is_truncated()
            .unwrap_or_default()
            .then(|| json!([listed.next_key_marker(), listed.next_version_id_marker()]).to_string());
        let ours = |version: &ObjectVersion| {
            version.key().is_some_and(|key| hash(key) % u64::from(shard.of.max(1)) == u64::from(shard.index))
        };
        let versions = listed.versions.unwrap_or_default().into_iter().filter(ours);
        let read: Vec<_> =
            stream::iter(versions).map(|version| self.record(of, version)).buffered(AT_ONCE).collect().await;
        let records = read.into_iter().filter_map(Result::transpose);
        Ok(RecordPage { records: records.collect::<Result<_, _>>()?, next })
    }

    /// INVARIANT (I8): the write is conditional on the ETag of what was read. It replaces the object, so it carries
    /// over what else the app gave it: headers, metadata and tags stay as they are.
    async fn replace(&self, old: &StoredRecord, new: Vec<u8>) -> Result<Replaced, RecordStoreError> {
        let object = Object::parse(&old.key)?;
        let bucket = &self.layout.bucket;
        // As good as HeadObject, which does not count tags everywhere.
        let get = self.client.get_object().bucket(bucket).key(&object.key).range("bytes=0-0");
        let now = match get.if_match(&object.etag).send().await {
            Ok(now) => now,
            Err(error) => return moved_on(&error).map_or_else(|| Err(trouble("s3:GetObject", &error)), Ok),
        };
        let tags = self.tags(&object).await?;
        let put = self
            .client
            .put_object()
            .bucket(bucket)
            .key(&object.key)
            .if_match(&object.etag)
            .set_content_type(now.content_type)
            .set_content_encoding(now.content_encoding)
            .set_content_disposition(now.content_disposition)
            .set_content_language(now.content_language)
            .set_cache_control(now.cache_control)
            .set_metadata(now.metadata)
            .set_storage_class(now.storage_class)
            .set_server_side_encryption(now.server_side_encryption)
            .set_ssekms_key_id(now.ssekms_key_id)
            .set_tagging(tags)
            .body(ByteStream::from(new));
        match put.send().await {
            Ok(_) => Ok(Replaced::Done),
            Err(error) => moved_on(&error).map_or_else(|| Err(trouble("s3:PutObject", &error)), Ok),
        }
    }

    /// A bucket does not count its objects.
    async fn estimate(&self, _: &Place) -> Result<Option<u64>, RecordStoreError> {
        Ok(None)
    }

    async fn whole(&self, record: &StoredRecord) -> Result<Option<Vec<u8>>, RecordStoreError> {
        self.read(&Object::parse(&record.key)?, 0, true).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_written_so_that_nothing_ends_them_early() {
        assert_eq!(in_a_query("a b&c=d/é"), "a%20b%26c%3Dd%2F%C3%A9");
    }

    #[test]
    fn x2_the_hash_of_a_key_is_the_same_in_every_build() {
        assert_eq!(hash(""), 0xCBF2_9CE4_8422_2325);
        assert_eq!(hash("a"), 0xAF63_DC4C_8601_EC8C);
    }
}
