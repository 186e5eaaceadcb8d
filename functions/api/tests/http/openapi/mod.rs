//! `functions/api/openapi.json`: made here from the calls, the schemas, the table of who may what and the
//! list of problems; served as it is. Every answer that any test of the interface gets is held against it.

mod operations;
mod schemas;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, OnceLock};

use claviger_domain::authorisation::{Role, Verdict, verdict};
use claviger_lambda::problem::{PROBLEM_JSON, PROBLEM_KINDS, ProblemKind};
use http::StatusCode;
use jsonschema::Validator;
use operations::{Answers, OPERATIONS, Operation};
use serde_json::{Value, json};
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn, PathItem, Paths};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder, Ref, Required, Response, Server};

use crate::stage::{Came, stage};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
const REMEDY: &str = "UPDATE_DOCS=1 cargo test -p claviger-api openapi";
const CORRELATION: &str = "X-Correlation-Id";
const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson; charset=utf-8";
const ROLES: [(Role, &str); 5] = [
    (Role::OrgAdmin, "org-admin"),
    (Role::Auditor, "auditor"),
    (Role::Support, "support"),
    (Role::System, "system"),
    (Role::Stranger, "stranger"),
];

fn text_header(about: &str) -> utoipa::openapi::Header {
    HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .description(Some(about))
        .build()
}

fn answer(about: &str) -> ResponseBuilder {
    let correlation = Ref::new(format!("#/components/headers/{CORRELATION}"));
    ResponseBuilder::new().description(about).header_ref(CORRELATION, correlation)
}

fn good(about: &str, answers: Answers) -> Response {
    let of = |schema| ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
    match answers {
        Answers::Document(schema) => answer(about).content(JSON, of(schema)).build(),
        Answers::Located(schema) => {
            let location = text_header("Where to look later.");
            answer(about).content(JSON, of(schema)).header("Location", location).build()
        }
        Answers::Lines(schema) => {
            let link = text_header("`<...>; rel=\"next\"`, where there is more.");
            let about = format!("{about} Each line is a `{schema}`.");
            let lines = ContentBuilder::new().schema(Some(ObjectBuilder::new().schema_type(Type::String)));
            answer(&about).content(NDJSON, lines.build()).header("Link", link).build()
        }
        Answers::Itself => {
            let object = ContentBuilder::new().schema(Some(ObjectBuilder::new()));
            answer(about).content(JSON, object.build()).build()
        }
        Answers::Nothing => answer(about).build(),
    }
}

/// One answer for all problems of a status.
fn bad(kinds: &[ProblemKind]) -> Response {
    let slugs = kinds.iter().map(|kind| kind.slug());
    let code = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(slugs));
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name("Problem"))
        .item(ObjectBuilder::new().property("code", code));
    let about: Vec<String> =
        kinds.iter().map(|kind| format!("`{}`: {}.", kind.slug(), kind.title())).collect();
    let mut response =
        answer(&about.join(" ")).content(PROBLEM_JSON, ContentBuilder::new().schema(Some(schema)).build());
    if kinds.contains(&ProblemKind::Unauthenticated) {
        response = response.header("WWW-Authenticate", text_header("`Bearer`."));
    }
    if kinds
        .iter()
        .any(|kind| matches!(kind, ProblemKind::TemporarilyUnavailable | ProblemKind::RequestInProgress))
    {
        let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
        let after = HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds to wait."));
        response = response.header("Retry-After", after.build());
    }
    response.build()
}

fn query_schema(name: &str) -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
    if !name.is_empty() {
        return Ref::from_schema_name(name).into();
    }
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(200)).into()
}

