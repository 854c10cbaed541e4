//! Raw connections, for what no HTTP client would send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait for bytes that must come.
const PATIENCE: Duration = Duration::from_secs(15);

/// A connection to a server.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Everything up to the end of the connection.
    pub(crate) async fn read_to_end(&mut self) -> String {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let read = tokio::time::timeout(PATIENCE, self.0.read(&mut chunk)).await;
            match read.expect("the server closes the connection") {
                Ok(0) | Err(_) => break,
                Ok(count) => bytes.extend(&chunk[..count]),
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    /// One answer, whose length its header tells.
    pub(crate) async fn read_answer(&mut self) -> String {
        let mut text = String::new();
        loop {
            let byte = tokio::time::timeout(PATIENCE, self.0.read_u8()).await;
            text.push(char::from(byte.expect("an answer comes").unwrap()));
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(": ")?;
                    let is_length = name.eq_ignore_ascii_case("content-length");
                    is_length.then(|| value.parse::<usize>().unwrap())
                });
                if body.len() >= length.unwrap_or(0) {
                    return text;
                }
            }
        }
    }
}

/// A call with a body, as text.
pub(crate) fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
}
