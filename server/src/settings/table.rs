//! The table of settings: name, default, unit, reason. The only place where a setting is added, beside its field.

use super::{Settings, hba::hba, value};
use std::fmt::Write;

/// One row of the table.
pub struct Setting {
    /// The name as a flag, `max-connections`; see [`Setting::name`] for the others.
    pub flag: &'static str,
    pub default: &'static str,
    /// What kind of value it takes.
    pub unit: &'static str,
    /// What it does, in one sentence.
    pub purpose: &'static str,
    /// Why the default is what it is, and when to change it.
    pub reason: &'static str,
    pub(super) set: fn(&mut Settings, &str) -> value::Parsed<()>,
}

impl Setting {
    /// The name in the TOML file, and in capitals after `TIDEMARK_` in the environment.
    pub fn name(&self) -> String {
        self.flag.replace('-', "_")
    }

    pub fn reason_sentence(&self) -> String {
        let mut letters = self.reason.chars();
        letters.next().map(|first| format!("{}{}.", first.to_uppercase(), letters.as_str())).unwrap_or_default()
    }

    pub fn variable(&self) -> String {
        format!("TIDEMARK_{}", self.name().to_uppercase())
    }
}

/// A row: `field: "default", "unit", parser, "purpose", "reason"`.
macro_rules! settings {
    ($($flag:literal $field:ident = $default:literal, $unit:literal, $parse:expr, $purpose:literal, $reason:literal;)*) => {
        &[$(Setting {
            flag: $flag,
            default: $default,
            unit: $unit,
            purpose: $purpose,
            reason: $reason,
            set: |settings, text| {
                settings.$field = $parse(text)?;
                Ok(())
            },
        }),*]
    };
}

