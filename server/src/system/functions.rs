//! The functions of `pg_catalog` that clients call. They are registered without a schema: rewriting drops the prefix.

use super::{
    SystemTablesOf, acl, format,
    inventory::{CONSTRAINT, DATABASE, INDEX, Inventory, quote_ident},
    pg_catalog::{ASKING, index_definition},
    privileges,
    regclass::Reg,
    row_function::{Args, RowFunction},
    row_json, row_lists,
    tableoid::FROZEN,
};
use crate::{outbox::Outbox, pg::Bell, rights::Actor, session::search_path, wire::types::type_name};
use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::{
    common::ScalarValue,
    error::{DataFusionError, Result as DfResult},
    logical_expr::ScalarUDF,
};
use std::{collections::BTreeSet, sync::Arc, sync::LazyLock};
use tidemark_catalog::{ObjectId, Snapshot, TEMPORARY_SCHEMA, UTC, looked_for};
use tidemark_planner::{PlanError, PlanResult, error::sqlstate};

/// Where nothing is set.
const DEFAULT_PATH: &str = "\"$user\", public";

/// A session's settings, as `current_setting` and `set_config` reach them.
pub trait Settings: Send + Sync {
    /// The value of a setting by its lower-case name; `None` where there is no such setting.
    fn get(&self, name: &str) -> Option<String>;
    /// Sets it for the session, or for the transaction only.
    fn set(&self, name: &str, value: &str, local: bool) -> PlanResult<()>;
}

/// What functions know of the session that calls them.
#[derive(Clone)]
pub struct SessionFacts {
    pub user: String,
    /// As whom it logged in.
    pub role: ObjectId,
    pub backend_pid: i32,
    /// When the server started, microseconds.
    pub server_start_us: i64,
    pub settings: Arc<dyn Settings>,
    pub outbox: Arc<Outbox>,
}

impl SessionFacts {
    /// The role that `SET ROLE` has set.
    fn role_set(&self) -> Option<String> {
        self.settings.get("role").filter(|role| role != "none")
    }

    /// As whom it acts.
    pub fn actor(&self, system: &SystemTablesOf) -> Actor {
        let access = &system.snapshot().access;
        let role = match self.role_set() {
            None => self.role,
            Some(name) => access.role_named(&name).map_or(ObjectId(u32::MAX), |role| role.id),
        };
        Actor::of(access, role)
    }

    /// Where it looks for names without a schema.
    fn path(&self, system: &SystemTablesOf) -> Vec<String> {
        let setting = self.settings.get("search_path").unwrap_or_else(|| DEFAULT_PATH.to_string());
        let user = self.role_set().unwrap_or_else(|| self.user.clone());
        search_path(&setting, &user, system.snapshot(), &self.actor(system))
    }
}

/// `version()`: clients read the number, people the name.
pub fn version() -> String {
    format!(
        "PostgreSQL 15.14 (Tidemark {}) on {}-{}, a feature database that speaks PostgreSQL's protocol",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS
    )
}

/// Settings that PostgreSQL has, clients ask for, and nothing here depends on.
const FIXED: [(&str, &str); 12] = [
    ("server_version", "15.14"),
    ("server_version_num", "150014"),
    ("jit", "off"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("block_size", "8192"),
    ("integer_datetimes", "on"),
    ("is_superuser", "on"),
    ("lc_collate", "C.UTF-8"),
    ("lc_ctype", "C.UTF-8"),
    ("in_hot_standby", "off"),
    ("server_encoding", "UTF8"),
];

/// The names of all of them, for recognising statements that call one.
pub static NAMES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    struct NoSettings;
    impl Settings for NoSettings {
        fn get(&self, _: &str) -> Option<String> {
            None
        }
        fn set(&self, _: &str, _: &str, _: bool) -> PlanResult<()> {
            Ok(())
        }
    }
    let (user, role) = (String::new(), tidemark_catalog::role::OWNER);
    let outbox = Arc::new(Outbox::new(Arc::default(), Bell::default(), 0));
    let settings = Arc::new(NoSettings);
    let nobody = SessionFacts { user, role, backend_pid: 0, server_start_us: 0, settings, outbox };
    let nothing = SystemTablesOf::new(Arc::new(Snapshot::default()), Arc::new(super::NoStats));
    functions(Arc::new(move || nothing.clone()), nobody).iter().map(|f| f.name().to_string()).collect()
});

