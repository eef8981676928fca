//! `format('%I.%I', schema, name)`: text with its arguments put in, quoted as names or literals where it says so.

use super::{inventory::quote_ident, row_function::Args};
use datafusion::{common::ScalarValue, error::Result as DfResult};
use tidemark_planner::{PlanError, error::sqlstate};

/// `%s` as text, `%I` as a name, `%L` as a literal, `%2$s` the second argument, `%-8s` to a width, `%%` a percent sign.
///
/// # Errors
/// 22023: a conversion that there is not; 22023 too few arguments; 22004 NULL as a name.
pub fn format(args: &Args<'_>) -> DfResult<Option<String>> {
    let Some(pattern) = args.text(0) else { return Ok(None) };
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut next = 1;
    let mut characters = pattern.chars().peekable();
    while let Some(c) = characters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if characters.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let mut number = digits(&mut characters);
        if number.is_some() && characters.next_if_eq(&'$').is_some() {
            next = number.take().unwrap_or_default();
        }
        let to_the_left = number.is_none() && characters.next_if_eq(&'-').is_some();
        let width = number.or_else(|| digits(&mut characters)).unwrap_or(0);
        let conversion = characters.next();
        let Some(kind @ ('s' | 'I' | 'L')) = conversion else {
            return Err(refused(match conversion {
                None => "unterminated format() type specifier".to_string(),
                Some(other) => format!("unrecognized format() type specifier \"{other}\""),
            }));
        };
        if next == 0 {
            return Err(refused("format specifies argument 0, but arguments are numbered from 1".to_string()));
        }
        let Some(value) = args.0.get(next) else { return Err(refused("too few arguments for format()".to_string())) };
        next += 1;
        let converted = match (kind, shown(value)) {
            ('s', value) => value.unwrap_or_default(),
            ('I', Some(name)) => quote_ident(&name),
            ('I', None) => {
                return Err(PlanError::new("22004", "null values cannot be formatted as an SQL identifier").into());
            }
            (_, Some(value)) => format!("'{}'", value.replace('\'', "''")),
            (_, None) => "NULL".to_string(),
        };
        match to_the_left {
            true => out.push_str(&format!("{converted:<width$}")),
            false => out.push_str(&format!("{converted:>width$}")),
        }
    }
    Ok(Some(out))
}

/// A width beyond this is no layout: it is memory.
const WIDTH_MAX: usize = 1000;

fn digits(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<usize> {
    let mut number = None;
    while let Some(digit) = characters.peek().and_then(|c| c.to_digit(10)) {
        characters.next();
        number = Some((number.unwrap_or(0) * 10 + digit as usize).min(WIDTH_MAX));
    }
    number
}

fn shown(value: &ScalarValue) -> Option<String> {
    match value {
        value if value.is_null() => None,
        ScalarValue::Boolean(Some(value)) => Some(if *value { "t" } else { "f" }.to_string()),
        value => Some(value.to_string()),
    }
}

fn refused(message: String) -> datafusion::error::DataFusionError {
    PlanError::new(sqlstate::INVALID_PARAMETER, message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(pattern: &str, args: &[ScalarValue]) -> DfResult<Option<String>> {
        let all: Vec<ScalarValue> = std::iter::once(ScalarValue::from(pattern)).chain(args.iter().cloned()).collect();
        format(&Args(&all))
    }

    #[test]
    fn arguments_are_put_in_as_the_pattern_says() {
        let (name, text, none) = (ScalarValue::from("A b"), ScalarValue::from("it's"), ScalarValue::Utf8(None));
        for (pattern, args, expected) in [
            ("%I.%s", vec![name.clone(), text.clone()], "\"A b\".it's"),
            ("%L %L", vec![text.clone(), none.clone()], "'it''s' NULL"),
            ("%2$s %1$s 100%%", vec![name.clone(), ScalarValue::Int64(Some(7))], "7 A b 100%"),
            ("|%5s|%-5s|", vec![ScalarValue::from("a"), ScalarValue::from("b")], "|    a|b    |"),
            ("<%s>", vec![none.clone()], "<>"),
        ] {
            assert_eq!(formatted(pattern, &args).ok().flatten().as_deref(), Some(expected), "{pattern}");
        }
        assert!(matches!(formatted("%s", &[]), Err(error) if error.to_string().contains("too few arguments")));
        assert!(
            matches!(formatted("%d", std::slice::from_ref(&text)), Err(error) if error.to_string().contains("\"d\""))
        );
        assert!(formatted("%I", &[none]).is_err());
        assert_eq!(format(&Args(&[ScalarValue::Utf8(None)])).ok(), Some(None));
    }
}
