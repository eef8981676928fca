//! A definition is kept as it was written, and shown so; the passwords in it are not. Statements that have one themselves
//! (`PASSWORD 'text'`, `SECRET name … AS 'text'`) are logged without it.

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
            && !names_a_secret(value, tokens.get(at + 2))
            && let Some(instead) = hidden(&name_before(&tokens[..at]), &value.token)
        {
            let (start, end) = (text.offset(value.span.start), text.offset(value.span.end));
            shown.replace_range(start..end, &format!("'{}'", instead.replace('\'', "''")));
        }
    }
    shown
}

/// The statement as it may be logged: what [`without_secrets`] hides, and the texts of `PASSWORD 'text'` and `SECRET name AS
/// 'text'`. What cannot be read is not shown at all.
pub fn loggable(sql: &str) -> String {
    let sql = without_secrets(sql);
    let text = Text::new(&sql);
    let Ok(tokens) = text.tokens() else { return HIDDEN.to_string() };
    let word = |at: usize, word: &str| matches!(&tokens[at].token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word));
    let is_of_secret = tokens.len() > 1 && word(1, "SECRET");
    let mut shown = sql.clone();
    for at in (1..tokens.len()).rev() {
        let is_text = matches!(
            tokens[at].token,
            Token::SingleQuotedString(_)
                | Token::EscapedStringLiteral(_)
                | Token::UnicodeStringLiteral(_)
                | Token::NationalStringLiteral(_)
                | Token::DollarQuotedString(_)
        );
        if is_text && (word(at - 1, "PASSWORD") || (is_of_secret && word(at - 1, "AS"))) {
            let (start, end) = (text.offset(tokens[at].span.start), text.offset(tokens[at].span.end));
            shown.replace_range(start..end, &format!("'{HIDDEN}'"));
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

/// `SECRET name`: a name is nothing to hide.
fn names_a_secret(value: &TokenWithSpan, next: Option<&TokenWithSpan>) -> bool {
    matches!(&value.token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("secret"))
        && matches!(next, Some(TokenWithSpan { token: Token::Word(_), .. }))
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
            (
                "CREATE SOURCE s (a INT) WITH (properties.sasl.password = SECRET kafka, properties.ssl.key.password = secret)",
                "CREATE SOURCE s (a INT) WITH (properties.sasl.password = SECRET kafka, properties.ssl.key.password = '********')",
            ),
            ("SELECT 'unfinished", "SELECT 'unfinished"),
            ("= 'a'", "= 'a'"),
        ];
        for (sql, expected) in cases {
            assert_eq!(without_secrets(sql), expected);
        }
    }

    #[test]
    fn what_is_logged_has_no_password() {
        let cases = [
            ("CREATE ROLE a LOGIN PASSWORD 'geheim' IN ROLE b", "CREATE ROLE a LOGIN PASSWORD '********' IN ROLE b"),
            ("alter user a with encrypted password $$geheim$$", "alter user a with encrypted password '********'"),
            (
                "CREATE SECRET s WITH (backend = 'meta') AS 'geheim'",
                "CREATE SECRET s WITH (backend = 'meta') AS '********'",
            ),
            ("ALTER SECRET s AS E'gehe\\x69m'", "ALTER SECRET s AS '********'"),
            ("GRANT SELECT ON v TO a", "GRANT SELECT ON v TO a"),
            ("CREATE ROLE a PASSWORD 'unfinished", "********"),
        ];
        for (sql, expected) in cases {
            assert_eq!(loggable(sql), expected);
        }
    }
}
