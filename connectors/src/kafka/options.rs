//! What `WITH ( … )` says of a Kafka source, checked as far as that needs no broker.

use super::{KafkaError, Kind};
use crate::{
    csv::Dialect,
    format::Format,
    json::{Epoch, Field, has},
};
use std::collections::BTreeMap;
use tidemark_catalog::{Encode, Include, Relation, SqlType};

/// Where reading begins when a source is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    /// At the first record of that time or later, by the records' own timestamps; milliseconds since 1970.
    Timestamp(i64),
    /// Partitions that are not named begin at their earliest record.
    Offsets(BTreeMap<u32, u64>),
}

impl Start {
    /// Flink's notation of offsets: `partition:0,offset:42;partition:1,offset:300`.
    pub fn offsets(text: &str) -> Option<Start> {
        specific(text).map(Start::Offsets)
    }
}

#[derive(Clone)]
pub struct Options {
    pub topic: String,
    pub start: Start,
    /// librdkafka's settings.
    pub client: BTreeMap<String, String>,
    pub(super) format: Format,
    /// The columns that are in the messages, with their place in the relation.
    pub(super) fields: Vec<(usize, Field)>,
    /// Of a table (`FORMAT UPSERT`): which of the fields are in its primary key. A message without a value deletes that
    /// row.
    pub(super) key: Option<Vec<usize>>,
    /// The columns that tell about the message.
    pub(super) includes: Vec<(usize, Include, SqlType)>,
}

/// Without what lets somebody in.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("topic", &self.topic).field("servers", &self.servers()).finish_non_exhaustive()
    }
}

/// Every option of a Kafka source, for whoever mistypes one.
pub const OPTIONS: [&str; 14] = [
    "topic",
    "properties.bootstrap.server",
    "properties.*",
    "scan.startup.mode",
    "scan.startup.timestamp.millis",
    "scan.startup.specific-offsets",
    "json.timestamp",
    "json.timestamp.<column>",
    "json.path.<column>",
    "csv.delimiter",
    "csv.quote",
    "csv.null",
    "csv.timestamp",
    "csv.timestamp.<column>",
];

/// Settings of librdkafka that this connector stands on; and why.
const RESERVED: [(&str, &str); 12] = [
    ("enable.auto.commit", "offsets are kept with the rows, not by a group"),
    ("enable.auto.offset.store", "offsets are kept with the rows, not by a group"),
    ("enable.partition.eof", "it tells when a partition is idle"),
    ("auto.offset.reset", "scan.startup.mode says where a source begins; records that are gone later are an error"),
    ("isolation.level", "what a transaction has not committed is never a row"),
    ("group.instance.id", "partitions are assigned without a group"),
    ("partition.assignment.strategy", "partitions are assigned without a group"),
    ("enable.idempotence", "what INSERT writes is to be there once"),
    ("acks", "INSERT returns when all replicas have the rows"),
    ("request.required.acks", "INSERT returns when all replicas have the rows"),
    ("transactional.id", "INSERT is no transaction of Kafka's"),
    ("statistics.interval.ms", "nobody reads them; tidemark.pipelines has the lag"),
];

pub(super) const TOPIC_RULE: &str =
    "1 to 249 characters, each an ASCII letter, a digit, \".\", \"_\" or \"-\"; and neither \".\" nor \"..\"";

/// Whether a broker would take it for the name of a topic.
fn is_topic(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name.bytes().all(is_part) && !matches!(name, "." | "..")
}