fn text(value: impl Into<Option<String>>) -> DfResult<ScalarValue> {
    Ok(ScalarValue::Utf8(value.into()))
}

fn int8(value: impl Into<Option<i64>>) -> DfResult<ScalarValue> {
    Ok(ScalarValue::Int64(value.into()))
}

fn boolean(value: impl Into<Option<bool>>) -> DfResult<ScalarValue> {
    Ok(ScalarValue::Boolean(value.into()))
}

fn names(values: &[&str]) -> ScalarValue {
    let values: Vec<ScalarValue> = values.iter().map(|v| ScalarValue::Utf8(Some(v.to_string()))).collect();
    ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Utf8))
}

/// The system's tables as they are when a function is called, so that a session can register its functions once.
pub type Current = Arc<dyn Fn() -> SystemTablesOf + Send + Sync>;

/// The functions of `pg_catalog` for one session. They replace DataFusion's own of the same name.
pub fn functions(system: Current, session: SessionFacts) -> Vec<Arc<ScalarUDF>> {
    let facts = session.clone();
    let of_session: Current = Arc::new(move || {
        let all = system();
        let path = facts.path(&all);
        all.on_path(path)
    });
    let system = &of_session;
    let mut all = about_session(system, session.clone());
    all.extend(about_relations(system));
    all.extend(about_names(system, &session));
    all.extend(constants());
    all.extend(privileges::functions(system, &session));
    all.extend(acl::functions(system));
    all.extend(row_lists::functions());
    all.push(row_json::function());
    all
}

fn about_session(system: &Current, session: SessionFacts) -> Vec<Arc<ScalarUDF>> {
    let mut all = vec![];
    for name in ["current_user", "current_role", "user"] {
        let session = session.clone();
        let current = move |_: Args<'_>| text(session.role_set().unwrap_or_else(|| session.user.clone()));
        all.push(RowFunction::new(name, DataType::Utf8, current).shown_as("name").udf());
    }
    let user = session.user.clone();
    all.push(RowFunction::new("session_user", DataType::Utf8, move |_| text(user.clone())).shown_as("name").udf());
    for (name, value) in [("current_database", DATABASE), ("current_catalog", DATABASE)] {
        all.push(RowFunction::new(name, DataType::Utf8, move |_| text(value.to_string())).shown_as("name").udf());
    }
    let first = system.clone();
    let current = move |_: Args<'_>| text(first().path().first().cloned());
    all.push(RowFunction::new("current_schema", DataType::Utf8, current).shown_as("name").udf());
    let of_path = system.clone();
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    all.push(
        RowFunction::new("current_schemas", list, move |args| {
            let tables = of_path();
            match args.bool(0) {
                Some(true) => {
                    let all: Vec<&str> = looked_for(tables.path()).filter(|name| *name != TEMPORARY_SCHEMA).collect();
                    Ok(names(&all))
                }
                _ => Ok(names(&tables.path().iter().map(String::as_str).collect::<Vec<_>>())),
            }
        })
        .shown_as("_name")
        .udf(),
    );
    let settings = session.settings.clone();
    all.push(
        RowFunction::new("current_setting", DataType::Utf8, move |args| {
            let Some(name) = args.text(0) else { return text(None) };
            match setting(settings.as_ref(), name) {
                Some(value) => text(value),
                None if args.bool(1) == Some(true) => text(None),
                None => Err(unknown_setting(name).into()),
            }
        })
        .udf(),
    );
    let settings = session.settings.clone();
    all.push(
        RowFunction::new("set_config", DataType::Utf8, move |args| {
            let Some(name) = args.text(0) else { return text(None) };
            let (folded, value) = (name.to_lowercase(), args.text(1).unwrap_or_default());
            match settings.set(&folded, value, args.bool(2) == Some(true)) {
                Ok(()) => text(setting(settings.as_ref(), name).unwrap_or_else(|| value.to_string())),
                Err(_) if FIXED.iter().any(|(fixed, _)| *fixed == folded) => text(setting(settings.as_ref(), name)),
                Err(error) => Err(error.into()),
            }
        })
        .volatile()
        .udf(),
    );
    let outbox = session.outbox.clone();
    let notify = move |args: Args<'_>| match args.text(0) {
        Some(channel) => match outbox.notify(channel, args.text(1).unwrap_or_default()) {
            Ok(()) => text(String::new()),
            Err(error) => Err(DataFusionError::External(Box::new(error))),
        },
        // As PostgreSQL: NULL is no name either.
        None => Err(PlanError::new(sqlstate::INVALID_PARAMETER, "channel name cannot be empty").into()),
    };
    all.push(RowFunction::new("pg_notify", DataType::Utf8, notify).shown_as("void").volatile().udf());
    let outbox = session.outbox.clone();
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    all.push(
        RowFunction::new("channels$list", list, move |_| {
            let channels: Vec<String> = outbox.listens();
            Ok(names(&channels.iter().map(String::as_str).collect::<Vec<_>>()))
        })
        .volatile()
        .udf(),
    );
    let pid = session.backend_pid;
    all.push(RowFunction::new("pg_backend_pid", DataType::Int32, move |_| Ok(ScalarValue::Int32(Some(pid)))).udf());
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
    for name in ["pg_postmaster_start_time", "pg_conf_load_time"] {
        let start = session.server_start_us;
        all.push(
            RowFunction::new(name, instant.clone(), move |_| {
                Ok(ScalarValue::TimestampMicrosecond(Some(start), Some(UTC.into())))
            })
            .udf(),
        );
    }
    // Statements are not transactions of a log here; the catalog's generation is what grows.
    for name in ["txid_current", "pg_current_xact_id"] {
        let system = system.clone();
        all.push(
            RowFunction::new(name, DataType::Int64, move |_| int8(system().snapshot().generation as i64 + 1)).udf(),
        );
    }
    all
}

