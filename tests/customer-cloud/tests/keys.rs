//! One account's keys: as `winterbaume-kms` alone plays them, and what is added.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests: a failed test is what they say"
)]

mod support;

use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use aws_sdk_kms::error::ProvideErrorMetadata as _;
use aws_sdk_kms::primitives::Blob;
use base64::Engine as _;
use http::Method;
use serde_json::{Value, json};
use support::{ACME, REGION, Server, base64, start};
use winterbaume_core::{MockRequest, MockService as _};
use winterbaume_kms::KmsService;

async fn alone(service: &KmsService, operation: &str, input: &Value) -> Result<Value, String> {
    let mut headers = http::HeaderMap::new();
    headers.insert("x-amz-target", format!("TrentService.{operation}").parse().expect("a header"));
    let uri = format!("https://kms.{REGION}.amazonaws.com/");
    let request = MockRequest { method: "POST".into(), uri, headers, body: input.to_string().into() };
    let response = service.handle(request).await;
    let body: Value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
    if response.status == 200 { Ok(body) } else { Err(body["__type"].as_str().unwrap_or("?").to_owned()) }
}

/// Replaces `$NAME` by what this side calls it.
fn filled(input: &Value, names: &[(&str, String)]) -> Value {
    let text = names.iter().fold(input.to_string(), |text, (name, value)| text.replace(name, value));
    serde_json::from_str(&text).expect("JSON")
}

