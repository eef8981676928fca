//! Statements to start from: the files of the SQL suite each over the relations it creates, the SQL of the documentation, and what
//! clients were recorded to send, where those recordings are beside the repository.

use super::world::World;
use std::{fs, path::Path};

/// One statement, and the number of the world it is about.
pub struct Seed {
    pub sql: String,
    pub world: usize,
}

pub struct Corpus {
    pub seeds: Vec<Seed>,
    pub worlds: Vec<World>,
}

impl Corpus {
    pub fn read() -> Corpus {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut corpus = Corpus { seeds: vec![], worlds: vec![World::browsed()] };
        for path in files(&root.join("tests/sql"), "slt") {
            let statements = statements_of_slt(&read(&path));
            let world = World::created_by(&statements);
            corpus.add(statements, world);
        }
        corpus.add(blocks(&read(&root.join("docs/sql.md"))), World::browsed());
        for path in files(&root.join("../shared/captures"), "sql") {
            corpus.add(split(&read(&path)), World::browsed());
        }
        corpus
    }

    fn add(&mut self, statements: Vec<String>, world: World) {
        let number = self.worlds.len();
        self.worlds.push(world);
        self.seeds.extend(statements.into_iter().map(|sql| Seed { sql, world: number }));
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// In a stable order; none where there is no such folder.
fn files(folder: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let mut found: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| path.extension().is_some_and(|found| found == extension));
    found.sort();
    found
}

/// What stands between `statement …` or `query …` and the blank line or the `----`.
fn statements_of_slt(text: &str) -> Vec<String> {
    let mut statements = vec![];
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("statement ") || line.starts_with("query ") {
            let sql: Vec<&str> = lines.by_ref().take_while(|line| !line.is_empty() && *line != "----").collect();
            statements.push(sql.join("\n"));
        }
    }
    statements
}

/// The statements of the blocks of SQL in a page.
fn blocks(page: &str) -> Vec<String> {
    page.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sql\n")).flat_map(split).collect()
}

fn split(text: &str) -> Vec<String> {
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("--")).collect();
    text.join("\n").split(";\n").map(|sql| sql.trim().to_string()).filter(|sql| !sql.is_empty()).collect()
}