fn operation(of: &Operation) -> utoipa::openapi::path::Operation {
    let roles: Vec<&str> = ROLES
        .iter()
        .filter(|(role, _)| of.call.is_some_and(|call| verdict(call, *role) == Verdict::Allowed))
        .map(|(_, word)| *word)
        .collect();
    let who = if of.call.is_some() { roles.join(", ") } else { "anybody, without a token".to_owned() };
    let mut made = OperationBuilder::new()
        .operation_id(Some(of.id))
        .tag(of.tag)
        .summary(Some(of.summary))
        .description(Some(format!("Who: {who}.")));
    if of.call.is_some() {
        let extensions = ExtensionsBuilder::new().add("x-roles", json!(roles)).build();
        made = made
            .security(SecurityRequirement::new("bearer", Vec::<String>::new()))
            .extensions(Some(extensions));
    }
    for (name, schema) in [
        ("org", "OrganizationName"),
        ("id", "Id"),
        ("region", "AwsRegion"),
        ("site", "SiteName"),
        ("version", "TemplateVersion"),
    ] {
        if of.path.contains(&format!("{{{name}}}")) {
            let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path);
            made = made.parameter(
                parameter.required(Required::True).schema(Some(Ref::from_schema_name(schema))).build(),
            );
        }
    }
    for (name, schema, about) in of.query {
        let parameter = ParameterBuilder::new().name(*name).parameter_in(ParameterIn::Query);
        let parameter = parameter.required(Required::False).description(Some(*about));
        made = made.parameter(parameter.schema(Some(query_schema(schema))).build());
    }
    let header = |name, schema: &str, about| {
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header);
        let parameter = parameter.required(Required::False).description(Some(about));
        parameter.schema(Some(Ref::from_schema_name(schema))).build()
    };
    if of.bears_key() {
        let about = "With the same key, the same request of the same caller is carried out once within 24 hours; \
                     the answer of one that was granted is given again, with `Idempotent-Replayed: true`.";
        made = made.parameter(header("Idempotency-Key", "IdempotencyKey", about));
    }
    if of.if_match {
        let about = "Changes it only if it still is what this `ETag` showed.";
        made = made.parameter(header("If-Match", "EntityTags", about));
    }
    if let Some(schema) = of.body {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
        let body = RequestBodyBuilder::new()
            .description(Some("At most 256 KiB. Unknown fields are passed over."))
            .content(JSON, content)
            .required(Some(Required::True));
        made = made.request_body(Some(body.build()));
    }
    for (status, about, answers) in of.answers {
        made = made.response(status.to_string(), good(about, *answers));
    }
    let mut by_status: BTreeMap<u16, Vec<ProblemKind>> = BTreeMap::new();
    for kind in of.every_problem() {
        by_status.entry(kind.status().as_u16()).or_default().push(kind);
    }
    for (status, kinds) in by_status {
        // What means one type everywhere is described once.
        made = match kinds.as_slice() {
            [one] => made.response(status.to_string(), Ref::from_response_name(one.slug())),
            several => made.response(status.to_string(), bad(several)),
        };
    }
    made.build()
}

/// Whether some operation has no other problem of its status.
fn stands_alone(kind: ProblemKind) -> bool {
    OPERATIONS.iter().map(Operation::every_problem).any(|kinds| {
        let mut same = kinds.iter().filter(|other| other.status() == kind.status());
        same.next() == Some(&kind) && same.next().is_none()
    })
}

fn made() -> OpenApi {
    let mut paths = Paths::new();
    for of in OPERATIONS {
        let item = PathItem::new(of.method.clone(), operation(of));
        match paths.paths.get_mut(of.path) {
            Some(known) => known.merge_operations(item),
            None => {
                paths.paths.insert(of.path.to_owned(), item);
            }
        }
    }
    let mut components = schemas::components();
    let correlation = text_header("Identifies the request; facts and problems repeat it.");
    components.headers.insert(CORRELATION.to_owned(), correlation.into());
    for kind in PROBLEM_KINDS.into_iter().filter(|kind| stands_alone(*kind)) {
        components.responses.insert(kind.slug().to_owned(), bad(&[kind]).into());
    }
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(
        "A token of the vendor's identity provider. What its bearer may do in an organization is looked up \
         at every call.",
    ));
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
    let about = "What an organization, the vendor's support and the vendor's machines may ask. An organization \
                 that is unknown and one that is not the caller's look the same: `not-found`. A method that a \
                 path does not have is answered with `method-not-allowed` and `Allow`. Lists are pages of \
                 `items`; the next one starts at `nextCursor`. `docs/ERRORS.md` lists the problem types.";
    let info =
        InfoBuilder::new().title("claviger").version(env!("CARGO_PKG_VERSION")).description(Some(about));
    OpenApiBuilder::new()
        .info(info.build())
        .servers(Some([Server::new("/")]))
        .paths(paths)
        .components(Some(components))
        .build()
}

fn document() -> Value {
    serde_json::to_value(made()).unwrap()
}

/// A schema, compiled when something is held against it for the first time: a test meets few of them.
struct Schema {
    schema: Value,
    compiled: OnceLock<Validator>,
}

impl Schema {
    fn of(document: &Value, schema: &Value) -> Self {
        let mut schema = schema.clone();
        schema["components"] = document["components"].clone();
        Self { schema, compiled: OnceLock::new() }
    }