/// Both sides make two keys and a ciphertext, then walk the same steps.
#[tokio::test]
async fn every_call_ends_as_in_winterbaume_alone() {
    let (server, service) = (start().await, KmsService::new());
    let context = json!({"a": "1", "b": "2"});
    let mut sides: [Vec<(&str, String)>; 2] = [Vec::new(), Vec::new()];
    for name in ["$KEY", "$OTHER"] {
        let input = json!({"Description": name});
        let made =
            [server.kms(ACME, "CreateKey", input.clone()).await, alone(&service, "CreateKey", &input).await];
        for (side, output) in sides.iter_mut().zip(made) {
            let id = output.expect("a key")["KeyMetadata"]["KeyId"].as_str().expect("an id").to_owned();
            side.push((name, id));
        }
    }
    let input = json!({"KeyId": "$KEY", "Plaintext": base64(b"secret"), "EncryptionContext": context});
    let made = [
        server.kms(ACME, "Encrypt", filled(&input, &sides[0])).await,
        alone(&service, "Encrypt", &filled(&input, &sides[1])).await,
    ];
    for (side, output) in sides.iter_mut().zip(made) {
        let blob = output.expect("a ciphertext")["CiphertextBlob"].as_str().expect("base64").to_owned();
        let mut bytes = base64::engine::general_purpose::STANDARD.decode(&blob).expect("base64");
        side.push(("$BLOB", blob));
        *bytes.last_mut().expect("a byte") ^= 1;
        side.push(("$TAMPERED", base64(&bytes)));
    }

    let right = json!({"CiphertextBlob": "$BLOB", "EncryptionContext": context});
    let key = json!({"KeyId": "$KEY"});
    let steps = [
        ("Decrypt", right.clone()),
        ("Decrypt", json!({"CiphertextBlob": "$BLOB", "EncryptionContext": context, "KeyId": "$KEY"})),
        ("Decrypt", json!({"CiphertextBlob": "$BLOB", "EncryptionContext": context, "KeyId": "$OTHER"})),
        ("Decrypt", json!({"CiphertextBlob": "$BLOB"})),
        ("Decrypt", json!({"CiphertextBlob": "$BLOB", "EncryptionContext": {"a": "1"}})),
        ("Decrypt", json!({"CiphertextBlob": "$TAMPERED", "EncryptionContext": context})),
        ("Decrypt", json!({"CiphertextBlob": base64(b"nonsense")})),
        ("GenerateDataKey", json!({"KeyId": "$KEY", "KeySpec": "AES_256", "EncryptionContext": context})),
        ("GenerateDataKey", json!({"KeyId": "$KEY", "KeySpec": "AES_512"})),
        ("GenerateDataKeyWithoutPlaintext", json!({"KeyId": "$KEY", "NumberOfBytes": 16})),
        (
            "ReEncrypt",
            json!({"CiphertextBlob": "$BLOB", "SourceEncryptionContext": context,
            "DestinationKeyId": "$OTHER"}),
        ),
        ("ReEncrypt", json!({"CiphertextBlob": "$BLOB", "DestinationKeyId": "$OTHER"})),
        ("Encrypt", json!({"KeyId": "$KEY", "Plaintext": ""})),
        ("Encrypt", json!({"KeyId": "$KEY", "Plaintext": base64(&[0; 4096])})),
        ("Encrypt", json!({"KeyId": "$KEY", "Plaintext": base64(&[0; 4097])})),
        ("Encrypt", json!({"KeyId": "11111111-1111-1111-1111-111111111111", "Plaintext": base64(b"x")})),
        ("Encrypt", json!({"Plaintext": base64(b"x")})),
        ("DescribeKey", json!({"KeyId": "alias/none"})),
        ("CreateAlias", json!({"AliasName": "alias/a", "TargetKeyId": "$KEY"})),
        ("CreateAlias", json!({"AliasName": "alias/a", "TargetKeyId": "$OTHER"})),
        ("DescribeKey", json!({"KeyId": "alias/a"})),
        ("UpdateAlias", json!({"AliasName": "alias/a", "TargetKeyId": "$OTHER"})),
        ("Decrypt", json!({"CiphertextBlob": "$BLOB", "EncryptionContext": context, "KeyId": "alias/a"})),
        ("DeleteAlias", json!({"AliasName": "alias/a"})),
        ("DeleteAlias", json!({"AliasName": "alias/a"})),
        ("TagResource", json!({"KeyId": "$KEY", "Tags": [{"TagKey": "k", "TagValue": "v"}]})),
        ("ListResourceTags", key.clone()),
        ("UntagResource", json!({"KeyId": "$KEY", "TagKeys": ["k"]})),
        ("GetKeyPolicy", json!({"KeyId": "$KEY", "PolicyName": "default"})),
        ("ListKeyPolicies", key.clone()),
        ("EnableKeyRotation", key.clone()),
        ("GetKeyRotationStatus", key.clone()),
        ("DisableKeyRotation", key.clone()),
        ("ListKeyRotations", key.clone()),
        ("DisableKey", key.clone()),
        ("Decrypt", right.clone()),
        ("Decrypt", json!({"CiphertextBlob": "$BLOB", "EncryptionContext": context, "KeyId": "$OTHER"})),
        ("Encrypt", json!({"KeyId": "$KEY", "Plaintext": base64(b"x")})),
        ("GenerateDataKey", json!({"KeyId": "$KEY", "KeySpec": "AES_256"})),
        ("GenerateDataKeyWithoutPlaintext", json!({"KeyId": "$KEY", "KeySpec": "AES_256"})),
        (
            "ReEncrypt",
            json!({"CiphertextBlob": "$BLOB", "SourceEncryptionContext": context,
            "DestinationKeyId": "$OTHER"}),
        ),
        ("DescribeKey", key.clone()),
        ("EnableKey", key.clone()),
        ("Decrypt", right.clone()),
        ("CancelKeyDeletion", key.clone()),
        ("ScheduleKeyDeletion", json!({"KeyId": "$KEY", "PendingWindowInDays": 3})),
        ("ScheduleKeyDeletion", json!({"KeyId": "$KEY", "PendingWindowInDays": 7})),
        ("Decrypt", right.clone()),
        ("Encrypt", json!({"KeyId": "$KEY", "Plaintext": base64(b"x")})),
        ("EnableKey", key.clone()),
        ("DisableKey", key.clone()),
        ("EnableKeyRotation", key.clone()),
        ("RotateKeyOnDemand", key.clone()),
        ("DescribeKey", key.clone()),
        ("CancelKeyDeletion", key.clone()),
        ("Decrypt", right.clone()),
        ("EnableKey", key.clone()),
        ("Decrypt", right),
        (
            "CreateGrant",
            json!({"KeyId": "$KEY", "GranteePrincipal": "arn:aws:iam::111111111111:role/r",
            "Operations": ["Decrypt"]}),
        ),
        ("ListGrants", key.clone()),
        ("RevokeGrant", json!({"KeyId": "$KEY", "GrantId": "none"})),
        ("ListKeys", json!({})),
        ("ListAliases", json!({})),
    ];
    for (step, (operation, input)) in steps.iter().enumerate() {
        let ours = server.kms(ACME, operation, filled(input, &sides[0])).await;
        let theirs = alone(&service, operation, &filled(input, &sides[1])).await;
        let brief = |result: &Result<Value, String>| match result {
            Ok(output) => {
                let metadata = &output["KeyMetadata"];
                format!(
                    "ok {} {} {}",
                    output["Plaintext"].is_string(),
                    metadata["KeyState"],
                    metadata["Enabled"]
                )
            }
            Err(code) => code.clone(),
        };
        assert_eq!(brief(&ours), brief(&theirs), "step {step}: {operation} {input}");
        if *operation == "Decrypt" {
            assert_eq!(
                ours.ok().map(|output| output["Plaintext"].clone()),
                theirs.ok().map(|o| o["Plaintext"].clone())
            );
        }
    }
}

