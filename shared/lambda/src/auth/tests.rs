use super::*;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const ISSUER: &str = "https://issuer.example/pool";

/// Made once: an RSA key costs noticeable time.
fn signing_key() -> &'static EncodingKey {
    static KEY: OnceLock<EncodingKey> = OnceLock::new();
    KEY.get_or_init(|| {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8 = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        // The PKCS#1 key that is wanted is the rest of the PKCS#8 document after its 26 bytes of header.
        EncodingKey::from_rsa_der(&pkcs8.as_ref()[26..])
    })
}

#[derive(Default)]
struct FakeIssuer {
    fetches: AtomicUsize,
    away: AtomicBool,
    bare: AtomicBool,
}

#[async_trait]
impl IssuerKeys for FakeIssuer {
    async fn fetch(&self) -> Result<JwkSet, String> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Err("connection refused".to_owned());
        }
        if self.bare.load(Ordering::SeqCst) {
            return Ok(JwkSet { keys: Vec::new() });
        }
        let mut jwk = Jwk::from_encoding_key(signing_key(), Algorithm::RS256).unwrap();
        jwk.common.key_id = Some("k1".to_owned());
        Ok(JwkSet { keys: vec![jwk] })
    }
}

fn verifier() -> (TokenVerifier, Arc<FakeIssuer>) {
    let issuer = Arc::new(FakeIssuer::default());
    (TokenVerifier::with_keys(ISSUER, "people, machines", issuer.clone()), issuer)
}

/// Makes the cached keys older by this much.
async fn age(verifier: &TokenVerifier, by: Duration) {
    let mut cache = verifier.cache.lock().await;
    let older = |at: Option<Instant>| {
        at.map(|at| at.checked_sub(by).expect("a machine that has been up for longer than that"))
    };
    (cache.fetched, cache.asked) = (older(cache.fetched), older(cache.asked));
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn claims() -> Value {
    json!({ "sub": "ada", "iss": ISSUER, "client_id": "people", "exp": now() + 300 })
}

fn with(field: &str, value: Value) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().insert(field.to_owned(), value);
    claims
}

fn token_by(kid: Option<&str>, claims: &Value) -> String {
    let mut header = Header::new(Algorithm::RS256);
    header.kid = kid.map(str::to_owned);
    encode(&header, claims, signing_key()).unwrap()
}

fn token(claims: &Value) -> String {
    token_by(Some("k1"), claims)
}

#[tokio::test]
async fn access_tokens_and_id_tokens_of_the_issuer_hold() {
    let (verifier, _) = verifier();
    let access = verifier.caller(&token(&with("cognito:groups", json!(["claviger-support"])))).await.unwrap();
    assert_eq!(access.subject.as_str(), "ada");
    assert_eq!(access.vendor_role(), Role::Support);
    for aud in [json!("machines"), json!(["x", "people"])] {
        let mut id = with("aud", aud);
        id.as_object_mut().unwrap().remove("client_id");
        assert_eq!(verifier.caller(&token(&id)).await.unwrap().vendor_role(), Role::Stranger);
    }
}

#[tokio::test]
async fn a_token_that_is_foreign_expired_or_altered_is_refused() {
    let (verifier, _) = verifier();
    let mut nobody = claims();
    nobody.as_object_mut().unwrap().remove("client_id");
    let mut endless = claims();
    endless.as_object_mut().unwrap().remove("exp");
    let good = token(&claims());
    let (head, signature) = good.rsplit_once('.').unwrap();
    let altered = token(&with("sub", json!("eve")));
    let altered_body = altered.rsplit_once('.').unwrap().0;
    let hs256 =
        encode(&Header::new(Algorithm::HS256), &claims(), &EncodingKey::from_secret(b"public")).unwrap();
    let cases = [
        ("another issuer", token(&with("iss", json!("https://evil.example")))),
        ("another client", token(&with("client_id", json!("other")))),
        ("another audience beside our client", token(&with("aud", json!("other")))),
        ("no audience", token(&nobody)),
        ("expired", token(&with("exp", json!(now() - 60)))),
        ("no expiry", token(&endless)),
        ("not yet", token(&with("nbf", json!(now() + 600)))),
        ("an empty subject", token(&with("sub", json!("")))),
        ("no key id", token_by(None, &claims())),
        ("unknown key id", token_by(Some("k2"), &claims())),
        ("another body", format!("{altered_body}.{signature}")),
        ("no signature", format!("{head}.")),
        ("HS256", hs256),
        ("no token", String::new()),
        ("rubbish", "a.b.c".to_owned()),
    ];
    for (name, token) in cases {
        let error = verifier.caller(&token).await.expect_err(name);
        assert!(matches!(error, AuthError::Refused { .. }), "{name}: {error}");
        assert!(token.is_empty() || !error.to_string().contains(&token), "{name} repeats the token");
    }
}

