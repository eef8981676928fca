//! What the two stores on fjall share: opening a database, its limits, and which of its errors are certain.
//!
//! After a failed write fjall takes no more of them until it is opened again. So a full disk is looked for before
//! writing, where it is still an ordinary error.

use fjall::{Database, KeyspaceCreateOptions};
use std::ops::Bound;
use std::path::Path;
use tidemark_engine::seam::{SeamError, SeamResult};

/// fjall asserts that no key is empty or longer than this, so it is checked first.
const KEY_BYTES_MAX: usize = u16::MAX as usize;
/// Room that must be left on the disk besides what is written: a memtable may be flushed meanwhile.
const SPARE_BYTES: u64 = 32 << 20;

/// What is in memory only is put into memory again at a start, out of the journals, at a microsecond an entry: so a sixteenth of a second at the
/// most, and not a quarter. fjall advises 8 to 64 MiB.
const MEMTABLE_BYTES: u64 = 16 << 20;
/// Journals are read at every start, also what is in tables long since: all that lie about because some keyspace hardly changes. fjall's least;
/// by itself it keeps half a gigabyte.
const JOURNAL_BYTES: u64 = 64 << 20;

pub(crate) fn keyspace_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
}

pub(crate) fn open(dir: &Path) -> SeamResult<Database> {
    let io = |e: std::io::Error| SeamError::io(format!("cannot open store {}", dir.display()), &e);
    std::fs::create_dir_all(dir).map_err(io)?;
    Database::builder(dir).max_journaling_size(JOURNAL_BYTES).open().map_err(|e| not_done(dir, "open", e))
}

/// An error of something that changes nothing.
pub(crate) fn not_done(dir: &Path, what: &str, error: fjall::Error) -> SeamError {
    match error {
        fjall::Error::Io(e) => SeamError::io(format!("cannot {what} store {}", dir.display()), &e),
        fjall::Error::Locked => SeamError::NotDone(format!("store {} is open in another process", dir.display())),
        e => SeamError::NotDone(format!("cannot {what} store {}: {e:?}", dir.display())),
    }
}

/// An error of a write that may have reached the journal.
pub(crate) fn unknown(dir: &Path, error: fjall::Error) -> SeamError {
    match error {
        fjall::Error::Poisoned => SeamError::NotDone(format!(
            "store {} takes no more writes after an earlier one failed; start the server again",
            dir.display()
        )),
        e => SeamError::Unknown(format!("cannot write store {}: {e:?}", dir.display())),
    }
}

pub(crate) fn check_key(key: &[u8]) -> SeamResult<()> {
    match key.len() {
        1..=KEY_BYTES_MAX => Ok(()),
        0 => Err(SeamError::NotDone("a key is empty".to_string())),
        n => Err(SeamError::NotDone(format!("a key is {n} bytes long, at most {KEY_BYTES_MAX} are stored"))),
    }
}

/// `Full` unless the disk has room for a write of this size.
pub(crate) fn check_room(dir: &Path, bytes: u64) -> SeamResult<()> {
    let free =
        fs4::available_space(dir).map_err(|e| SeamError::io(format!("cannot write store {}", dir.display()), &e))?;
    if free < bytes.saturating_add(SPARE_BYTES) {
        return Err(SeamError::Full(format!(
            "no room for {bytes} bytes in store {}: {free} bytes are free on its disk and {SPARE_BYTES} are kept spare",
            dir.display()
        )));
    }
    Ok(())
}

pub(crate) type KeyRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The keys that begin with `prefix` and are greater than `after`; `None` if there cannot be any.
pub(crate) fn key_range(prefix: &[u8], after: Option<&[u8]>) -> Option<KeyRange> {
    let upper = successor(prefix);
    let lower = match after {
        Some(after) if after >= prefix => {
            if upper.as_deref().is_some_and(|upper| after >= upper) {
                return None;
            }
            Bound::Excluded(after.to_vec())
        }
        _ if prefix.is_empty() => Bound::Unbounded,
        _ => Bound::Included(prefix.to_vec()),
    };
    Some((lower, upper.map_or(Bound::Unbounded, Bound::Excluded)))
}

/// The least key greater than every key with this prefix.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|b| *b < u8::MAX)?;
    let mut next = prefix[..=kept].to_vec();
    next[kept] += 1;
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ops::RangeBounds;

    proptest! {
        #[test]
        fn a_key_range_holds_what_its_definition_says(
            prefix in prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 0..3),
            after in prop::option::of(prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 0..4)),
            key in prop::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 0..4),
        ) {
            let expected = key.starts_with(&prefix) && after.as_ref().is_none_or(|after| key > *after);
            let got = key_range(&prefix, after.as_deref()).is_some_and(|range| range.contains(&key));
            prop_assert_eq!(got, expected);
        }
    }
}
