//! The statements of the surface (`docs/sql.md`), as parsed: names and options resolved to Rust types, nothing bound.

mod change;
mod merge;
mod role;

pub use change::{Change, all_of, is_default, returned, rows_of};
pub use merge::{Merge, MergeAction, MergeClause};
pub use role::{Grant, GrantRoles, GrantTarget, Hidden, RoleName, RoleOptions};

use datafusion::sql::sqlparser::ast;
use std::collections::BTreeMap;
use tidemark_catalog::{Encode, Include, ObjectKind, Parameter, QualifiedName, SqlType};

/// One parsed statement with its own text.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    pub statement: Statement,
    /// The statement's text as the user wrote it, without the closing semicolon and surrounding white space.
    pub text: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    CreateRelation(CreateRelation),
    /// `CREATE TABLE name AS query` (`CREATE TABLE … AS`); `SELECT … INTO` is refused.
    CreateTableAs {
        name: QualifiedName,
        if_not_exists: bool,
        query: Box<ast::Query>,
    },
    /// `CREATE { TEMPORARY | TEMP } TABLE …`; `create` is [`Statement::CreateRelation`] or [`Statement::CreateTableAs`]
    CreateTemporary {
        create: Box<Statement>,
        /// `ON COMMIT DROP`
        ends_with_transaction: bool,
    },
    CreateFeatureView(CreateFeatureView),
    CreateView {
        name: QualifiedName,
        if_not_exists: bool,
        columns: Vec<String>,
        query: Box<ast::Query>,
        query_text: String,
    },
    CreateAggregate(CreateAggregate),
    CreateTrainingSet(CreateTrainingSet),
    /// `REFRESH TRAINING SET name [AS RECORDED]`
    RefreshTrainingSet {
        name: QualifiedName,
        as_recorded: bool,
    },
    /// `DROP {SOURCE | TABLE | FEATURE VIEW | VIEW | AGGREGATE | TRAINING SET} [IF EXISTS] name [, …] [CASCADE | RESTRICT]`
    Drop {
        kind: ObjectKind,
        if_exists: bool,
        names: Vec<QualifiedName>,
        cascade: bool,
    },
    CreateIndex(CreateIndex),
    /// `DROP INDEX [IF EXISTS] name [, …]`
    DropIndex {
        if_exists: bool,
        names: Vec<QualifiedName>,
    },
    /// `ALTER {SOURCE | TABLE | FEATURE VIEW | VIEW | AGGREGATE | TRAINING SET} [IF EXISTS] name RENAME TO to`
    Rename {
        kind: ObjectKind,
        if_exists: bool,
        name: QualifiedName,
        to: String,
    },
    /// `ALTER {SOURCE | TABLE | FEATURE VIEW} [IF EXISTS] name SET ( option = value, … )`
    SetOptions {
        kind: ObjectKind,
        if_exists: bool,
        name: QualifiedName,
        options: BTreeMap<String, String>,
    },
    /// `ALTER {SOURCE | TABLE} [IF EXISTS] name { ADD | DROP | ALTER [COLUMN] … }, …`, `… RENAME [COLUMN] name TO to`
    AlterColumns {
        kind: ObjectKind,
        if_exists: bool,
        name: QualifiedName,
        changes: Vec<ColumnChange>,
    },
    /// `ALTER FEATURE VIEW [IF EXISTS] name ALTER [COLUMN] column { SET DEFAULT literal | DROP DEFAULT }`; `value` is the
    /// literal's text, `None` for NULL and DROP
    SetDefault {
        if_exists: bool,
        name: QualifiedName,
        column: String,
        value: Option<String>,
    },
    /// `ALTER {SOURCE | TABLE} [IF EXISTS] name ADVANCE WATERMARK TO expr`; the expression is constant (a timestamptz
    /// literal, cast or `now()`).
    AdvanceWatermark {
        if_exists: bool,
        name: QualifiedName,
        to: Box<ast::Expr>,
    },
    /// `ALTER {SOURCE | TABLE} [IF EXISTS] name RESET TO { EARLIEST | LATEST | OFFSETS '…' | expr } [ALLOW
    /// DUPLICATES]`; the expression is constant
    ResetTopic {
        kind: ObjectKind,
        if_exists: bool,
        name: QualifiedName,
        to: ResetTo,
        allow_duplicates: bool,
    },
    /// `ALTER FEATURE VIEW [IF EXISTS] name RESUME`
    Resume {
        if_exists: bool,
        name: QualifiedName,
    },
    /// `REFRESH ONLINE STORE FOR [FEATURE VIEW] name`
    RefreshOnlineStore {
        name: QualifiedName,
    },
    /// `REFRESH MATERIALIZED VIEW name`: a feature view is fresh
    RefreshView {
        name: QualifiedName,
    },
    /// `COMMENT ON {SOURCE | TABLE | FEATURE VIEW | VIEW | AGGREGATE | TRAINING SET} name IS 'text' | NULL` (`column` set: `COMMENT ON COLUMN name.column`;
    /// kind is then `None`)
    Comment {
        kind: Option<ObjectKind>,
        name: QualifiedName,
        column: Option<String>,
        text: Option<String>,
    },
    /// `ALTER {SOURCE | TABLE | FEATURE VIEW | VIEW | AGGREGATE | TRAINING SET} [IF EXISTS] name OWNER TO role`
    SetOwner {
        kind: ObjectKind,
        if_exists: bool,
        name: QualifiedName,
        to: RoleName,
    },
    /// `CREATE SCHEMA [IF NOT EXISTS] name [AUTHORIZATION role]`; without a name it is the role's
    CreateSchema {
        name: Option<String>,
        if_not_exists: bool,
        owner: Option<RoleName>,
    },
    /// `DROP SCHEMA [IF EXISTS] name [, …] [CASCADE | RESTRICT]`
    DropSchema {
        if_exists: bool,
        names: Vec<String>,
        cascade: bool,
    },
    /// `ALTER SCHEMA name RENAME TO to`
    RenameSchema {
        name: String,
        to: String,
    },
    /// `ALTER SCHEMA name OWNER TO role`
    SetSchemaOwner {
        name: String,
        to: RoleName,
    },
    /// `COMMENT ON SCHEMA name IS 'text' | NULL`
    CommentSchema {
        name: String,
        text: Option<String>,
    },
    /// `CREATE {ROLE | USER | GROUP} name [WITH] option …`
    CreateRole {
        name: String,
        options: RoleOptions,
    },
    /// `ALTER {ROLE | USER} role [WITH] option …`
    AlterRole {
        role: RoleName,
        options: RoleOptions,
    },
    /// `ALTER {ROLE | USER} role RENAME TO to`
    RenameRole {
        role: RoleName,
        to: String,
    },
    /// `DROP {ROLE | USER | GROUP} [IF EXISTS] name [, …]`
    DropRole {
        if_exists: bool,
        names: Vec<String>,
    },
    /// `REASSIGN OWNED BY role [, …] TO role`
    ReassignOwned {
        from: Vec<RoleName>,
        to: RoleName,
    },
    Grant(Grant),
    GrantRoles(GrantRoles),
    /// `CREATE SECRET [IF NOT EXISTS] name [WITH (backend = 'meta')] AS 'value'`
    CreateSecret {
        name: String,
        if_not_exists: bool,
        value: Hidden,
    },
    /// `ALTER SECRET name AS 'value'`
    AlterSecret {
        name: String,
        value: Hidden,
    },
    /// `DROP SECRET [IF EXISTS] name [, …]`
    DropSecret {
        if_exists: bool,
        names: Vec<String>,
    },
    /// `SHOW SECRETS`
    ShowSecrets,
    /// `SHOW SOURCES | TABLES | FEATURE VIEWS | VIEWS | AGGREGATES | TRAINING SETS`
    ShowObjects(ObjectKind),
    /// `SHOW CREATE {SOURCE | TABLE | FEATURE VIEW | VIEW | AGGREGATE | TRAINING SET} name`
    ShowCreate {
        kind: ObjectKind,
        name: QualifiedName,
    },
    /// `DESCRIBE [{SOURCE | TABLE | FEATURE VIEW | VIEW | TRAINING SET}] name` (also `DESC`)
    Describe {
        name: QualifiedName,
    },
    /// `EXPLAIN CREATE FEATURE VIEW …` or, with `(FORMAT PROBES)`, the oracle's SQL
    ExplainFeatureView {
        create: CreateFeatureView,
        format: ExplainFormat,
    },
    /// `EXPLAIN [ANALYZE] [VERBOSE] query`, as text or JSON
    Explain {
        analyze: bool,
        verbose: bool,
        format: ExplainFormat,
        statement: Box<Statement>,
    },
    Checkpoint,
    Flush,
    /// `OPTIMIZE history.view`; the view is in the schema whose history it is
    Optimize {
        view: QualifiedName,
    },
    /// The same of `VACUUM history.view [RETAIN 'duration']`, microseconds; without it the server's default
    VacuumHistory {
        view: QualifiedName,
        retain_us: Option<i64>,
    },
    /// `COPY name [(columns)] FROM { STDIN | 'file' } [WITH] (…)`, also the old option syntax that psql's \copy and pg_dump send
    CopyFrom {
        table: QualifiedName,
        columns: Vec<String>,
        /// Of the server; `None`: the client sends the rows.
        file: Option<String>,
        options: CopyOptions,
    },
    /// `COPY { name [(columns)] | (query) } TO { STDOUT | 'file' } [WITH] (…)`
    CopyTo {
        source: CopySource,
        target: CopyTarget,
        options: CopyOptions,
    },
    Insert(Insert),
    Change(Change),
    Merge(Merge),
    /// `TRUNCATE [TABLE] name, …`
    Truncate {
        tables: Vec<QualifiedName>,
    },
    /// Anything that is answered as rows and planned by DataFusion: SELECT, VALUES, WITH, TABLE.
    Query(Box<ast::Query>),
    /// `SET [SESSION | LOCAL] name { = | TO } value[, …]`, `SET TIME ZONE …`; `value` `None` means DEFAULT
    Set {
        local: bool,
        name: String,
        value: Option<String>,
    },
    /// `SET TRANSACTION`, `SET SESSION CHARACTERISTICS AS TRANSACTION` with both modes; with one it is a [`Statement::Set`].
    SetTransaction {
        /// `false`: of the transactions to come.
        local: bool,
        isolation: &'static str,
        read_only: bool,
    },
    /// `SHOW name`; `SHOW ALL` has the name `all`. Names are lower case; `TIME ZONE` is `timezone`,
    /// `TRANSACTION ISOLATION LEVEL` is `transaction_isolation`
    ShowSetting {
        name: String,
    },
    /// `RESET name | ALL`
    Reset {
        name: String,
    },
    /// `BEGIN`, `START TRANSACTION`
    Begin {
        /// `None`: neither READ ONLY nor READ WRITE.
        read_only: Option<bool>,
        /// As `transaction_isolation` has it.
        isolation: Option<&'static str>,
    },
    Commit,
    Rollback,
    Savepoint {
        name: String,
    },
    RollbackTo {
        name: String,
    },
    Release {
        name: String,
    },
    /// `PREPARE name [(types)] AS statement`
    Prepare {
        name: String,
        types: Vec<SqlType>,
        statement: Box<Parsed>,
    },
    Execute {
        name: String,
        parameters: Vec<ast::Expr>,
    },
    /// `DEALLOCATE name`; `None` is ALL
    Deallocate {
        name: Option<String>,
    },
    /// `DISCARD ALL | PLANS | TEMP | SEQUENCES`, upper case
    Discard {
        what: String,
    },
    /// `DECLARE name [BINARY] [INSENSITIVE] [NO SCROLL] CURSOR [{WITH | WITHOUT} HOLD] FOR query`
    Declare {
        name: String,
        is_binary: bool,
        /// `WITH HOLD`: outlives the transaction.
        is_held: bool,
        /// A [`Statement::Query`].
        query: Box<Parsed>,
    },
    /// `FETCH [direction] [FROM | IN] cursor`; `moves`: `MOVE`, which sends no rows
    Fetch {
        cursor: String,
        direction: Direction,
        moves: bool,
    },
    /// `CLOSE name`; `None` is ALL
    Close {
        name: Option<String>,
    },
    /// `LISTEN channel`
    Listen {
        channel: String,
    },
    /// `UNLISTEN channel`; `None` is `*`
    Unlisten {
        channel: Option<String>,
    },
    /// `NOTIFY channel [, 'payload']`
    Notify {
        channel: String,
        payload: String,
    },
    /// `VACUUM` and the like that clients send and that have nothing to do here; the command tag
    Nothing {
        tag: &'static str,
    },
}

