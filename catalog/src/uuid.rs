//! UUIDs: held as texts of one spelling, lower case with hyphens, so that equal ones are equal texts and their order is that of their
//! bytes. What has to know is who reads texts and shows values (decision 0045).

/// The text that stands for the UUID where nothing is known.
pub const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// The bytes of a text that PostgreSQL takes: 32 hexadecimal digits, a hyphen behind every four or not, in braces or not.
pub fn bytes(text: &str) -> Option<[u8; 16]> {
    let inside = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut rest = inside.as_bytes();
    let mut bytes = [0; 16];
    for (at, byte) in bytes.iter_mut().enumerate() {
        let ([high, low], behind) = rest.split_first_chunk::<2>()?;
        *byte = digit(*high)? << 4 | digit(*low)?;
        rest = behind;
        if at % 2 == 1 && at < 15 {
            rest = rest.strip_prefix(b"-").unwrap_or(rest);
        }
    }
    rest.is_empty().then_some(bytes)
}

fn digit(c: u8) -> Option<u8> {
    char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// As it is held and shown.
pub fn text(bytes: [u8; 16]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(NIL.len());
    for (at, byte) in bytes.into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The spelling that is held of any that is taken.
///
/// # Errors
/// It is none; the message is PostgreSQL's, of 22P02.
pub fn read(written: &str) -> Result<String, String> {
    bytes(written).map(text).ok_or_else(|| format!("invalid input syntax for type uuid: \"{written}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_that_postgresql_takes_is_held_as_one() {
        let held = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for spelling in [
            held,
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
            "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
        ] {
            assert_eq!(read(spelling).as_deref(), Ok(held), "{spelling}");
        }
        assert_eq!(bytes(held).map(text).as_deref(), Some(held));
        assert_eq!(text([0; 16]), NIL);
        for wrong in [
            "",
            "a0eebc99",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a111",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11-",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "{{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}}",
            "a0e-ebc999c0b4ef8bb6d6bb9bd380a11",
            "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            " a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "é0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ] {
            assert_eq!(read(wrong), Err(format!("invalid input syntax for type uuid: \"{wrong}\"")));
        }
    }
}
