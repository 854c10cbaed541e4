//! Issues short-lived tokens to whoever holds a key.
//!
//! There is one application here, so a token that is to open another one is refused rather than
//! made: it would open ours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Request, State};

use crate::fal::endpoint::{ALIAS, EndpointId};
use crate::fal::tokens;
use crate::server::auth::Proof;
use crate::server::error::ApiError;
use crate::server::json_body;
use crate::server::state::Shared;

/// `POST {rest}/tokens/`: the token as a JSON string.
pub(crate) async fn issue(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Json<String>, ApiError> {
    // A token that could be renewed by itself would live for ever.
    if request.extensions().get() == Some(&Proof::Token) {
        return Err(ApiError::UnknownKey);
    }
    let value = json_body::read_json(request, &shared).await?;
    let wanted = tokens::read(&value).map_err(ApiError::Invalid)?;
    if let Some(other) = wanted.allowed_apps.iter().find(|app| !is_ours(app)) {
        let alias = EndpointId::parse(other).map_or(other.as_str(), |id| id.alias);
        let alias = alias.to_owned();
        return Err(ApiError::UnknownApplication { alias });
    }
    let lifetime = Duration::from_secs(wanted.token_expiration);
    Ok(Json(shared.tokens.issue(lifetime, Instant::now())))
}

/// Clients name the alias alone.
fn is_ours(app: &str) -> bool {
    app == ALIAS || EndpointId::parse(app).is_some_and(|id| id.is_ours())
}
