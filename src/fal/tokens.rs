//! The request for a short-lived token, validated by hand like every input.

use serde_json::{Value, json};

use super::error::{Fault, FaultType, Step};
use super::input;

/// Life of a token in seconds when none is asked for; what clients ask for.
const DEFAULT_EXPIRATION: u64 = 120;

/// A request whose fields have the right types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// Applications that the token is to open; at least one.
    pub allowed_apps: Vec<String>,
    /// Its life in seconds; at least one.
    pub token_expiration: u64,
}

/// Reads the fields.
///
/// # Errors
/// All faults, in field order.
pub fn read(body: &Value) -> Result<TokenRequest, Vec<Fault>> {
    if !body.is_object() {
        return Err(vec![input::not_an_object(&[], body)]);
    }
    let mut faults = Vec::new();
    let allowed_apps = read_apps(body, &mut faults);
    let token_expiration = match body.get("token_expiration") {
        None | Some(Value::Null) => DEFAULT_EXPIRATION,
        Some(value) => read_expiration(value, &mut faults),
    };
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(TokenRequest {
        allowed_apps,
        token_expiration,
    })
}

fn read_apps(body: &Value, faults: &mut Vec<Fault>) -> Vec<String> {
    let at = Step::Key("allowed_apps");
    let apps = match body.get("allowed_apps") {
        None => {
            faults.push(input::missing(&[at], body));
            return Vec::new();
        }
        Some(Value::Array(apps)) => apps,
        Some(other) => {
            let msg = "Input should be a valid list";
            faults.push(Fault::new(FaultType::ListType, &[at], msg, other));
            return Vec::new();
        }
    };
    if apps.is_empty() {
        let msg = "List should have at least 1 item";
        let fault = Fault::new(FaultType::SequenceTooShort, &[at], msg, &json!([]));
        faults.push(fault.with_ctx(json!({ "min_length": 1 })));
        return Vec::new();
    }
    let mut names = Vec::new();
    for (position, app) in apps.iter().enumerate() {
        match app {
            Value::String(name) => names.push(name.clone()),
            other => {
                let loc = [at.clone(), Step::Position(position)];
                let msg = "Input should be a valid string";
                faults.push(Fault::new(FaultType::StringType, &loc, msg, other));
            }
        }
    }
    names
}

fn read_expiration(value: &Value, faults: &mut Vec<Fault>) -> u64 {
    let at = [Step::Key("token_expiration")];
    if let Some(seconds) = value.as_u64().filter(|seconds| *seconds > 0) {
        return seconds;
    }
    faults.push(if value.as_i64().is_some() {
        let msg = "Input should be greater than or equal to 1";
        let fault = Fault::new(FaultType::GreaterThanEqual, &at, msg, value);
        fault.with_ctx(json!({ "ge": 1 }))
    } else {
        let msg = "Input should be a valid integer";
        Fault::new(FaultType::IntType, &at, msg, value)
    });
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send_is_understood() {
        let apps = vec!["florence-2-large".to_owned()];
        for (body, token_expiration) in [
            (json!({"allowed_apps": apps, "token_expiration": 60}), 60),
            (json!({"allowed_apps": apps, "token_expiration": null}), 120),
            (json!({"allowed_apps": apps, "other": 1}), 120),
        ] {
            let expected = TokenRequest {
                allowed_apps: apps.clone(),
                token_expiration,
            };
            assert_eq!(read(&body), Ok(expected));
        }
    }

    #[test]
    fn every_fault_is_listed() {
        let kinds = |body: Value| -> Vec<&str> {
            let faults = read(&body).unwrap_err();
            faults.iter().map(Fault::kind).collect()
        };
        assert_eq!(kinds(json!([])), ["model_attributes_type"]);
        assert_eq!(kinds(json!({})), ["missing"]);
        let body = json!({"allowed_apps": "x", "token_expiration": "soon"});
        assert_eq!(kinds(body), ["list_type", "int_type"]);
        let body = json!({"allowed_apps": [], "token_expiration": 0});
        assert_eq!(kinds(body), ["sequence_too_short", "greater_than_equal"]);
        let body = json!({"allowed_apps": ["a", 1, null], "token_expiration": 1.5});
        assert_eq!(kinds(body), ["string_type", "string_type", "int_type"]);
    }
}
