//! Starts `api`.

use std::sync::Arc;

use claviger_api::{Api, router};
use claviger_lambda::adapters::Adapters;
use claviger_lambda::auth::TokenVerifier;
use claviger_lambda::{env, start};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    start::init_tracing();
    let adapters = Adapters::from_env().await?;
    let issuer = env::required("CLAVIGER_TOKEN_ISSUER")?;
    let audience = env::required("CLAVIGER_TOKEN_AUDIENCE")?;
    let prober = adapters.prober()?;
    let api = Api {
        authenticator: Arc::new(TokenVerifier::new(&issuer, &audience)?),
        stores: Arc::new(adapters.store),
        prober: Arc::new(prober),
        clock: Arc::new(adapters.clock),
        ids: Arc::new(adapters.ids),
        settings: adapters.settings,
    };
    lambda_http::run(router(api)).await
}