#[tokio::test]
async fn forged_key_ids_cost_one_request_in_thirty_seconds() {
    let (verifier, issuer) = verifier();
    for n in 0..20 {
        let forged = token_by(Some(&format!("forged{n}")), &claims());
        assert!(verifier.caller(&forged).await.is_err());
    }
    assert_eq!(issuer.fetches.load(Ordering::SeqCst), 1);
    age(&verifier, REFETCH).await;
    assert!(verifier.caller(&token_by(Some("forged"), &claims())).await.is_err());
    assert_eq!(issuer.fetches.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn known_keys_outlive_an_issuer_that_is_away_and_unknown_ones_are_unavailable() {
    let (verifier, issuer) = verifier();
    verifier.caller(&token(&claims())).await.unwrap();
    issuer.away.store(true, Ordering::SeqCst);
    age(&verifier, REFRESH).await;
    verifier.caller(&token(&claims())).await.unwrap();
    let error = verifier.caller(&token_by(Some("k2"), &claims())).await.unwrap_err();
    assert!(matches!(error, AuthError::Unavailable { .. }));
}

#[test]
fn e3_the_vendors_people_are_never_an_organisations_own() {
    let subject: Subject = "ada".parse().unwrap();
    let organisation = Organisation {
        id: claviger_domain::ids::OrganisationId::from_uuid(Default::default()),
        external_id: claviger_domain::key_access::ExternalId::from_uuid(Default::default()),
        name: "acme".parse().unwrap(),
        plans: [].into(),
        government: false,
        admins: [subject.clone()].into(),
        auditors: [subject.clone(), "bea".parse().unwrap()].into(),
    };
    let caller = |subject: &str, groups: &[&str]| Caller {
        subject: subject.parse().unwrap(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    };
    assert_eq!(role_in(&organisation, &caller("ada", &[])), Role::OrgAdmin);
    assert_eq!(role_in(&organisation, &caller("bea", &["staff"])), Role::Auditor);
    assert_eq!(role_in(&organisation, &caller("eve", &[])), Role::Stranger);
    assert_eq!(role_in(&organisation, &caller("ada", &[GROUP_SUPPORT])), Role::Support);
    assert_eq!(role_in(&organisation, &caller("ada", &[GROUP_SYSTEM])), Role::System);
}

#[tokio::test]
async fn an_issuer_that_is_ill_is_asked_once_in_thirty_seconds_whoever_comes() {
    let (verifier, issuer) = verifier();
    verifier.caller(&token(&claims())).await.unwrap();
    issuer.away.store(true, Ordering::SeqCst);
    age(&verifier, REFRESH).await;
    for n in 0..20 {
        verifier.caller(&token(&claims())).await.unwrap();
        let error = verifier.caller(&token_by(Some(&format!("k{}", n + 2)), &claims())).await.unwrap_err();
        assert!(matches!(error, AuthError::Unavailable { .. }), "nobody can tell: {error}");
    }
    assert_eq!(issuer.fetches.load(Ordering::SeqCst), 2);
    age(&verifier, REFETCH).await;
    issuer.away.store(false, Ordering::SeqCst);
    verifier.caller(&token(&claims())).await.unwrap();
    assert_eq!(issuer.fetches.load(Ordering::SeqCst), 3);
    let error = verifier.caller(&token_by(Some("k2"), &claims())).await.unwrap_err();
    assert!(
        matches!(error, AuthError::Refused { .. }),
        "the issuer has said which keys are its own: {error}"
    );
}

#[tokio::test]
async fn an_issuer_that_is_away_from_the_beginning_is_asked_again_after_five_seconds() {
    let (verifier, issuer) = verifier();
    issuer.away.store(true, Ordering::SeqCst);
    for _ in 0..20 {
        let error = verifier.caller(&token(&claims())).await.unwrap_err();
        assert!(matches!(error, AuthError::Unavailable { .. }), "{error}");
    }
    assert_eq!(issuer.fetches.load(Ordering::SeqCst), 1);
    issuer.away.store(false, Ordering::SeqCst);
    age(&verifier, RETRY).await;
    verifier.caller(&token(&claims())).await.unwrap();
}

#[tokio::test]
async fn an_issuer_that_lists_no_key_takes_none_away() {
    let (verifier, issuer) = verifier();
    verifier.caller(&token(&claims())).await.unwrap();
    issuer.bare.store(true, Ordering::SeqCst);
    age(&verifier, REFRESH).await;
    verifier.caller(&token(&claims())).await.unwrap();
    age(&verifier, REFRESH).await;
    verifier.caller(&token(&claims())).await.unwrap();
    assert_eq!(issuer.fetches.load(Ordering::SeqCst), 3, "it was asked");
}
