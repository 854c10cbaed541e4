//! Settings of encrypted connections: whether, and with whose certificate.
//!
//! The spelling of `--tls` is read here, because two commands share it. Nothing here touches a file.

use std::path::PathBuf;
use std::str::FromStr;

/// Encrypted connections.
#[derive(Clone, Debug, Default)]
pub struct TlsSettings {
    /// Whether, and with whose certificate.
    pub mode: TlsMode,
    /// Folder of the local authority's key and certificate.
    pub authority_dir: PathBuf,
    /// Host names and addresses that the local certificate covers beside loopback and fal's own.
    pub names: Vec<String>,
}

impl TlsSettings {
    /// The scheme of this server's addresses.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        self.mode.scheme()
    }
}

/// What may stand after `--tls`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Plain HTTP.
    #[default]
    Off,
    /// A certificate of a local authority, made on first use.
    Local,
    /// A certificate chain and its key, both in PEM form.
    Files {
        /// The server's certificate, then those that lead to an authority.
        certificate: PathBuf,
        /// The private key of the first certificate.
        key: PathBuf,
    },
}

impl TlsMode {
    /// The scheme of addresses in this mode.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Off => "http",
            Self::Local | Self::Files { .. } => "https",
        }
    }
}

/// The text after `--tls` is none of its three forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `off`, `local`, or two PEM files as CERT,KEY")]
pub struct TlsModeError;

impl FromStr for TlsMode {
    type Err = TlsModeError;

    fn from_str(text: &str) -> Result<Self, TlsModeError> {
        match (text, text.split_once(',')) {
            ("off", _) => Ok(Self::Off),
            ("local", _) => Ok(Self::Local),
            (_, Some((certificate, key))) if !certificate.is_empty() && !key.is_empty() => {
                Ok(Self::Files {
                    certificate: certificate.into(),
                    key: key.into(),
                })
            }
            _ => Err(TlsModeError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_told_apart_and_everything_else_is_refused() {
        let files = TlsMode::Files {
            certificate: "a.pem".into(),
            key: "b.pem".into(),
        };
        for (text, mode, scheme) in [
            ("off", TlsMode::Off, "http"),
            ("local", TlsMode::Local, "https"),
            ("a.pem,b.pem", files, "https"),
        ] {
            assert_eq!(text.parse(), Ok(mode.clone()), "{text}");
            assert_eq!(mode.scheme(), scheme);
        }
        for text in ["", "on", "Local", "a.pem", "a.pem,", ",b.pem", ","] {
            assert_eq!(text.parse::<TlsMode>(), Err(TlsModeError), "{text}");
        }
    }
}
