//! A definition is kept as it was written, and shown so; the passwords in it are not.

use super::text::Text;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use tidemark_catalog::{HIDDEN, is_secret, without_credentials};

/// The statement with the values of secret options (`name.of.option = value`) hidden, and in the address of a Redis (`online =
/// value`) who is let in by it.
pub fn without_secrets(sql: &str) -> String {
    let text = Text::new(sql);
    // What is no SQL was refused, and is kept nowhere.
    let Ok(tokens) = text.tokens() else { return sql.to_string() };
    let mut shown = sql.to_string();
    // From the end, so that places before stay where they are.
    for at in (0..tokens.len()).rev() {
        if tokens[at].token == Token::Eq
            && let Some(value) = tokens.get(at + 1)
            && let Some(instead) = hidden(&name_before(&tokens[..at]), &value.token)
        {
            let (start, end) = (text.offset(value.span.start), text.offset(value.span.end));
            shown.replace_range(start..end, &format!("'{}'", instead.replace('\'', "''")));
        }
    }
    shown
}

/// What is shown in the place of an option's value; `None`: itself.
fn hidden(option: &str, value: &Token) -> Option<String> {
    if is_secret(option) {
        return Some(HIDDEN.to_string());
    }
    let text = match value {
        _ if option != "online" => return None,
        Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => text,
        Token::DollarQuotedString(text) => &text.value,
        _ => return None,
    };
    Some(without_credentials(text)).filter(|shown| shown != text)
}

/// The words between points that these tokens end with, in lower case.
fn name_before(tokens: &[TokenWithSpan]) -> String {
    let mut name = vec![];
    let mut rest = tokens;
    while let [before @ .., TokenWithSpan { token: Token::Word(word), .. }] = rest {
        name.insert(0, word.value.to_lowercase());
        match before {
            [before @ .., TokenWithSpan { token: Token::Period, .. }] => rest = before,
            _ => break,
        }
    }
    name.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_values_of_secrets_are_hidden() {
        let cases = [
            (
                "CREATE SOURCE s (password TEXT) WITH (topic = 'a', properties.sasl.password = 'it''s é',\n  b = 'c') -- é",
                "CREATE SOURCE s (password TEXT) WITH (topic = 'a', properties.sasl.password = '********',\n  b = 'c') -- é",
            ),
            (
                "CREATE SOURCE s (é INT) WITH (Properties.SSL.Key.Pem='-----BEGIN\nKEY', properties.ssl.key.password = word)",
                "CREATE SOURCE s (é INT) WITH (Properties.SSL.Key.Pem='********', properties.ssl.key.password = '********')",
            ),
            (
                "CREATE SOURCE s (a INT) WITH (\"properties.sasl.password\" = $$x$$, properties.sasl.username = 'x')",
                "CREATE SOURCE s (a INT) WITH (\"properties.sasl.password\" = '********', properties.sasl.username = 'x')",
            ),
            (
                "CREATE FEATURE VIEW v WITH (ttl = '1 hour', online = 'redis://me:it''s@h/1') AS SELECT",
                "CREATE FEATURE VIEW v WITH (ttl = '1 hour', online = 'redis://********@h/1') AS SELECT",
            ),
            (
                "CREATE FEATURE VIEW v WITH (Online = $$redis://me:secret@h$$) AS SELECT",
                "CREATE FEATURE VIEW v WITH (Online = 'redis://********@h') AS SELECT",
            ),
            (
                "CREATE FEATURE VIEW v WITH (online = none) AS SELECT online = 'it''s'",
                "CREATE FEATURE VIEW v WITH (online = none) AS SELECT online = 'it''s'",
            ),
            ("SELECT 'unfinished", "SELECT 'unfinished"),
            ("= 'a'", "= 'a'"),
        ];
        for (sql, expected) in cases {
            assert_eq!(without_secrets(sql), expected);
        }
    }
}
