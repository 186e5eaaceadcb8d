//! `key-broker`: data keys for the data plane, behind an IAM-authorised Function URL that names the
//! caller. Keys leave sealed to the caller's one-time key, never in the clear.

mod answer;
mod caller;
mod request;

pub use caller::role_of;

use claviger_app::hand_out_data_key::HandOutDataKey;
use claviger_app::prove_policies::ProvePolicies;
use lambda_http::request::RequestContext;
use lambda_http::{Request, RequestExt, Response};

use answer::Trouble;

/// The use cases of this function.
pub struct KeyBroker<'a> {
    /// Hands a data key out.
    pub hand_out: HandOutDataKey<'a>,
    /// Proves policies while the watcher is late.
    pub prove: ProvePolicies<'a>,
}

impl KeyBroker<'_> {
    /// Answers one request; trouble is problem+json.
    pub async fn handle(&self, request: Request) -> Response<String> {
        let answered = match request.uri().path() {
            "/v1/data-keys" => self.data_key(&request).await,
            "/v1/proofs" => self.proofs(&request).await,
            _ => Err(Trouble::NotFound),
        };
        answered.unwrap_or_else(Trouble::into_response)
    }

    async fn data_key(&self, request: &Request) -> Result<Response<String>, Trouble> {
        let caller = caller(request)?;
        let (wanted, transport_key) = request::data_key(request.body(), caller)?;
        let handed_out = self.hand_out.run(&wanted).await?;
        answer::data_key(&handed_out, &transport_key)
    }

    async fn proofs(&self, request: &Request) -> Result<Response<String>, Trouble> {
        // What the proof of a policy says, and the KMS calls that it costs the customer, are for its vendor's apps.
        if !self.hand_out.settings.app_roles.contains_key(&caller(request)?) {
            return Err(Trouble::Forbidden);
        }
        let policies = request::proofs(request.body())?;
        Ok(answer::proofs(&self.prove.run(&policies).await))
    }
}

/// The role that signed the request, as the Function URL's authoriser says.
fn caller(request: &Request) -> Result<String, Trouble> {
    let context = request.request_context_ref();
    let Some(RequestContext::ApiGatewayV2(context)) = context else {
        return Err(Trouble::Forbidden);
    };
    let iam = context.authorizer.as_ref().and_then(|authorizer| authorizer.iam.as_ref());
    let arn = iam.and_then(|iam| iam.user_arn.as_deref()).ok_or(Trouble::Forbidden)?;
    role_of(arn).ok_or(Trouble::Forbidden)
}