/// Whether an option belongs to the connector.
pub fn is_option(name: &str) -> bool {
    const NAMES: [&str; 6] = ["topic", "json.timestamp", "csv.timestamp", "csv.delimiter", "csv.quote", "csv.null"];
    let prefixes = ["properties.", "scan.startup.", "json.timestamp.", "json.path.", "csv.timestamp."];
    NAMES.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

impl Options {
    pub fn of(relation: &Relation) -> Result<Options, KafkaError> {
        let wrong = |message: String| KafkaError::new(Kind::Options, message);
        let option = |name: &str| relation.options.get(name);
        let topic = option("topic").filter(|topic| !topic.is_empty());
        let topic = topic.ok_or_else(|| wrong("no topic is given".into()).hint("WITH (…, topic = 'name')"))?.clone();
        if !is_topic(&topic) {
            return Err(wrong(format!("\"{topic}\" is no name of a topic")).hint(TOPIC_RULE));
        }
        let mut client = BTreeMap::new();
        for (name, value) in &relation.options {
            let Some(name) = name.strip_prefix("properties.") else { continue };
            let name = if name == "bootstrap.server" { "bootstrap.servers" } else { name };
            if let Some((_, why)) = RESERVED.iter().find(|(reserved, _)| *reserved == name) {
                return Err(wrong(format!("option \"properties.{name}\" cannot be set")).hint(*why));
            }
            client.insert(name.to_string(), value.clone());
        }
        if !client.contains_key("bootstrap.servers") {
            let hint = "WITH (…, properties.bootstrap.server = 'host:9092')";
            return Err(wrong("no broker is given".into()).hint(hint));
        }
        let fields = fields(relation)?;
        let in_key = |at: &usize| relation.primary_key.contains(at);
        let key = fields.iter().enumerate().filter(|(_, (at, _))| in_key(at)).map(|(i, _)| i).collect();
        Ok(Options {
            topic,
            start: start(relation)?,
            client,
            format: format(relation)?,
            fields,
            key: relation.upsert.then_some(key),
            includes: relation
                .includes
                .iter()
                .map(|(at, include)| (*at, include.clone(), relation.columns[*at].ty.clone()))
                .collect(),
        })
    }

    pub fn servers(&self) -> &str {
        self.client.get("bootstrap.servers").map_or("", String::as_str)
    }
}

fn start(relation: &Relation) -> Result<Start, KafkaError> {
    let wrong = |message: String| KafkaError::new(Kind::Options, message);
    let option = |name: &str| relation.options.get(name).map(String::as_str);
    let (millis, offsets) = (option("scan.startup.timestamp.millis"), option("scan.startup.specific-offsets"));
    let mode = option("scan.startup.mode").unwrap_or("earliest");
    for (given, name, wanted) in [
        (millis, "scan.startup.timestamp.millis", "timestamp"),
        (offsets, "scan.startup.specific-offsets", "specific-offsets"),
    ] {
        if given.is_some() && mode != wanted {
            return Err(wrong(format!("option \"{name}\" needs scan.startup.mode = '{wanted}'")));
        }
    }
    match mode {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        "timestamp" => {
            let millis = millis.and_then(|millis| millis.parse().ok()).filter(|millis| *millis >= 0);
            millis.map(Start::Timestamp).ok_or_else(|| {
                wrong("scan.startup.mode = 'timestamp' needs a time".into())
                    .hint("scan.startup.timestamp.millis = milliseconds since 1970")
            })
        }
        "specific-offsets" => offsets.and_then(specific).map(Start::Offsets).ok_or_else(|| {
            wrong("scan.startup.mode = 'specific-offsets' needs offsets".into())
                .hint("\"scan.startup.specific-offsets\" = 'partition:0,offset:42;partition:1,offset:300'")
        }),
        other => Err(wrong(format!("scan.startup.mode is \"{other}\""))
            .hint("'earliest', 'latest', 'timestamp' or 'specific-offsets'")),
    }
}

/// Flink's notation.
fn specific(text: &str) -> Option<BTreeMap<u32, u64>> {
    let each = text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(|part| {
        let (partition, offset) = part.split_once(',')?;
        let partition = partition.trim().strip_prefix("partition:")?.trim().parse().ok()?;
        Some((partition, offset.trim().strip_prefix("offset:")?.trim().parse().ok()?))
    });
    let offsets: BTreeMap<u32, u64> = each.collect::<Option<_>>()?;
    (!offsets.is_empty()).then_some(offsets)
}

fn format(relation: &Relation) -> Result<Format, KafkaError> {
    let wrong = |message: String| KafkaError::new(Kind::Options, message);
    let of_another = |name: &str| match name.split_once('.') {
        Some((format @ ("json" | "csv"), _)) => !relation.encode.to_string().eq_ignore_ascii_case(format),
        _ => false,
    };
    if let Some(name) = relation.options.keys().find(|name| of_another(name)) {
        return Err(wrong(format!("option \"{name}\" does not go with ENCODE {}", relation.encode)));
    }
    let byte = |name: &str, default: u8| match relation.options.get(name).map(String::as_bytes) {
        None => Ok(default),
        Some([byte]) if byte.is_ascii() && !matches!(byte, b'\n' | b'\r') => Ok(*byte),
        Some(_) => Err(wrong(format!("{name} is no single ASCII character"))),
    };
    match relation.encode {
        Encode::Json => Ok(Format::Json),
        Encode::Csv => {
            let Dialect { delimiter, quote, null } = Dialect::default();
            let dialect = Dialect {
                delimiter: byte("csv.delimiter", delimiter)?,
                quote: byte("csv.quote", quote)?,
                null: relation.options.get("csv.null").cloned().unwrap_or(null),
            };
            if dialect.delimiter == dialect.quote {
                return Err(wrong("csv.delimiter and csv.quote are one character".into()));
            }
            let special = [char::from(dialect.delimiter), char::from(dialect.quote), '\n', '\r'];
            if dialect.null.contains(special) {
                return Err(wrong("csv.null contains the delimiter, the quote or the end of a line".into()));
            }
            Ok(Format::Csv(dialect))
        }
        Encode::Bytes => {
            let is_included = |at: &usize| relation.includes.iter().any(|(included, _)| included == at);
            let mut columns =
                (0..relation.columns.len()).filter(|at| !is_included(at)).map(|at| &relation.columns[at].ty);
            match (columns.next(), columns.next()) {
                (Some(SqlType::Bytea), None) => Ok(Format::Bytes),
                _ => Err(wrong("ENCODE BYTES needs one column, of type bytea, beside those of INCLUDE".into())),
            }
        }
    }
}

fn fields(relation: &Relation) -> Result<Vec<(usize, Field)>, KafkaError> {
    let wrong = |message: String| KafkaError::new(Kind::Options, message);
    let epoch = |name: &str, value: &str| match value {
        "iso" => Ok(None),
        value => Epoch::of(value)
            .map(Some)
            .ok_or_else(|| wrong(format!("{name} is \"{value}\"")).hint("'iso', 's', 'ms' or 'us'")),
    };
    let prefix = relation.encode.to_string().to_lowercase();
    let (timestamp, path_of) = (format!("{prefix}.timestamp"), format!("{prefix}.path."));
    let timestamp_of = format!("{timestamp}.");
    let mut fields = vec![];
    let general = relation.options.get(&timestamp).map_or(Ok(None), |value| epoch(&timestamp, value))?;
    for (at, column) in relation.columns.iter().enumerate() {
        if relation.includes.iter().any(|(included, _)| *included == at) {
            continue;
        }
        if !has(&column.ty) {
            return Err(wrong(format!("column \"{}\": {} has no {}", column.name, relation.encode, column.ty))
                .hint("declare it text and cast it in the SELECT"));
        }
        fields.push((at, Field { column: column.clone(), path: vec![column.name.clone()], epoch: general }));
    }
    for (name, value) in &relation.options {
        let own = |prefix: &str| name.strip_prefix(prefix);
        let Some(column) = own(&path_of).or_else(|| own(&timestamp_of)) else { continue };
        // Names of options are folded to lower case.
        let field = fields.iter_mut().map(|(_, field)| field).find(|field| field.column.name.to_lowercase() == column);
        let field = field.ok_or_else(|| wrong(format!("option \"{name}\" names no column of the messages")))?;
        if name.starts_with(&path_of) {
            field.path = path(value).ok_or_else(|| wrong(format!("{name} is \"{value}\"")).hint("'outer.inner'"))?;
        } else if !matches!(field.column.ty, SqlType::Timestamp | SqlType::TimestampTz) {
            return Err(wrong(format!("option \"{name}\" is for a timestamp, the column is {}", field.column.ty)));
        } else {
            field.epoch = epoch(name, value)?;
        }
    }
    Ok(fields)
}

/// Names between points; `\.` is a point in a name.
fn path(text: &str) -> Option<Vec<String>> {
    let mut names = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let last = names.last_mut()?;
        match c {
            '.' => names.push(String::new()),
            '\\' => last.push(chars.next()?),
            c => last.push(c),
        }
    }
    names.iter().all(|name| !name.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_topics_are_what_a_broker_takes() {
        let long = "x".repeat(249);
        for name in ["clicks", "a.b_c-D1", "...", long.as_str()] {
            assert!(is_topic(name), "{name}");
        }
        let too_long = "x".repeat(250);
        for name in ["", ".", "..", "a b", "a/b", "é", too_long.as_str()] {
            assert!(!is_topic(name), "{name}");
        }
    }

    #[test]
    fn offsets_and_paths_are_read_as_they_are_documented() {
        assert_eq!(specific("partition:0,offset:42; partition:1, offset:300"), Some([(0, 42), (1, 300)].into()));
        assert_eq!(specific("0:42"), None);
        assert_eq!(specific(""), None);
        assert_eq!(path("a.b\\.c.d"), Some(vec!["a".into(), "b.c".into(), "d".into()]));
        assert_eq!(path("a..b"), None);
    }
}
