//! Sends webhooks: over TLS, within a few seconds, to exactly the address that the vendor gave.

use std::time::Duration;

use async_trait::async_trait;
use claviger_app::ports::{CallError, WebhookSender};
use claviger_app::webhooks::SignedRequest;
use reqwest::Url;
use reqwest::redirect::Policy;

use crate::env::{self, SettingsError};

const URLS: &str = "CLAVIGER_WEBHOOK_URLS";

/// The destinations, from the variables of the process; none is well.
///
/// # Errors
/// Names the destination that may not be one.
pub fn destinations_from_env() -> Result<Vec<String>, SettingsError> {
    let list = env::optional(URLS).unwrap_or_default();
    list.split(',').map(str::trim).filter(|url| !url.is_empty()).map(destination).collect()
}

/// TLS, or this very machine.
fn destination(text: &str) -> Result<String, SettingsError> {
    let refused = |reason: String| {
        SettingsError::new(URLS, reason, "give URLs that begin with https://, separated by commas")
    };
    let url: Url = text.parse().map_err(|error| refused(format!("`{text}`: {error}")))?;
    let loopback = matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
    let allowed = url.scheme() == "https" || (url.scheme() == "http" && loopback);
    if !allowed || !url.username().is_empty() || url.password().is_some() {
        return Err(refused(format!(
            "`{}` is not https without credentials",
            url.host_str().unwrap_or_default()
        )));
    }
    Ok(text.to_owned())
}

/// Sends webhooks over HTTP.
pub struct HttpWebhooks(reqwest::Client);

impl HttpWebhooks {
    /// A client that follows no redirect: a signed notice goes where it was meant to, or nowhere.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(Policy::none())
            .connect_timeout(Duration::from_secs(3))
            .timeout(Duration::from_secs(8))
            .user_agent(concat!("claviger/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self(client))
    }
}

#[async_trait]
impl WebhookSender for HttpWebhooks {
    async fn send(&self, request: &SignedRequest) -> Result<u16, CallError> {
        let answer = self
            .0
            .post(&request.url)
            .header("content-type", "application/json")
            .header("webhook-id", &request.id)
            .header("webhook-timestamp", request.timestamp.to_string())
            .header("webhook-signature", &request.signature)
            .body(request.body.clone())
            .send()
            .await;
        match answer {
            Ok(answer) => Ok(answer.status().as_u16()),
            Err(error) => {
                let reason = error.without_url().to_string();
                Err(CallError { what: "the webhook's receiver", reason })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn a_destination_is_https_or_this_machine_and_bears_no_credentials() {
        for text in ["https://hooks.example.com/claviger", "http://127.0.0.1:9/x", "http://localhost/"] {
            assert!(destination(text).is_ok(), "{text}");
        }
        for text in
            ["http://hooks.example.com", "http://169.254.169.254/", "https://a:b@example.com", "ftp://x", "x"]
        {
            assert!(destination(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_webhook_bears_the_three_headers_and_follows_no_redirect() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let receiver = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"{\"a\":1}") {
                let mut some = [0; 1024];
                let read = socket.read(&mut some).await.unwrap();
                seen.extend_from_slice(&some[..read]);
            }
            let answer = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
            socket.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(seen).unwrap()
        });
        let request = SignedRequest {
            url,
            id: "msg_1".to_owned(),
            timestamp: 1_614_265_330,
            signature: "v1,c2ln".to_owned(),
            body: "{\"a\":1}".to_owned(),
        };
        assert_eq!(HttpWebhooks::new().unwrap().send(&request).await, Ok(302));
        let seen = receiver.await.unwrap();
        for header in ["webhook-id: msg_1", "webhook-timestamp: 1614265330", "webhook-signature: v1,c2ln"] {
            assert!(seen.contains(header), "{seen}");
        }
    }
}
