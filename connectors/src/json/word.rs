//! Eight bytes of a message at a time, in one machine word: where a string ends, what digits say.
//!
//! A word has the first of its bytes lowest. Past the end of a message there are zero bytes, which are in no JSON: whoever reads there
//! stops. The ways of finding a byte and of adding up digits are the known ones ("SIMD within a register"; Warren, Hacker's Delight, 6-1;
//! Lemire, "Number parsing at a gigabyte per second").

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The powers of ten that are below 2^64.
pub(super) const TENS: [u64; 20] = {
    let (mut tens, mut at) = ([1u64; 20], 1);
    while at < 20 {
        tens[at] = tens[at - 1] * 10;
        at += 1;
    }
    tens
};

/// A place in a message. Of 32 bits: so it takes one comparison to know that a word lies in the message.
pub(super) type At = u32;

#[inline(always)]
pub(super) fn byte(bytes: &[u8], at: At) -> u8 {
    bytes.get(at as usize).copied().unwrap_or(0)
}

#[inline(always)]
pub(super) fn word(bytes: &[u8], at: At) -> u64 {
    let begin = at as usize;
    match bytes.get(begin..begin + 8).and_then(|eight| eight.first_chunk()) {
        Some(eight) => u64::from_le_bytes(*eight),
        None => last_word(bytes, begin),
    }
}