async fn encrypted(server: &Server, key: &str, context: Value) -> Value {
    let input = json!({"KeyId": key, "Plaintext": base64(b"secret"), "EncryptionContext": context});
    server.kms(ACME, "Encrypt", input).await.expect("a ciphertext")["CiphertextBlob"].clone()
}

#[tokio::test]
async fn k2_a_ciphertext_from_before_a_rotation_still_decrypts() {
    let server = start().await;
    let key = server.key(ACME).await;
    let blob = encrypted(&server, &key, json!({})).await;
    for _ in 0..2 {
        server.kms(ACME, "RotateKeyOnDemand", json!({"KeyId": key})).await.expect("rotation");
    }
    let output = server.kms(ACME, "Decrypt", json!({"CiphertextBlob": blob})).await.expect("plaintext");
    assert_eq!(output["Plaintext"], base64(b"secret"));
    let rotations = server.kms(ACME, "ListKeyRotations", json!({"KeyId": key})).await.expect("a list");
    assert_eq!(rotations["Rotations"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn contexts_that_only_look_alike_do_not_open_a_ciphertext() {
    let server = start().await;
    let key = server.key(ACME).await;
    let blob = encrypted(&server, &key, json!({"a": "1,b=2"})).await;
    let input = json!({"CiphertextBlob": blob, "EncryptionContext": {"a": "1", "b": "2"}});
    assert_eq!(server.kms(ACME, "Decrypt", input).await, Err("InvalidCiphertextException".into()));
}

#[tokio::test]
async fn a_dry_run_succeeds_only_where_the_call_would() {
    let server = start().await;
    let key = server.key(ACME).await;
    let blob = encrypted(&server, &key, json!({})).await;
    let calls = [
        ("Encrypt", json!({"KeyId": key, "Plaintext": base64(b"x"), "DryRun": true})),
        ("Decrypt", json!({"CiphertextBlob": blob, "DryRun": true})),
        ("GenerateDataKey", json!({"KeyId": key, "KeySpec": "AES_256", "DryRun": true})),
        ("GenerateDataKeyWithoutPlaintext", json!({"KeyId": key, "KeySpec": "AES_256", "DryRun": true})),
        ("ReEncrypt", json!({"CiphertextBlob": blob, "DestinationKeyId": key, "DryRun": true})),
        ("GenerateDataKeyPair", json!({"KeyId": key, "KeyPairSpec": "ECC_NIST_P256", "DryRun": true})),
        (
            "GenerateDataKeyPairWithoutPlaintext",
            json!({"KeyId": key, "KeyPairSpec": "ECC_NIST_P256", "DryRun": true}),
        ),
    ];
    for (operation, input) in &calls {
        let result = server.kms(ACME, operation, input.clone()).await;
        assert_eq!(result, Err("DryRunOperationException".into()), "{operation}");
    }
    server.kms(ACME, "DisableKey", json!({"KeyId": key})).await.expect("disabled");
    for (operation, input) in &calls {
        assert_eq!(
            server.kms(ACME, operation, input.clone()).await,
            Err("DisabledException".into()),
            "{operation}"
        );
    }
}

#[tokio::test]
async fn an_arn_of_another_region_is_not_found() {
    let server = start().await;
    let key = server.key(ACME).await;
    let result = server.kms_in("us-east-1", ACME, "DescribeKey", json!({"KeyId": key})).await;
    assert_eq!(result, Err("NotFoundException".into()));
    let blob = encrypted(&server, &key, json!({})).await;
    let result = server.kms_in("us-east-1", ACME, "Decrypt", json!({"CiphertextBlob": blob})).await;
    assert_eq!(result, Err("AccessDeniedException".into()));
}

#[tokio::test]
async fn a_policy_that_locks_its_author_out_is_malformed() {
    let server = start().await;
    let key = server.key(ACME).await;
    let policy = json!({"Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": "*",
        "Principal": {"AWS": "arn:aws:iam::111111111111:root"}}]})
    .to_string();
    let input = json!({"KeyId": key, "Policy": policy});
    assert_eq!(server.kms(ACME, "PutKeyPolicy", input).await, Err("MalformedPolicyDocumentException".into()));
    let input = json!({"KeyId": key, "Policy": policy, "BypassPolicyLockoutSafetyCheck": true});
    server.kms(ACME, "PutKeyPolicy", input).await.expect("stored");
    let result = server.kms(ACME, "DisableKey", json!({"KeyId": key})).await;
    assert_eq!(result, Err("AccessDeniedException".into()));
}

#[tokio::test]
async fn a_key_is_not_made_with_a_policy_that_locks_its_maker_out() {
    let server = start().await;
    let policy = json!({"Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": "*",
        "Principal": {"AWS": "arn:aws:iam::111111111111:root"}}]})
    .to_string();
    let input = json!({"Policy": policy});
    assert_eq!(server.kms(ACME, "CreateKey", input).await, Err("MalformedPolicyDocumentException".into()));
    let listed = server.kms(ACME, "ListKeys", json!({})).await.expect("a list");
    assert_eq!(listed["Keys"], json!([]), "none is left behind");
    let input = json!({"Policy": policy, "BypassPolicyLockoutSafetyCheck": true});
    server.kms(ACME, "CreateKey", input).await.expect("made");
}

