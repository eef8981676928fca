//! An error or notice of the server as psql shows it: message, the place in the statement, detail, hint, context.

use super::table::width;
use std::fmt::Write;

/// The fields of an ErrorResponse or NoticeResponse.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub severity: String,
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// In characters from 1.
    pub position: Option<usize>,
    pub context: Option<String>,
}

impl Report {
    /// What psql prints; `sql` is the statement that `position` counts in.
    pub fn show(&self, sql: &str) -> String {
        let mut text = format!("{}:  {}\n", self.severity, self.message);
        if let Some(place) = self.position.and_then(|position| place(sql, position)) {
            text.push_str(&place);
        }
        let context = self.context.as_ref().filter(|_| matches!(self.severity.as_str(), "ERROR" | "FATAL" | "PANIC"));
        for (label, field) in [("DETAIL", &self.detail), ("HINT", &self.hint), ("CONTEXT", &context.cloned())] {
            if let Some(field) = field {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{label}:  {field}");
            }
        }
        text
    }
}

/// Columns of a statement's line that are shown, and how many of them are kept behind the place.
const SHOWN: usize = 60;
const SHOWN_BEHIND: usize = 10;

/// `LINE n: …` and the caret below. A long line is cut, first behind the place, then before it.
fn place(sql: &str, position: usize) -> Option<String> {
    let characters: Vec<char> = sql.chars().collect();
    let at = position.checked_sub(1)?;
    if at > characters.len() {
        return None;
    }
    let is_end = |c: &char| matches!(c, '\n' | '\r');
    let begin = characters[..at].iter().rposition(is_end).map_or(0, |n| n + 1);
    let end = characters[at..].iter().position(is_end).map_or(characters.len(), |n| at + n);
    let number = 1 + characters[..at].iter().filter(|c| **c == '\n').count();

    let line: Vec<char> = characters[begin..end].iter().map(|c| if *c == '\t' { ' ' } else { *c }).collect();
    let columns = |from: usize, to: usize| width(&line[from..to].iter().collect::<String>());
    let (place, mut from, mut to) = (at - begin, 0, line.len());
    if columns(0, to) > SHOWN && SHOWN >= columns(0, place) + SHOWN_BEHIND {
        while columns(0, to) > SHOWN {
            to -= 1;
        }
    } else if columns(0, to) > SHOWN {
        while columns(place, to) > SHOWN_BEHIND {
            to -= 1;
        }
        while columns(from, to) > SHOWN {
            from += 1;
        }
    }
    let before = if from > 0 { "..." } else { "" };
    let behind = if to < line.len() { "..." } else { "" };
    let label = format!("LINE {number}: {before}");
    let indent = " ".repeat(width(&label) + columns(from, place));
    let shown: String = line[from..to].iter().collect();
    Some(format!("{label}{shown}{behind}\n{indent}^\n"))
}
