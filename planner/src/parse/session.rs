//! Statements about the session: settings, transactions, prepared statements, and what clients send to reset one.

use super::{cursor::Cursor, object, parsed};
use crate::{PlanError, PlanResult, statement::Statement};
use datafusion::sql::sqlparser::tokenizer::{Token, Word};
use tidemark_catalog::ObjectKind;

/// `SHOW` of objects, of a definition, or of a setting.
pub(super) fn show(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("SHOW")?;
    if c.eat("CREATE") {
        let kind = object::kind(c).ok_or_else(|| c.unexpected())?;
        return Ok(Statement::ShowCreate { kind, name: c.object_name()? });
    }
    if c.eat("SECRETS") {
        return Ok(Statement::ShowSecrets);
    }
    let objects = [
        (&["SOURCES"][..], ObjectKind::Source),
        (&["TABLES"][..], ObjectKind::Table),
        (&["FEATURE", "VIEWS"][..], ObjectKind::FeatureView),
        (&["VIEWS"][..], ObjectKind::View),
        (&["AGGREGATES"][..], ObjectKind::Aggregate),
        (&["TRAINING", "SETS"][..], ObjectKind::TrainingSet),
    ];
    for (words, kind) in objects {
        if c.eat_all(words) {
            return Ok(Statement::ShowObjects(kind));
        }
    }
    Ok(Statement::ShowSetting { name: setting(c)? })
}

/// The name of a setting, lower case; PostgreSQL's spellings in words become the setting they stand for.
fn setting(c: &mut Cursor<'_>) -> PlanResult<String> {
    let spelled = [
        (&["TIME", "ZONE"][..], "timezone"),
        (&["TRANSACTION", "ISOLATION", "LEVEL"][..], "transaction_isolation"),
        (&["SESSION", "AUTHORIZATION"][..], "session_authorization"),
        (&["XML", "OPTION"][..], "xmloption"),
        (&["NAMES"][..], "client_encoding"),
    ];
    for (words, name) in spelled {
        if c.eat_all(words) {
            return Ok(name.to_string());
        }
    }
    let mut name = c.label()?.to_lowercase();
    while c.eat_token(&Token::Period) {
        name = format!("{name}.{}", c.label()?.to_lowercase());
    }
    Ok(name)
}

pub(super) fn set(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("SET")?;
    if c.eat_all(&["SESSION", "CHARACTERISTICS", "AS", "TRANSACTION"]) {
        let modes = modes(c)?;
        return modes.statement(c, false);
    }
    if c.at("TRANSACTION") && !matches!(c.peek(1), Some(Token::Eq)) {
        c.skip();
        if c.at("SNAPSHOT") {
            return Err(c.place(PlanError::unsupported("SET TRANSACTION SNAPSHOT is not supported")));
        }
        let modes = modes(c)?;
        return modes.statement(c, true);
    }
    if c.eat("CONSTRAINTS") {
        // there are none that could be deferred
        c.at = c.end;
        return Ok(Statement::Nothing { tag: "SET CONSTRAINTS" });
    }
    let local = c.eat("LOCAL");
    if !local && c.at("SESSION") && !c.at_ahead(1, "AUTHORIZATION") {
        c.skip();
    }
    if c.eat_all(&["TIME", "ZONE"]) {
        let value = time_zone(c)?;
        return Ok(Statement::Set { local, name: "timezone".into(), value });
    }
    if c.eat("SCHEMA") {
        return Ok(Statement::Set { local, name: "search_path".into(), value: Some(c.string()?) });
    }
    let start = *c;
    let name = setting(c)?;
    let by_words = start.at("NAMES") || start.at("ROLE") || start.at("SESSION") || start.at("XML");
    if !(c.eat_token(&Token::Eq) || c.eat("TO") || by_words) {
        return Err(c.unexpected());
    }
    if c.eat("DEFAULT") || (start.at("NAMES") && c.done()) {
        return Ok(Statement::Set { local, name, value: None });
    }
    let keep_quotes = name == "search_path";
    let mut values = vec![value(c, keep_quotes)?];
    while c.eat_token(&Token::Comma) {
        values.push(value(c, keep_quotes)?);
    }
    Ok(Statement::Set { local, name, value: Some(values.join(", ")) })
}

/// One value of a setting; in a list of names those keep their quotes that need them.
fn value(c: &mut Cursor<'_>, keep_quotes: bool) -> PlanResult<String> {
    let quoted = matches!(c.peek(0), Some(Token::Word(Word { quote_style: Some(_), .. })));
    let value = c.option_value()?;
    let plain = value.chars().all(|ch| ch.is_ascii_lowercase() || ch.is_ascii_digit() || ch == '_');
    Ok(if keep_quotes && quoted && !plain { format!("\"{}\"", value.replace('"', "\"\"")) } else { value })
}

