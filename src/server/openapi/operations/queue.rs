//! The queue, its tokens and the webhooks' keys, as the documents describe them.

use serde_json::{Value, json};

use super::run::{example_input, tasks_body};
use super::{
    Answer, Operation, common, header, parameter, refusals, request_timeout, stream_answer,
};
use crate::fal::endpoint::{ALIAS, ENDPOINTS, InputModel, OWNER};
use crate::server::openapi::schemas::{self, INPUTS, OUTPUTS};

const TAG: &str = "Queue";

/// Where requests in the queue stand.
fn requests() -> String {
    format!("/queue/{OWNER}/{ALIAS}/requests/{{request_id}}")
}

/// The queue's operations.
pub(super) fn all() -> Vec<Operation> {
    vec![
        submit(),
        submit_tasks(),
        status(),
        follow(),
        result(&requests()),
        result(&format!("{}/response", requests())),
        cancel(),
        stream(),
        stream_tasks(),
        tokens(),
        webhook_keys("/.well-known/jwks.json"),
        webhook_keys("/rest/.well-known/jwks.json"),
    ]
}

/// One of several schemas, by their names.
fn one_of<'a>(names: impl IntoIterator<Item = &'a str>) -> Value {
    let references = names.into_iter().map(schemas::reference);
    json!({ "oneOf": references.collect::<Vec<_>>() })
}

fn any_input() -> Value {
    one_of(INPUTS.map(schemas::input_name))
}

fn any_output() -> Value {
    one_of(OUTPUTS.map(schemas::output_name))
}

/// The name of an endpoint in a path.
fn endpoint() -> Value {
    let names: Vec<_> = ENDPOINTS.iter().map(|endpoint| endpoint.name).collect();
    json!({
        "name": "endpoint",
        "in": "path",
        "required": true,
        "description": "The name of an endpoint.",
        "schema": { "type": "string", "enum": names },
    })
}

fn request_id() -> Value {
    json!({
        "name": "request_id",
        "in": "path",
        "required": true,
        "description": "The id that the submission was given.",
        "schema": { "type": "string", "format": "uuid" },
    })
}

fn logs() -> Value {
    parameter("logs", "string", "`1` or `true` for the log.")
}

fn example_status() -> Value {
    let base = format!("https://queue.example/{OWNER}/{ALIAS}/requests/0192");
    json!({
        "status": "IN_QUEUE",
        "request_id": "0192",
        "response_url": base,
        "status_url": format!("{base}/status"),
        "cancel_url": format!("{base}/cancel"),
        "logs": null,
        "metrics": {},
        "queue_position": 0,
    })
}

/// What every question about a request may be answered with.
fn about_a_request() -> Vec<Answer> {
    let word = schemas::reference("QueueWord");
    let mut answers = common(&[401, 503]);
    answers.push(Answer::json(404, "No such request, or not any more.", word));
    answers
}

fn submit() -> Operation {
    let mut answers = vec![
        Answer::json(
            200,
            "It waits. What is wrong with the input is said by its result.",
            schemas::reference("QueueStatus"),
        )
        .with(example_status()),
    ];
    answers.extend(common(&[400, 401, 408, 413, 429, 503]));
    Operation {
        method: "post",
        path: format!("/queue/{OWNER}/{ALIAS}/{{endpoint}}"),
        description: "The same path without `/queue` means this too on a host whose name begins with `queue.`, and on the port of `--queue-port`.",
        parameters: [vec![endpoint()], submit_parameters()].concat(),
        body: Some((any_input(), example_input(InputModel::Image))),
        ..Operation::reading(TAG, "Hand a call in", answers)
    }
}

/// What may be said with a submission, whatever is handed in.
fn submit_parameters() -> Vec<Value> {
    vec![
        parameter(
            "fal_webhook",
            "string",
            "An address that is told of the end.",
        ),
        parameter(
            "fal_max_queue_length",
            "integer",
            "Refuse with 429 when more requests than this wait.",
        ),
        request_timeout(),
        header(
            "X-Fal-Queue-Priority",
            "string",
            "`low` waits behind all others.",
        ),
        header("X-Fal-No-Retry", "string", "`1` for one attempt alone."),
        header(
            "X-Fal-Store-IO",
            "string",
            "`0` to forget the input at the end.",
        ),
    ]
}

fn submit_tasks() -> Operation {
    Operation {
        parameters: submit_parameters(),
        path: format!("/queue/{OWNER}/{ALIAS}"),
        summary: "Hand in several tasks about one picture".into(),
        description: "Not on fal.",
        body: Some(tasks_body()),
        ..submit()
    }
}

