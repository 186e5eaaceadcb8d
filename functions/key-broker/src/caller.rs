//! Who signed a request.

/// The ARN of the role behind an assumed-role session (`arn:aws:sts::<account>:assumed-role/<role>/<session>`),
/// or the role's own. A role's path does not stand in a session's ARN, so apps' roles have none.
pub fn role_of(arn: &str) -> Option<String> {
    let mut parts = arn.splitn(6, ':');
    let (Some("arn"), Some(partition), Some(service), Some(_), Some(account), Some(resource)) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let role = match (service, resource.split('/').collect::<Vec<_>>().as_slice()) {
        ("sts", ["assumed-role", role, _session]) => (*role).to_owned(),
        ("iam", ["role", role]) => (*role).to_owned(),
        _ => return None,
    };
    Some(format!("arn:{partition}:iam::{account}:role/{role}"))
}

#[cfg(test)]
mod tests {
    use super::role_of;

    #[test]
    fn i7_a_session_is_known_by_its_role_and_anything_else_by_nothing() {
        let role = Some("arn:aws:iam::111111111111:role/notes-app".to_owned());
        assert_eq!(role_of("arn:aws:sts::111111111111:assumed-role/notes-app/host-1"), role);
        assert_eq!(role_of("arn:aws:iam::111111111111:role/notes-app"), role);
        assert_eq!(role_of("arn:aws:iam::111111111111:user/eve"), None);
        assert_eq!(role_of("arn:aws:iam::111111111111:root"), None);
        assert_eq!(role_of("notes-app"), None);
    }
}
