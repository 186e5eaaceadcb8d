//! What an event said is shown as it is, or not at all.

use claviger_domain::heard::{CallerArn, HeardChange};
use rstest::rstest;

const ADA: &str = "arn:aws:sts::222222222222:assumed-role/SecurityAdmin/ada";

#[rstest]
#[case::a_session(ADA)]
#[case::a_user("arn:aws:iam::222222222222:user/ops/ada")]
#[case::another_partition("arn:aws-us-gov:iam::222222222222:root")]
#[case::every_sign_that_iam_allows("arn:aws:iam::222222222222:role/a+b=c,d.e@f_g-h")]
#[case::as_long_as_may_be(&format!("arn:aws:iam::222222222222:role/{}", "a".repeat(512 - 31)))]
fn r9_who_made_a_call_is_shown_as_cloudtrail_names_it(#[case] text: &str) {
    let caller: CallerArn = text.parse().unwrap();
    assert_eq!((caller.to_string(), String::from(caller)), (text.to_owned(), text.to_owned()));
}

#[rstest]
#[case::nothing("")]
#[case::a_name("ada")]
#[case::another_service("arn:aws:kms:eu-central-1:222222222222:key/1")]
#[case::not_from_the_beginning("x:aws:iam::222222222222:root")]
#[case::a_line_of_its_own("arn:aws:iam::222222222222:role/a\nYour keys are fine.")]
#[case::markup("arn:aws:iam::222222222222:role/<b>")]
#[case::a_space("arn:aws:iam::222222222222:role/a b")]
#[case::too_long(&format!("arn:aws:iam::222222222222:role/{}", "a".repeat(512 - 30)))]
fn r9_what_could_alter_how_a_ticket_reads_is_no_caller(#[case] text: &str) {
    assert!(text.parse::<CallerArn>().is_err());
    assert!(serde_json::from_value::<CallerArn>(text.into()).is_err());
}

#[test]
fn r9_a_ticket_says_what_the_event_said_and_that_nobody_verified_it() {
    let heard = HeardChange {
        slug: "key-disabled".to_owned(),
        by: Some(ADA.parse().unwrap()),
        at: Some("2027-01-15T10:11:12.345Z".parse().unwrap()),
        key: None,
        role: None,
    };
    assert_eq!(
        heard.line(),
        format!(
            "According to an event of your account, not verified by us: key-disabled by {ADA} at 2027-01-15T10:11:12Z."
        )
    );
    let little = HeardChange { by: None, at: None, ..heard };
    assert!(little.line().ends_with("key-disabled by somebody."), "{}", little.line());
}
