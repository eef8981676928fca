//! As little of an HTTP client as the tests need: one request on a connection of its own.

use std::{collections::BTreeMap, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub struct Answer {
    pub status: u16,
    /// By their names in small letters.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

pub async fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, "GET", path).await
}

pub async fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.expect("it connects");
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nuser-agent: test\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the request is sent");
    let mut answer = String::new();
    // It ends the connection without being asked to.
    stream.read_to_string(&mut answer).await.expect("the answer comes");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer of HTTP: {answer}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("no header: {line}"));
        (name.to_lowercase(), value.to_string())
    };
    let headers: BTreeMap<String, String> = lines.map(header).collect();
    if method != "HEAD" {
        assert_eq!(headers["content-length"], body.len().to_string(), "{head}");
    }
    Answer { status: status.unwrap_or_else(|| panic!("no status: {head}")), headers, body: body.to_string() }
}
