//! Where the bytes of uploads arrive, whole or in parts.
//!
//! JavaScript sends to the address that the negotiation gave it; Python shows a token, or sends
//! parts below the file's own address. Bytes go to the store as they come, under the body's clock,
//! and what is too much is refused before it is read where the caller announces it.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use super::{json, segment};
use crate::fal::storage::{CompleteInput, MultipartOutput, UploadOutput, UploadedPart, read};
use crate::files::{FilesError, Finished, ListedPart, NewFile, PublicFile, Upload, UploadKind};
use crate::semaphore::Caller;
use crate::server::chunks::Chunks;
use crate::server::error::ApiError;
use crate::server::extract;
use crate::server::state::Shared;
use crate::server::{caller, json_body, lifecycle};

/// `POST /files/upload`: a whole file, from a caller with a token or key.
pub(crate) async fn upload(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    authorize(&shared, request.headers())?;
    let (head, body) = request.into_parts();
    let base = extract::reached(&head.extensions)?.files_origin();
    let upload = with_new_file(&head.headers, |file| Ok(shared.files.upload(file)?))?;
    let caller = caller::of(&head.extensions);
    let finished = receive(&shared, caller, body, upload).await?;
    stored(&base, &finished)
}

/// `POST /files/upload/multipart`: begins a file in parts.
pub(crate) async fn begin_parts(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    authorize(&shared, request.headers())?;
    let base = extract::reached(request.extensions())?.files_origin();
    let offer = with_new_file(request.headers(), |file| {
        Ok(shared.files.offer(file, UploadKind::Parts)?)
    })?;
    json(&MultipartOutput {
        access_url: format!("{base}{}", offer.path),
        upload_id: offer.ticket,
    })
}

/// `PUT /files/upload/{ticket}`: a whole file.
pub(crate) async fn put_whole(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let base = extract::reached(&head.extensions)?.files_origin();
    let upload = shared.files.upload_with_ticket(segment(&head.uri, 2))?;
    let caller = caller::of(&head.extensions);
    let finished = receive(&shared, caller, body, upload).await?;
    stored(&base, &finished)
}

/// `PUT /files/upload/{ticket}/{part}`
pub(crate) async fn put_part(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let at = (segment(&head.uri, 2), segment(&head.uri, 3));
    receive_part(&shared, caller::of(&head.extensions), at, body).await
}

/// `PUT /files/{id}/{name}/multipart/{ticket}/{part}`
pub(crate) async fn put_part_below_file(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let ticket = ticket_below_file(&shared, &head.uri)?;
    let at = (ticket, segment(&head.uri, 5));
    receive_part(&shared, caller::of(&head.extensions), at, body).await
}

/// `POST /files/upload/{ticket}/complete`
pub(crate) async fn complete(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    put_together(&shared, segment(&head.uri, 2), &head, body).await
}

/// `POST /files/{id}/{name}/multipart/{ticket}/complete`
pub(crate) async fn complete_below_file(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let ticket = ticket_below_file(&shared, &head.uri)?;
    put_together(&shared, ticket, &head, body).await
}

/// A token of ours, or whatever a model call would ask for.
fn authorize(shared: &Shared, headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok());
    let token = given.and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then_some(token.trim())
    });
    if let Some(token) = token
        && shared.files.accepts(token)
    {
        return Ok(());
    }
    let now = Instant::now();
    shared.keys.check(headers, None, &shared.tokens, now)?;
    Ok(())
}

/// Does something with the file that the headers describe.
fn with_new_file<T>(
    headers: &HeaderMap,
    act: impl FnOnce(&NewFile<'_>) -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    let text = |name: &str| headers.get(name).map(|value| value.as_bytes());
    let name = String::from_utf8_lossy(text("x-fal-file-name").unwrap_or_default());
    let content_type = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    act(&NewFile {
        name: &name,
        content_type,
        lifecycle: lifecycle::of_upload(headers)?,
    })
}

/// Takes a body into an upload. Of the uploads at once one caller may have only a share.
async fn receive(
    shared: &Shared,
    caller: Caller,
    body: Body,
    mut upload: Upload,
) -> Result<Finished, ApiError> {
    let share = shared.uploads.try_acquire(&caller, 1);
    let _share = share.map_err(|_| FilesError::TooManyUploads)?;
    let mut chunks = Chunks::of(body, shared);
    upload.expect(chunks.announced())?;
    while let Some(chunk) = chunks.next().await? {
        upload.write(&chunk).await?;
    }
    Ok(upload.finish().await?)
}

async fn receive_part(
    shared: &Shared,
    caller: Caller,
    (ticket, number): (&str, &str),
    body: Body,
) -> Result<Response, ApiError> {
    let files = &shared.files;
    // What is no number is out of range, too; the ticket is looked at first.
    let part_number = number.parse().unwrap_or_default();
    let upload = files.upload_part(ticket, part_number)?;
    let Finished::Part { etag } = receive(shared, caller, body, upload).await? else {
        return Err(ApiError::Internal("a part became a file".into()));
    };
    // One client reads the header, the other the body.
    let header = HeaderValue::try_from(format!("\"{etag}\""));
    let mut response = json(&UploadedPart { part_number, etag })?;
    if let Ok(etag) = header {
        response.headers_mut().insert(ETAG, etag);
    }
    Ok(response)
}

async fn put_together(
    shared: &Shared,
    ticket: &str,
    head: &Parts,
    body: Body,
) -> Result<Response, ApiError> {
    let base = extract::reached(&head.extensions)?.files_origin();
    let value = json_body::read_json_of(head, body, shared).await?;
    let CompleteInput { parts } = read(value).map_err(ApiError::BadShape)?;
    let listed: Vec<ListedPart> = parts
        .into_iter()
        .map(|UploadedPart { part_number, etag }| ListedPart {
            number: part_number,
            etag,
        })
        .collect();
    let file = shared.files.complete(ticket, &listed).await?;
    stored(&base, &Finished::File(file))
}

/// The ticket in an address below a file, if it belongs to that file.
fn ticket_below_file<'u>(shared: &Shared, uri: &'u axum::http::Uri) -> Result<&'u str, ApiError> {
    let (id, name, ticket) = (segment(uri, 1), segment(uri, 2), segment(uri, 4));
    if !shared.files.is_ticket_for(ticket, id, name) {
        return Err(FilesError::NotPermitted.into());
    }
    Ok(ticket)
}

fn stored(base: &str, finished: &Finished) -> Result<Response, ApiError> {
    let Finished::File(PublicFile { path, bytes, .. }) = finished else {
        return Err(ApiError::Internal("a file became a part".into()));
    };
    tracing::debug!(bytes, "file stored");
    json(&UploadOutput {
        access_url: format!("{base}{path}"),
    })
}
