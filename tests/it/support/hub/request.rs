//! A request to the hub, read off a raw connection.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;

use super::REPOSITORY;

/// What the hub was asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) revision: String,
    pub(crate) file: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
    /// Whether it went to the storage host.
    pub(crate) storage: bool,
    /// Body bytes that were sent in answer.
    pub(crate) sent: usize,
}

/// Reads one request; none where the peer left without a word.
pub(super) fn read_request(stream: &TcpStream, storage: bool) -> std::io::Result<Option<Request>> {
    let mut lines = BufReader::new(stream).lines();
    let Some(first) = lines.next().transpose()? else {
        return Ok(None);
    };
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut words = first.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let path = target.split('?').next().unwrap();
    let rest = path
        .strip_prefix(&format!("/{REPOSITORY}/resolve/"))
        .unwrap_or("?/?");
    let (revision, file) = rest.split_once('/').unwrap();
    Ok(Some(Request {
        method,
        revision: revision.to_owned(),
        file: file.to_owned(),
        range: headers.remove("range"),
        authorization: headers.remove("authorization"),
        storage,
        sent: 0,
    }))
}
