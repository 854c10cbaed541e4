//! What a webhook's receiver is sent: who, how it ended, and the answer itself.
//!
//! The answer stands in the body byte for byte as the result call gives it, so that the two can
//! never differ in a digit.

use serde::Serialize;
use serde::de::IgnoredAny;

/// Everything before the payload, keys in order.
#[derive(Serialize)]
struct Head<'a> {
    request_id: &'a str,
    /// The last attempt's id. Attempts have no ids of their own here.
    gateway_request_id: &'a str,
    status: &'static str,
    error: Option<String>,
}

/// The body of a webhook about a request that ended with this status and this JSON answer.
#[must_use]
pub fn body(request_id: &str, status: u16, answer: &[u8]) -> Vec<u8> {
    let is_ok = (200..300).contains(&status);
    let head = Head {
        request_id,
        gateway_request_id: request_id,
        status: if is_ok { "OK" } else { "ERROR" },
        error: (!is_ok).then(|| format!("Invalid status code: {status}")),
    };
    // Strings and nothing else, so writing them cannot fail.
    let mut body = serde_json::to_vec(&head).unwrap_or_default();
    // The closing brace comes back at the end.
    body.pop();
    body.extend_from_slice(b",\"payload\":");
    if serde_json::from_slice::<IgnoredAny>(answer).is_ok() {
        body.extend_from_slice(answer);
    } else {
        body.extend_from_slice(b"null,\"payload_error\":\"The answer is not JSON.\"");
    }
    body.push(b'}');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(status: u16, answer: &str) -> String {
        String::from_utf8(body("r-1", status, answer.as_bytes())).unwrap()
    }

    #[test]
    fn a_good_answer_is_the_payload_byte_for_byte() {
        assert_eq!(
            text(200, r#"{"results":{"bboxes":[{"x":0.10}]},"image":null}"#),
            r#"{"request_id":"r-1","gateway_request_id":"r-1","status":"OK","error":null,"payload":{"results":{"bboxes":[{"x":0.10}]},"image":null}}"#
        );
    }

    #[test]
    fn a_bad_answer_says_its_status_and_carries_its_detail() {
        assert_eq!(
            text(422, r#"{"detail":[]}"#),
            r#"{"request_id":"r-1","gateway_request_id":"r-1","status":"ERROR","error":"Invalid status code: 422","payload":{"detail":[]}}"#
        );
    }

    #[test]
    fn an_answer_that_is_no_json_is_left_out_and_said_so() {
        for answer in ["", "{", "oops", "{} {}"] {
            assert_eq!(
                text(500, answer),
                r#"{"request_id":"r-1","gateway_request_id":"r-1","status":"ERROR","error":"Invalid status code: 500","payload":null,"payload_error":"The answer is not JSON."}"#
            );
        }
    }
}
