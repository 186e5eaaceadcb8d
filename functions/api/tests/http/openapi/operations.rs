//! The calls: who may make them comes from the domain's table, what problems are from the closed list.

use claviger_domain::authorisation::Call;
use claviger_lambda::problem::ProblemKind::{self, *};
use utoipa::openapi::HttpMethod::{self, Get, Post, Put};

/// What a call answers when all is well.
#[derive(Clone, Copy)]
pub enum Answers {
    /// A document of this schema.
    Document(&'static str),
    /// A document, and `Location`.
    Located(&'static str),
    /// Lines of documents, and `Link` to the rest.
    Lines(&'static str),
    /// This document.
    Itself,
    /// Nothing.
    Nothing,
}

pub struct Operation {
    pub id: &'static str,
    pub tag: &'static str,
    pub method: HttpMethod,
    pub path: &'static str,
    /// None for what anybody may call, without a token.
    pub call: Option<Call>,
    pub summary: &'static str,
    /// Whether `If-Match` counts.
    pub if_match: bool,
    /// The schema of the body.
    pub body: Option<&'static str>,
    /// Parameters of the query: name, schema, what it does.
    pub query: &'static [(&'static str, &'static str, &'static str)],
    pub answers: &'static [(u16, &'static str, Answers)],
    /// Besides those that every call of its kind has.
    pub problems: &'static [ProblemKind],
}

const PAGE: &[(&str, &str, &str)] = &[
    ("limit", "", "How many entries a page has at most."),
    ("cursor", "Cursor", "Where the page starts: `nextCursor` of the page before."),
];
const LINES: &[(&str, &str, &str)] = &[
    ("limit", "", "How many lines the answer has at most; without it, as many as an answer holds."),
    ("cursor", "Cursor", "Where the answer starts: follow `Link`."),
];

macro_rules! organization {
    ($rest:literal) => {
        concat!("/v1/organizations/{org}", $rest)
    };
}

