//! PostgreSQL's protocol, plainly: enough to send what was recorded and to read what any server answers.

use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    io::{BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// How long one statement may take, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Conversation {
    stream: BufReader<TcpStream>,
    /// The status of the last ReadyForQuery: idle, in a transaction, failed.
    pub status: u8,
}

/// What came back until the next ReadyForQuery.
#[derive(Debug, Default)]
pub struct Answer {
    /// The first error: SQLSTATE and message.
    pub error: Option<(String, String)>,
    /// Names and type OIDs of the columns of each result.
    pub columns: Vec<Vec<(String, u32)>>,
    /// All rows, as text.
    pub rows: Vec<Vec<Option<String>>>,
    pub tags: Vec<String>,
    /// How many parameters the statement has.
    pub parameters: usize,
}

impl Conversation {
    pub fn start(port: u16, startup: &BTreeMap<String, String>) -> Result<Conversation> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut body = 196_608i32.to_be_bytes().to_vec();
        for (name, value) in startup {
            body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
        }
        body.push(0);
        let mut conversation = Conversation { stream: BufReader::new(stream), status: b'I' };
        let mut packet = (body.len() as i32 + 4).to_be_bytes().to_vec();
        packet.append(&mut body);
        conversation.stream.get_mut().write_all(&packet)?;
        match conversation.answer()?.error {
            Some((state, message)) => bail!("not let in: {state} {message}"),
            None => Ok(conversation),
        }
    }

    pub fn simple(&mut self, sql: &str) -> Result<Answer> {
        self.send(&[(b'Q', text(sql))])?;
        self.answer()
    }

    /// Parse and Describe, then Bind with every parameter NULL and Execute: recordings do not have the values.
    pub fn extended(&mut self, sql: &str, declared: &[u32]) -> Result<Answer> {
        let mut parse = vec![0];
        parse.extend(text(sql));
        parse.extend((declared.len() as i16).to_be_bytes());
        declared.iter().for_each(|oid| parse.extend(oid.to_be_bytes()));
        self.send(&[(b'P', parse), (b'D', b"S\0".to_vec()), (b'S', vec![])])?;
        let described = self.answer()?;
        if described.error.is_some() {
            return Ok(described);
        }
        // Unnamed portal and statement, no format codes, the parameters, no result formats.
        let mut bind = vec![0, 0, 0, 0];
        bind.extend((described.parameters as i16).to_be_bytes());
        bind.resize(bind.len() + 4 * described.parameters, 0xff);
        bind.extend([0, 0]);
        self.send(&[(b'B', bind), (b'E', vec![0; 5]), (b'S', vec![])])?;
        Ok(Answer { columns: described.columns, ..self.answer()? })
    }

    fn send(&mut self, messages: &[(u8, Vec<u8>)]) -> Result<()> {
        let mut bytes = vec![];
        for (kind, body) in messages {
            bytes.push(*kind);
            bytes.extend((body.len() as i32 + 4).to_be_bytes());
            bytes.extend_from_slice(body);
        }
        Ok(self.stream.get_mut().write_all(&bytes)?)
    }

    fn message(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).context("the server is gone or silent")?;
        let length = i32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; usize::try_from(length - 4)?];
        self.stream.read_exact(&mut body)?;
        Ok((head[0], body))
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut answer = Answer::default();
        loop {
            let (kind, body) = self.message()?;
            let mut body = Body(&body);
            match kind {
                b'Z' => {
                    self.status = body.0.first().copied().unwrap_or(b'I');
                    return Ok(answer);
                }
                b'E' => {
                    let (mut state, mut message, mut severity) = (String::new(), String::new(), String::new());
                    while let Some((field, rest)) = body.0.split_first().filter(|(field, _)| **field != 0) {
                        body.0 = rest;
                        let value = body.string()?;
                        match field {
                            b'C' => state = value,
                            b'M' => message = value,
                            b'V' => severity = value,
                            _ => {}
                        }
                    }
                    let is_fatal = severity == "FATAL" || severity == "PANIC";
                    answer.error.get_or_insert((state, message));
                    if is_fatal {
                        return Ok(answer);
                    }
                }
                b't' => answer.parameters = body.number::<2>()? as usize,
                b'T' => {
                    let mut columns = vec![];
                    for _ in 0..body.number::<2>()? {
                        let name = body.string()?;
                        body.take(6)?;
                        columns.push((name, body.number::<4>()? as u32));
                        body.take(8)?;
                    }
                    answer.columns.push(columns);
                }
                b'D' => {
                    let mut row = vec![];
                    for _ in 0..body.number::<2>()? {
                        let length = body.number::<4>()? as i32;
                        row.push(match usize::try_from(length) {
                            Ok(length) => Some(String::from_utf8_lossy(body.take(length)?).into_owned()),
                            Err(_) => None,
                        });
                    }
                    answer.rows.push(row);
                }
                b'C' => answer.tags.push(body.string()?),
                // COPY … FROM STDIN: no rows. In binary even these have a head and an end.
                b'G' => {
                    let mut data: Vec<u8> = vec![];
                    if body.0.first() == Some(&1) {
                        data.extend(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\xff\xff");
                    }
                    self.send(&[(b'd', data), (b'c', vec![])])?;
                }
                _ => {}
            }
        }
    }
}

fn text(sql: &str) -> Vec<u8> {
    [sql.as_bytes(), b"\0"].concat()
}

/// What is left of a message.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).context("a message ends early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn number<const BYTES: usize>(&mut self) -> Result<u64> {
        Ok(self.take(BYTES)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn string(&mut self) -> Result<String> {
        let length = self.0.iter().position(|byte| *byte == 0).context("a text without an end")?;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(text)
    }
}
