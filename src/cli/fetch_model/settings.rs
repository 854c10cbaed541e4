//! The hub's environment variables, read once: endpoint, token, cache folder.
//!
//! Names, order and fallbacks are those of Python's `huggingface_hub`, so that a machine which is
//! set up for Python needs nothing more for us. Nothing here contacts anybody, and the token must
//! never be printed.

use std::path::PathBuf;

use url::Url;

use super::FetchModelError;

/// The public hub, used when `HF_ENDPOINT` is not set.
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Where the hub is, who we are to it, and where its files are kept.
pub(super) struct HubSettings {
    /// Base address; file addresses are made below its path.
    pub(super) endpoint: Url,
    /// Access token, sent to the endpoint alone.
    pub(super) token: Option<String>,
    /// The folder that holds `models--owner--name` folders.
    pub(super) cache_dir: PathBuf,
}

impl HubSettings {
    /// Reads the process environment.
    pub(super) fn from_env() -> Result<Self, FetchModelError> {
        Self::from_lookup(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_lookup(get: impl Fn(&str) -> Option<String>) -> Result<Self, FetchModelError> {
        let home = get("HOME").or_else(|| get("USERPROFILE"));
        let expand = |path: String| match (path.strip_prefix("~/"), &home) {
            (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
            _ => PathBuf::from(path),
        };
        let hf_home = get("HF_HOME").map(&expand).unwrap_or_else(|| {
            let cache = get("XDG_CACHE_HOME").unwrap_or_else(|| "~/.cache".to_owned());
            expand(cache).join("huggingface")
        });
        let cache_dir = get("HF_HUB_CACHE")
            .or_else(|| get("HUGGINGFACE_HUB_CACHE"))
            .map_or_else(|| hf_home.join("hub"), &expand);
        let token_file = get("HF_TOKEN_PATH").map_or_else(|| hf_home.join("token"), &expand);
        let token = if get("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|value| is_on(&value)) {
            None
        } else {
            get("HF_TOKEN")
                .or_else(|| get("HUGGING_FACE_HUB_TOKEN"))
                .or_else(|| std::fs::read_to_string(token_file).ok())
                .map(|token| token.trim().to_owned())
                .filter(|token| !token.is_empty())
        };
        Ok(Self {
            endpoint: endpoint(get("HF_ENDPOINT").as_deref())?,
            token,
            cache_dir,
        })
    }
}

fn endpoint(value: Option<&str>) -> Result<Url, FetchModelError> {
    let text = value.unwrap_or(DEFAULT_ENDPOINT).trim_end_matches('/');
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| FetchModelError::BadEndpoint {
            endpoint: text.to_owned(),
        })
}

/// The hub's reading of a switch in the environment.
fn is_on(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "1" | "on" | "yes" | "true"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<HubSettings, FetchModelError> {
        HubSettings::from_lookup(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn cache_folder_follows_the_documented_order() {
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[("HOME", "/h")], "/h/.cache/huggingface/hub"),
            (
                &[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")],
                "/x/huggingface/hub",
            ),
            (&[("HOME", "/h"), ("HF_HOME", "~/f")], "/h/f/hub"),
            (
                &[("HF_HOME", "/f"), ("HUGGINGFACE_HUB_CACHE", "/old")],
                "/old",
            ),
            (
                &[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")],
                "/new",
            ),
        ];
        for (pairs, expected) in cases {
            assert_eq!(
                settings(pairs).unwrap().cache_dir,
                PathBuf::from(expected),
                "{pairs:?}"
            );
        }
    }

    #[test]
    fn token_comes_from_the_variable_then_the_file_and_can_be_switched_off() {
        let home = tempfile::tempdir().unwrap();
        let home_text = home.path().to_str().unwrap();
        std::fs::write(home.path().join("token"), "from-file\n").unwrap();
        let token = |extra: &[(&str, &str)]| {
            let mut pairs = vec![("HF_HOME", home_text)];
            pairs.extend_from_slice(extra);
            settings(&pairs).unwrap().token
        };
        assert_eq!(token(&[]).as_deref(), Some("from-file"));
        assert_eq!(token(&[("HF_TOKEN", "set")]).as_deref(), Some("set"));
        assert_eq!(token(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(
            token(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0")]).as_deref(),
            Some("from-file")
        );
    }

    #[test]
    fn endpoint_must_be_an_http_address() {
        assert!(settings(&[("HF_ENDPOINT", "http://127.0.0.1:9/hub/")]).is_ok());
        for bad in ["huggingface.co", "ftp://host", "file:///etc", "http://"] {
            assert!(settings(&[("HF_ENDPOINT", bad)]).is_err(), "{bad}");
        }
    }
}
