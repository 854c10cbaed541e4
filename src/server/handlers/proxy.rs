//! What the proxy path itself answers.
//!
//! A request with a target that we understand was rewritten before it was routed and is answered by
//! whatever its target means. What arrives here named none, or one that is none of fal's; nobody is
//! ever contacted for it.

use crate::server::error::ApiError;

/// Any method on the proxy's path.
pub(crate) async fn proxy() -> ApiError {
    ApiError::ProxyTarget
}