    fn validator(&self) -> &Validator {
        self.compiled
            .get_or_init(|| jsonschema::options().should_validate_formats(true).build(&self.schema).unwrap())
    }
}

/// What a call takes, and what it answers by status: the media type and the schema.
struct Described {
    body: Option<Schema>,
    answers: BTreeMap<u16, Option<(String, Schema)>>,
}

/// The calls of a path, by method.
struct DescribedPath {
    template: Vec<String>,
    methods: BTreeMap<String, Described>,
}

/// In the tests an answer may hold nothing that the document does not name; clients have to bear more.
fn strict(mut document: Value) -> Value {
    for schema in document["components"]["schemas"].as_object_mut().unwrap().values_mut() {
        if schema.get("properties").is_some() && schema.get("additionalProperties").is_none() {
            schema["additionalProperties"] = json!(false);
        }
    }
    document
}

static DESCRIBED: LazyLock<Vec<DescribedPath>> = LazyLock::new(|| {
    let lenient = document();
    let document = strict(lenient.clone());
    let of_answer = |answer: &Value| {
        let shared = answer["$ref"].as_str().map(|name| document.pointer(&name[1..]).unwrap());
        let (media, content) = shared.unwrap_or(answer)["content"].as_object()?.iter().next()?;
        // Lines are checked one by one.
        let fact = json!({ "$ref": "#/components/schemas/Fact" });
        let schema = if media == NDJSON { &fact } else { &content["schema"] };
        Some((media.clone(), Schema::of(&document, schema)))
    };
    let of_operation = |operation: &Value| {
        let body = operation.get("requestBody").map(|body| &body["content"][JSON]["schema"]);
        let answers = operation["responses"].as_object().unwrap().iter();
        Described {
            body: body.map(|schema| Schema::of(&lenient, schema)),
            answers: answers.map(|(status, answer)| (status.parse().unwrap(), of_answer(answer))).collect(),
        }
    };
    let paths = document["paths"].as_object().unwrap().iter();
    let described = paths.map(|(path, item)| DescribedPath {
        template: path.split('/').map(str::to_owned).collect(),
        methods: item
            .as_object()
            .unwrap()
            .iter()
            .map(|(method, operation)| (method.to_uppercase(), of_operation(operation)))
            .collect(),
    });
    // `/direct` before `/{id}`, as the router has it.
    let mut described: Vec<DescribedPath> = described.collect();
    described.sort_by_key(|path| path.template.iter().filter(|part| part.starts_with('{')).count());
    described
});

fn is_at(template: &[String], path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let same = |(wanted, part): (&String, &&str)| {
        if wanted.starts_with('{') { !part.is_empty() } else { wanted == part }
    };
    template.len() == parts.len() && template.iter().zip(&parts).all(same)
}

fn hold(validator: &Validator, value: &Value, what: &str) {
    let faults: Vec<String> =
        validator.iter_errors(value).map(|fault| format!("{}: {fault}", fault.instance_path())).collect();
    assert!(faults.is_empty(), "{what} does not match the document: {faults:#?}");
}

/// Holds a call and its answer against the document.
pub fn check(method: &str, path: &str, sent: &[u8], came: &Came) {
    if !path.starts_with("/v1/") {
        return;
    }
    let what = format!("{method} {path}: {} {}", came.status, came.text);
    let code = || serde_json::from_str::<Value>(&came.text).unwrap()["code"].clone();
    let Some(found) = DESCRIBED.iter().find(|described| is_at(&described.template, path)) else {
        assert_eq!(code(), "not-found", "no such path is documented: {what}");
        return;
    };
    let Some(described) = found.methods.get(method) else {
        assert_eq!(code(), "method-not-allowed", "no such method is documented: {what}");
        let allow = came.headers["allow"].to_str().unwrap();
        let allow: BTreeSet<&str> = allow.split(',').filter(|method| *method != "HEAD").collect();
        let documented: BTreeSet<&str> = found.methods.keys().map(String::as_str).collect();
        assert_eq!(allow, documented, "methods of {path}");
        return;
    };
    let answer = described.answers.get(&came.status.as_u16());
    let answer = answer.unwrap_or_else(|| panic!("the status is not documented: {what}"));
    assert!(came.headers.contains_key("x-correlation-id"), "{what}");
    // What is granted was asked for as the document says. The dry run reports what is wrong and is fine.
    if let (Some(body), true, false) =
        (&described.body, came.status.is_success(), path.ends_with("/validate"))
    {
        hold(body.validator(), &serde_json::from_slice(sent).unwrap(), "the body that was sent");
    }
    let Some((media, schema)) = answer else {
        assert!(came.text.is_empty(), "no body is documented: {what}");
        return;
    };
    assert_eq!(came.headers["content-type"].to_str().unwrap(), media, "{what}");
    let lines: Vec<&str> = if media == NDJSON { came.text.lines().collect() } else { vec![&came.text] };
    for line in lines {
        hold(schema.validator(), &serde_json::from_str(line).unwrap(), &what);
    }
}

