//! Every file in `events/api`, as Lambda would hand it over.

use axum::body::Body;

use crate::stage::stage;

/// What each sample is answered on a stage where two organisations are fed and none is enrolled.
fn expected(name: &str) -> (u16, &'static str) {
    match name {
        "enrolment-requested" => (202, "requested"),
        "enrolment-validated" => (200, "checks"),
        "health-asked-for" => (200, "ok"),
        "instance-requested" => (409, "illegal-state"),
        "key-policy-shown" => (200, "kms:EncryptionContext:claviger:organisation"),
        "organisation-fed" => (200, "ada"),
        "policy-shown" => (404, "the encryption policy is not there"),
        "restoration-requested" => (404, "the encryption policy is not there"),
        "usage-shown" => (200, "pricePer10000Usd"),
        other => panic!("say what `{other}` is answered"),
    }
}

#[tokio::test]
async fn every_sample_event_is_answered_as_its_name_says() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/api");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("<ORG_ADMIN_TOKEN>", "acme-admin").replace("<SYSTEM_TOKEN>", "system");
        let text = text.replace("<SUPPORT_TOKEN>", "support");
        let request = lambda_http::request::from_str(&text).unwrap();
        let stage = stage().await;
        stage.keys_are_good();
        let came = stage.send(request.map(|body| Body::from(body.to_vec()))).await;
        let (status, word) = expected(name);
        assert_eq!(came.status.as_u16(), status, "{name}: {}", came.text);
        assert!(came.text.contains(word), "{name}: {}", came.text);
        seen += 1;
    }
    assert!(seen >= 8, "only {seen} samples");
}
