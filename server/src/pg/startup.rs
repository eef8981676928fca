//! From the first byte to a startup packet: encryption agreed on or refused, the version settled, the options unpacked.

use super::error::{PgError, sqlstate};
use super::frontend::Reader;
use super::reply;
use super::socket::Socket;
use super::tls::Tls;
use super::transport::Transport;
use super::watch::{Fault, Watch};
use tokio::io::{AsyncRead, AsyncWrite};

/// PostgreSQL's `MAX_STARTUP_PACKET_LENGTH`: what somebody who has not said who they are may make us hold.
const STARTUP_BYTES_MAX: usize = 10_000;

const CANCEL_REQUEST: i32 = 80_877_102;
const SSL_REQUEST: i32 = 80_877_103;
const GSS_REQUEST: i32 = 80_877_104;

/// What a new connection turned out to want.
#[derive(Debug, PartialEq)]
pub(super) enum Greeting {
    Startup(Packet),
    Cancel {
        connection_id: i32,
        secret: i32,
    },
    /// It left without a word: a port scan, a health check.
    Left,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Packet {
    pub user: String,
    pub database: String,
    pub settings: Vec<(String, String)>,
    /// The client asked for a newer minor version than 3.0.
    pub newer: bool,
    /// Protocol extensions asked for; none is known here.
    pub extensions: Vec<String>,
}

/// Reads up to and including the startup packet.
pub(super) async fn greet<S>(
    socket: &mut Socket<Transport<S>>,
    watch: &mut Watch,
    tls: Option<&Tls>,
) -> Result<Greeting, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Each kind of encryption may be asked for once, then comes the packet itself.
    let (mut ssl, mut gss) = (false, false);
    loop {
        let Some(body) = packet(socket, watch).await? else { return Ok(Greeting::Left) };
        let mut reader = Reader { rest: &body };
        let code = reader.i32()?;
        let repeated = match code {
            SSL_REQUEST => std::mem::replace(&mut ssl, true),
            GSS_REQUEST => std::mem::replace(&mut gss, true),
            CANCEL_REQUEST => {
                let connection_id = reader.i32()?;
                // A key longer than ours is no key of ours, nor is a shorter one.
                let secret = reader.i32()?;
                return Ok(if reader.rest.is_empty() {
                    Greeting::Cancel { connection_id, secret }
                } else {
                    Greeting::Left
                });
            }
            version => return startup(version, reader).map(Greeting::Startup).map_err(|e| e.into_fatal().into()),
        };
        if repeated {
            return Err(PgError::fatal(sqlstate::PROTOCOL_VIOLATION, "encryption was requested twice").into());
        }
        match tls.filter(|_| code == SSL_REQUEST) {
            Some(tls) => encrypt(socket, watch, tls).await?,
            None => {
                socket.output.extend_from_slice(b"N");
                watch.flush(socket).await?;
            }
        }
    }
}

/// Says yes, and agrees on keys with the client.
async fn encrypt<S>(socket: &mut Socket<Transport<S>>, watch: &mut Watch, tls: &Tls) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Sent by somebody in between, it would be taken for what came encrypted (CVE-2021-23214).
    if !socket.input().is_empty() {
        let message = "received unencrypted data after SSL request";
        return Err(PgError::fatal(sqlstate::PROTOCOL_VIOLATION, message).into());
    }
    socket.output.extend_from_slice(b"S");
    watch.flush(socket).await?;
    let Transport::Plain(stream) = std::mem::replace(socket.stream_mut(), Transport::Between) else {
        return Err(PgError::fatal(sqlstate::PROTOCOL_VIOLATION, "encryption was requested twice").into());
    };
    match watch.beside(tls.acceptor().accept(stream)).await? {
        Ok(stream) => {
            *socket.stream_mut() = Transport::Tls(Box::new(stream));
            Ok(())
        }
        Err(error) => {
            tracing::info!(%error, "a client and the server did not agree on TLS");
            Err(Fault::Gone)
        }
    }
}

/// One packet without its length.
async fn packet<S>(socket: &mut Socket<S>, watch: &mut Watch) -> Result<Option<bytes::Bytes>, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let mut expected = 4;
        if let Some(prefix) = socket.input().get(..4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()) {
            expected = u32::from_be_bytes(prefix) as usize;
            if !(8..=STARTUP_BYTES_MAX).contains(&expected) {
                return Err(PgError::fatal(sqlstate::PROTOCOL_VIOLATION, "invalid length of startup packet").into());
            }
            if socket.input().len() >= expected {
                return Ok(Some(socket.take(expected).slice(4..)));
            }
        }
        if !watch.fill_idle(socket, expected).await? {
            return Ok(None);
        }
    }
}

