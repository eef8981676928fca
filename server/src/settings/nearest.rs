//! The known name that a misspelt one probably means.

/// The candidate with the fewest edits to `name`, unless even that is another word altogether. The first wins a tie.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let wanted = plain(name);
    let (edits, best) = candidates.map(|c| (edits(&wanted, &plain(c)), c)).min_by_key(|(edits, _)| *edits)?;
    (edits <= wanted.chars().count().div_ceil(3).max(1)).then_some(best)
}

/// Levenshtein's distance: insertions, deletions and replacements of one character.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut above_left = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (above_left + usize::from(from != *to)).min(above + 1).min(row[j] + 1);
            above_left = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = ["listen", "data", "max_connections", "fsync"];
        let near = |name| nearest(name, known.into_iter());
        assert_eq!(near("max_conections"), Some("max_connections"));
        assert_eq!(near("max-connections"), Some("max_connections"));
        assert_eq!(near("FSYNC_"), Some("fsync"));
        assert_eq!(near("lisen"), Some("listen"));
        assert_eq!(near("colour"), None);
        assert_eq!(near(""), None);
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, expected) in
            [("", "", 0), ("a", "", 1), ("", "ab", 2), ("kitten", "sitting", 3), ("flaw", "lawn", 2)]
        {
            assert_eq!(edits(a, b), expected, "{a} to {b}");
        }
    }
}
