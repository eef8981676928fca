//! `format('%I.%I', schema, name)`: text with its arguments put in, quoted as names or literals where it says so.

use super::{inventory::quote_ident, row_function::Args};
use arrow::datatypes::DataType;
use datafusion::{common::ScalarValue, error::Result as DfResult};
use tidemark_planner::{
    PlanError,
    error::sqlstate,
    functions::bounded::{LENGTH_MAX, too_long},
};

/// `%s` as text, `%I` as a name, `%L` as a literal, `%2$s` the second argument, `%-8s` to a width, `%*s` to one that is the next argument,
/// `%%` a percent sign.
///
/// # Errors
/// 22023: a conversion that there is not; 22023 too few arguments; 22004 NULL as a name; 54000 widths that are no layout.
pub fn format(args: &Args<'_>) -> DfResult<Option<String>> {
    let Some(pattern) = args.text(0) else { return Ok(None) };
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut next = 1;
    let mut widths: usize = 0;
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
        let mut position = None;
        if number.is_some() && characters.next_if_eq(&'$').is_some() {
            position = number.take();
        }
        let mut to_the_left = number.is_none() && characters.next_if_eq(&'-').is_some();
        let width = match number {
            Some(width) => width,
            None if characters.next_if_eq(&'*').is_some() => {
                if let Some(at) = digits(&mut characters) {
                    if characters.next_if_eq(&'$').is_none() {
                        return Err(refused("width argument position must be ended by \"$\"".to_string()));
                    }
                    next = at;
                }
                let (of_argument, width) = asked_width(argument(args, next)?)?;
                next += 1;
                to_the_left |= of_argument;
                width
            }
            None => digits(&mut characters).unwrap_or(0),
        };
        widths = widths.saturating_add(width);
        if widths > WIDTHS_MAX {
            return Err(too_long("format").detail(format!("its widths are {WIDTHS_MAX} in all at most")).into());
        }
        let conversion = characters.next();
        let Some(kind @ ('s' | 'I' | 'L')) = conversion else {
            return Err(refused(match conversion {
                None => "unterminated format() type specifier".to_string(),
                Some(other) => format!("unrecognized format() type specifier \"{other}\""),
            }));
        };
        next = position.unwrap_or(next);
        let value = argument(args, next)?;
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

/// Widths beyond this are no layout: they are memory, and a batch of 8192 rows has as many of them.
const WIDTHS_MAX: usize = LENGTH_MAX / 8192;

/// A number; one that is greater than any width or position is one that is just that.
fn digits(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<usize> {
    let mut number = None;
    while let Some(digit) = characters.peek().and_then(|c| c.to_digit(10)) {
        characters.next();
        number = Some((number.unwrap_or(0) * 10 + digit as usize).min(WIDTHS_MAX + 1));
    }
    number
}

fn argument<'a>(args: &'a Args<'_>, at: usize) -> DfResult<&'a ScalarValue> {
    if at == 0 {
        return Err(refused("format specifies argument 0, but arguments are numbered from 1".to_string()));
    }
    args.0.get(at).ok_or_else(|| refused("too few arguments for format()".to_string()))
}

/// Whether to the left, which is a negative one, and how wide.
fn asked_width(value: &ScalarValue) -> DfResult<(bool, usize)> {
    Ok(match value.cast_to(&DataType::Int64)? {
        ScalarValue::Int64(Some(width)) => (width < 0, usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX)),
        _ => (false, 0),
    })
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
            ("|%*s|", vec![ScalarValue::Int64(Some(3)), ScalarValue::from("a")], "|  a|"),
            ("|%*s|%s", vec![ScalarValue::Int64(Some(-3)), ScalarValue::from("a"), ScalarValue::from("b")], "|a  |b"),
            ("|%1$*2$s|", vec![ScalarValue::from("a"), ScalarValue::Int64(Some(2))], "| a|"),
            ("|%-*s|", vec![none.clone(), ScalarValue::from("a")], "|a|"),
        ] {
            assert_eq!(formatted(pattern, &args).ok().flatten().as_deref(), Some(expected), "{pattern}");
        }
        assert!(matches!(formatted("%s", &[]), Err(error) if error.to_string().contains("too few arguments")));
        assert!(
            matches!(formatted("%d", std::slice::from_ref(&text)), Err(error) if error.to_string().contains("\"d\""))
        );
        assert!(formatted("%I", &[none]).is_err());
        let wide = format!("%{WIDTHS_MAX}s");
        assert_eq!(formatted(&wide, std::slice::from_ref(&text)).ok().flatten().map(|out| out.len()), Some(WIDTHS_MAX));
        for wide in ["%1000000000s".to_string(), format!("{wide}%1$1s")] {
            assert!(formatted(&wide, std::slice::from_ref(&text)).is_err(), "{wide}");
        }
        assert_eq!(format(&Args(&[ScalarValue::Utf8(None)])).ok(), Some(None));
    }
}