fn setting(settings: &dyn Settings, name: &str) -> Option<String> {
    let name = name.to_lowercase();
    let fixed = || FIXED.iter().find(|(fixed, _)| *fixed == name).map(|(_, value)| value.to_string());
    settings.get(&name).or_else(fixed)
}

fn unknown_setting(name: &str) -> PlanError {
    PlanError::new(sqlstate::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""))
}

/// A function of the inventory that gives text.
fn of_inventory(
    system: &Current,
    name: &'static str,
    body: impl Fn(&Inventory, Args<'_>) -> Option<String> + Send + Sync + 'static,
) -> Arc<ScalarUDF> {
    let system = system.clone();
    RowFunction::new(name, DataType::Utf8, move |args| text(body(system().inventory(), args))).udf()
}

fn about_relations(system: &Current) -> Vec<Arc<ScalarUDF>> {
    let (visible, defined) = (system.clone(), system.clone());
    vec![
        RowFunction::new("pg_table_is_visible", DataType::Boolean, move |args| {
            let oid = args.int(0);
            boolean(oid.map(|oid| {
                let system = visible();
                let inventory = system.inventory();
                let relation = inventory.by_oid(oid).or_else(|| inventory.by_key(oid, INDEX));
                relation.is_some_and(|r| inventory.is_visible(r, system.path()))
            }))
        })
        .udf(),
        RowFunction::new("pg_get_viewdef", DataType::Utf8, move |args| {
            let tables = defined();
            let inventory = tables.inventory();
            let relation = match args.int(0) {
                Some(oid) => inventory.by_oid(oid),
                None => args.text(0).and_then(|written| inventory.by_name(written, tables.path())),
            };
            let query = relation.and_then(|relation| relation.query.as_ref());
            text(query.map(|query| format!("{};", query.trim().trim_end_matches(';'))))
        })
        .udf(),
        of_inventory(system, "pg_get_indexdef", |inventory, args| {
            let relation = inventory.by_key(args.int(0)?, INDEX)?;
            match args.int(1).unwrap_or(0) {
                0 => Some(index_definition(relation)),
                column => {
                    let position = relation.key.get(usize::try_from(column - 1).ok()?)?;
                    Some(quote_ident(&relation.columns[*position].name))
                }
            }
        }),
        of_inventory(system, "pg_get_constraintdef", |inventory, args| {
            let relation = inventory.by_key(args.int(0)?, CONSTRAINT)?;
            Some(format!("PRIMARY KEY ({})", relation.key_columns()))
        }),
        of_inventory(system, "obj_description", |inventory, args| {
            if args.text(1) == Some("pg_proc") {
                return inventory.aggregate(args.int(0)?)?.comment.clone();
            }
            if args.text(1) == Some("pg_namespace") {
                return inventory.schema(args.int(0)?)?.comment.clone();
            }
            if args.text(1).is_some_and(|catalog| catalog != "pg_class") {
                return None;
            }
            inventory.by_oid(args.int(0)?)?.comment.clone()
        }),
        of_inventory(system, "pg_get_function_arguments", |inventory, args| {
            Some(inventory.aggregate(args.int(0)?)?.aggregate()?.arguments())
        }),
        of_inventory(system, "pg_get_function_identity_arguments", |inventory, args| {
            Some(inventory.aggregate(args.int(0)?)?.aggregate()?.arguments())
        }),
        of_inventory(system, "pg_get_function_result", |inventory, args| {
            Some(inventory.aggregate(args.int(0)?)?.aggregate()?.returns.to_string())
        }),
        of_inventory(system, "col_description", |inventory, args| {
            let column = usize::try_from(args.int(1)? - 1).ok()?;
            inventory.by_oid(args.int(0)?)?.columns.get(column)?.comment.clone()
        }),
    ]
}

fn about_names(system: &Current, session: &SessionFacts) -> Vec<Arc<ScalarUDF>> {
    let mut all = vec![];
    for reg in Reg::ALL {
        let (oid_of, name_of) = reg.functions();
        let (tables, user) = (system.clone(), session.user.clone());
        all.push(
            RowFunction::new(oid_of, DataType::Int64, move |args| match args.text(0) {
                None => int8(args.int(0)),
                Some(written) => match reg.oid(written, &tables(), &user) {
                    Some(oid) => int8(oid),
                    None => Err(reg.missing(written).into()),
                },
            })
            .shown_as("oid")
            .udf(),
        );
        let (tables, user) = (system.clone(), session.user.clone());
        all.push(
            RowFunction::new(name_of, DataType::Utf8, move |args| match (args.text(0), args.int(0)) {
                // A function's name is kept as text already.
                (Some(written), None) if reg == Reg::Proc => text(written.to_string()),
                (_, Some(oid)) => text(reg.name(oid, &tables(), &user)),
                (Some(written), None) => match reg.oid(written, &tables(), &user) {
                    Some(oid) => text(reg.name(oid, &tables(), &user)),
                    None => Err(reg.missing(written).into()),
                },
                (None, None) => text(None),
            })
            .udf(),
        );
    }
    for (name, reg) in [
        ("to_regclass", Reg::Class),
        ("to_regtype", Reg::Type),
        ("to_regnamespace", Reg::Namespace),
        ("to_regrole", Reg::Role),
        ("to_regproc", Reg::Proc),
    ] {
        let (tables, user) = (system.clone(), session.user.clone());
        all.push(
            RowFunction::new(name, DataType::Int64, move |args| {
                int8(args.text(0).and_then(|written| reg.oid(written, &tables(), &user)))
            })
            .shown_as("oid")
            .udf(),
        );
    }
    let (tables, user) = (system.clone(), session.user.clone());
    all.push(
        RowFunction::new("pg_get_userbyid", DataType::Utf8, move |args| {
            text(args.int(0).map(|oid| match tables().inventory().role_name(oid) {
                Some(name) => name.to_string(),
                None if oid == ASKING => user.clone(),
                None => format!("unknown (OID={oid})"),
            }))
        })
        .shown_as("name")
        .udf(),
    );
    all.push(
        RowFunction::new("format_type", DataType::Utf8, |args| {
            text(args.int(0).map(|oid| format_type(oid, args.int(1).unwrap_or(-1))))
        })
        .udf(),
    );
    all
}

/// The SQL spelling of a type with its modifier.
fn format_type(type_oid: i64, typmod: i64) -> String {
    use crate::wire::types::oid;
    let Ok(type_oid) = u32::try_from(type_oid) else { return "???".to_string() };
    if type_oid == 0 {
        return "-".to_string();
    }
    let name = type_name(type_oid);
    let element = crate::wire::types::element_oid(type_oid);
    let modifier = match element.unwrap_or(type_oid) {
        oid::VECTOR if typmod > 0 => format!("({typmod})"),
        _ if typmod < 4 => return name,
        oid::NUMERIC => format!("({},{})", (typmod - 4) >> 16 & 0xffff, (typmod - 4) & 0x7ff),
        oid::VARCHAR | oid::BPCHAR => format!("({})", typmod - 4),
        _ => return name,
    };
    match element {
        Some(_) => format!("{}{modifier}[]", name.trim_end_matches("[]")),
        None => format!("{name}{modifier}"),
    }
}

/// Functions whose answer depends on nothing but their arguments.
fn constants() -> Vec<Arc<ScalarUDF>> {
    let mut all = vec![
        RowFunction::new("version", DataType::Utf8, |_| text(version())).udf(),
        RowFunction::new("pg_encoding_to_char", DataType::Utf8, |args| {
            text(args.int(0).map(|encoding| if encoding == 6 { "UTF8" } else { "" }.to_string()))
        })
        .shown_as("name")
        .udf(),
        RowFunction::new("quote_ident", DataType::Utf8, |args| text(args.text(0).map(quote_ident))).udf(),
        RowFunction::new("quote_literal", DataType::Utf8, |args| {
            text(args.text(0).map(|value| format!("'{}'", value.replace('\'', "''"))))
        })
        .udf(),
        RowFunction::new("format", DataType::Utf8, |args| text(format::format(&args)?)).udf(),
        // A cast, written as a call.
        RowFunction::new("bpchar", DataType::Utf8, |args| text(args.text(0).map(str::to_string))).udf(),
        RowFunction::new("pg_size_pretty", DataType::Utf8, |args| text(args.int(0).map(size_pretty))).udf(),
        RowFunction::new("pg_advisory_unlock_all", DataType::Utf8, |_| text(String::new())).shown_as("void").udf(),
        // Of a table that is no partition this is the table itself.
        RowFunction::new("pg_partition_ancestors", DataType::Int64, |args| int8(args.int(0))).shown_as("oid").udf(),
        RowFunction::new("pg_my_temp_schema", DataType::Int64, |_| int8(0)).shown_as("oid").udf(),
        RowFunction::new("array_upper", DataType::Int64, |args| {
            let length = match args.0.first() {
                Some(ScalarValue::List(list)) if args.int(1) == Some(1) && !args.is_null(0) => {
                    Some(list.value_length(0))
                }
                _ => None,
            };
            int8(length.filter(|n| *n > 0).map(i64::from))
        })
        .udf(),
        RowFunction::new("like_escape", DataType::Utf8, |args| {
            let (Some(pattern), Some(escape)) = (args.text(0), args.text(1)) else { return text(None) };
            text(like_escape(pattern, escape))
        })
        .udf(),
        RowFunction::new(FROZEN, DataType::Int64, |_| int8(2)).shown_as("xid").udf(),
        // Nobody waits for another's lock.
        RowFunction::new(
            "pg_blocking_pids",
            DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true))),
            |_| Ok(ScalarValue::List(ScalarValue::new_list_nullable(&[], &DataType::Int32))),
        )
        .udf(),
        RowFunction::new("pg_relation_is_updatable", DataType::Int32, |_| Ok(ScalarValue::Int32(Some(0)))).udf(),
    ];
    // Sizes are not measured; unknown is better than wrong.
    for name in [
        "pg_table_size",
        "pg_relation_size",
        "pg_total_relation_size",
        "pg_indexes_size",
        "pg_database_size",
        "pg_tablespace_size",
    ] {
        all.push(RowFunction::new(name, DataType::Int64, |_| int8(None)).udf());
    }
    for name in [
        "pg_is_in_recovery",
        "pg_is_other_temp_schema",
        "pg_relation_is_publishable",
        "row_security_active",
        "pg_is_wal_replay_paused",
    ] {
        all.push(RowFunction::new(name, DataType::Boolean, |_| boolean(false)).udf());
    }
    for name in [
        "pg_function_is_visible",
        "pg_type_is_visible",
        "pg_operator_is_visible",
        "pg_opclass_is_visible",
        "pg_opfamily_is_visible",
        "pg_collation_is_visible",
        "pg_conversion_is_visible",
        "pg_statistics_obj_is_visible",
        "pg_ts_config_is_visible",
    ] {
        all.push(RowFunction::new(name, DataType::Boolean, |args| boolean((!args.is_null(0)).then_some(true))).udf());
    }
    for name in ["pg_client_encoding", "getdatabaseencoding"] {
        all.push(RowFunction::new(name, DataType::Utf8, |_| text("UTF8".to_string())).shown_as("name").udf());
    }
    // About defaults, triggers, rules, functions, partitions, sequences: there are none.
    for name in [
        "pg_get_expr",
        "pg_get_triggerdef",
        "pg_get_ruledef",
        "pg_get_functiondef",
        "pg_get_function_arg_default",
        "pg_get_function_sqlbody",
        "pg_get_statisticsobjdef",
        "pg_get_statisticsobjdef_columns",
        "pg_get_partkeydef",
        "pg_get_partition_constraintdef",
        "pg_get_serial_sequence",
        "pg_tablespace_location",
        "shobj_description",
        "inet_server_addr",
        "inet_client_addr",
    ] {
        all.push(RowFunction::new(name, DataType::Utf8, |_| text(None)).udf());
    }
    all
}

