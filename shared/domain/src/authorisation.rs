//! Who may call what: one table (spec E3, S1, I7). Whose organisation it is has been settled before:
//! a person has a role in one organisation only, and a foreign one is not found.

/// What a caller is, in the organisation that the call names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A registered administrator of the organisation.
    OrgAdmin,
    /// A read-only person of the organisation.
    Auditor,
    /// The vendor's support.
    Support,
    /// The vendor's own machines.
    System,
    /// Somebody with a valid token and nothing to do with the organisation.
    Stranger,
}

/// The calls of the HTTP interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is named after its call")]
pub enum Call {
    PutOrganisation,
    Enrol,
    GetPolicy,
    ValidatePolicy,
    GetKeyPolicy,
    RequestInstance,
    ListInstances,
    AddInstanceDirectly,
    AcknowledgeOrder,
    ListTickets,
    CommentTicket,
    RequestRestoration,
    ReadAudit,
    ReadUsage,
    ListAccessRequests,
    AnswerAccessRequest,
    PublishTemplate,
    ListSupportRequests,
    DecideSupportRequest,
    SuspendOrganisation,
    LiftSuspension,
    CarryOutRestoration,
    ListOverdueOrders,
    ReplaceKey,
    PreviewRevocation,
    CloseOrganisation,
    ReadErasure,
    RequestReencryption,
    SeeReencryption,
    SteerReencryption,
    RegisterBackup,
    ListBackups,
    RenameSite,
    DeleteSite,
}

/// Every call, for tests and documents.
pub const CALLS: [Call; 34] = [
    Call::PutOrganisation,
    Call::Enrol,
    Call::GetPolicy,
    Call::ValidatePolicy,
    Call::GetKeyPolicy,
    Call::RequestInstance,
    Call::ListInstances,
    Call::AddInstanceDirectly,
    Call::AcknowledgeOrder,
    Call::ListTickets,
    Call::CommentTicket,
    Call::RequestRestoration,
    Call::ReadAudit,
    Call::ReadUsage,
    Call::ListAccessRequests,
    Call::AnswerAccessRequest,
    Call::PublishTemplate,
    Call::ListSupportRequests,
    Call::DecideSupportRequest,
    Call::SuspendOrganisation,
    Call::LiftSuspension,
    Call::CarryOutRestoration,
    Call::ListOverdueOrders,
    Call::ReplaceKey,
    Call::PreviewRevocation,
    Call::CloseOrganisation,
    Call::ReadErasure,
    Call::RequestReencryption,
    Call::SeeReencryption,
    Call::SteerReencryption,
    Call::RegisterBackup,
    Call::ListBackups,
    Call::RenameSite,
    Call::DeleteSite,
];

/// What comes of a call by a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// It may not, and may know that the organisation exists.
    Forbidden,
    /// It may not know.
    NotFound,
}

/// The table.
pub const fn verdict(call: Call, role: Role) -> Verdict {
    let allowed = match call {
        Call::PutOrganisation
        | Call::AddInstanceDirectly
        | Call::AcknowledgeOrder
        | Call::RegisterBackup
        | Call::RenameSite
        | Call::DeleteSite => matches!(role, Role::System),
        Call::ListBackups => matches!(role, Role::System | Role::OrgAdmin | Role::Auditor),
        Call::Enrol
        | Call::ValidatePolicy
        | Call::RequestInstance
        | Call::RequestRestoration
        | Call::ListAccessRequests
        | Call::AnswerAccessRequest => matches!(role, Role::OrgAdmin),
        Call::GetPolicy | Call::ListInstances | Call::ListTickets | Call::SeeReencryption => {
            matches!(role, Role::OrgAdmin | Role::Auditor | Role::Support)
        }
        Call::ReplaceKey | Call::CloseOrganisation | Call::RequestReencryption | Call::SteerReencryption => {
            matches!(role, Role::OrgAdmin)
        }
        Call::GetKeyPolicy
        | Call::ReadAudit
        | Call::ReadUsage
        | Call::PreviewRevocation
        | Call::ReadErasure => {
            matches!(role, Role::OrgAdmin | Role::Auditor)
        }
        Call::CommentTicket => matches!(role, Role::OrgAdmin | Role::Support),
        Call::ListSupportRequests
        | Call::DecideSupportRequest
        | Call::SuspendOrganisation
        | Call::LiftSuspension
        | Call::CarryOutRestoration
        | Call::ListOverdueOrders
        | Call::PublishTemplate => matches!(role, Role::Support),
    };
    if allowed {
        return Verdict::Allowed;
    }
    match (call, role) {
        (
            Call::ListSupportRequests
            | Call::DecideSupportRequest
            | Call::ListOverdueOrders
            | Call::PublishTemplate,
            _,
        ) => Verdict::Forbidden,
        (_, Role::Stranger) => Verdict::NotFound,
        (_, Role::OrgAdmin | Role::Auditor | Role::Support | Role::System) => Verdict::Forbidden,
    }
}
