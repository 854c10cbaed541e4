//! A document that is written once, with a gap wherever the server's address stands.
//!
//! Anybody may ask for the documents, and making one takes milliseconds. Each caller's address is
//! another, because it is the one by which that caller reached the server.

use serde_json::Value;

/// The address for which documents are made: every place where it stands is a gap. Its letters mean
/// the same in JSON and in HTML.
const GAP: &str = "http://this-servers-address.invalid";

/// A text between whose parts an address belongs.
pub(super) struct Template(Vec<String>);

impl Template {
    /// What `write` makes of an address.
    pub(super) fn of(write: impl FnOnce(&str) -> String) -> Self {
        Self(write(GAP).split(GAP).map(str::to_owned).collect())
    }

    /// The text with this address, which is escaped already.
    pub(super) fn with(&self, address: &str) -> String {
        self.0.join(address)
    }

    /// The JSON text with this address.
    pub(super) fn json(&self, address: &str) -> String {
        let quoted = Value::from(address).to_string();
        self.with(&quoted[1..quoted.len() - 1])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_gap_is_filled_and_the_address_is_escaped() {
        let template = Template::of(|address| {
            json!({ "a": address, "b": [format!("{address}/queue")] }).to_string()
        });
        let address = "http://\"\\\n";
        let filled: Value = serde_json::from_str(&template.json(address)).unwrap();
        let expected = json!({ "a": address, "b": [format!("{address}/queue")] });
        assert_eq!(filled, expected);
        assert_eq!(template.json("x"), r#"{"a":"x","b":["x/queue"]}"#);
    }
}
