//! Rows as psql's aligned tables: `\pset format aligned`, `border 1`, NULL as nothing.

use std::fmt::Write;

/// A column of a result: its name, and whether its values stand to the right (numbers).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    pub name: String,
    pub right: bool,
}

impl Heading {
    /// By the type's OID, as psql decides it: integers, floats, numeric, oid, xid, cid, money, xid8.
    pub fn new(name: impl Into<String>, type_oid: u32) -> Self {
        Heading {
            name: name.into(),
            right: matches!(type_oid, 20 | 21 | 23 | 26 | 28 | 29 | 700 | 701 | 790 | 1700 | 5069),
        }
    }
}

/// The table with its count of rows and the empty line that ends it.
pub fn aligned(headings: &[Heading], rows: &[Vec<Option<String>>]) -> String {
    let names: Vec<Vec<String>> = headings.iter().map(|heading| lines(&heading.name)).collect();
    let cells: Vec<Vec<Vec<String>>> =
        rows.iter().map(|row| row.iter().map(|cell| lines(cell.as_deref().unwrap_or_default())).collect()).collect();
    let widest = |lines: &Vec<String>| lines.iter().map(|line| width(line)).max().unwrap_or(0);
    let widths: Vec<usize> = names
        .iter()
        .enumerate()
        .map(|(n, name)| cells.iter().filter_map(|row| row.get(n)).map(&widest).fold(widest(name), usize::max))
        .collect();

    let mut out = String::new();
    if !names.is_empty() {
        heading(&mut out, &names, &widths);
    }
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    out.push_str(if rule.is_empty() { "--" } else { "" });
    out.push_str(&rule.join("+"));
    out.push('\n');
    if !headings.is_empty() {
        cells.iter().for_each(|row| body(&mut out, headings, row, &widths));
    }
    // Writing to a String cannot fail.
    let _ = if rows.len() == 1 { write!(out, "(1 row)\n\n") } else { write!(out, "({} rows)\n\n", rows.len()) };
    out
}

fn heading(out: &mut String, names: &[Vec<String>], widths: &[usize]) {
    let height = names.iter().map(Vec::len).max().unwrap_or(0);
    for line in 0..height {
        for (n, (name, column)) in names.iter().zip(widths).enumerate() {
            if n > 0 {
                out.push('|');
            }
            out.push(' ');
            let text = name.get(line).map(String::as_str).unwrap_or_default();
            let blank = column - width(text);
            pad(out, blank / 2);
            out.push_str(text);
            pad(out, blank - blank / 2);
            out.push(if line + 1 < name.len() { '+' } else { ' ' });
        }
        out.push('\n');
    }
}

fn body(out: &mut String, headings: &[Heading], row: &[Vec<String>], widths: &[usize]) {
    let height = row.iter().map(Vec::len).max().unwrap_or(1);
    for line in 0..height {
        for (n, (cell, column)) in row.iter().zip(widths).enumerate() {
            if n > 0 {
                out.push('|');
            }
            out.push(' ');
            let text = cell.get(line).map(String::as_str).unwrap_or_default();
            let blank = column - width(text);
            let (more, last) = (line + 1 < cell.len(), n + 1 == row.len());
            if headings.get(n).is_some_and(|heading| heading.right) {
                pad(out, blank);
                out.push_str(text);
            } else {
                out.push_str(text);
                // The last column is not filled up, unless a mark has to stand behind it.
                if !last || more {
                    pad(out, blank);
                }
            }
            match (more, last) {
                (true, _) => out.push('+'),
                (false, true) => {}
                (false, false) => out.push(' '),
            }
        }
        out.push('\n');
    }
}

fn pad(out: &mut String, blanks: usize) {
    out.extend(std::iter::repeat_n(' ', blanks));
}

/// The lines of a value as they are shown: tabs to the next multiple of eight, other control characters by their code.
fn lines(text: &str) -> Vec<String> {
    text.split('\n').map(visible).collect()
}

fn visible(line: &str) -> String {
    if !line.contains(char::is_control) {
        return line.to_string();
    }
    let mut shown = String::with_capacity(line.len() + 8);
    let mut column = 0;
    for c in line.chars() {
        let before = shown.len();
        match c {
            '\t' => pad(&mut shown, 8 - column % 8),
            '\r' => shown.push_str("\\r"),
            c if c.is_control() && (c as u32) < 0x80 => {
                let _ = write!(shown, "\\x{:02X}", c as u32);
            }
            c if c.is_control() => {
                let _ = write!(shown, "\\u{:04X}", c as u32);
            }
            c => shown.push(c),
        }
        column += width(&shown[before..]);
    }
    shown
}

/// Columns of a terminal that the text takes.
pub fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().map(character_width).sum() }
}

/// Unicode's wide characters take two, its combining marks none (UAX #11, in coarse ranges).
fn character_width(c: char) -> usize {
    match c as u32 {
        0x0300..=0x036F | 0x0483..=0x0489 | 0x0591..=0x05BD | 0x0610..=0x061A | 0x064B..=0x065F | 0x200B..=0x200F => 0,
        0x1AB0..=0x1AFF | 0x1DC0..=0x1DFF | 0x20D0..=0x20FF | 0xFE00..=0xFE0F | 0xFE20..=0xFE2F => 0,
        0x1100..=0x115F | 0x2E80..=0x303E | 0x3041..=0xA4CF | 0xAC00..=0xD7A3 | 0xF900..=0xFAFF | 0xFE30..=0xFE6F => 2,
        0xFF00..=0xFF60 | 0xFFE0..=0xFFE6 | 0x1F300..=0x1F64F | 0x1F680..=0x1F6FF | 0x1F900..=0x1F9FF => 2,
        0x20000..=0x3FFFD => 2,
        _ => 1,
    }
}