pub const OPERATIONS: &[Operation] = &[
    Operation {
        id: "putOrganization",
        tag: "system",
        method: Put,
        path: organization!(""),
        call: Some(Call::PutOrganisation),
        summary: "Take over what the vendor's customer records say of an organization",
        if_match: false,
        body: Some("OrganizationFeed"),
        query: &[],
        answers: &[
            (200, "It was known and is as the feed says.", Answers::Document("Organization")),
            (201, "It is new.", Answers::Document("Organization")),
        ],
        problems: &[Conflict],
    },
    Operation {
        id: "enrol",
        tag: "encryption policy",
        method: Post,
        path: organization!("/encryption-policy"),
        call: Some(Call::Enrol),
        summary: "Enrol the organization: every key is proven before anything is stored",
        if_match: false,
        body: Some("Enrolment"),
        query: &[],
        answers: &[(
            202,
            "It waits for support, unless self-service approval is on.",
            Answers::Located("EncryptionPolicy"),
        )],
        problems: &[AlreadyEnrolled, Conflict, KeysNotVerified, NoWayBack, NotEligible, RealmIsFixed],
    },
    Operation {
        id: "showEncryptionPolicy",
        tag: "encryption policy",
        method: Get,
        path: organization!("/encryption-policy"),
        call: Some(Call::GetPolicy),
        summary: "Show where the encryption policy stands, and how each key is",
        if_match: false,
        body: None,
        query: &[],
        answers: &[(200, "The encryption policy.", Answers::Document("EncryptionPolicy"))],
        problems: &[],
    },
    Operation {
        id: "validateEnrolment",
        tag: "encryption policy",
        method: Post,
        path: organization!("/encryption-policy/validate"),
        call: Some(Call::ValidatePolicy),
        summary: "Run an enrolment dry: the same checks, every fault at once, nothing stored",
        if_match: false,
        body: Some("Enrolment"),
        query: &[],
        answers: &[(
            200,
            "What the checks found; fields that are wrong are failed checks.",
            Answers::Document("Validation"),
        )],
        problems: &[],
    },
    Operation {
        id: "previewRevocation",
        tag: "encryption policy",
        method: Get,
        path: organization!("/encryption-policy/keys/{region}/preview"),
        call: Some(Call::PreviewRevocation),
        summary: "Show what would happen if this key were disabled now; nothing is changed and nobody told",
        if_match: false,
        body: None,
        query: &[],
        answers: &[(200, "What would happen.", Answers::Document("Preview"))],
        problems: &[IllegalState],
    },
    Operation {
        id: "replaceKey",
        tag: "encryption policy",
        method: Post,
        path: organization!("/encryption-policy/keys/{region}/replace"),
        call: Some(Call::ReplaceKey),
        summary: "Name a new key for a region whose key is gone for good; every data key is wrapped under it",
        if_match: true,
        body: Some("KeyReplacement"),
        query: &[],
        answers: &[(
            202,
            "It is under way, or waits for a second org admin where the catalogue asks for one.",
            Answers::Located("EncryptionPolicy"),
        )],
        problems: &[Conflict, IllegalState, KeysNotVerified],
    },
    Operation {
        id: "closeOrganization",
        tag: "encryption policy",
        method: Post,
        path: organization!("/encryption-policy/close"),
        call: Some(Call::CloseOrganisation),
        summary: "Leave: support approves, a time for the export runs, then access ends and every data key is erased",
        if_match: true,
        body: Some("ClosingRequest"),
        query: &[],
        answers: &[(
            202,
            "It waits for support, or, with self-service approval, the time for the export runs.",
            Answers::Located("EncryptionPolicy"),
        )],
        problems: &[Conflict, IllegalState],
    },
    Operation {
        id: "cancelClosing",
        tag: "encryption policy",
        method: Post,
        path: organization!("/encryption-policy/close/cancel"),
        call: Some(Call::CloseOrganisation),
        summary: "Think better of it, until the erasure begins",
        if_match: true,
        body: None,
        query: &[],
        answers: &[(202, "Everything stays as it is.", Answers::Located("EncryptionPolicy"))],
        problems: &[Conflict, IllegalState],
    },
    Operation {
        id: "showErasureStatement",
        tag: "encryption policy",
        method: Get,
        path: organization!("/encryption-policy/erasure-statement"),
        call: Some(Call::ReadErasure),
        summary: "Show what was erased when the organization left, what is left, and what to do with the keys",
        if_match: false,
        body: None,
        query: &[],
        answers: &[(200, "The statement.", Answers::Document("ErasureStatement"))],
        problems: &[],
    },
    Operation {
        id: "showKeyPolicy",
        tag: "encryption policy",
        method: Get,
        path: organization!("/key-policy"),
        call: Some(Call::GetKeyPolicy),
        summary: "Show the key policy to paste on each key",
        if_match: false,
        body: None,
        query: &[
            ("awsAccountId", "AwsAccountId", "The account, before the organization has enrolled."),
            ("realm", "Realm", "The realm, before the organization has enrolled."),
        ],
        answers: &[(200, "The key policy.", Answers::Document("KeyPolicy"))],
        problems: &[],
    },
    Operation {
        id: "requestAppInstance",
        tag: "app instances",
        method: Post,
        path: organization!("/app-instances"),
        call: Some(Call::RequestInstance),
        summary: "Request an encrypted app on a site",
        if_match: false,
        body: Some("Place"),
        query: &[],
        answers: &[(
            202,
            "It waits for support, unless self-service approval is on.",
            Answers::Located("AppInstance"),
        )],
        problems: &[AccessNotGranted, Conflict, IllegalState, NotEligible, Suspended],
    },
    Operation {
        id: "listAppInstances",
        tag: "app instances",
        method: Get,
        path: organization!("/app-instances"),
        call: Some(Call::ListInstances),
        summary: "List the organization's apps",
        if_match: false,
        body: None,
        query: PAGE,
        answers: &[(200, "A page.", Answers::Document("AppInstancePage"))],
        problems: &[],
    },
    Operation {
        id: "addAppInstanceDirectly",
        tag: "system",
        method: Post,
        path: organization!("/app-instances/direct"),
        call: Some(Call::AddInstanceDirectly),
        summary: "Take note of an app that was added without a request; it is not encrypted",
        if_match: false,
        body: Some("Place"),
        query: &[],
        answers: &[
            (200, "It was known.", Answers::Document("AppInstance")),
            (201, "It is new.", Answers::Document("AppInstance")),
        ],
        problems: &[Conflict],
    },
    Operation {
        id: "acknowledgeOrder",
        tag: "system",
        method: Post,
        path: organization!("/app-instances/{id}/acknowledge"),
        call: Some(Call::AcknowledgeOrder),
        summary: "Take note of an app's answer to an order to suspend or restore",
        if_match: true,
        body: Some("Acknowledgement"),
        query: &[],
        answers: &[(204, "It is noted, or was.", Answers::Nothing)],
        problems: &[Conflict, IllegalState],
    },
    Operation {
        id: "listTickets",
        tag: "tickets",
        method: Get,
        path: organization!("/tickets"),
        call: Some(Call::ListTickets),
        summary: "List tickets, newest first",
        if_match: false,
        body: None,
        query: PAGE,
        answers: &[(200, "A page.", Answers::Document("TicketPage"))],
        problems: &[],
    },
    Operation {
        id: "commentTicket",
        tag: "tickets",
        method: Post,
        path: organization!("/tickets/{id}/comments"),
        call: Some(Call::CommentTicket),
        summary: "Add to a ticket",
        if_match: true,
        body: Some("Comment"),
        query: &[],
        answers: &[(201, "The ticket with it.", Answers::Document("Ticket"))],
        problems: &[Conflict, IllegalState],
    },
    Operation {
        id: "requestRestoration",
        tag: "tickets",
        method: Post,
        path: organization!("/restorations"),
        call: Some(Call::RequestRestoration),
        summary: "Ask for access to be restored; every region is probed",
        if_match: true,
        body: Some("Restoration"),
        query: &[],
        answers: &[(202, "It is under way.", Answers::Located("RestorationAccepted"))],
        problems: &[Conflict, IllegalState, KeysNotUsable, WindowLapsed],
    },
    Operation {
        id: "listAccessRequests",
        tag: "access requests",
        method: Get,
        path: organization!("/access-requests"),
        call: Some(Call::ListAccessRequests),
        summary: "List what new key policies of the vendor ask for, newest first",
        if_match: false,
        body: None,
        query: &[],
        answers: &[(200, "All of them.", Answers::Document("AccessRequestPage"))],
        problems: &[Conflict],
    },
    Operation {
        id: "acceptAccessRequest",
        tag: "access requests",
        method: Post,
        path: organization!("/access-requests/{id}/accept"),
        call: Some(Call::AnswerAccessRequest),
        summary: "Accept an access request: every permission is used on every key first",
        if_match: true,
        body: None,
        query: &[],
        answers: &[(200, "It is accepted, and proven.", Answers::Document("AccessRequest"))],
        problems: &[Conflict, KeysNotUsable, KeysNotVerified],
    },
    Operation {
        id: "declineAccessRequest",
        tag: "access requests",
        method: Post,
        path: organization!("/access-requests/{id}/decline"),
        call: Some(Call::AnswerAccessRequest),
        summary: "Decline an access request: there are no new apps while it is",
        if_match: true,
        body: None,
        query: &[],
        answers: &[(200, "It is declined.", Answers::Document("AccessRequest"))],
        problems: &[Conflict, IllegalState],
    },
    Operation {
        id: "publishKeyPolicyTemplate",
        tag: "support",
        method: Post,
        path: "/v1/support/key-policy-templates",
        call: Some(Call::PublishTemplate),
        summary: "Publish a key-policy template and ask every enrolled organization; repeat it while `done` is false",
        if_match: false,
        body: Some("KeyPolicyTemplate"),
        query: &[],
        answers: &[(202, "It is published; customers are asked.", Answers::Document("PublishedTemplate"))],
        problems: &[Conflict, IllegalState],
    },
    Operation {
        id: "readAudit",
        tag: "audit",
        method: Get,
        path: organization!("/audit"),
        call: Some(Call::ReadAudit),
        summary: "Read the audit log, one fact a line",
        if_match: false,
        body: None,
        query: LINES,
        answers: &[(200, "Facts, oldest first within a chain.", Answers::Lines("Fact"))],
        problems: &[],
    },
    Operation {
        id: "listSupportRequests",
        tag: "support",
        method: Get,
        path: "/v1/support/requests",
        call: Some(Call::ListSupportRequests),
        summary: "List what waits for support",
        if_match: false,
        body: None,
        query: PAGE,
        answers: &[(200, "A page.", Answers::Document("SupportRequestPage"))],
        problems: &[],
    },
    Operation {
        id: "approveSupportRequest",
        tag: "support",
        method: Post,
        path: "/v1/support/requests/{id}/approve",
        call: Some(Call::DecideSupportRequest),
        summary: "Approve a request",
        if_match: true,
        body: None,
        query: &[],
        answers: &[(200, "It is approved.", Answers::Document("Decided"))],
        problems: &[Conflict, IllegalState],
    },
    Operation {
        id: "rejectSupportRequest",
        tag: "support",
        method: Post,
        path: "/v1/support/requests/{id}/reject",
        call: Some(Call::DecideSupportRequest),
        summary: "Reject a request, with the reason that the org admin will read",
        if_match: true,
        body: Some("Rejection"),
        query: &[],
        answers: &[(200, "It is rejected.", Answers::Document("Decided"))],
        problems: &[Conflict, IllegalState],
    },
    Operation {
        id: "listOverdueOrders",
        tag: "support",
        method: Get,
        path: "/v1/support/overdue-orders",
        call: Some(Call::ListOverdueOrders),
        summary: "List orders to suspend that apps have not answered in time",
        if_match: false,
        body: None,
        query: PAGE,
        answers: &[(200, "A page.", Answers::Document("OverdueOrderPage"))],
        problems: &[],
    },
    Operation {
        id: "suspendOrganization",
        tag: "support",
        method: Post,
        path: "/v1/support/organizations/{org}/suspend",
        call: Some(Call::SuspendOrganisation),
        summary: "Suspend an organization's access for the vendor",
        if_match: false,
        body: Some("VendorSuspensionOrder"),
        query: &[],
        answers: &[(200, "It is suspended.", Answers::Document("EncryptionPolicy"))],
        problems: &[Conflict, IllegalState],
    },
    Operation {
        id: "liftSuspension",
        tag: "support",
        method: Post,
        path: "/v1/support/organizations/{org}/lift",
        call: Some(Call::LiftSuspension),
        summary: "Lift one cause of a suspension by its own rule: what support ordered, or, two agents together, a mistake",
        if_match: false,
        body: Some("Lift"),
        query: &[],
        answers: &[
            (200, "The cause is lifted; other causes stay.", Answers::Document("EncryptionPolicy")),
            (202, "A second agent has to say so too.", Answers::Document("EncryptionPolicy")),
        ],
        problems: &[Conflict, IllegalState, KeysNotUsable],
    },
    Operation {
        id: "carryOutRestoration",
        tag: "support",
        method: Post,
        path: "/v1/support/organizations/{org}/restorations",
        call: Some(Call::CarryOutRestoration),
        summary: "After the window, carry out the restoration that an org admin asked for on the ticket",
        if_match: false,
        body: Some("Restoration"),
        query: &[],
        answers: &[(202, "It is under way.", Answers::Located("RestorationAccepted"))],
        problems: &[Conflict, IllegalState, KeysNotUsable],
    },
    Operation {
        id: "showCatalogue",
        tag: "for anybody",
        method: Get,
        path: "/v1/catalogue",
        call: None,
        summary: "Show what can be encrypted where, on which plans, and within which bounds",
        if_match: false,
        body: None,
        query: &[],
        answers: &[(200, "The catalogue.", Answers::Document("Catalogue"))],
        problems: &[],
    },
    Operation {
        id: "showHealth",
        tag: "for anybody",
        method: Get,
        path: "/v1/health",
        call: None,
        summary: "Say that the function runs",
        if_match: false,
        body: None,
        query: &[],
        answers: &[(200, "It runs.", Answers::Document("Health"))],
        problems: &[],
    },
    Operation {
        id: "showOpenapi",
        tag: "for anybody",
        method: Get,
        path: "/v1/openapi.json",
        call: None,
        summary: "Show this document",
        if_match: false,
        body: None,
        query: &[],
        answers: &[(200, "This document.", Answers::Itself)],
        problems: &[],
    },
];

impl Operation {
    /// Whether `Idempotency-Key` counts.
    pub fn bears_key(&self) -> bool {
        self.method == Post && !self.path.ends_with("/validate")
    }

    /// Every problem that it may answer.
    pub fn every_problem(&self) -> Vec<ProblemKind> {
        let mut problems = self.problems.to_vec();
        problems.push(HeadersTooLarge);
        if self.bears_key() {
            problems.extend([IdempotencyKeyReused, InvalidRequest, RequestInProgress, TooLarge]);
        }
        if self.if_match {
            problems.extend([InvalidRequest, PreconditionFailed]);
        }
        if self.call.is_some() {
            problems.extend([Unauthenticated, Forbidden, TemporarilyUnavailable, Internal]);
        }
        if self.path.contains('{') {
            problems.push(NotFound);
        }
        if self.body.is_some() {
            problems.push(TooLarge);
        }
        if self.body.is_some() || !self.query.is_empty() {
            problems.push(InvalidRequest);
        }
        problems.sort_unstable();
        problems.dedup();
        problems
    }
}
