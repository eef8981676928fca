//! The command line: one binary, three commands. Parsing is here; each command has its file.

mod demo;
mod open_files;
mod serve;
mod setting_flags;
mod sql;

use crate::logging;
use crate::points::AbortAt;
use crate::settings::{Http, Settings, environment};
use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use setting_flags::SettingFlags;
use std::path::PathBuf;
use std::process::ExitCode;

const ABOUT: &str = "A SQL-first feature database server that speaks the PostgreSQL wire protocol";

const EXAMPLES: &str = "\
The idea in a minute:
  tidemark serve                                  # start a server; its data is in .tidemark
  psql -h 127.0.0.1 -p 5433 tidemark              # connect, from another terminal, with any PostgreSQL client

  -- A source is a stream of facts.
  CREATE SOURCE clicks (user_id BIGINT NOT NULL, price DOUBLE PRECISION, event_time TIMESTAMPTZ NOT NULL,
    WATERMARK FOR event_time AS event_time - INTERVAL '5 seconds');
  -- A feature view is a SELECT that never finishes.
  CREATE FEATURE VIEW user_clicks AS
    SELECT user_id, event_time, count(*) OVER h1 AS clicks_1h, sum(price) OVER h1 AS spend_1h FROM clicks
    WINDOW h1 AS (PARTITION BY user_id ORDER BY event_time
                  RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
  -- Load: a row, or a file.
  INSERT INTO clicks VALUES (7, 9.99, now());
  \\copy clicks FROM 'clicks.csv' CSV HEADER
  -- Look up: the row of a key now, and every step it ever took.
  SELECT clicks_1h, spend_1h FROM user_clicks WHERE user_id = 7;
  SELECT * FROM history.user_clicks WHERE user_id = 7;

All of it on 336,776 real flights, told step by step:
  tidemark demo";

const SERVE_EXAMPLES: &str = "\
Examples:
  tidemark serve
  tidemark serve --listen 127.0.0.1:6000 --data /var/lib/tidemark
  tidemark serve --config tidemark.toml --log-format json
  TIDEMARK_FSYNC=200 tidemark serve
  tidemark serve --role serving --online redis://127.0.0.1:6379 --listen 127.0.0.1:5434

A flag goes before an environment variable, that before the settings file, that before the default. docs/settings.md has
the reasons. SIGTERM and Ctrl-C stop the server in order: no new connections, running statements finish, a checkpoint.";

const SQL_EXAMPLES: &str = "\
Examples:
  tidemark sql schema.sql load.sql                 on the server at 127.0.0.1:5433
  tidemark sql --url postgres://127.0.0.1:6000/tidemark schema.sql
  tidemark sql --in-process try.sql                in a server of its own that is gone afterwards
  tidemark sql --data .tidemark report.sql         in this process, on a data directory that no server is using
  echo 'SHOW SOURCES' | tidemark sql -

Prints what psql prints: results to standard output, errors and notices to standard error. Besides SQL it knows \\copy,
\\echo, \\set ON_ERROR_STOP, \\timing, \\g and \\q. TIDEMARK_URL, or PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE, name another server.
Exit code: 0, or 1 at the first error.";

const DEMO_EXAMPLES: &str = "\
Examples:
  tidemark demo                                    all 336,776 flights: about a million events
  tidemark demo --rows 100000 --exit               a shorter one that ends by itself
  tidemark demo --url postgres://127.0.0.1:5433/tidemark

It needs the folder sql_examples/flights of the repository, and Python 3 once, to derive the events from the raw tables.";

/// What was asked for.
#[derive(Debug, Parser)]
#[command(name = "tidemark", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 120)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Serve),
    /// Run SQL files, on a server or in this process
    #[command(after_help = SQL_EXAMPLES)]
    Sql(Sql),
    /// Show the whole idea on real flights, step by step
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(Demo),
}

#[derive(Debug, Args)]
pub struct Serve {
    /// A TOML file with settings
    #[arg(long, value_name = "FILE", env = "TIDEMARK_CONFIG")]
    pub config: Option<PathBuf>,
    /// For tests of crashes: end, as by kill -9, at the N-th passing of a named point
    #[arg(long, value_name = "POINT[:N]", hide = true, value_parser = AbortAt::parse)]
    pub abort_at: Option<AbortAt>,
    #[command(flatten)]
    pub flags: SettingFlags,
}

