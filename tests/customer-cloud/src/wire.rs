//! What comes over the wire and what goes back: the two AWS protocols that KMS, STS and IAM speak.

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

pub type HttpResponse = Response<Full<Bytes>>;

/// A handler's answer. `HangUp` closes the connection without a byte, as a dead endpoint does.
pub enum Reply {
    Http(HttpResponse),
    HangUp,
}

/// An AWS error: code and message are what the caller's SDK shows.
#[derive(Clone, Debug)]
pub struct Failure {
    pub status: u16,
    pub code: String,
    pub message: String,
}

impl Failure {
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Failure { status, code: code.into(), message: message.into() }
    }

    pub fn bad(code: &str, message: impl Into<String>) -> Self {
        Failure::new(400, code, message)
    }
}

/// One request, with the caller's credential scope already taken apart.
#[derive(Clone, Debug)]
pub struct Call {
    pub id: String,
    pub method: Method,
    pub path_and_query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub access_key: String,
    pub region: String,
    pub service: String,
    pub token: Option<String>,
}

impl Call {
    /// `None`: no AWS credential scope, neither in the header nor in a presigned query.
    pub fn new(method: Method, path_and_query: String, headers: HeaderMap, body: Bytes) -> Option<Self> {
        let query = pairs(path_and_query.split_once('?').map_or("", |(_, query)| query));
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let from_query =
            |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let scope = header("authorization")
            .and_then(|value| {
                let rest = value.strip_prefix("AWS4-HMAC-SHA256")?;
                Some(rest.split_once("Credential=")?.1.split(',').next()?.trim().to_owned())
            })
            .or_else(|| from_query("X-Amz-Credential"))?;
        let mut parts = scope.split('/');
        let (access_key, _date) = (parts.next()?.to_owned(), parts.next()?);
        let (region, service) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let token = header("x-amz-security-token").or_else(|| from_query("X-Amz-Security-Token"));
        let id = uuid::Uuid::now_v7().to_string();
        Some(Call { id, method, path_and_query, headers, body, access_key, region, service, token })
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// The parameters of the query protocol, from the form body or the query string.
    pub fn parameters(&self) -> Vec<(String, String)> {
        let query = self.path_and_query.split_once('?').map_or("", |(_, query)| query);
        let mut found = pairs(query);
        found.extend(pairs(&String::from_utf8_lossy(&self.body)));
        found
    }

    pub fn json(&self, result: Result<Value, Failure>) -> HttpResponse {
        let (status, body) = match result {
            Ok(value) => (200, if value.is_null() { String::new() } else { value.to_string() }),
            Err(failure) => {
                (failure.status, json!({"__type": failure.code, "message": failure.message}).to_string())
            }
        };
        respond(status, "application/x-amz-json-1.1", &self.id, body)
    }

    /// `result` holds the inner XML of `<{action}Result>`.
    pub fn xml(&self, action: &str, namespace: &str, result: Result<String, Failure>) -> HttpResponse {
        let id = &self.id;
        let (status, body) = match result {
            Ok(inner) => (
                200,
                format!(
                    "<{action}Response xmlns=\"{namespace}\"><{action}Result>{inner}</{action}Result>\
                     <ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></{action}Response>"
                ),
            ),
            Err(failure) => {
                let kind = if failure.status < 500 { "Sender" } else { "Receiver" };
                let (code, message) = (escape(&failure.code), escape(&failure.message));
                (
                    failure.status,
                    format!(
                        "<ErrorResponse xmlns=\"{namespace}\"><Error><Type>{kind}</Type><Code>{code}</Code>\
                         <Message>{message}</Message></Error><RequestId>{id}</RequestId></ErrorResponse>"
                    ),
                )
            }
        };
        respond(status, "text/xml", id, body)
    }
}

pub fn respond(status: u16, content_type: &str, request_id: &str, body: impl Into<Bytes>) -> HttpResponse {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in [("content-type", content_type), ("x-amzn-requestid", request_id)] {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

pub fn pairs(text: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

pub fn parameter<'a>(parameters: &'a [(String, String)], name: &str) -> Option<&'a str> {
    parameters
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.is_empty())
}

pub fn required<'a>(parameters: &'a [(String, String)], name: &str) -> Result<&'a str, Failure> {
    parameter(parameters, name).ok_or_else(|| {
        let message = format!(
            "1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must not be null"
        );
        Failure::bad("ValidationError", message)
    })
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The texts of every `<name>` element, unescaped. Enough for the flat answers that are read here.
pub fn elements(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let texts = xml.split(&open).skip(1).filter_map(|rest| rest.split_once(&close).map(|(text, _)| text));
    texts
        .map(|text| {
            text.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        })
        .collect()
}

pub fn element(xml: &str, name: &str) -> Option<String> {
    elements(xml, name).into_iter().next()
}