/// `SET TIME ZONE` takes a name, a number of hours, an interval, `LOCAL` or `DEFAULT`.
fn time_zone(c: &mut Cursor<'_>) -> PlanResult<Option<String>> {
    if c.eat("LOCAL") || c.eat("DEFAULT") {
        return Ok(None);
    }
    if c.eat("INTERVAL") {
        let offset = c.string()?;
        if c.eat("HOUR") && c.eat("TO") {
            c.expect("MINUTE")?;
        }
        return Ok(Some(offset));
    }
    c.option_value().map(Some)
}

pub(super) fn reset(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("RESET")?;
    Ok(Statement::Reset { name: setting(c)? })
}

/// The modes of a transaction.
#[derive(Default)]
struct Modes {
    isolation: Option<&'static str>,
    read_only: Option<bool>,
}

impl Modes {
    /// As the setting they stand for, or both.
    fn statement(self, c: &Cursor<'_>, local: bool) -> PlanResult<Statement> {
        let (name, value) = match self {
            Modes { read_only: Some(read_only), isolation: Some(isolation) } => {
                return Ok(Statement::SetTransaction { local, isolation, read_only });
            }
            Modes { read_only: Some(read_only), .. } => ("read_only", if read_only { "on" } else { "off" }),
            Modes { isolation: Some(level), .. } => ("isolation", level),
            _ if c
                .tokens
                .get(c.at.wrapping_sub(1))
                .is_some_and(|token| token.token.to_string().eq_ignore_ascii_case("deferrable")) =>
            {
                return Ok(Statement::Nothing { tag: "SET" });
            }
            _ => return Err(c.unexpected()),
        };
        let prefix = if local { "transaction_" } else { "default_transaction_" };
        Ok(Statement::Set { local, name: format!("{prefix}{name}"), value: Some(value.to_string()) })
    }
}

fn modes(c: &mut Cursor<'_>) -> PlanResult<Modes> {
    let mut modes = Modes::default();
    loop {
        if c.eat_all(&["ISOLATION", "LEVEL"]) {
            let levels = [
                (&["READ", "UNCOMMITTED"][..], "read uncommitted"),
                (&["READ", "COMMITTED"][..], "read committed"),
                (&["REPEATABLE", "READ"][..], "repeatable read"),
                (&["SERIALIZABLE"][..], "serializable"),
            ];
            let level = levels.iter().find(|(words, _)| c.eat_all(words)).ok_or_else(|| c.unexpected())?;
            modes.isolation = Some(level.1);
        } else if c.eat_all(&["READ", "ONLY"]) {
            modes.read_only = Some(true);
        } else if c.eat_all(&["READ", "WRITE"]) {
            modes.read_only = Some(false);
        } else if !(c.eat("DEFERRABLE") || c.eat_all(&["NOT", "DEFERRABLE"])) {
            return Ok(modes);
        }
        if c.eat_token(&Token::Comma) && c.done() {
            return Err(c.unexpected());
        }
    }
}

pub(super) fn begin(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    if c.eat("START") {
        c.expect("TRANSACTION")?;
    } else {
        c.expect("BEGIN")?;
        work(c);
    }
    let modes = modes(c)?;
    Ok(Statement::Begin { read_only: modes.read_only, isolation: modes.isolation })
}

fn work(c: &mut Cursor<'_>) {
    if !c.eat("WORK") {
        c.eat("TRANSACTION");
    }
}

/// `[WORK | TRANSACTION] [AND [NO] CHAIN]`
fn end(c: &mut Cursor<'_>) -> PlanResult<()> {
    work(c);
    if c.at_all(&["AND", "CHAIN"]) {
        return Err(c.place(PlanError::unsupported("AND CHAIN is not supported").hint("send BEGIN afterwards")));
    }
    c.eat_all(&["AND", "NO", "CHAIN"]);
    Ok(())
}

fn refuse_two_phase(c: &Cursor<'_>) -> PlanResult<()> {
    if c.at("PREPARED") {
        return Err(c.place(PlanError::unsupported("two-phase commit is not supported")));
    }
    Ok(())
}

pub(super) fn commit(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.skip();
    refuse_two_phase(c)?;
    end(c)?;
    Ok(Statement::Commit)
}