#[inline(never)]
fn last_word(bytes: &[u8], at: usize) -> u64 {
    let missing = (at + 8 - bytes.len()) * 8;
    match bytes.last_chunk() {
        Some(eight) => u64::from_le_bytes(*eight).checked_shr(missing as u32).unwrap_or(0),
        None => bytes.iter().skip(at).rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// Sixteen bytes, as [`word`] has eight.
#[inline(always)]
pub(super) fn two_words(bytes: &[u8], at: At) -> u128 {
    let begin = at as usize;
    match bytes.get(begin..begin + 16).and_then(|sixteen| sixteen.first_chunk()) {
        Some(sixteen) => u128::from_le_bytes(*sixteen),
        None => last_two_words(bytes, at),
    }
}

#[inline(never)]
fn last_two_words(bytes: &[u8], at: At) -> u128 {
    u128::from(word(bytes, at)) | u128::from(last_word(bytes, at as usize + 8)) << 64
}

/// The high bit of the first byte that a string cannot have as it is (a quote, a backslash, a control character), and perhaps of bytes
/// behind it; 0: there is none.
#[inline(always)]
fn stops(word: u64) -> u64 {
    let is_zero = |word: u64| word.wrapping_sub(ONES);
    let control = word.wrapping_sub(ONES * 0x20);
    let found = is_zero(word ^ (ONES * u64::from(b'"'))) | is_zero(word ^ (ONES * u64::from(b'\\'))) | control;
    found & !word & HIGH
}

/// How a piece of a string went on from where it was asked for.
pub(super) struct Piece {
    /// Where the byte is that it stops at, and which; 0 at the end of a message, too.
    pub end: At,
    pub stop: u8,
    /// Whether all of it is ASCII.
    pub is_ascii: bool,
}

/// From `at` to the first quote, backslash or control character, or the end.
pub(super) fn piece(bytes: &[u8], mut at: At) -> Piece {
    let mut seen = 0;
    loop {
        let word = word(bytes, at);
        let stops = stops(word);
        if stops != 0 {
            let before = (stops & stops.wrapping_neg()) - 1;
            let (bits, is_ascii) = (stops.trailing_zeros() & !7, (seen | word & before) & HIGH == 0);
            return Piece { end: at + bits / 8, stop: (word >> bits) as u8, is_ascii };
        }
        seen |= word;
        at += 8;
    }
}

/// The same, and copies it.
#[inline(always)]
pub(super) fn copy_piece(bytes: &[u8], mut at: At, into: &mut Vec<u8>) -> Piece {
    let mut seen = 0;
    loop {
        let word = word(bytes, at);
        let stops = stops(word);
        // A whole word is copied faster than so many bytes as there happen to be.
        into.extend_from_slice(&word.to_le_bytes());
        if stops != 0 {
            let before = (stops & stops.wrapping_neg()) - 1;
            let (bits, is_ascii) = (stops.trailing_zeros() & !7, (seen | word & before) & HIGH == 0);
            into.truncate(into.len() - 8 + bits as usize / 8);
            return Piece { end: at + bits / 8, stop: (word >> bits) as u8, is_ascii };
        }
        seen |= word;
        at += 8;
    }
}

/// How many digits a word begins with.
#[inline(always)]
fn count(word: u64) -> u32 {
    let amounts = word ^ (ONES * u64::from(b'0'));
    // 10 and more reach the high bit, or had it.
    let others = ((amounts & !HIGH).wrapping_add(ONES * 0x76) | amounts) & HIGH;
    others.trailing_zeros() / 8
}

/// What the first `count` bytes say, which are digits; at least one.
#[inline(always)]
fn amount(word: u64, count: u32) -> u64 {
    // Zeros in front: the digits move to the end, and what is not theirs out.
    let digits = word << ((64 - 8 * count) & 63) & (ONES * 0x0f);
    let pairs = (digits.wrapping_mul(2561) >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(6_553_601) >> 16) & 0x0000_ffff_0000_ffff;
    fours.wrapping_mul(42_949_672_960_001) >> 32
}

/// The number that the digits from `at` on say, and how many they are: at most 19, so none is too great. `None`: there are more.
pub(super) fn digits(bytes: &[u8], at: At) -> Option<(u64, u32)> {
    let (mut number, mut found) = (0, 0);
    loop {
        let word = word(bytes, at + found);
        let more = count(word);
        if more == 0 {
            return Some((number, found));
        }
        if found + more > 19 {
            return None;
        }
        number = number * TENS[more as usize] + amount(word, more);
        found += more;
        if more < 8 {
            return Some((number, found));
        }
    }
}

/// A number of JSON without an exponent.
pub(super) struct Number {
    pub is_negative: bool,
    /// All its digits, as one number below 10^19.
    pub digits: u64,
    /// How many of them are behind the point.
    pub places: u32,
    pub end: At,
}

/// Whether a number ends before this byte. It may before a blank too, but seldom does.
#[inline(always)]
fn is_end(byte: u8) -> bool {
    byte == b',' || byte == b'}'
}

/// The word of a number without its sign, where it begins, and whether it has one.
#[inline(always)]
fn unsigned(bytes: &[u8], at: At) -> (u64, At, bool) {
    let first = word(bytes, at);
    if first as u8 == b'-' { (word(bytes, at + 1), at + 1, true) } else { (first, at, false) }
}

/// Whether a number may begin with so many digits: nothing but a lone 0 begins with one.
#[inline(always)]
fn may_begin(word: u64, digits: u32) -> bool {
    digits == 1 || digits > 1 && word as u8 != b'0'
}

/// A number without a point, of which a comma or brace follows, and where it ends. `None`: there is none, or it is too great.
#[inline(always)]
pub(super) fn whole(bytes: &[u8], at: At) -> Option<(i64, At)> {
    let (first, begin, is_negative) = unsigned(bytes, at);
    let found = count(first);
    if !may_begin(first, found) {
        return None;
    }
    let (amount, end) = if found < 8 {
        if !is_end((first >> (8 * found)) as u8) {
            return None;
        }
        (amount(first, found) as i64, begin + found)
    } else {
        long_whole(bytes, begin, first)?
    };
    Some((if is_negative { -amount } else { amount }, end))
}

/// A number that begins with eight digits.
#[inline(never)]
fn long_whole(bytes: &[u8], begin: At, first: u64) -> Option<(i64, At)> {
    let second = word(bytes, begin + 8);
    let found = count(second);
    if found < 8 {
        let more = if found == 0 { 0 } else { amount(second, found) };
        let whole = amount(first, 8) * TENS[found as usize] + more;
        return if is_end((second >> (8 * found)) as u8) { Some((whole as i64, begin + 8 + found)) } else { None };
    }
    let (whole, found) = digits(bytes, begin)?;
    if is_end(byte(bytes, begin + found)) { Some((i64::try_from(whole).ok()?, begin + found)) } else { None }
}

/// A number of which a comma or brace follows. `None`: there is none, or it has an exponent or more than 19 digits.
#[inline(always)]
pub(super) fn number(bytes: &[u8], at: At) -> Option<Number> {
    let (first, begin, is_negative) = unsigned(bytes, at);
    let wholes = count(first);
    if wholes < 8 {
        if !may_begin(first, wholes) {
            return None;
        }
        let behind = (first >> (8 * wholes)) as u8;
        if is_end(behind) {
            return Some(Number { is_negative, digits: amount(first, wholes), places: 0, end: begin + wholes });
        }
        // Without the point: up to seven digits, most often all.
        let before = (1 << (8 * wholes)) - 1;
        let written = first & before | first >> 8 & !before;
        let found = count(written);
        let end = begin + found + 1;
        if behind == b'.' && found > wholes && is_end(byte(bytes, end)) {
            return Some(Number { is_negative, digits: amount(written, found), places: found - wholes, end });
        }
    }
    long_number(bytes, begin, is_negative)
}

#[inline(never)]
fn long_number(bytes: &[u8], begin: At, is_negative: bool) -> Option<Number> {
    let (whole, wholes) = digits(bytes, begin)?;
    if !may_begin(word(bytes, begin), wholes) {
        return None;
    }
    let mut number = Number { is_negative, digits: whole, places: 0, end: begin + wholes };
    if byte(bytes, number.end) == b'.' {
        let (fraction, places) = digits(bytes, number.end + 1)?;
        if places == 0 || wholes + places > 19 {
            return None;
        }
        let digits = whole * TENS[places as usize] + fraction;
        number = Number { digits, places, end: number.end + 1 + places, ..number };
    }
    if is_end(byte(bytes, number.end)) { Some(number) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_word_has_the_bytes_that_there_are_and_zeros(bytes in prop::collection::vec(any::<u8>(), 0..40), at in 0usize..40) {
            let at = at.min(bytes.len());
            let padded = [&bytes[at..], &[0; 16]].concat();
            prop_assert_eq!(&word(&bytes, at as u32).to_le_bytes()[..], &padded[..8]);
            prop_assert_eq!(&two_words(&bytes, at as u32).to_le_bytes()[..], &padded[..16]);
        }

        #[test]
        fn a_piece_ends_where_one_byte_after_the_other_ends(
            bytes in prop::collection::vec(prop_oneof![3 => 0x20u8..0x7f, 1 => any::<u8>()], 0..40), at in 0usize..40
        ) {
            let at = at.min(bytes.len());
            let stops = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
            let end = bytes[at..].iter().position(stops).map_or(bytes.len(), |found| at + found);
            let Piece { end: found, is_ascii, stop } = piece(&bytes, at as u32);
            prop_assert_eq!((found as usize, is_ascii, stop), (end, bytes[at..end].is_ascii(), bytes.get(end).copied().unwrap_or(0)));
            let mut into = vec![7; 3];
            let Piece { end: found, is_ascii, stop } = copy_piece(&bytes, at as u32, &mut into);
            prop_assert_eq!((found as usize, is_ascii, stop), (end, bytes[at..end].is_ascii(), bytes.get(end).copied().unwrap_or(0)));
            prop_assert_eq!(into, [&[7; 3], &bytes[at..end]].concat());
        }

        #[test]
        fn digits_say_what_they_say_to_std(text in "[0-9]{0,24}[^0-9]{0,12}") {
            let digits_of_it = text.bytes().take_while(u8::is_ascii_digit).count();
            let expected = match digits_of_it {
                0 => Some((0, 0)),
                1..20 => Some((text[..digits_of_it].parse().expect("a number"), digits_of_it as u32)),
                _ => None,
            };
            prop_assert_eq!(digits(text.as_bytes(), 0), expected);
        }

        #[test]
        fn a_number_is_one_of_json_and_says_the_same(text in "-?[0-9]{0,12}(\\.[0-9]{0,12})?[-.eE+]?", end_of in "[,} \\]x]?") {
            let found = number(format!("{text}{end_of}").as_bytes(), 0);
            let digits = text.bytes().filter(u8::is_ascii_digit).count();
            let is_number = serde_json::from_str::<f64>(&text).is_ok() && !text.contains(['e', 'E']);
            let is_read = is_number && digits <= 19 && [",", "}"].contains(&end_of.as_str());
            prop_assert_eq!(found.is_some(), is_read, "{}", text);
            if let Some(Number { is_negative, digits, places, end }) = found {
                let places = places as usize;
                let mut again = format!("{digits:0>width$}", width = places + 1);
                again.insert_str(again.len() - places, if places == 0 { "" } else { "." });
                again.insert_str(0, if is_negative { "-" } else { "" });
                prop_assert_eq!((again.as_str(), end as usize), (text.as_str(), text.len()));
                if places == 0 && let Ok(whole_number) = text.parse::<i64>() {
                    prop_assert_eq!(whole(format!("{text}{end_of}").as_bytes(), 0), Some((whole_number, end)));
                }
            } else {
                prop_assert_eq!(whole(format!("{text}{end_of}").as_bytes(), 0), None);
            }
        }
    }
}