/// A LIKE pattern with another escape character, or none, as one with the backslash.
fn like_escape(pattern: &str, escape: &str) -> String {
    let escape = escape.chars().next();
    let mut escaped = String::with_capacity(pattern.len() + 4);
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        if Some(c) == escape {
            escaped.push('\\');
            escaped.extend(characters.next());
        } else {
            if c == '\\' {
                escaped.push('\\');
            }
            escaped.push(c);
        }
    }
    escaped
}

/// PostgreSQL's rule: the next unit from 10 of it on, rounded half away from zero.
fn size_pretty(bytes: i64) -> String {
    let mut size = bytes as i128 * 2;
    for unit in ["bytes", "kB", "MB", "GB", "TB"] {
        let rounded = (size + size.signum()) / 2;
        if rounded.abs() < 10 * 1024 || unit == "TB" {
            return format!("{rounded} {unit}");
        }
        size /= 1024;
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_spelled_as_format_type_spells_them() {
        let cases = [
            (20, -1, "bigint"),
            (1700, (10 << 16 | 2) + 4, "numeric(10,2)"),
            (1043, 14, "character varying(10)"),
            (1009, -1, "text[]"),
            (16020, -1, "vector"),
            (16020, 3, "vector(3)"),
            (16021, 3, "vector(3)[]"),
            (1231, (10 << 16 | 2) + 4, "numeric(10,2)[]"),
            (0, -1, "-"),
            (99999, -1, "???"),
        ];
        for (oid, typmod, expected) in cases {
            assert_eq!(format_type(oid, typmod), expected);
        }
    }

    #[test]
    fn an_escape_character_becomes_the_backslash() {
        assert_eq!(like_escape("pg/_%", "/"), r"pg\_%");
        assert_eq!(like_escape(r"a\b//c", "/"), r"a\\b\/c");
        assert_eq!(like_escape("a_b", ""), "a_b");
    }

    #[test]
    fn sizes_are_rounded_as_postgresql_rounds_them() {
        for (bytes, expected) in
            [(0, "0 bytes"), (10239, "10239 bytes"), (10240, "10 kB"), (8192 * 1000, "8000 kB"), (1 << 30, "1024 MB")]
        {
            assert_eq!(size_pretty(bytes), expected);
        }
    }

    #[test]
    fn the_version_is_postgresql_15_and_names_tidemark() {
        assert!(version().starts_with("PostgreSQL 15."));
        assert!(version().contains("Tidemark"));
    }
}