#[derive(Debug, Args)]
pub struct Sql {
    /// Files to run, in order; - is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The server, as postgres://[user[:password]@]host[:port][/database]
    #[arg(long, value_name = "URL", conflicts_with_all = ["in_process", "data"])]
    pub url: Option<String>,
    /// Run a server inside this process; without --data its directory is a temporary one
    #[arg(long)]
    pub in_process: bool,
    /// The data directory of the server inside this process
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// A TOML file with settings, for the server inside this process
    #[arg(long, value_name = "FILE", env = "TIDEMARK_CONFIG")]
    pub config: Option<PathBuf>,
    /// Go on after errors, and exit with 0
    #[arg(long)]
    pub keep_going: bool,
    /// Print each statement before it runs
    #[arg(short, long)]
    pub echo: bool,
}

#[derive(Debug, Args)]
pub struct Demo {
    /// The folder of the flights story
    #[arg(long, value_name = "DIR", default_value = "sql_examples/flights")]
    pub examples: PathBuf,
    /// A new directory for the data; without it .tidemark-demo, made anew every time
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    pub data: Option<PathBuf>,
    /// Use a running server instead of one inside this process
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Where the server inside this process listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5433")]
    pub listen: String,
    /// Stream only the first N events of about a million
    #[arg(long, value_name = "N")]
    pub rows: Option<u64>,
    /// End when the story is over, instead of serving on
    #[arg(long)]
    pub exit: bool,
}

/// The command line of this process. What cannot be parsed, `--help` and `--version` end it here.
pub fn parse() -> Cli {
    Cli::parse()
}

/// Does what was asked for. `ExitCode` is the command's own; an error is `main`'s to tell.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(arguments) => {
            let settings = Settings::load(&arguments.flags.given, environment(), arguments.config.as_deref())?;
            logging::start(&settings);
            runtime(&settings)?.block_on(serve::serve(settings, arguments.abort_at))
        }
        Command::Sql(arguments) => {
            let settings = quiet(Settings::load(&[], environment(), arguments.config.as_deref())?);
            logging::start(&settings);
            runtime(&settings)?.block_on(sql::sql(arguments, settings))
        }
        Command::Demo(arguments) => {
            let listen = ("listen", arguments.listen.clone());
            let settings = quiet(Settings::load(&[listen], environment(), None)?);
            logging::start(&settings);
            runtime(&settings)?.block_on(demo::demo(arguments, settings))
        }
    }
}

/// Where results are read, only what is wrong is logged and nothing is measured, unless something else was asked for.
fn quiet(mut settings: Settings) -> Settings {
    if settings.log == Settings::default().log {
        settings.log = "error".to_string();
    }
    if settings.http == Http::Auto {
        settings.http = Http::Off;
    }
    settings
}

/// Planning recurses over expressions as deep as the parser lets them be (2000 operators); only pages touched cost memory.
const STACK_BYTES: usize = 64 << 20;

fn runtime(settings: &Settings) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = settings.worker_threads {
        builder.worker_threads(threads);
    }
    builder.thread_stack_size(STACK_BYTES);
    builder.enable_all().thread_name("tidemark").build().context("cannot start threads")
}

/// An error as the terminal gets it: what failed and why in one line, the way out below.
pub fn explain(error: &anyhow::Error) -> String {
    let (mut message, mut hints) = (String::new(), Vec::new());
    for cause in error.chain() {
        let text = cause.to_string();
        let mut parts = text.split("\nHINT: ");
        let said = parts.next().unwrap_or_default();
        // Many errors say their cause themselves.
        if !message.ends_with(said) {
            message.push_str(if message.is_empty() { "" } else { ": " });
            message.push_str(said);
        }
        for hint in parts.filter(|hint| !hint.is_empty()) {
            if !hints.iter().any(|known| known == hint) {
                hints.push(hint.to_string());
            }
        }
    }
    let hints: String = hints.iter().map(|hint| format!("\nhint: {hint}")).collect();
    format!("tidemark: error: {message}{hints}")
}
