//! The bodies of fal's storage calls: negotiating an upload, sending a file in parts.
//!
//! Both clients' spellings, as they send and read them. The lifecycle is a header's value there, and
//! JSON, so its shape stands here.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Reads one of these shapes, all of which are objects.
///
/// # Errors
/// Says what does not fit, for the log.
pub fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    // Derived code would take a list of the fields as well.
    if !value.is_object() {
        return Err("not an object".to_owned());
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// `POST /storage/upload/initiate` and `…/initiate-multipart`: what will be sent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
pub struct InitiateInput {
    /// Media type.
    #[serde(default)]
    pub content_type: Option<String>,
    /// File name.
    #[serde(default)]
    pub file_name: Option<String>,
}

/// The answer: where to send the file, and where it will be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct InitiateOutput {
    /// Takes the bytes by `PUT`, without a key.
    pub upload_url: String,
    /// The file's address afterwards.
    pub file_url: String,
}

/// Answer of `POST /storage/auth/token`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TokenOutput {
    /// Stands in `Authorization` of uploads.
    pub token: String,
    /// The word before it.
    pub token_type: &'static str,
    /// Where uploads go.
    pub base_url: String,
    /// End of the token, ISO 8601 with `+00:00`.
    pub expires_at: String,
}

/// Answer to a file that arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct UploadOutput {
    /// The file's address.
    pub access_url: String,
}

/// Answer of `POST /files/upload/multipart`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct MultipartOutput {
    /// The file's address afterwards; parts go to addresses below it.
    pub access_url: String,
    /// The name of the upload in these addresses.
    #[serde(rename = "uploadId")]
    pub upload_id: String,
}

/// One part: the answer to it, and its entry in [`CompleteInput`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UploadedPart {
    /// Its number, from 1.
    #[serde(rename = "partNumber")]
    pub part_number: u64,
    /// Its entity tag.
    pub etag: String,
}

/// `POST …/complete`: all parts, in any order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
pub struct CompleteInput {
    /// The parts.
    pub parts: Vec<UploadedPart>,
}

/// Value of `X-Fal-Object-Lifecycle` and `X-Fal-Object-Lifecycle-Preference`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct LifecycleInput {
    /// Seconds to live; null or absent for the server's own time.
    #[serde(default)]
    pub expiration_duration_seconds: Option<f64>,
    /// Who may fetch the file.
    #[serde(default)]
    pub initial_acl: Option<AclInput>,
}

/// Who may fetch a file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct AclInput {
    /// For everybody whom no rule names.
    #[serde(default)]
    pub default: Option<Decision>,
    /// For single users, which this server does not tell apart.
    #[serde(default)]
    pub rules: Option<Vec<Value>>,
}

/// What is done with somebody who fetches a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// The file is there for them.
    Allow,
    /// There is no file for them.
    Hide,
    /// They are told that they may not have it.
    Forbid,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_spelled_as_the_clients_read_them() {
        let part = UploadedPart {
            part_number: 3,
            etag: "e".into(),
        };
        assert_eq!(
            serde_json::to_string(&part).unwrap(),
            r#"{"partNumber":3,"etag":"e"}"#
        );
        let begun = MultipartOutput {
            access_url: "a".into(),
            upload_id: "u".into(),
        };
        assert_eq!(
            serde_json::to_string(&begun).unwrap(),
            r#"{"access_url":"a","uploadId":"u"}"#
        );
        let token = TokenOutput {
            token: "t".into(),
            token_type: "Bearer",
            base_url: "b".into(),
            expires_at: "e".into(),
        };
        assert_eq!(
            serde_json::to_string(&token).unwrap(),
            r#"{"token":"t","token_type":"Bearer","base_url":"b","expires_at":"e"}"#
        );
    }

    #[test]
    fn lifecycles_are_read_as_both_clients_write_them() {
        let read = read::<LifecycleInput>;
        let value = json!({"expiration_duration_seconds": 3600, "initial_acl": {"default": "hide",
            "rules": [{"user": "u", "decision": "allow"}]}});
        let lifecycle = read(value).unwrap();
        assert_eq!(lifecycle.expiration_duration_seconds, Some(3600.0));
        let acl = lifecycle.initial_acl.unwrap();
        assert_eq!(acl.default, Some(Decision::Hide));
        assert_eq!(acl.rules.unwrap().len(), 1);
        assert_eq!(read(json!({})).unwrap(), LifecycleInput::default());
        let null = read(json!({"expiration_duration_seconds": null, "other": 1}));
        assert_eq!(null.unwrap(), LifecycleInput::default());
        for value in [
            json!([]),
            json!(5),
            json!({"expiration_duration_seconds": "5"}),
            json!({"initial_acl": {"default": "maybe"}}),
        ] {
            assert!(read(value.clone()).is_err(), "{value}");
        }
    }
}