pub static SETTINGS: &[Setting] = settings! {
    "listen" listen = "127.0.0.1:5433", "ADDRESS", value::address,
        "Where clients connect",
        "one above PostgreSQL's port, so that both can run; beyond loopback only where clients have to show who they are: a role has a password, or hba says how";
    "hba" hba = "auto", "auto|RULES", hba,
        "Who may connect from where, and how: rules with the columns of PostgreSQL's pg_hba.conf, in order, by lines or semicolons: host, hostssl or hostnossl, then DATABASE USER ADDRESS, then trust, scram-sha-256, cert or reject; the first that fits decides, and where none does the client is refused",
        "auto: as long as no role has a password clients of this machine are let in under any name; as soon as one has, everybody needs his password";
    "ssl" ssl = "off", "off|on|require", value::ssl,
        "Whether connections are encrypted by TLS: on for clients that ask for it, require for all",
        "off: there is no certificate by itself; with on or require the server does not start without one";
    "ssl-cert-file" ssl_cert_file = "none", "FILE", |text| value::optional(text, value::directory),
        "The server's certificate and those between it and a root, PEM",
        "read once, at the start";
    "ssl-key-file" ssl_key_file = "none", "FILE", |text| value::optional(text, value::directory),
        "The private key of that certificate, PEM",
        "refused where everybody may read it";
    "ssl-ca-file" ssl_ca_file = "none", "FILE", |text| value::optional(text, value::directory),
        "The root certificates of what clients may show, PEM",
        "none: clients are not asked; with it one that is shown has to be valid, and rules of hba with cert or clientcert=verify-full want one in the user's name";
    "superuser" superuser = "tidemark", "NAME", value::text,
        "The role that superuser_password_file is for; it is made a superuser if there is none of that name",
        "the one that is always there";
    "superuser-password-file" superuser_password_file = "none", "FILE", |text| value::optional(text, value::directory),
        "A file with the password, or its SCRAM verifier, that the superuser gets if it has none yet",
        "a file, so that neither the process list nor the environment shows it; later ALTER ROLE changes it, and the file is not looked at any more";
    "http" http = "auto", "auto|off|ADDRESS", value::http,
        "Where /metrics, /healthz and /readyz are answered",
        "auto: 127.0.0.1:8433, or nowhere, with a warning, where that port is taken; an address that is given is answered on, or the server does not start; there is no password, and nothing is shown but names of objects and numbers";
    "data" data = ".tidemark", "DIR", value::directory,
        "The directory that holds everything: log, state, online store, warehouse, catalog",
        "one server at a time may use it; give each its own";
    "warehouse" warehouse = "none", "DIR|URL", |text| value::optional(text, value::directory),
        "Where the Iceberg tables of the history are, instead of in the data directory: another directory, or s3://bucket/prefix, which takes credentials from the environment that every S3 client reads (AWS_ACCESS_KEY_ID and so on)",
        "none: DATA/warehouse, so that one directory has everything; it is chosen at the first start and stays, because Iceberg's metadata has absolute paths";
    "s3-endpoint" s3_endpoint = "none", "URL", |text| value::optional(text, value::text),
        "The server of the bucket of --warehouse, and of the objects that COPY names, such as http://127.0.0.1:9000, where it is not Amazon's",
        "none: AWS_ENDPOINT_URL, or Amazon S3; buckets are a part of the path unless AWS_VIRTUAL_HOSTED_STYLE_REQUEST is true";
    "s3-region" s3_region = "none", "REGION", |text| value::optional(text, value::text),
        "The region of the bucket of --warehouse, and of those that COPY names",
        "none: AWS_REGION or AWS_DEFAULT_REGION, or us-east-1, which is what other servers than Amazon's take";
    "history-catalog" history_catalog = "none", "URL", |text| value::optional(text, value::private),
        "An Iceberg catalog for the tables of the history: a REST catalog, rest+http://host:port/path or rest+https://…, with ?warehouse= its name for a warehouse, &prefix= before the names of its namespaces, which are those of schemas, &oauth2= where tokens are given out (the catalog's own /v1/oauth/tokens), &scope= (catalog); or a PostgreSQL, postgres://user:password@host:port/database, with ?catalog= the catalog_name of its rows (tidemark), &prefix=, and for TLS &sslmode=verify-full&sslrootcert= a PEM file with the certificates of its authorities",
        "none: a SQLite file beside the tables, or in the data directory where they are in a bucket; it is chosen at the first start and stays";
    "history-catalog-credential" history_catalog_credential = "none", "TOKEN|ID:SECRET|PASSWORD", |text| value::optional(text, value::private),
        "What history_catalog is shown: a bearer token, or a client's id and secret, with which tokens are got by OAuth2 and renewed; or the password of a PostgreSQL whose URL has none",
        "none: it asks for nothing; better in the environment or the settings file than in the command line, which others see";
    "fsync" fsync = "always", "always|never|MS", value::fsync,
        "When an acknowledged event is on disk",
        "always: an acknowledged event survives a power cut; a number of milliseconds bounds what a power cut may take; a crash of the process alone never takes anything";
    "max-connections" max_connections = "1000", "N", value::count,
        "Sessions at once",
        "one that waits costs less than 64 KiB and a file; beyond that a pooler serves better";
    "statement-timeout" statement_timeout = "none", "DURATION", |text| value::optional(text, value::duration),
        "How long a statement may run before it is cancelled; a session can SET its own",
        "as in PostgreSQL; training sets take minutes";
    "shutdown-grace" shutdown_grace = "30s", "DURATION", value::duration,
        "How long running statements may go on after SIGTERM",
        "what supervisors wait before they kill";
    "startup-timeout" startup_timeout = "60s", "DURATION", value::duration,
        "From a client's first byte to its first prompt",
        "PostgreSQL's authentication_timeout";
    "unauthenticated-max" unauthenticated_max = "1000", "N", value::count,
        "Connections of clients that have not shown who they are; more are closed",
        "a whole pool may arrive at once, and so many strangers cost some 10 MB";
    "auth-delay" auth_delay = "500ms", "DURATION|none", |text| value::optional(text, value::duration),
        "How long a client waits for its answer that is not let in",
        "who guesses has two tries a second on each connection, and who has mistyped does not notice";
    "message-bytes-max" message_bytes_max = "64MB", "BYTES", |text| value::bytes(text).map(|bytes| bytes as usize),
        "The largest single message a client may send",
        "an INSERT of 10,000 rows fits many times over; bulk data comes by COPY in small messages";
    "commit-interval" commit_interval = "5s", "DURATION", value::duration,
        "How often finished steps are appended to the history of their views",
        "each append is a Parquet file and an Iceberg commit: shorter is fresher for other readers and makes more files; lookups, AS OF and ASOF JOIN are current either way";
    "checkpoint-interval" checkpoint_interval = "10s", "DURATION", value::duration,
        "How often the state of the views is saved",
        "bounds how much of the log is replayed after a crash";
    "maintenance" maintenance = "on", "on|off", value::on_off,
        "Whether the files of history are cared for without being asked: small ones written together, old snapshots forgotten, what nothing needs removed",
        "on: one view at a time, with rests four times as long as the work, so a fifth of one core at most; off: OPTIMIZE and VACUUM do it, or another engine that has the warehouse in its care";
    "maintenance-interval" maintenance_interval = "1min", "DURATION", value::duration,
        "How often the files of every view's history are looked at",
        "a look reads the table's metadata, some milliseconds";
    "maintenance-files" maintenance_files = "16", "N", value::count,
        "From how many small files of a month on they are written together",
        "with a commit every 5 s that is every 80 s; fewer means more rewriting, more means more files to open for every scan; a file is written again only with others that are as large together, so each row as often as its file doubles on its way to history_file_bytes";
    "maintenance-bytes" maintenance_bytes = "1GB", "BYTES", value::bytes,
        "About how much one rewrite of a view's files may read before it commits and the next view has its turn",
        "half a minute of work; what a stop in the middle costs is done again";
    "history-file-bytes" history_file_bytes = "128MB", "BYTES", value::bytes,
        "The size up to which files of history are written together, also by OPTIMIZE; what is below half of it is small",
        "a scan spends its time on rows and not on opening files, and a file can still be written again";
    "snapshot-retention" snapshot_retention = "1h", "DURATION", value::duration,
        "How long a snapshot of history, and the files that only it needs, stays after another has succeeded it",
        "longer than a job of another engine reads one snapshot, which is the only one that has to fear for its files: queries of this server keep theirs; each rewrite holds a snapshot for so long, which is a kilobyte more in every commit";
    "orphan-age" orphan_age = "24h", "DURATION", value::duration,
        "How old a file that no snapshot leads to is before it is removed",
        "longer than another engine writes before it commits: its files look the same until then";
    "online-tick" online_tick = "50ms", "DURATION", value::duration,
        "How often changed rows go to the online store",
        "changes to one key within a tick are written once; lookups do not wait for it, they are answered from memory";
    "online" online = "none", "URL", |text| value::optional(text, value::private),
        "A Redis as the online store: redis[s]://[[user]:password@]host[:port][/database], redis[s]+cluster://host,host, or redis[s]+sentinel://host,host/name for the master that Sentinels know by this name; ?layout=, ?prefix=, ?buckets=, ?ca= and ?sentinel= as docs/redis-layout.md has them",
        "none: the data directory; other nodes and services read a Redis. One that does not answer holds up neither lookups nor ingestion, and is brought level when it does";
    "role" role = "owner", "owner|serving", value::role,
        "What the server is there for: an owner has a data directory, takes events in and keeps views; a serving node has none and answers lookups from the Redis of --online",
        "one owner for each data directory, and as many serving nodes as lookups need; they only read, and a node that is stopped or started changes nothing";
    "serving-cache" serving_cache = "100ms", "DURATION|none", |text| value::optional(text, value::duration),
        "How long a serving node answers a key from its own memory after reading it, and never past the instant until which the row holds",
        "keys that many ask for cost Redis ten reads a second from each node, and an answer is older by as much at most; none: every lookup reads Redis";
    "serving-cache-entries" serving_cache_entries = "100000", "N", value::count,
        "How many keys a serving node keeps so",
        "some 300 bytes each, so 30 MB; they are of the last serving_cache only, and where that brings more of them it starts over";
    "serving-stale" serving_stale = "warn", "warn|error", value::stale,
        "What a serving node does with a row that does not hold any more and has no successor yet",
        "warn: it is answered with a warning, SQLSTATE 01000, and counted; error: the lookup fails with 55000 and is counted, for services that would rather have nothing than something old";
    "log-segment-bytes" log_segment_bytes = "64MB", "BYTES", value::bytes,
        "Size at which the embedded log begins a new file",
        "retention removes whole files";
    "log-max-bytes" log_max_bytes = "none", "BYTES", |text| value::optional(text, value::bytes),
        "The most that the log of one source may take on disk",
        "none: what the disk has; at the limit INSERT and COPY are refused, nothing is dropped";
    "query-memory" query_memory = "2GB", "BYTES", |text| value::optional(text, value::bytes),
        "What the queries of all connections may hold in memory together",
        "beyond it sorts, aggregations and ASOF JOINs spill to disk and what cannot is refused, instead of the machine killing the server";
    "query-disk" query_disk = "100GB", "BYTES", |text| value::optional(text, value::bytes),
        "What the queries of all connections may have spilled to disk at one time, in the folder spill of the data directory",
        "a join of some hundred million rows fits, and one query cannot fill the disk that the log needs; none: what the disk has";
    "state-memory" state_memory = "4GB", "BYTES", value::bytes,
        "What the keys of all feature views may take in memory together",
        "beyond it keys that nobody has asked for lately are read from disk when they are needed again; what one batch brings and keys that the online store has not seen may come on top";
    "batch-rows" batch_rows = "8192", "N", value::count,
        "Rows in one batch inside a query",
        "large enough to amortise per-batch work, small enough for the processor's cache";
    "worker-threads" worker_threads = "none", "N", |text| value::optional(text, value::count),
        "Threads for connections, for queries and for large batches, each",
        "none: as many as there are processors";
    "log" log = "info,fjall=warn,lsm_tree=warn", "FILTER", value::log_filter,
        "What is logged: a level, or target=level by commas; RUST_LOG goes before it",
        "one line per start, stop, refusal and failure";
    "log-format" log_format = "auto", "auto|human|json", value::log_format,
        "How log lines look; they go to stderr",
        "auto: for people on a terminal, JSON where a machine reads them";
};

/// `docs/settings.md`.
pub fn document() -> String {
    let mut text = String::from(
        "# Settings\n\nA setting is given as a flag of `tidemark serve`, as an environment variable, or in a TOML file \
         (`--config FILE` or\n`TIDEMARK_CONFIG`); a flag goes before a variable, a variable before the file, the file \
         before the default. A name that\ndoes not exist is refused, everywhere. The server refuses to start on a \
         value that it cannot use.\n\n```toml\n# tidemark.toml\ndata = \"/var/lib/tidemark\"\nmax_connections = \
         200\ncommit_interval = \"10s\"\n```\n\nDurations are written with their unit (`50ms`, `5s`, `10min`, `1h`), \
         sizes too (`64MB`, `2GB`; powers of 1024). Written by\n`server/src/settings/table.rs`; a test compares.\n\n\
         | setting | flag and variable | default | what, and why |\n| --- | --- | --- | --- |\n",
    );
    for setting in SETTINGS {
        let (name, flag, variable) = (setting.name(), setting.flag, setting.variable());
        let Setting { default, purpose, .. } = setting;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| `{name}` | `--{flag}`<br>`{variable}` | `{default}` | {purpose}. {} |",
            setting.reason_sentence()
        );
    }
    text
}
