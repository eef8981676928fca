//! The flights story, told: each file of `sql_examples/flights` run and shown, with why it is there.
//!
//! One thing is in another order than in the folder: the views are created before the load, so that their lookups can be
//! watched while the year streams by. The values are the same either way.

pub mod events;
pub mod room;
mod stream;

use crate::client::copy_command::CopyCommand;
use crate::client::script::{Item, Script};
use crate::client::{Connection, Runner};
use anyhow::{Context, bail};
use std::path::PathBuf;
use std::sync::Arc;
use tidemark_engine::seam::Clock;

/// What the story is told with.
pub struct Story {
    pub runner: Runner,
    /// A second session, looking up while the first loads.
    pub lookups: Connection,
    pub clock: Arc<dyn Clock>,
    pub examples: PathBuf,
    /// Events to stream; `None`: all.
    pub rows_max: Option<u64>,
}

struct Chapter {
    file: &'static str,
    title: &'static str,
    why: &'static str,
    /// The chapter shows errors.
    refusals: bool,
}

const fn chapter(file: &'static str, title: &'static str, why: &'static str) -> Chapter {
    Chapter { file, title, why, refusals: false }
}

const CHAPTERS: [Chapter; 9] = [
    chapter(
        "01_sources.sql",
        "Facts, as they become known",
        "A source is a stream of facts, each with the time at which the world knew it. A flight is not one row written\n\
         when all is over: it is scheduled, it departs or is cancelled, it arrives. Nothing may leak from the future.",
    ),
    chapter(
        "03_views.sql",
        "Feature views: a SELECT that never finishes",
        "Five of them. Each keeps one row per entity current, with every event and with time passing, and remembers every\n\
         step it took.",
    ),
    chapter(
        "02_load.sql",
        "The year 2013 streams in",
        "COPY feeds the embedded durable log. Meanwhile a second connection looks features up: what COPY has acknowledged,\n\
         every later lookup has counted.",
    ),
    chapter(
        "04_lookups.sql",
        "Serving: point lookups",
        "What a model asks for at prediction time: the row of a key, now. By any PostgreSQL driver, answered from memory.",
    ),
    chapter(
        "05_training.sql",
        "Training: what a lookup would have answered then",
        "One row per flight, asked one hour before its schedule. ASOF LEFT JOIN puts beside it the five views' rows as they\n\
         were at that instant: training and serving cannot disagree. This is the long step.",
    ),
    chapter(
        "06_history.sql",
        "The history is yours",
        "Every step of every view is a row of an Iceberg table. One instant, read in four ways, gives the same values.",
    ),
    chapter(
        "07_dead_letters.sql",
        "Too late is not lost",
        "Under a watermark that is too small some events come too late. They are kept, with the reason, and can be driven\n\
         in again.",
    ),
    chapter(
        "08_explain.sql",
        "Check us",
        "What a view costs before it exists, and the plain PostgreSQL query that computes its values by definition.",
    ),
    Chapter {
        file: "09_refusals.sql",
        title: "What cannot be right is refused",
        why: "Each error says why and what to do instead.",
        refusals: true,
    },
];

const RULE: usize = 100;

impl Story {
    pub async fn tell(mut self) -> anyhow::Result<()> {
        let begun = self.clock.now_us();
        for (n, chapter) in CHAPTERS.iter().enumerate() {
            let title = format!("── {}/{}  {} ", n + 1, CHAPTERS.len(), chapter.title);
            let rule = "─".repeat(RULE.saturating_sub(title.chars().count()));
            self.say(&format!("\n{title}{rule}\n{}\n\n", chapter.why))?;
            let chapter_begun = self.clock.now_us();
            self.run(chapter).await.with_context(|| format!("the demo stopped in {}", chapter.file))?;
            let seconds = self.seconds_since(chapter_begun);
            self.say(&format!("\n   {} took {seconds:.1} s\n", chapter.file))?;
        }
        let seconds = self.seconds_since(begun);
        self.say(&format!("\n{}\nThat was the whole idea, in {seconds:.0} s.\n", "─".repeat(RULE)))
    }

    async fn run(&mut self, chapter: &Chapter) -> anyhow::Result<()> {
        let path = self.examples.join(chapter.file);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut script = Script::new(&text);
        while let Some(item) = script.next() {
            let comment = script.comment().to_string();
            self.say(&comment)?;
            let streamed = match &item {
                Item::Command { name, arguments, .. } if name == "copy" => {
                    CopyCommand::parse(arguments).ok().filter(|copy| copy.what == "flights" && copy.from)
                }
                _ => None,
            };
            match streamed {
                Some(copy) => self.stream(&copy).await?,
                None => {
                    let succeeded = self.runner.run_item(item, &mut script).await?;
                    if !succeeded && !chapter.refusals {
                        bail!("a statement failed (above)");
                    }
                }
            }
        }
        Ok(())
    }

    fn say(&mut self, text: &str) -> anyhow::Result<()> {
        self.runner.output.result(text.as_bytes())?;
        Ok(self.runner.output.flush()?)
    }

    fn seconds_since(&self, begun_us: i64) -> f64 {
        (self.clock.now_us() - begun_us) as f64 / 1e6
    }
}
