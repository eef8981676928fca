//! A client that sends what the test says, byte by byte, and reads messages back.

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

pub struct Raw<S = DuplexStream> {
    pub stream: S,
    input: BytesMut,
}

/// One message from the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub kind: char,
    pub body: Vec<u8>,
}

impl Reply {
    /// A field of an error or notice.
    pub fn field(&self, code: char) -> Option<String> {
        let mut fields = self.body.split(|byte| *byte == 0);
        fields.find(|field| field.first() == Some(&(code as u8))).map(|field| text(&field[1..]))
    }

    pub fn sqlstate(&self) -> String {
        self.field('C').unwrap_or_default()
    }

    /// The first NUL-terminated string: a command tag.
    pub fn tag(&self) -> String {
        text(self.body.split(|byte| *byte == 0).next().unwrap())
    }

    /// The first column of a DataRow, as text.
    pub fn value(&self) -> String {
        let length = i32::from_be_bytes(self.body[2..6].try_into().unwrap()) as usize;
        text(&self.body[6..6 + length])
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The types of messages, as one word.
pub fn kinds(replies: &[Reply]) -> String {
    replies.iter().map(|reply| reply.kind).collect()
}

pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.put_u32(body.len() as u32 + 4);
    message.put_slice(body);
    message
}

pub fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u32(version);
    for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
        body.put_slice(text.as_bytes());
        body.put_u8(0);
    }
    body.put_u8(0);
    let mut packet = Vec::new();
    packet.put_u32(body.len() as u32 + 4);
    packet.put_slice(&body);
    packet
}

pub fn hello() -> Vec<u8> {
    startup(3 << 16, &[("user", "ann"), ("database", "tidemark")])
}

pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

/// Text parameters, text results.
pub fn bind(portal: &str, statement: &str, parameters: &[&str]) -> Vec<u8> {
    bind_formats(portal, statement, &[], parameters, &[])
}

pub fn bind_formats(portal: &str, statement: &str, formats: &[i16], parameters: &[&str], results: &[i16]) -> Vec<u8> {
    let mut body = format!("{portal}\0{statement}\0").into_bytes();
    body.put_u16(formats.len() as u16);
    formats.iter().for_each(|format| body.put_i16(*format));
    body.put_u16(parameters.len() as u16);
    for parameter in parameters {
        body.put_u32(parameter.len() as u32);
        body.put_slice(parameter.as_bytes());
    }
    body.put_u16(results.len() as u16);
    results.iter().for_each(|format| body.put_i16(*format));
    message(b'B', &body)
}

pub fn describe(what: char, name: &str) -> Vec<u8> {
    message(b'D', format!("{what}{name}\0").as_bytes())
}

pub fn close(what: char, name: &str) -> Vec<u8> {
    message(b'C', format!("{what}{name}\0").as_bytes())
}

pub fn execute(portal: &str, rows_max: i32) -> Vec<u8> {
    let mut body = format!("{portal}\0").into_bytes();
    body.put_i32(rows_max);
    message(b'E', &body)
}

pub fn sync() -> Vec<u8> {
    message(b'S', b"")
}

pub fn flush() -> Vec<u8> {
    message(b'H', b"")
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub fn new(stream: S) -> Self {
        Raw { stream, input: BytesMut::new() }
    }

    /// Connected and greeted.
    pub async fn connected(stream: S) -> (Raw<S>, Vec<Reply>) {
        let mut raw = Raw::new(stream);
        raw.send(&[hello()]).await;
        let greeting = raw.until('Z').await;
        (raw, greeting)
    }

    pub async fn send(&mut self, messages: &[Vec<u8>]) {
        self.stream.write_all(&messages.concat()).await.unwrap();
    }

    /// The next message; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Reply> {
        loop {
            if let Some(length) = self.input.get(1..5) {
                let length = u32::from_be_bytes(length.try_into().unwrap()) as usize + 1;
                if self.input.len() >= length {
                    let message = self.input.split_to(length);
                    return Some(Reply { kind: message[0] as char, body: message[5..].to_vec() });
                }
            }
            if self.stream.read_buf(&mut self.input).await.unwrap() == 0 {
                assert!(self.input.is_empty(), "the server stopped inside a message");
                return None;
            }
        }
    }

    /// All messages up to and with the first of this type.
    pub async fn until(&mut self, kind: char) -> Vec<Reply> {
        let mut replies = Vec::new();
        loop {
            let reply = self.next().await.unwrap_or_else(|| panic!("closed before {kind}: {replies:?}"));
            let last = reply.kind == kind;
            replies.push(reply);
            if last {
                return replies;
            }
        }
    }

    /// All messages to the end of the stream.
    pub async fn rest(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        while let Some(reply) = self.next().await {
            replies.push(reply);
        }
        replies
    }

    /// Sends and reads up to ReadyForQuery.
    pub async fn ask(&mut self, messages: &[Vec<u8>]) -> Vec<Reply> {
        self.send(messages).await;
        self.until('Z').await
    }

    /// Status byte of the last ReadyForQuery after asking.
    pub async fn status(&mut self, messages: &[Vec<u8>]) -> char {
        self.ask(messages).await.last().unwrap().body[0] as char
    }
}
