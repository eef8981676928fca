//! Messages to the client. The cold ones are pgwire's types; those that every lookup sends are written straight into
//! the buffer.

use super::backend::{Column, CopyLayout, Notification, RowsTag};
use super::error::{PgError, Severity};
use super::format::Formats;
use bytes::{BufMut, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::copy::{CopyInResponse, CopyOutResponse};
use pgwire::messages::data::ParameterDescription;
use pgwire::messages::response::{ErrorResponse, NoticeResponse, NotificationResponse};
use pgwire::messages::startup::{Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey};
use std::fmt::Write;

/// What ReadyForQuery says of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TxStatus {
    Idle,
    Open,
    Failed,
}

pub(super) const PARSE_COMPLETE: &[u8] = b"1\0\0\0\x04";
pub(super) const BIND_COMPLETE: &[u8] = b"2\0\0\0\x04";
pub(super) const CLOSE_COMPLETE: &[u8] = b"3\0\0\0\x04";
pub(super) const NO_DATA: &[u8] = b"n\0\0\0\x04";
pub(super) const EMPTY_QUERY: &[u8] = b"I\0\0\0\x04";
pub(super) const PORTAL_SUSPENDED: &[u8] = b"s\0\0\0\x04";
pub(super) const COPY_DONE: &[u8] = b"c\0\0\0\x04";

pub(super) fn ready_for_query(out: &mut BytesMut, status: TxStatus) {
    out.put_slice(b"Z\0\0\0\x05");
    out.put_u8(match status {
        TxStatus::Idle => b'I',
        TxStatus::Open => b'T',
        TxStatus::Failed => b'E',
    });
}

/// Writes a message's type, leaves room for its length, and fills that in when the body is there.
fn framed(out: &mut BytesMut, kind: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    let start = out.len();
    out.put_u32(0);
    body(out);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

pub(super) fn command_complete(out: &mut BytesMut, tag: &str) {
    framed(out, b'C', |out| {
        out.put_slice(tag.as_bytes());
        out.put_u8(0);
    });
}

pub(super) fn rows_complete(out: &mut BytesMut, tag: RowsTag, rows: u64) {
    match tag {
        RowsTag::Plain(text) => command_complete(out, text),
        RowsTag::Counted(text) => framed(out, b'C', |out| {
            // A BytesMut grows: writing to it does not fail.
            let _ = write!(out, "{text} {rows}\0");
        }),
    }
}

pub(super) fn row_description(out: &mut BytesMut, columns: &[Column], formats: &Formats) {
    framed(out, b'T', |out| {
        out.put_i16(columns.len() as i16);
        for (index, column) in columns.iter().enumerate() {
            // A NUL in a name would end it early and shift every field after it.
            out.put_slice(column.name.split('\0').next().unwrap_or_default().as_bytes());
            out.put_u8(0);
            out.put_u32(column.table_oid);
            out.put_i16(column.column_number);
            out.put_u32(column.type_oid);
            out.put_i16(column.type_size);
            out.put_i32(column.type_modifier);
            out.put_i16(formats.of(index).code());
        }
    });
}

/// A message of pgwire's; one that is over pgwire's limits is left out rather than sent broken.
fn cold(out: &mut BytesMut, message: &impl Message) {
    let start = out.len();
    if let Err(error) = message.encode(out) {
        out.truncate(start);
        tracing::warn!(%error, "a protocol message could not be sent");
    }
}

pub(super) fn parameter_description(out: &mut BytesMut, types: &[u32]) {
    cold(out, &ParameterDescription::new(types.to_vec()));
}

pub(super) fn copy_in_response(out: &mut BytesMut, layout: CopyLayout) {
    let (format, formats) = copy_formats(layout);
    cold(out, &CopyInResponse::new(format, layout.columns, formats));
}

pub(super) fn copy_out_response(out: &mut BytesMut, layout: CopyLayout) {
    let (format, formats) = copy_formats(layout);
    cold(out, &CopyOutResponse::new(format, layout.columns, formats));
}

fn copy_formats(layout: CopyLayout) -> (i8, Vec<i16>) {
    let columns = usize::try_from(layout.columns).unwrap_or(0);
    (i8::from(layout.binary), vec![i16::from(layout.binary); columns])
}

/// The mechanisms that there are, the best first.
pub(super) fn sasl(out: &mut BytesMut, mechanisms: &[&str]) {
    cold(out, &Authentication::SASL(mechanisms.iter().map(|name| name.to_string()).collect()));
}

pub(super) fn sasl_continue(out: &mut BytesMut, message: &str) {
    cold(out, &Authentication::SASLContinue(message.to_owned().into()));
}

pub(super) fn sasl_final(out: &mut BytesMut, message: &str) {
    cold(out, &Authentication::SASLFinal(message.to_owned().into()));
}

pub(super) fn authentication_ok(out: &mut BytesMut) {
    cold(out, &Authentication::Ok);
}

pub(super) fn backend_key(out: &mut BytesMut, connection_id: i32, secret: i32) {
    cold(out, &BackendKeyData::new(connection_id, SecretKey::I32(secret)));
}

pub(super) fn parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    cold(out, &ParameterStatus::new(without_nul(name), without_nul(value)));
}

pub(super) fn notification(out: &mut BytesMut, notification: &Notification) {
    let (channel, payload) = (without_nul(&notification.channel), without_nul(&notification.payload));
    cold(out, &NotificationResponse::new(notification.sender, channel, payload));
}

/// The newest protocol spoken here is 3.0; `options` are the protocol extensions asked for and not known.
pub(super) fn negotiate_version(out: &mut BytesMut, options: Vec<String>) {
    cold(out, &NegotiateProtocolVersion::new(3 << 16, options));
}

/// An ErrorResponse or, for lesser severities, a NoticeResponse.
pub(super) fn error_or_notice(out: &mut BytesMut, error: &PgError) {
    let severity = error.severity.as_str().to_owned();
    let mut fields = vec![
        (b'S', severity.clone()),
        (b'V', severity),
        (b'C', error.sqlstate.to_owned()),
        (b'M', without_nul(&error.message)),
    ];
    let optional = [(b'D', &error.detail), (b'H', &error.hint), (b'W', &error.context)];
    fields.extend(optional.into_iter().filter_map(|(code, text)| Some((code, without_nul(text.as_deref()?)))));
    fields.extend(error.position.map(|position| (b'P', position.to_string())));
    match error.severity {
        Severity::Error | Severity::Fatal => cold(out, &ErrorResponse::new(fields)),
        _ => cold(out, &NoticeResponse::new(fields)),
    }
}

/// Strings on the wire end at the first NUL.
fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}