fn status() -> Operation {
    let status = || schemas::reference("QueueStatus");
    let mut answers = vec![
        Answer::json(200, "It has ended, well or badly.", status()),
        Answer::json(202, "It waits, or it is being worked on.", status()).with(example_status()),
    ];
    answers.extend(about_a_request());
    Operation {
        path: format!("{}/status", requests()),
        parameters: vec![request_id(), logs()],
        ..Operation::reading(TAG, "Ask where a request stands", answers)
    }
}

fn follow() -> Operation {
    let mut answers = vec![stream_answer(
        "One event for every change, each a `QueueStatus` with the new lines of the log; the last one says `COMPLETED`.",
    )];
    answers.extend(about_a_request());
    Operation {
        path: format!("{}/status/stream", requests()),
        parameters: vec![request_id(), logs()],
        ..Operation::reading(TAG, "Follow a request", answers)
    }
}

fn result(path: &str) -> Operation {
    let mut answers = vec![
        Answer::json(200, "The answer of the endpoint.", any_output()),
        Answer::json(
            400,
            "It is not there yet.",
            schemas::reference("PlainError"),
        )
        .with(json!({ "detail": "Request is still in progress" })),
        Answer::json(
            499,
            "The request was cancelled.",
            schemas::reference("RequestError"),
        ),
    ];
    answers.extend(about_a_request());
    answers.extend(common(&[413, 422, 500, 504]));
    Operation {
        path: path.into(),
        description: "Status, headers and body are what the endpoint answered, repeated exactly for as long as results are kept.",
        parameters: vec![request_id()],
        ..Operation::reading(TAG, "Fetch the result", answers)
    }
}

fn cancel() -> Operation {
    let word = || schemas::reference("QueueWord");
    let mut answers = vec![
        Answer::json(
            202,
            "It will be stopped; one that is nearly done may finish.",
            word(),
        ),
        Answer::json(400, "Too late: it has ended.", word()),
    ];
    answers.extend(about_a_request());
    Operation {
        method: "put",
        path: format!("{}/cancel", requests()),
        parameters: vec![request_id()],
        ..Operation::reading(TAG, "Cancel a request", answers)
    }
}

fn stream() -> Operation {
    let mut answers = vec![stream_answer("One event: the answer of the endpoint.")];
    answers.extend(refusals());
    Operation {
        method: "post",
        path: format!("/{OWNER}/{ALIAS}/{{endpoint}}/stream"),
        parameters: vec![endpoint(), request_timeout()],
        body: Some((any_input(), example_input(InputModel::Image))),
        ..Operation::reading("Run", "The same as a stream of events", answers)
    }
}

fn stream_tasks() -> Operation {
    Operation {
        path: format!("/{OWNER}/{ALIAS}/stream"),
        description: "Not on fal.",
        parameters: vec![request_timeout()],
        body: Some(tasks_body()),
        ..stream()
    }
}

fn tokens() -> Operation {
    let body = json!({
        "type": "object",
        "properties": {
            "allowed_apps": { "type": "array", "items": { "type": "string" } },
            "token_expiration": { "type": "integer", "description": "Seconds." },
        },
        "required": ["allowed_apps"],
    });
    let example = json!({ "allowed_apps": [ALIAS], "token_expiration": 120 });
    let mut answers = vec![Answer::json(
        200,
        "The token, to be sent as `fal_jwt_token` in the query or after `Bearer`.",
        json!({ "type": "string" }),
    )];
    answers.extend(common(&[400, 401, 408, 413, 422, 429]));
    answers.push(Answer::json(
        404,
        "Another application.",
        schemas::reference("PlainError"),
    ));
    Operation {
        method: "post",
        path: "/rest/tokens".into(),
        body: Some((body, example)),
        ..Operation::reading(
            TAG,
            "A short-lived token, for callers who must not hold a key",
            answers,
        )
    }
}

fn webhook_keys(path: &str) -> Operation {
    let keys = json!({
        "type": "object",
        "properties": { "keys": { "type": "array", "items": { "type": "object" } } },
        "required": ["keys"],
    });
    Operation {
        path: path.into(),
        needs_key: false,
        ..Operation::reading(
            TAG,
            "The key by which webhooks are signed",
            vec![Answer::json(200, "A key set with one Ed25519 key.", keys)],
        )
    }
}