fn startup(version: i32, mut reader: Reader<'_>) -> Result<Packet, PgError> {
    let (major, minor) = (version >> 16, version & 0xffff);
    if major != 3 {
        let message = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0");
        return Err(PgError::fatal(sqlstate::FEATURE_NOT_SUPPORTED, message));
    }
    let mut packet = Packet { newer: minor > 0, ..Packet::default() };
    let mut options = Vec::new();
    loop {
        let name = reader.text()?;
        if name.is_empty() {
            break;
        }
        let value = reader.text()?;
        match name {
            "user" => packet.user = value.to_owned(),
            "database" => packet.database = value.to_owned(),
            "options" => options = parse_options(value)?,
            "replication" if !matches!(value, "false" | "off" | "no" | "0") => {
                let message = "streaming replication is not supported";
                return Err(PgError::fatal(sqlstate::FEATURE_NOT_SUPPORTED, message));
            }
            "replication" => {}
            _ if name.starts_with("_pq_.") => packet.extensions.push(name.to_owned()),
            _ => packet.settings.push((name.to_owned(), value.to_owned())),
        }
    }
    if !reader.rest.is_empty() {
        let message = "invalid startup packet layout: expected terminator as last byte";
        return Err(PgError::fatal(sqlstate::PROTOCOL_VIOLATION, message));
    }
    if packet.user.is_empty() {
        let message = "no PostgreSQL user name specified in startup packet";
        return Err(PgError::fatal(sqlstate::INVALID_AUTHORIZATION, message));
    }
    if packet.database.is_empty() {
        packet.database.clone_from(&packet.user);
    }
    packet.settings.splice(0..0, options);
    check_encoding(&packet.settings)?;
    Ok(packet)
}

/// Every text here is UTF-8, and a client that expects something else must hear so rather than read garbage.
fn check_encoding(settings: &[(String, String)]) -> Result<(), PgError> {
    for (_, value) in settings.iter().filter(|(name, _)| name.eq_ignore_ascii_case("client_encoding")) {
        let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_uppercase();
        if !matches!(plain.as_str(), "UTF8" | "UNICODE" | "SQLASCII") {
            let message = format!("client encoding \"{value}\" is not supported");
            return Err(PgError::fatal(sqlstate::FEATURE_NOT_SUPPORTED, message)
                .hint("use UTF8, for example PGCLIENTENCODING=UTF8"));
        }
    }
    Ok(())
}

/// `-c name=value`, `-cname=value`, `--name=value`; a backslash keeps the next character, as a space in a value.
fn parse_options(options: &str) -> Result<Vec<(String, String)>, PgError> {
    let mut words = vec![];
    let mut word: Option<String> = None;
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.get_or_insert_default().extend(characters.next()),
            space if space.is_ascii_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    let invalid = |word: &str| {
        let message = format!("invalid command-line argument for server process: {word}");
        PgError::fatal(sqlstate::SYNTAX_ERROR, message).hint("options are written as -c name=value")
    };
    let mut settings = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let assignment = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            Some("") => words.next().ok_or_else(|| invalid(&word))?,
            Some(rest) => rest.to_owned(),
            None => return Err(invalid(&word)),
        };
        let (name, value) = assignment.split_once('=').ok_or_else(|| invalid(&word))?;
        // As in PostgreSQL, dashes stand for underscores in names given this way.
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

/// Settings every session reports, before the backend's own (PostgreSQL's GUC_REPORT list).
pub(super) fn default_parameters(packet: &Packet) -> Vec<(std::borrow::Cow<'static, str>, String)> {
    let application = packet.settings.iter().rev().find(|(name, _)| name == "application_name");
    let application = application.map(|(_, value)| value.as_str()).unwrap_or_default();
    [
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("application_name", application),
        ("is_superuser", "on"),
        ("session_authorization", packet.user.as_str()),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("default_transaction_read_only", "off"),
        ("in_hot_standby", "off"),
    ]
    .map(|(name, value)| (name.into(), value.to_owned()))
    .into()
}

/// Writes the answer to a startup packet that wants more than protocol 3.0.
pub(super) fn settle_version<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>, packet: &Packet) {
    if packet.newer || !packet.extensions.is_empty() {
        reply::negotiate_version(&mut socket.output, packet.extensions.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_all_three_spellings_and_keep_escaped_spaces() {
        let settings = parse_options("-c search_path=a,b -cTimeZone=UTC  --statement-timeout=5s -c x=a\\ b").unwrap();
        let expected = [("search_path", "a,b"), ("TimeZone", "UTC"), ("statement_timeout", "5s"), ("x", "a b")];
        assert_eq!(settings, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for bad in ["-x", "-c", "-c a", "plain"] {
            assert_eq!(parse_options(bad).unwrap_err().sqlstate, sqlstate::SYNTAX_ERROR, "{bad}");
        }
    }

    #[test]
    fn options_come_before_the_packets_own_settings_and_the_database_is_the_user_by_default() {
        let body = b"user\0ann\0application_name\0psql\0options\0-c a=1\0\0";
        let packet = startup(3 << 16, Reader { rest: body }).unwrap();
        assert_eq!((packet.user.as_str(), packet.database.as_str()), ("ann", "ann"));
        assert_eq!(packet.settings[0].0, "a");
        assert_eq!(packet.settings[1].0, "application_name");
    }

    #[test]
    fn other_encodings_replication_and_old_protocols_are_refused() {
        let refused = |version: i32, body: &[u8]| startup(version, Reader { rest: body }).unwrap_err().sqlstate;
        assert_eq!(refused(3 << 16, b"user\0a\0client_encoding\0LATIN1\0\0"), "0A000");
        assert_eq!(refused(3 << 16, b"user\0a\0replication\0database\0\0"), "0A000");
        assert_eq!(refused(2 << 16, b"user\0a\0\0"), "0A000");
        assert_eq!(refused(3 << 16, b"database\0a\0\0"), "28000");
    }
}
