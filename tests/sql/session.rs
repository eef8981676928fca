//! A connection as sqllogictest wants it, in either protocol.
//!
//! `COPY … FROM STDIN` takes its data from the lines below the statement, `COPY … TO STDOUT` answers one row a line.

use crate::{
    server::{self, Server},
    text,
};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, TryStreamExt};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType};
use std::pin::pin;
use tokio_postgres::{Client, SimpleQueryMessage, types::Type};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Simple,
    Extended,
}

pub struct Session {
    config: tokio_postgres::Config,
    client: Client,
    protocol: Protocol,
}

/// The error as one line, with its SQLSTATE first: what `statement error` compares with.
#[derive(Debug)]
pub struct Refused {
    text: String,
    sqlstate: Option<String>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refused {}

impl From<tokio_postgres::Error> for Refused {
    fn from(error: tokio_postgres::Error) -> Self {
        let sqlstate = error.code().map(|code| code.code().to_owned());
        Refused { text: server::shown(&error), sqlstate }
    }
}

type Output = DBOutput<DefaultColumnType>;

impl Session {
    pub async fn open(server: &Server, protocol: Protocol) -> Result<Session, Refused> {
        Ok(Session { config: server.config(), client: server.connect().await?, protocol })
    }

    async fn simple(&self, sql: &str) -> Result<Output, Refused> {
        let (mut types, mut rows, mut count, mut has_rows) = (vec![], vec![], 0, false);
        for message in self.client.simple_query(sql).await? {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    has_rows = true;
                    types = columns.iter().map(|_| DefaultColumnType::Any).collect();
                }
                SimpleQueryMessage::Row(row) => {
                    rows.push((0..row.len()).map(|i| text::cell(row.get(i).map(str::to_owned))).collect());
                }
                SimpleQueryMessage::CommandComplete(n) => count = n,
                _ => {}
            }
        }
        Ok(if has_rows { DBOutput::Rows { types, rows } } else { DBOutput::StatementComplete(count) })
    }

    async fn extended(&self, sql: &str) -> Result<Output, Refused> {
        let statement = self.client.prepare(sql).await?;
        if statement.columns().is_empty() {
            return Ok(DBOutput::StatementComplete(self.client.execute(&statement, &[]).await?));
        }
        let types = statement.columns().iter().map(|column| column_type(column.type_())).collect();
        let mut rows = vec![];
        for row in self.client.query(&statement, &[]).await? {
            let cells = (0..row.len()).map(|i| Ok(text::cell(row.try_get::<_, Option<text::Shown>>(i)?.map(|v| v.0))));
            rows.push(cells.collect::<Result<_, tokio_postgres::Error>>()?);
        }
        Ok(DBOutput::Rows { types, rows })
    }

    async fn copy_in(&self, sql: &str, data: &str) -> Result<Output, Refused> {
        let sink = self.client.copy_in(sql).await?;
        let mut sink = pin!(sink);
        // The runner cuts the last line end off.
        let data = if data.is_empty() { String::new() } else { format!("{data}\n") };
        sink.send(Bytes::from(data)).await?;
        Ok(DBOutput::StatementComplete(sink.finish().await?))
    }

    async fn copy_out(&self, sql: &str) -> Result<Output, Refused> {
        let data: BytesMut = self
            .client
            .copy_out(sql)
            .await?
            .try_fold(BytesMut::new(), |mut all, piece| async move {
                all.extend_from_slice(&piece);
                Ok(all)
            })
            .await?;
        let lines = String::from_utf8_lossy(&data).lines().map(|line| vec![line.to_owned()]).collect();
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Text], rows: lines })
    }
}

fn column_type(ty: &Type) -> DefaultColumnType {
    match *ty {
        Type::INT2 | Type::INT4 | Type::INT8 => DefaultColumnType::Integer,
        Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC => DefaultColumnType::FloatingPoint,
        Type::TEXT | Type::VARCHAR | Type::JSON | Type::JSONB => DefaultColumnType::Text,
        _ => DefaultColumnType::Any,
    }
}

#[async_trait]
impl AsyncDB for Session {
    type Error = Refused;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<Output, Refused> {
        let (first, rest) = sql.split_once('\n').unwrap_or((sql, ""));
        if first.starts_with("COPY ") && first.contains(" FROM STDIN") {
            let copied = self.copy_in(first, rest).await;
            if copied.is_err() {
                // The driver sends Sync once more than the server expects, here as with PostgreSQL, and is lost.
                let (client, connection) = self.config.connect(tokio_postgres::NoTls).await?;
                tokio::spawn(connection);
                self.client = client;
            }
            return copied;
        }
        if first.starts_with("COPY ") && sql.contains(" TO STDOUT") {
            return self.copy_out(sql).await;
        }
        match self.protocol {
            Protocol::Simple => self.simple(sql).await,
            Protocol::Extended => self.extended(sql).await,
        }
    }

    async fn shutdown(&mut self) {}

    /// For `onlyif` and `skipif`.
    fn engine_name(&self) -> &str {
        match self.protocol {
            Protocol::Simple => "simple",
            Protocol::Extended => "extended",
        }
    }

    async fn sleep(duration: std::time::Duration) {
        tokio::time::sleep(duration).await;
    }

    fn error_sql_state(error: &Refused) -> Option<String> {
        error.sqlstate.clone()
    }
}