#[test]
fn the_openapi_document_is_current() {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(FILE, format!("{}\n", serde_json::to_string_pretty(&document()).unwrap())).unwrap();
    }
    let written: Value = serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap();
    assert!(written == document(), "functions/api/openapi.json is stale; help: run `{REMEDY}`");
    assert_eq!(written["openapi"], "3.1.0");
    let read: OpenApi = serde_json::from_value(written).unwrap();
    assert_eq!(read.paths.paths.len(), made().paths.paths.len());
}

#[tokio::test]
async fn the_openapi_document_is_served_to_anybody() {
    let came = stage().await.get("", "openapi.json").await;
    assert_eq!(came.status, StatusCode::OK);
    assert_eq!(came.json()["info"]["title"], "claviger");
    // The one that is built in is of before an update.
    assert!(std::env::var_os("UPDATE_DOCS").is_some() || came.json() == document(), "help: run `{REMEDY}`");
}

/// Every text under a key, wherever it is.
fn named(value: &Value, key: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if let (true, Some(text)) = (name == key, field.as_str()) {
                    found.insert(text.to_owned());
                }
                named(field, key, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| named(item, key, found)),
        _ => {}
    }
}

#[test]
fn the_openapi_document_refers_to_nothing_that_it_lacks_and_has_nothing_in_vain() {
    let document = document();
    let mut referred = BTreeSet::new();
    named(&document, "$ref", &mut referred);
    let mut has = BTreeSet::new();
    for kind in ["schemas", "responses", "headers"] {
        let names = document["components"][kind].as_object().unwrap().keys();
        has.extend(names.map(|name| format!("#/components/{kind}/{name}")));
    }
    // Lines are described in words: OpenAPI 3.1 has no schema for them.
    assert!(has.remove("#/components/schemas/Fact"));
    assert_eq!(referred, has);
}

#[test]
fn every_problem_type_is_documented_where_it_is_answered() {
    let documented: BTreeSet<ProblemKind> = OPERATIONS.iter().flat_map(Operation::every_problem).collect();
    for kind in PROBLEM_KINDS {
        // A method that is not there belongs to no operation.
        assert_eq!(documented.contains(&kind), kind != ProblemKind::MethodNotAllowed, "{}", kind.slug());
    }
}

#[tokio::test]
async fn every_documented_path_has_the_documented_methods_and_no_others() {
    let stage = stage().await;
    for of in OPERATIONS {
        let path = of.path.replace("{org}", "acme").replace("{id}", "00000000-0000-4000-8000-0000000000aa");
        let path = path.replace("{region}", "eu-west-1").replace("{site}", "eng").replace("{version}", "1");
        // The answer to a method that no path has is held against the document like every other.
        let came = stage.call("system", "TRACE", path.strip_prefix("/v1/").unwrap(), None).await;
        assert_eq!(came.status, StatusCode::METHOD_NOT_ALLOWED, "{}", of.path);
    }
}

/// The other way round: the router cannot be asked for its routes, its source can.
#[test]
fn every_route_of_the_router_is_documented() {
    let source = include_str!("../../../src/lib.rs");
    let nested = source.split_once(".nest(\"").unwrap().1.split_once('"').unwrap().0;
    let organization = source.split_once("let organization").unwrap().1.split_once(';').unwrap().0;
    let documented: BTreeSet<&str> = OPERATIONS.iter().map(|of| of.path).collect();
    let mut seen = 0;
    for (text, prefix) in [(organization, nested), (&source.replace(organization, ""), "")] {
        for route in text.split(".route(").skip(1) {
            let path = route.split('"').nth(1).unwrap();
            let path =
                format!("{prefix}{}", if prefix.is_empty() { path } else { path.trim_end_matches('/') });
            // Pages for people are no part of the interface.
            if path.starts_with("/v1/") {
                assert!(documented.contains(path.as_str()), "{path} is not documented");
                seen += 1;
            }
        }
    }
    assert_eq!(seen, documented.len());
}
