//! Uploads and hosted files, as the documents describe them.

use serde_json::{Value, json};

use super::{Answer, Operation, common, header};
use crate::server::openapi::schemas;

const TAG: &str = "Files";

/// The operations on files.
pub(super) fn all() -> Vec<Operation> {
    vec![
        initiate("initiate", "An address to send a file to"),
        initiate(
            "initiate-multipart",
            "An address to send a file to in parts",
        ),
        token(),
        upload(),
        begin_parts(),
        put_whole(),
        put_part("/files/upload/{ticket}/{part}"),
        complete("/files/upload/{ticket}/complete"),
        put_part("/files/{id}/{name}/multipart/{ticket}/{part}"),
        complete("/files/{id}/{name}/multipart/{ticket}/complete"),
        fetch(),
    ]
}

/// How long a file lives, and for whom.
fn lifecycle() -> Value {
    header(
        "X-Fal-Object-Lifecycle",
        "string",
        "JSON: `expiration_duration_seconds`, and `initial_acl` with a `default` of `allow`, `hide` or `forbid`.",
    )
}

fn named(names: &[&str]) -> Vec<Value> {
    let describe = |name: &&str| match *name {
        "part" => ("The number of the part, from 1.", "integer"),
        "ticket" => ("What an upload was given with its address.", "string"),
        _ => ("As in the file's address.", "string"),
    };
    let parameter = |name| {
        let (description, kind) = describe(name);
        json!({
            "name": name,
            "in": "path",
            "required": true,
            "description": description,
            "schema": { "type": kind },
        })
    };
    names.iter().map(parameter).collect()
}

/// The names in braces in a path.
fn in_path(path: &str) -> Vec<Value> {
    let parts = path.split('/');
    let names: Vec<_> = parts
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .collect();
    named(&names)
}

/// What whoever sends bytes may be answered.
fn refused_bytes() -> Vec<Answer> {
    let mut answers = common(&[400, 408, 413, 429]);
    answers.push(Answer::json(
        403,
        "The address of the upload is not valid, or has expired.",
        schemas::reference("PlainError"),
    ));
    answers.push(Answer::json(
        409,
        "The same file is being written by another request.",
        schemas::reference("RequestError"),
    ));
    answers.push(Answer::json(
        507,
        "There is no room for the file.",
        schemas::reference("RequestError"),
    ));
    answers
}

fn initiate(name: &str, summary: &'static str) -> Operation {
    let example = json!({ "content_type": "image/jpeg", "file_name": "photo.jpg" });
    let mut answers = vec![Answer::json(
        200,
        "Where to send the bytes by `PUT`, without a key, and where the file will be.",
        schemas::reference("InitiateOutput"),
    )];
    answers.extend(common(&[400, 401, 408, 413, 422, 429]));
    Operation {
        method: "post",
        path: format!("/rest/storage/upload/{name}"),
        parameters: vec![lifecycle()],
        body: Some((schemas::reference("InitiateInput"), example)),
        ..Operation::reading(TAG, summary, answers)
    }
}

fn token() -> Operation {
    let mut answers = vec![Answer::json(
        200,
        "The token, and where to send files with it.",
        schemas::reference("TokenOutput"),
    )];
    answers.extend(common(&[401]));
    Operation {
        method: "post",
        path: "/rest/storage/auth/token".into(),
        ..Operation::reading(TAG, "A token for sending files", answers)
    }
}

fn upload() -> Operation {
    let mut answers = vec![Answer::json(
        200,
        "Where the file is now.",
        schemas::reference("UploadOutput"),
    )];
    answers.extend(common(&[401]));
    answers.extend(refused_bytes());
    Operation {
        method: "post",
        path: "/files/upload".into(),
        description: "`Authorization` holds a key, or `Bearer` and a token for sending files.",
        parameters: vec![
            header("X-Fal-File-Name", "string", "The name of the file."),
            lifecycle(),
        ],
        ..Operation::reading(TAG, "Send a file", answers).taking_bytes()
    }
}

fn begin_parts() -> Operation {
    let mut answers = vec![Answer::json(
        200,
        "Where the parts go, and where the file will be.",
        schemas::reference("MultipartOutput"),
    )];
    answers.extend(common(&[400, 401, 429]));
    Operation {
        method: "post",
        path: "/files/upload/multipart".into(),
        description: "`Authorization` holds a key, or `Bearer` and a token for sending files.",
        parameters: vec![
            header("X-Fal-File-Name", "string", "The name of the file."),
            lifecycle(),
        ],
        ..Operation::reading(TAG, "Begin a file in parts", answers)
    }
}

fn put_whole() -> Operation {
    let answer = Answer::json(
        200,
        "Where the file is now.",
        schemas::reference("UploadOutput"),
    );
    put(
        "/files/upload/{ticket}",
        "Send a file to its address",
        answer,
    )
}

fn put_part(path: &str) -> Operation {
    let answer = Answer::json(
        200,
        "The part, as it must be listed at the end. `ETag` says the same.",
        schemas::reference("UploadedPart"),
    );
    put(path, "Send a part", answer)
}

/// Bytes sent to an address that carries the permission.
fn put(path: &str, summary: &'static str, answer: Answer) -> Operation {
    let answers = [answer].into_iter().chain(refused_bytes()).collect();
    Operation {
        method: "put",
        path: path.into(),
        parameters: in_path(path),
        needs_key: false,
        ..Operation::reading(TAG, summary, answers).taking_bytes()
    }
}

fn complete(path: &str) -> Operation {
    let example = json!({ "parts": [{ "partNumber": 1, "etag": "…" }] });
    let mut answers = vec![Answer::json(
        200,
        "Where the file is now.",
        schemas::reference("UploadOutput"),
    )];
    answers.extend(common(&[422]));
    answers.extend(refused_bytes());
    Operation {
        method: "post",
        path: path.into(),
        parameters: in_path(path),
        body: Some((schemas::reference("CompleteInput"), example)),
        needs_key: false,
        ..Operation::reading(TAG, "Put the parts together", answers)
    }
}

fn fetch() -> Operation {
    let path = "/files/{id}/{name}";
    let bytes = json!({ "type": "string", "format": "binary" });
    let mut answers = vec![
        Answer::of(200, "The file.", "*/*", bytes),
        Answer::json(404, "No such file.", schemas::reference("PlainError")),
    ];
    answers.extend(common(&[401]));
    Operation {
        path: path.into(),
        parameters: in_path(path),
        needs_key: false,
        ..Operation::reading(TAG, "Fetch a file", answers)
    }
}