#[tokio::test]
async fn imported_material_comes_and_goes_and_must_be_the_same() {
    let server = start().await;
    let made = server.kms(ACME, "CreateKey", json!({"Origin": "EXTERNAL"})).await.expect("a key");
    assert_eq!(made["KeyMetadata"]["KeyState"], "PendingImport");
    let key = made["KeyMetadata"]["Arn"].as_str().expect("an ARN").to_owned();
    let input = json!({"KeyId": key, "Plaintext": base64(b"x")});
    assert_eq!(server.kms(ACME, "Encrypt", input).await, Err("KMSInvalidStateException".into()));

    import(&server, &key, [7; 32]).await.expect("imported");
    let blob = encrypted(&server, &key, json!({})).await;
    server.kms(ACME, "DeleteImportedKeyMaterial", json!({"KeyId": key})).await.expect("deleted");
    let decrypt = json!({"CiphertextBlob": blob});
    assert_eq!(server.kms(ACME, "Decrypt", decrypt.clone()).await, Err("KMSInvalidStateException".into()));
    assert_eq!(import(&server, &key, [8; 32]).await, Err("IncorrectKeyMaterialException".into()));
    import(&server, &key, [7; 32]).await.expect("imported again");
    assert_eq!(
        server.kms(ACME, "Decrypt", decrypt).await.expect("plaintext")["Plaintext"],
        base64(b"secret")
    );
}