/// Which rows a FETCH is for, from where its cursor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// So many that come next; 0 is the row that it stands on, `u64::MAX` is ALL.
    Next(u64),
    /// The one that many rows on, from 1.
    Relative(u64),
    /// The one of this number, from 1.
    Absolute(u64),
    /// Any that may lie behind.
    Backward,
}

/// Where the reading of a topic goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum ResetTo {
    /// The first record that there is.
    Earliest,
    /// Behind the last.
    Latest,
    /// `partition:0,offset:42;…` as written.
    Offsets(String),
    /// The first record of that time or later, by the records' own timestamps.
    Instant(Box<ast::Expr>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum ExplainFormat {
    Text,
    Json,
    Probes,
}

/// `CREATE SOURCE | TABLE [IF NOT EXISTS] name ( columns, WATERMARK FOR c AS c - INTERVAL '…', PRIMARY KEY (…) )
///  [INCLUDE … AS name]… [WITH ( … )] [FORMAT …]`; without columns `CREATE TABLE name WITH (connector = 'parquet', …)`
#[derive(Debug, Clone, PartialEq)]
pub struct CreateRelation {
    pub kind: ObjectKind,
    pub name: QualifiedName,
    pub if_not_exists: bool,
    pub columns: Vec<ColumnDef>,
    /// What `DEFAULT` says, by the column's name: a literal's text.
    pub defaults: BTreeMap<String, String>,
    /// Those of `INCLUDE`, which come behind the others, as indices into `columns`.
    pub includes: Vec<(usize, Include)>,
    /// From a column's `PRIMARY KEY` or the table constraint.
    pub primary_key: Vec<String>,
    /// Column and delay in microseconds.
    pub watermark: Option<(String, i64)>,
    /// `WITH` options: names lower case, values as text (quotes removed). Those of `ENCODE CSV ( … )` begin with
    /// `csv.`.
    pub options: BTreeMap<String, String>,
    /// `FORMAT UPSERT` (with or without `ENCODE …`).
    pub upsert: bool,
    pub encode: Encode,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ColumnDef {
    pub name: String,
    pub ty: SqlType,
    pub not_null: bool,
}

/// `CREATE [UNIQUE] INDEX [CONCURRENTLY] [[IF NOT EXISTS] name] ON table ( item, … ) …`
#[derive(Debug, Clone, PartialEq)]
pub struct CreateIndex {
    pub name: Option<String>,
    pub table: QualifiedName,
    pub unique: bool,
    /// `None`: an expression.
    pub columns: Vec<Option<String>>,
}

/// One action of `ALTER TABLE`; a default is a literal's text, `None` NULL.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnChange {
    Add { if_not_exists: bool, column: ColumnDef, default: Option<String> },
    Drop { if_exists: bool, name: String },
    Rename { name: String, to: String },
    SetDefault { name: String, value: Option<String> },
}

/// `CREATE [OR REPLACE] FEATURE VIEW [IF NOT EXISTS] name [WITH ( … )] AS query`
#[derive(Debug, Clone, PartialEq)]
pub struct CreateFeatureView {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub name: QualifiedName,
    pub options: BTreeMap<String, String>,
    pub query: Box<ast::Query>,
    pub query_text: String,
}

/// `CREATE [OR REPLACE] AGGREGATE name ( parameter type, … ) AS expression`
#[derive(Debug, Clone, PartialEq)]
pub struct CreateAggregate {
    pub or_replace: bool,
    pub name: QualifiedName,
    pub parameters: Vec<Parameter>,
    pub expression: Box<ast::Expr>,
    pub expression_text: String,
}

/// `CREATE TRAINING SET [IF NOT EXISTS] name [WITH ( … )] AS query`
#[derive(Debug, Clone, PartialEq)]
pub struct CreateTrainingSet {
    pub if_not_exists: bool,
    pub name: QualifiedName,
    pub options: BTreeMap<String, String>,
    pub query: Box<ast::Query>,
    pub query_text: String,
}

/// `INSERT INTO name [(columns)] { VALUES … | query } [ON CONFLICT …]`
#[derive(Debug, Clone, PartialEq)]
pub struct Insert {
    pub table: QualifiedName,
    pub columns: Vec<String>,
    pub query: Box<ast::Query>,
    pub on_conflict: OnConflict,
    /// For [`OnConflict::Replace`]: the conflict's key columns and the columns it sets, so that whoever knows the table
    /// can check that together they are all of them.
    pub replaces: Vec<String>,
    pub returning: Option<Vec<ast::SelectItem>>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum OnConflict {
    Error,
    /// `DO NOTHING`
    Nothing,
    /// `(key) DO UPDATE SET every other column = excluded.column`: replace the row
    Replace,
}

#[derive(Debug, Clone, PartialEq)]
pub enum CopySource {
    Table { name: QualifiedName, columns: Vec<String> },
    Query { query: Box<ast::Query>, text: String },
}

#[derive(Debug, Clone, PartialEq)]
pub enum CopyTarget {
    Stdout,
    /// A file on the server, or an object, `s3://bucket/path`.
    File(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFormat {
    Text,
    Csv,
    Binary,
    Parquet,
    /// Arrow's IPC: a file where it goes to or comes from one, else a stream.
    Arrow,
}

/// How the columns of a Parquet file are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CopyCompression {
    Uncompressed,
    /// What every reader has.
    #[default]
    Snappy,
    /// By a level, 1 to 22.
    Zstd(i32),
}

#[derive(Debug, Clone, PartialEq)]
pub struct CopyOptions {
    pub format: CopyFormat,
    pub delimiter: Option<u8>,
    pub null: Option<String>,
    pub header: bool,
    pub quote: Option<u8>,
    pub escape: Option<u8>,
    /// Of Parquet.
    pub compression: CopyCompression,
    /// Rows in a row group of a Parquet file.
    pub row_group_rows: usize,
}

impl CopyOptions {
    /// A format with its defaults.
    pub fn of(format: CopyFormat) -> CopyOptions {
        CopyOptions {
            format,
            delimiter: None,
            null: None,
            header: false,
            quote: None,
            escape: None,
            compression: CopyCompression::default(),
            row_group_rows: CopyOptions::ROW_GROUP_ROWS,
        }
    }

    /// As DuckDB has it: enough to compress well, few enough to be put together in memory.
    pub const ROW_GROUP_ROWS: usize = 122_880;
}
