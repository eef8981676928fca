//! `\copy`: COPY with a file on the client's side. Everything but the file's name is the server's to understand.

use std::path::PathBuf;

/// A `\copy` taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyCommand {
    /// A table with or without columns, or a query in parentheses: as written.
    pub what: String,
    pub from: bool,
    /// `None`: the script itself, or standard output.
    pub file: Option<PathBuf>,
    /// Options, as written.
    pub options: String,
}

impl CopyCommand {
    /// The statement that the server gets.
    pub fn sql(&self) -> String {
        let stream = if self.from { "FROM STDIN" } else { "TO STDOUT" };
        let options = if self.options.is_empty() { String::new() } else { format!(" {}", self.options) };
        format!("COPY {} {stream}{options}", self.what)
    }

    /// Reads what stands after `\copy`. The error says what is missing.
    pub fn parse(arguments: &str) -> Result<CopyCommand, String> {
        let mut rest = arguments.trim();
        let mut what = String::new();
        let from = loop {
            let (word, after) = word(rest).ok_or_else(|| {
                "\\copy: FROM or TO is missing\nHINT: write \\copy table FROM 'file.csv' CSV HEADER".to_string()
            })?;
            let is_direction = !what.is_empty() && !word.starts_with(['"', '(']);
            if is_direction && word.eq_ignore_ascii_case("from") {
                rest = after;
                break true;
            }
            if is_direction && word.eq_ignore_ascii_case("to") {
                rest = after;
                break false;
            }
            // As written, without the blanks between: `t (a, b)`.
            if !what.is_empty() && rest.starts_with(char::is_whitespace) {
                what.push(' ');
            }
            what.push_str(word);
            rest = after;
        };
        if what.starts_with('(') && from {
            return Err("\\copy: a query can only be copied TO a file".to_string());
        }
        let (place, options) = word(rest).ok_or("\\copy: the file's name is missing".to_string())?;
        let file = match place.to_ascii_lowercase().as_str() {
            "program" => {
                return Err("\\copy: PROGRAM is not supported\nHINT: write a file first, or pipe into psql".into());
            }
            "stdin" | "pstdin" if from => None,
            "stdout" | "pstdout" if !from => None,
            _ => match place.strip_prefix('\'') {
                Some(quoted) => {
                    let inner = quoted.strip_suffix('\'').ok_or("\\copy: the file's name has no closing quote")?;
                    Some(PathBuf::from(inner.replace("''", "'")))
                }
                None => Some(PathBuf::from(place)),
            },
        };
        Ok(CopyCommand { what, from, file, options: options.trim().to_string() })
    }
}

/// The next word: a quoted string or name whole, parentheses with all in them, else up to a blank or a parenthesis.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let (mut depth, mut quote) = (0usize, None);
    let mut end = text.len();
    let mut characters = text.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        match quote {
            Some(open) if c == open => {
                if characters.peek().is_some_and(|(_, next)| *next == open) {
                    characters.next();
                } else {
                    quote = None;
                }
            }
            Some(_) => {}
            None => match c {
                '\'' | '"' => quote = Some(c),
                '(' if at > 0 && depth == 0 => {
                    end = at;
                    break;
                }
                '(' => depth += 1,
                ')' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        end = at + 1;
                        break;
                    }
                }
                c if c.is_whitespace() && depth == 0 => {
                    end = at;
                    break;
                }
                _ => {}
            },
        }
    }
    (!text.is_empty()).then(|| text.split_at(end))
}