async fn import(server: &Server, key: &str, material: [u8; 32]) -> Result<Value, String> {
    let input =
        json!({"KeyId": key, "WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"});
    let parameters = server.kms(ACME, "GetParametersForImport", input).await.expect("parameters");
    let der =
        base64::engine::general_purpose::STANDARD.decode(parameters["PublicKey"].as_str().expect("a key"));
    let public = PublicEncryptingKey::from_der(&der.expect("base64")).expect("a public key");
    let public = OaepPublicEncryptingKey::new(public).expect("OAEP");
    let mut buffer = vec![0; public.ciphertext_size()];
    let wrapped = public.encrypt(&OAEP_SHA256_MGF1SHA256, &material, &mut buffer, None).expect("wrapped");
    let input = json!({"KeyId": key, "ImportToken": parameters["ImportToken"],
        "EncryptedKeyMaterial": base64(wrapped), "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"});
    server.kms(ACME, "ImportKeyMaterial", input).await
}

#[tokio::test]
async fn the_owner_door_opens_ciphertexts_of_disabled_and_rotated_keys() {
    let server = start().await;
    let key = server.key(ACME).await;
    let blob = encrypted(&server, &key, json!({"a": "b"})).await;
    server.kms(ACME, "RotateKeyOnDemand", json!({"KeyId": key})).await.expect("rotated");
    server.kms(ACME, "DisableKey", json!({"KeyId": key})).await.expect("disabled");
    let body =
        json!({"account": ACME, "region": REGION, "ciphertext": blob, "encryptionContext": {"a": "b"}});
    let answer = server.admin(Method::POST, "decrypt-as-owner", body).await;
    assert_eq!(answer["plaintext"], base64(b"secret"), "{answer}");
}

#[tokio::test]
async fn the_rust_sdk_reads_every_answer_and_error_code() {
    let server = start().await;
    let credentials = aws_credential_types::Credentials::new(ACME, "test", None, None, "test");
    let config = aws_sdk_kms::Config::builder()
        .behavior_version(aws_sdk_kms::config::BehaviorVersion::latest())
        .region(aws_sdk_kms::config::Region::new(REGION))
        .endpoint_url(server.url())
        .credentials_provider(credentials)
        .retry_config(aws_sdk_kms::config::retry::RetryConfig::disabled())
        .build();
    let kms = aws_sdk_kms::Client::from_conf(config);
    let key = kms.create_key().send().await.expect("a key").key_metadata.expect("metadata").key_id;
    let data_key = kms.generate_data_key().key_id(&key).key_spec(aws_sdk_kms::types::DataKeySpec::Aes256);
    let data_key = data_key.encryption_context("a", "b").send().await.expect("a data key");
    let blob = data_key.ciphertext_blob.expect("a ciphertext");
    let opened = kms.decrypt().key_id(&key).ciphertext_blob(blob.clone()).encryption_context("a", "b");
    assert_eq!(opened.send().await.expect("plaintext").plaintext, data_key.plaintext);
    kms.disable_key().key_id(&key).send().await.expect("disabled");
    let refused = kms.decrypt().key_id(&key).ciphertext_blob(blob).encryption_context("a", "b").send().await;
    let error = refused.expect_err("refused").into_service_error();
    assert!(error.is_disabled_exception(), "{error:?}");
    let dated =
        kms.schedule_key_deletion().key_id(&key).pending_window_in_days(7).send().await.expect("scheduled");
    assert!(dated.deletion_date.is_some());
    let refused =
        kms.encrypt().key_id("alias/none").plaintext(Blob::new("x")).send().await.expect_err("not found");
    assert_eq!(refused.code(), Some("NotFoundException"));
}
