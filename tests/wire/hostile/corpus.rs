//! Conversations in files: what a client sends, readable, and the messages that come back.
//!
//! ```text
//! # Why it is here.
//! |SELECT\x00              what is sent, line after line without the ends of lines; \xNN is a byte
//! > R S… K Z E(42601) Z    the kinds of the messages of the answer, if it is always the same
//! ```

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

pub struct Conversation {
    pub name: String,
    pub sent: Vec<u8>,
    pub expected: Option<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/corpus")
}

/// All of them, by name.
pub fn kept() -> Result<Vec<Conversation>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder()).context("tests/wire/corpus")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path)?;
            all.push(parse(name, &text).with_context(|| path.display().to_string())?);
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

fn parse(name: String, text: &str) -> Result<Conversation> {
    let mut conversation = Conversation { name, sent: vec![], expected: None };
    for line in text.lines() {
        match line.split_at_checked(1) {
            Some(("|", bytes)) => conversation.sent.extend(unescaped(bytes)?),
            Some((">", messages)) => conversation.expected = Some(messages.trim().to_owned()),
            Some(("#", _)) | None => {}
            Some(_) => anyhow::bail!("a line that is neither | nor > nor #: {line}"),
        }
    }
    Ok(conversation)
}

fn unescaped(text: &str) -> Result<Vec<u8>> {
    ensure!(text.is_ascii(), "bytes beyond ASCII are written \\xNN: {text}");
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let digits = rest[at..].strip_prefix("\\x").and_then(|after| after.get(..2)).context("a lone backslash")?;
        bytes.push(u8::from_str_radix(digits, 16)?);
        rest = &rest[at + 4..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// Writes one that failed; the name of its file.
pub fn keep(seed: u64, sent: &[u8]) -> Result<String> {
    let path = folder().join(format!("seed-{seed}.txt"));
    let mut text = "# Made up, and it failed.\n".to_owned();
    for line in sent.chunks(60) {
        let escaped = line.iter().map(|byte| match byte {
            b' '..=b'~' if *byte != b'\\' => char::from(*byte).to_string(),
            _ => format!("\\x{byte:02x}"),
        });
        text.push_str(&format!("|{}\n", escaped.collect::<String>()));
    }
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

#[test]
fn what_is_kept_reads_back_as_it_was() {
    let sent: Vec<u8> = (0..=255).collect();
    let escaped: String = sent.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    assert_eq!(unescaped(&escaped).unwrap(), sent);
    let text = format!("# why\n|a b\n|{escaped}\n> R Z\n");
    let read = parse("x".to_owned(), &text).unwrap();
    assert_eq!((read.sent, read.expected), ([b"a b".as_slice(), &sent].concat(), Some("R Z".to_owned())));
}
