//! Cuts the text of a script into statements and backslash commands as psql does: a semicolon ends a statement unless it
//! stands in a string, a quoted name, a dollar-quoted body, a comment or parentheses.

/// A piece of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A statement, with its semicolon, without what comments stood before it.
    Statement { sql: String, line: usize },
    /// A backslash command without the backslash: its name and the rest of the line.
    Command { name: String, arguments: String, line: usize },
}

/// Reads a script from its beginning. Pulled, not split at once: after `COPY … FROM STDIN` the next lines are data.
pub struct Script<'a> {
    text: &'a str,
    at: usize,
    /// The statement so far: a backslash command may stand in its middle.
    statement: String,
    statement_line: usize,
    /// Open parentheses of the statement so far.
    depth: usize,
    line: usize,
    /// The comments that stood before the statement so far.
    comment: String,
}

impl<'a> Script<'a> {
    pub fn new(text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Script { text, at: 0, statement: String::new(), statement_line: 1, depth: 0, line: 1, comment: String::new() }
    }

    /// The comments that stood before the item read last, a line each.
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// The lines up to `\.` or the end: the data of a `COPY … FROM STDIN` that was just read.
    pub fn inline_data(&mut self) -> &'a str {
        // The rest of the statement's own line is nothing.
        let line_end = self.rest().find('\n').map_or(self.text.len(), |n| self.at + n + 1);
        self.advance_to(line_end);
        let begin = self.at;
        let mut end = begin;
        for line in self.text[begin..].split_inclusive('\n') {
            if line.trim_end_matches(['\r', '\n']) == "\\." {
                self.advance_to(end + line.len());
                return &self.text[begin..end];
            }
            end += line.len();
        }
        self.advance_to(end);
        &self.text[begin..end]
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn advance_to(&mut self, end: usize) {
        self.line += self.text[self.at..end].matches('\n').count();
        self.at = end;
    }

    /// Takes `length` bytes into the statement.
    fn take(&mut self, length: usize) {
        if self.statement.is_empty() {
            self.statement_line = self.line;
        }
        self.statement.push_str(&self.text[self.at..self.at + length]);
        self.advance_to(self.at + length);
    }

    fn finish(&mut self) -> Item {
        self.depth = 0;
        let sql = std::mem::take(&mut self.statement).trim_end().to_string();
        Item::Statement { sql, line: self.statement_line }
    }

    fn command(&mut self) -> Item {
        let line = self.line;
        let end = self.rest().find('\n').map_or(self.text.len(), |n| self.at + n);
        let text = &self.text[self.at + 1..end];
        self.advance_to(end);
        let name_end = text.find(char::is_whitespace).unwrap_or(text.len());
        Item::Command { name: text[..name_end].to_string(), arguments: text[name_end..].trim().to_string(), line }
    }
}

impl Iterator for Script<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        self.comment.clear();
        loop {
            let rest = self.rest();
            let Some(first) = rest.chars().next() else {
                // What no semicolon ended is a statement too, as in psql.
                return if self.statement.trim().is_empty() { None } else { Some(self.finish()) };
            };
            let blank = self.statement.is_empty();
            let token = token_length(rest, first);
            match first {
                '\\' if rest.starts_with("\\;") => {
                    self.advance_to(self.at + 1);
                    self.take(1);
                }
                '\\' if is_go(rest) => {
                    self.advance_to(self.at + 2);
                    if !blank {
                        return Some(self.finish());
                    }
                }
                '\\' => return Some(self.command()),
                ';' if self.depth == 0 => {
                    if blank {
                        self.advance_to(self.at + 1);
                    } else {
                        self.take(1);
                        return Some(self.finish());
                    }
                }
                _ if blank && is_comment(rest) => {
                    self.comment.push_str(rest[..token].trim_end());
                    self.comment.push('\n');
                    self.advance_to(self.at + token);
                }
                _ if blank && first.is_whitespace() => self.advance_to(self.at + token),
                _ => {
                    match first {
                        '(' => self.depth += 1,
                        ')' => self.depth = self.depth.saturating_sub(1),
                        _ => {}
                    }
                    self.take(token);
                }
            }
        }
    }
}

/// `\g` alone: ends the statement like a semicolon.
fn is_go(rest: &str) -> bool {
    rest.strip_prefix("\\g").is_some_and(|after| after.chars().next().is_none_or(char::is_whitespace))
}

fn is_comment(rest: &str) -> bool {
    rest.starts_with("--") || rest.starts_with("/*")
}

/// Bytes of the token that `rest` begins with; what does not end, ends with the text.
fn token_length(rest: &str, first: char) -> usize {
    if rest.starts_with("--") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    match first {
        '\'' => quoted(rest, '\'', false),
        '"' => quoted(rest, '"', false),
        '$' => dollar_quoted(rest).unwrap_or(1),
        _ if first.is_alphabetic() || first == '_' => {
            let name = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(rest.len());
            // E'it\'s': only here does a backslash hide a quote.
            match &rest[..name] {
                "e" | "E" if rest[name..].starts_with('\'') => name + quoted(&rest[name..], '\'', true),
                _ => name,
            }
        }
        _ => first.len_utf8(),
    }
}

/// Through the closing quote. A doubled quote needs no care: it is the end of one token and the beginning of the next.
fn quoted(rest: &str, quote: char, backslashes: bool) -> usize {
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        if c == '\\' && backslashes {
            characters.next();
        } else if c == quote {
            return at + 1;
        }
    }
    rest.len()
}

/// `$$…$$` or `$tag$…$tag$`; `None` if this dollar begins neither (`$1`).
fn dollar_quoted(rest: &str) -> Option<usize> {
    let tag_end = 1 + rest[1..].find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
    let starts_with_digit = rest[1..].starts_with(|c: char| c.is_ascii_digit());
    if starts_with_digit || !rest[tag_end..].starts_with('$') {
        return None;
    }
    let tag = &rest[..=tag_end];
    Some(rest[tag.len()..].find(tag).map_or(rest.len(), |at| tag.len() + at + tag.len()))
}

/// Comments nest, as in PostgreSQL.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}
