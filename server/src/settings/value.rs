//! How values of settings are written: the same in a flag, a variable and the file. An error says what was expected.

use super::{Http, LogFormat, Role, Ssl, Stale};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tidemark_connectors::log::Fsync;

pub type Parsed<T> = Result<T, &'static str>;

pub fn address(text: &str) -> Parsed<SocketAddr> {
    let text = text.trim();
    let text = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}")).unwrap_or(text.to_string());
    text.parse().map_err(|_| "an address with a port, such as 127.0.0.1:5433")
}

pub fn http(text: &str) -> Parsed<Http> {
    match text.trim() {
        "auto" => Ok(Http::Auto),
        "off" => Ok(Http::Off),
        other => {
            address(other).map(Http::At).map_err(|_| "auto, off or an address with a port, such as 127.0.0.1:8433")
        }
    }
}

pub fn directory(text: &str) -> Parsed<PathBuf> {
    if text.is_empty() { Err("the path of a directory") } else { Ok(PathBuf::from(text)) }
}

pub fn text(text: &str) -> Parsed<String> {
    if text.trim().is_empty() { Err("a text that is not empty") } else { Ok(text.trim().to_string()) }
}

/// A text that may have a password in it: it is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Private(String);

impl std::ops::Deref for Private {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Private {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

pub fn private(value: &str) -> Parsed<Private> {
    text(value).map(Private)
}

pub fn role(text: &str) -> Parsed<Role> {
    match text.trim() {
        "owner" => Ok(Role::Owner),
        "serving" => Ok(Role::Serving),
        _ => Err("owner or serving"),
    }
}

pub fn on_off(text: &str) -> Parsed<bool> {
    match text.trim() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("on or off"),
    }
}

pub fn ssl(text: &str) -> Parsed<Ssl> {
    match text.trim() {
        "off" => Ok(Ssl::Off),
        "on" => Ok(Ssl::On),
        "require" => Ok(Ssl::Require),
        _ => Err("off, on or require"),
    }
}

pub fn stale(text: &str) -> Parsed<Stale> {
    match text.trim() {
        "warn" => Ok(Stale::Warn),
        "error" => Ok(Stale::Error),
        _ => Err("warn or error"),
    }
}

/// At least one.
pub fn count(text: &str) -> Parsed<usize> {
    match text.trim().replace('_', "").parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("a whole number from 1"),
    }
}

/// `50ms`, `5s`, `10min`, `2h`.
pub fn duration(text: &str) -> Parsed<Duration> {
    const EXPECTED: &str = "a duration with its unit (ms, s, min, h), such as 50ms or 10s";
    if is_zero(text) {
        return Err("more than zero: a duration with its unit (ms, s, min, h), such as 50ms or 10s");
    }
    let (number, unit) = split_unit(text).ok_or(EXPECTED)?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(EXPECTED),
    };
    match number.checked_mul(ms) {
        Some(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err(EXPECTED),
    }
}

/// PostgreSQL's units of memory, in powers of 1024: `64MB`, `2GB`.
pub fn bytes(text: &str) -> Parsed<u64> {
    const EXPECTED: &str = "a size with its unit (kB, MB, GB, TB), such as 64MB";
    if is_zero(text) {
        return Err("more than zero: a size with its unit (kB, MB, GB, TB), such as 64MB");
    }
    let (number, unit) = split_unit(text).ok_or(EXPECTED)?;
    let shift = match unit {
        "B" => 0,
        "kB" | "KB" => 10,
        "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return Err(EXPECTED),
    };
    match number.checked_mul(1 << shift) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(EXPECTED),
    }
}

/// `none`, or a value.
pub fn optional<T>(text: &str, parse: impl Fn(&str) -> Parsed<T>) -> Parsed<Option<T>> {
    if text.trim().eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    let none = "more than zero; where there is to be none, write none";
    parse(text).map(Some).map_err(|expected| if is_zero(text) { none } else { expected })
}

/// `0`, `0s`, `0 MB`.
fn is_zero(text: &str) -> bool {
    let number = text.trim().trim_end_matches(char::is_alphabetic).trim_end();
    !number.is_empty() && number.bytes().all(|byte| byte == b'0')
}

pub fn fsync(text: &str) -> Parsed<Fsync> {
    match text.trim() {
        "always" => Ok(Fsync::Always),
        "never" => Ok(Fsync::Never),
        other => match other.strip_suffix("ms").unwrap_or(other).trim().parse() {
            Ok(ms) if ms > 0 => Ok(Fsync::EveryMs(ms)),
            _ => Err("always, never or a number of milliseconds"),
        },
    }
}

pub fn log_format(text: &str) -> Parsed<LogFormat> {
    match text.trim() {
        "auto" => Ok(LogFormat::Auto),
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        _ => Err("auto, human or json"),
    }
}

/// A filter of `tracing`: a level, or `target=level` by commas.
pub fn log_filter(text: &str) -> Parsed<String> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_string()),
        Err(_) => Err("a log filter, such as info or warn,tidemark_server=debug"),
    }
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '_')?;
    let (number, unit) = text.split_at(at);
    Some((number.replace('_', "").parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_need_their_unit() {
        assert_eq!(duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(duration("5 s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("2min"), Ok(Duration::from_secs(120)));
        for bad in ["5", "", "s", "-1s", "0s", "5 days", "99999999999999999999s", "9999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(bytes("64MB"), Ok(64 << 20));
        assert_eq!(bytes("1_000kB"), Ok(1_000 << 10));
        for bad in ["64", "MB", "64 mb", "0MB", "99999999999TB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(optional("none", bytes), Ok(None));
        // Zero is said to be none, with a unit or without.
        for zero in ["0", "0s", " 0 ms ", "00"] {
            assert!(duration(zero).is_err_and(|expected| expected.starts_with("more than zero: ")), "{zero}");
            let none = optional(zero, duration);
            assert!(none.is_err_and(|expected| expected.ends_with("write none")), "{zero}");
        }
        assert!(bytes("0MB").is_err_and(|expected| expected.starts_with("more than zero: ")));
        assert!(duration("10").is_err_and(|expected| expected.starts_with("a duration")));
        assert_eq!(optional("10", duration), duration("10").map(Some));
    }

    #[test]
    fn http_is_a_word_or_an_address() {
        assert_eq!((http("auto"), http("off")), (Ok(Http::Auto), Ok(Http::Off)));
        assert_eq!(http("localhost:80"), Ok(Http::At(([127, 0, 0, 1], 80).into())));
        assert!(http("8433").is_err() && http("on").is_err() && http("").is_err());
    }

    #[test]
    fn fsync_is_a_word_or_milliseconds() {
        assert_eq!(fsync("always"), Ok(Fsync::Always));
        assert_eq!(fsync("200"), Ok(Fsync::EveryMs(200)));
        assert_eq!(fsync("200ms"), Ok(Fsync::EveryMs(200)));
        assert!(fsync("0").is_err() && fsync("sometimes").is_err());
    }
}