pub(super) fn rollback(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.skip();
    refuse_two_phase(c)?;
    let mut to = *c;
    work(&mut to);
    if to.eat("TO") {
        *c = to;
        return Ok(Statement::RollbackTo { name: savepoint_name(c)? });
    }
    end(c)?;
    Ok(Statement::Rollback)
}

fn savepoint_name(c: &mut Cursor<'_>) -> PlanResult<String> {
    if c.peek(1).is_some() {
        c.eat("SAVEPOINT");
    }
    c.identifier()
}

pub(super) fn savepoint(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("SAVEPOINT")?;
    Ok(Statement::Savepoint { name: c.identifier()? })
}

pub(super) fn release(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("RELEASE")?;
    Ok(Statement::Release { name: savepoint_name(c)? })
}

pub(super) fn prepare(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("PREPARE")?;
    if c.at("TRANSACTION") && c.peek(1).is_some_and(|next| matches!(next, Token::SingleQuotedString(_))) {
        return Err(c.place(PlanError::unsupported("two-phase commit is not supported")));
    }
    let name = c.identifier()?;
    let mut types = vec![];
    if c.at_token(&Token::LParen) {
        c.list(|item| {
            types.push(item.parameter_type()?);
            Ok(())
        })?;
    }
    c.expect("AS")?;
    let start = *c;
    let statement = Box::new(parsed(*c)?);
    c.at = c.end;
    match statement.statement {
        Statement::Query(_) | Statement::Insert(_) | Statement::Change(_) | Statement::Merge(_) => {
            Ok(Statement::Prepare { name, types, statement })
        }
        _ => Err(start.place(
            PlanError::unsupported("this statement cannot be prepared")
                .hint("PREPARE takes a query, INSERT, UPDATE, DELETE or MERGE"),
        )),
    }
}

pub(super) fn execute(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("EXECUTE")?;
    let name = c.identifier()?;
    let mut parameters = vec![];
    if c.at_token(&Token::LParen) {
        parameters = c.parenthesised()?.exprs()?;
    }
    Ok(Statement::Execute { name, parameters })
}

pub(super) fn deallocate(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("DEALLOCATE")?;
    if c.peek(1).is_some() {
        c.eat("PREPARE");
    }
    let name = if c.eat("ALL") { None } else { Some(c.identifier()?) };
    Ok(Statement::Deallocate { name })
}

pub(super) fn discard(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("DISCARD")?;
    let what = match c.keyword(0).as_deref() {
        Some("ALL") => "ALL",
        Some("PLANS") => "PLANS",
        Some("TEMP" | "TEMPORARY") => "TEMP",
        Some("SEQUENCES") => "SEQUENCES",
        _ => return Err(c.unexpected()),
    };
    c.skip();
    Ok(Statement::Discard { what: what.to_string() })
}

/// `EXTENSION [IF NOT EXISTS] vector [[WITH] SCHEMA schema] [CASCADE]`, with which pgvector's clients begin: its type is there.
pub(super) fn has_vectors(c: &mut Cursor<'_>) -> bool {
    let mut ahead = *c;
    if !ahead.eat("EXTENSION") {
        return false;
    }
    ahead.eat_all(&["IF", "NOT", "EXISTS"]);
    let is_vector = ahead.label().is_ok_and(|name| name == "vector");
    ahead.eat("WITH");
    let is_anywhere = !ahead.eat("SCHEMA") || ahead.label().is_ok();
    ahead.eat("CASCADE");
    if is_vector && is_anywhere {
        *c = ahead;
    }
    is_vector && is_anywhere
}

/// `VACUUM` and `ANALYZE`: there is nothing to clean or to count, but their lists must be well-formed.
pub(super) fn maintenance(c: &mut Cursor<'_>, tag: &'static str) -> PlanResult<Statement> {
    c.skip();
    if c.at_token(&Token::LParen) {
        c.options_without_equals()?;
    }
    for word in ["FULL", "FREEZE", "VERBOSE", "ANALYZE", "ANALYSE"] {
        c.eat(word);
    }
    while !c.done() {
        c.object_name()?;
        if c.at_token(&Token::LParen) {
            c.names()?;
        }
        if !c.eat_token(&Token::Comma) {
            break;
        }
    }
    Ok(Statement::Nothing { tag })
}

impl Cursor<'_> {
    /// `( name [value], … )`, read and forgotten.
    fn options_without_equals(&mut self) -> PlanResult<()> {
        self.list(|c| {
            c.label()?;
            if !c.done() && !c.at_token(&Token::Comma) {
                c.option_value()?;
            }
            Ok(())
        })
    }
}
