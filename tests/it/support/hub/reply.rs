//! An answer of the hub before it goes on the wire; it may promise more than it sends.

use super::{COMMIT, Gate};

pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    pub(super) gate: Option<Gate>,
}

impl Reply {
    pub(super) fn whole(body: Vec<u8>) -> Self {
        let headers = vec![("Content-Length", body.len().to_string())];
        Self {
            status: 200,
            headers,
            body,
            gate: None,
        }
    }

    pub(super) fn page() -> Self {
        Self::whole(b"<!DOCTYPE html><html>Log in to this network</html>".to_vec())
    }

    pub(super) fn partial(bytes: &[u8], from: usize) -> Self {
        let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
        let mut reply = Self::whole(bytes[from..].to_owned());
        reply.status = 206;
        reply.headers.push(("Content-Range", range));
        reply
    }

    /// Sends fewer bytes than the headers announce.
    pub(super) fn broken_after(mut self, bytes: usize) -> Self {
        self.body.truncate(bytes);
        self
    }

    pub(super) fn refusal(status: u16, code: &'static str) -> Self {
        let mut reply = Self::whole(b"<html>This is no model file</html>".to_vec());
        reply.status = status;
        reply.headers.push(("X-Error-Code", code.to_owned()));
        if code == "EntryNotFound" {
            reply.headers.push(("X-Repo-Commit", COMMIT.to_owned()));
        }
        reply
    }
}
