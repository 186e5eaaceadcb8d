//! One port for everything: the service is the one that the caller signed for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::cloud::Cloud;
use crate::wire::{Call, Failure, HttpResponse, Reply, respond};
use crate::{admin, iam, kms, sts};

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed on purpose")]
struct HungUp;

/// Serves until the future is dropped.
pub async fn serve(listener: TcpListener, cloud: Arc<Cloud>) -> Infallible {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let cloud = Arc::clone(&cloud);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&cloud), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
}

async fn answer(cloud: Arc<Cloud>, request: Request<Incoming>) -> Result<HttpResponse, HungUp> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| HungUp)?.to_bytes();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    if path.starts_with("/_cloud") {
        return Ok(admin::handle(&cloud, &parts.method, &path, &body));
    }
    let Some(call) = Call::new(parts.method, path, parts.headers, body) else {
        return Ok(respond(403, "application/x-amz-json-1.1", "", MISSING_TOKEN));
    };
    let reply = match call.service.as_str() {
        "kms" => kms::handle(&cloud, &call).await,
        "sts" => sts::handle(&cloud, &call).await,
        "iam" => Reply::Http(iam::handle(&cloud, &call).await),
        other => {
            let message = format!("customer-cloud plays kms, sts and iam, not {other}");
            Reply::Http(call.json(Err(Failure::bad("UnknownOperationException", message))))
        }
    };
    match reply {
        Reply::Http(response) => Ok(response),
        Reply::HangUp => Err(HungUp),
    }
}

const MISSING_TOKEN: &str =
    r#"{"__type":"MissingAuthenticationTokenException","message":"Missing Authentication Token"}"#;
