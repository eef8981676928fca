//! JSON in texts, as it is written there: `json` keeps the text, `jsonb` is held as the text that PostgreSQL shows of it. Here and not with the
//! functions of queries, because messages are read into such columns, too.

mod canonical;
mod slice;

pub use canonical::{Refused, string, write};
pub use slice::{NO_ZERO, Slice};

/// The text that is held of one that is JSON.
///
/// # Errors
/// It is none, or of `jsonb` nothing that `jsonb` can have.
pub fn read(text: &str, binary: bool) -> Result<String, Refused> {
    let document = Slice::of(text).map_err(Refused::Text)?;
    if !binary {
        return Ok(text.to_string());
    }
    let mut held = String::with_capacity(text.len());
    write(document, &mut held)?;
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_kept_and_jsonb_is_written_anew() {
        let text = " {\"b\":1.0,\"a\":[1,2]} ";
        assert_eq!(read(text, false).ok().as_deref(), Some(text));
        assert_eq!(read(text, true).ok().as_deref(), Some("{\"a\": [1, 2], \"b\": 1.0}"));
        for binary in [false, true] {
            assert!(matches!(read("{\"a\":}", binary), Err(Refused::Text(_))));
        }
        assert!(matches!(read("1e140000", true), Err(Refused::Number)));
        assert!(read("1e140000", false).is_ok());
    }
}
