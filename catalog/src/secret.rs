//! Options whose values are nobody's to see: kept to connect with, and shown nowhere. `CREATE SECRET` keeps one under a
//! name of its own, and an option that says `SECRET name` has only that name.

use crate::ObjectId;
use serde::{Deserialize, Serialize};

/// A value that is used and never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    pub id: ObjectId,
    pub name: String,
    pub owner: ObjectId,
    /// Microseconds since 1970, UTC.
    pub created_us: i64,
    pub value: String,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({:?})", self.name)
    }
}

/// Before the name of a secret in an option's value. No text of SQL has a NUL, so nobody can write one.
const REFERENCE: &str = "\0secret ";

/// What an option's value is that says `SECRET name`.
pub fn secret_reference(name: &str) -> String {
    format!("{REFERENCE}{name}")
}

/// The name of the secret that an option's value says; `None`: the value is itself.
pub fn secret_named(value: &str) -> Option<&str> {
    value.strip_prefix(REFERENCE)
}

/// What is shown in their place.
pub const HIDDEN: &str = "********";

/// Whether an option of `WITH ( … )` is one.
pub fn is_secret(option: &str) -> bool {
    let name = option.strip_prefix("properties.").unwrap_or(option);
    ["password", "secret"].iter().any(|word| name.contains(word))
        || name.starts_with("sasl.jaas.")
        || matches!(name, "ssl.key.pem" | "sasl.oauthbearer.config" | "sasl.oauthbearer.assertion.private.key.pem")
}

/// The address of a Redis as it may be shown: without who is let in by it. Other texts are as they are.
pub fn without_credentials(address: &str) -> String {
    let (Some((scheme, rest)), true) = (address.split_once("://"), address.starts_with("redis")) else {
        return address.to_string();
    };
    // Up to the last @: a password that is not encoded may have any sign in it.
    let rest = match rest.rsplit_once('@') {
        Some((_, rest)) => format!("{HIDDEN}@{rest}"),
        None => rest.to_string(),
    };
    let Some((place, parameters)) = rest.split_once('?') else { return format!("{scheme}://{rest}") };
    let parameters = parameters.split('&').map(|parameter| match parameter.split_once('=') {
        Some(("sentinel", _)) => format!("sentinel={HIDDEN}"),
        _ => parameter.to_string(),
    });
    format!("{scheme}://{place}?{}", parameters.collect::<Vec<String>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lets_somebody_in_is_secret() {
        let cases = [
            ("properties.sasl.password", true),
            ("properties.ssl.key.password", true),
            ("properties.ssl.keystore.password", true),
            ("properties.ssl.key.pem", true),
            ("properties.sasl.jaas.config", true),
            ("properties.sasl.oauthbearer.client.secret", true),
            ("properties.sasl.username", false),
            ("properties.ssl.ca.pem", false),
            ("topic", false),
        ];
        for (option, expected) in cases {
            assert_eq!(is_secret(option), expected, "{option}");
        }
    }

    #[test]
    fn an_address_is_shown_without_who_is_let_in() {
        let cases = [
            ("none", "none"),
            ("redis://h:7000/1?layout=hash", "redis://h:7000/1?layout=hash"),
            ("rediss://me:secret@h?ca=/x", "rediss://********@h?ca=/x"),
            ("redis://:se/c?r@et@h", "redis://********@h"),
            (
                "redis+sentinel://:secret@a,b/main?sentinel=:secret&prefix=p",
                "redis+sentinel://********@a,b/main?sentinel=********&prefix=p",
            ),
            ("http://me@h", "http://me@h"),
        ];
        for (address, expected) in cases {
            assert_eq!(without_credentials(address), expected);
        }
    }
}
