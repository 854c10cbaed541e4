//! Raises the limit on open files to what the settings can use up.
//!
//! Many systems start processes with a thousand files and allow far more to whoever asks. A server
//! that does not ask stops accepting, and cannot write its queue, at half of its own limits.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::serve::ServeSettings;

/// Files beside connections and downloads: the queue, hosted files, weights, webhooks, the log.
const OTHERS: usize = 512;

/// Raises the limit as far as it is needed and allowed; says in the log if that is not enough.
pub(super) fn raise(settings: &ServeSettings) {
    let files = settings.files.max_uploads + settings.fetch.sources.max_fetches + OTHERS;
    let Ok(needed) = (settings.http.max_connections + files).try_into() else {
        return;
    };
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let wanted = hard.min(needed);
    if soft < wanted
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)
    {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
    let allowed = soft.max(wanted);
    if allowed < needed {
        tracing::warn!(
            allowed,
            needed,
            "the system allows fewer open files than --max-connections can use up"
        );
    }
}
