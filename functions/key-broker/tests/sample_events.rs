//! Every file in `events/key-broker` is a request of a Function URL that names its caller.
#![allow(clippy::unwrap_used, reason = "tests")]

use claviger_key_broker::role_of;
use lambda_http::RequestExt;
use lambda_http::request::RequestContext;

#[test]
fn every_sample_event_names_a_role_and_a_path_of_the_broker() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/key-broker");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let request = lambda_http::request::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert!(["/v1/data-keys", "/v1/proofs"].contains(&request.uri().path()), "{}", path.display());
        let Some(RequestContext::ApiGatewayV2(context)) = request.request_context_ref() else {
            unreachable!("{} has no context", path.display());
        };
        let iam = context.authorizer.clone().unwrap().iam.unwrap();
        let role = role_of(&iam.user_arn.unwrap());
        assert_eq!(role.as_deref(), Some("arn:aws:iam::111111111111:role/claviger-notes-app"));
        seen += 1;
    }
    assert!(seen >= 2, "only {seen} samples");
}
