//! Settings of how callers reach the server: public address, second port, browser pages.

use super::SettingError;

/// How callers reach the server.
#[derive(Clone, Debug, Default)]
pub struct FaceSettings {
    /// Scheme and authority that answers name, without a final slash; without it, what the caller used.
    pub public_url: Option<String>,
    /// Port of a second listener that is the queue whatever the path says; 0 lets the system choose.
    pub queue_port: Option<u16>,
    /// Believe `X-Forwarded-Host`, `X-Forwarded-Proto` and the last address in `X-Forwarded-For`, by
    /// which callers are told apart then; only a proxy may have written them.
    pub trust_forwarded: bool,
    /// Origins of web pages that may call, `*` for all. Empty: all when keys are set, because the key
    /// keeps strangers out; without keys pages of this machine and of the server itself, because any
    /// web page could drive a local server otherwise.
    pub cors_origins: Vec<String>,
}

impl FaceSettings {
    /// Checks every value against its allowed range. `port` is the first listener's.
    ///
    /// # Errors
    /// Names the first flag that is out of range.
    pub fn validate(&self, port: u16) -> Result<(), SettingError> {
        if let Some(url) = &self.public_url
            && !names_host(url, |scheme| matches!(scheme, "http" | "https"))
        {
            return Err(SettingError {
                flag: "--public-url",
                expected: "http:// or https:// with a host, an optional port and no path".into(),
                found: url.clone(),
            });
        }
        if let Some(queue_port) = self.queue_port
            && queue_port == port
            && port != 0
        {
            return Err(SettingError {
                flag: "--queue-port",
                expected: "another port than --port".into(),
                found: queue_port.to_string(),
            });
        }
        let is_known = |origin: &String| {
            origin == "*" || origin == "null" || names_host(origin, |scheme| !scheme.is_empty())
        };
        match self.cors_origins.iter().find(|origin| !is_known(origin)) {
            None => Ok(()),
            Some(origin) => Err(SettingError {
                flag: "--cors-origin",
                expected: "an origin such as https://example.com, or *".into(),
                found: origin.clone(),
            }),
        }
    }
}

/// Whether a text is a scheme, a host and an optional port, as browsers write an origin.
fn names_host(text: &str, is_scheme: impl Fn(&str) -> bool) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    text.split_once("://").is_some_and(|(scheme, authority)| {
        is_scheme(scheme) && !authority.is_empty() && authority.bytes().all(is_allowed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_origins_have_no_path() {
        let public = |url: &str| FaceSettings {
            public_url: Some(url.into()),
            ..FaceSettings::default()
        };
        for url in [
            "https://vision.test",
            "http://[::1]:8000",
            "http://localhost:80",
        ] {
            public(url).validate(1).unwrap();
        }
        for url in [
            "",
            "vision.test",
            "ftp://x",
            "https://",
            "https://x/",
            "https://a@x",
        ] {
            assert!(public(url).validate(1).is_err(), "{url}");
        }
        let pages = |origin: &str| FaceSettings {
            cors_origins: vec!["*".into(), "null".into(), origin.into()],
            ..FaceSettings::default()
        };
        pages("https://vision.test").validate(1).unwrap();
        pages("chrome-extension://abc").validate(1).unwrap();
        for origin in [
            "",
            "vision.test",
            "https://vision.test/",
            "https://*.vision.test",
        ] {
            assert!(pages(origin).validate(1).is_err(), "{origin}");
        }
    }

    #[test]
    fn the_queue_has_a_port_of_its_own() {
        let queue = |port: u16| FaceSettings {
            queue_port: Some(port),
            ..FaceSettings::default()
        };
        queue(0).validate(0).unwrap();
        queue(8001).validate(8000).unwrap();
        assert!(queue(8000).validate(8000).is_err());
    }
}
