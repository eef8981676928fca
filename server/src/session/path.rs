//! Where a session looks for names without a schema: `search_path`, as far as its schemas are there and may be used.

use super::Session;
use crate::{database::Database, rights::Actor};
use std::{collections::BTreeSet, sync::Arc};
use tidemark_catalog::{
    ObjectId, PUBLIC_SCHEMA, Privileges, SYSTEM_SCHEMAS, SearchPath, Snapshot, history_schema, is_read_only,
    schema_of_history,
};

/// What was found last, and for what.
pub(super) struct Found {
    generation: u64,
    role: ObjectId,
    setting: String,
    user: String,
    /// `None`: `public` alone, which most sessions have.
    key: Option<Arc<str>>,
    snapshot: Arc<Snapshot>,
}

impl Session {
    /// The catalog as this session's names see it, without its temporary tables: what lasts is made over this.
    pub fn lasting(&self, database: &Database) -> Arc<Snapshot> {
        self.found(database).0
    }

    /// What is prepared on one path is not to be used on another: the schemas, in order. `None`: `public` alone. Every lookup asks.
    pub fn path_key(&self, database: &Database) -> Option<Arc<str>> {
        if let Some(known) = self.path.lock().as_ref().filter(|known| known.is_for(database.generation(), self)) {
            return known.key.clone();
        }
        self.found(database).1
    }

    /// The schemas where this session looks, in order.
    pub fn search_path(&self, database: &Database) -> Vec<String> {
        match self.found(database).0.path() {
            SearchPath::Schemas(path) => path.clone(),
            SearchPath::Definition(_) => vec![],
        }
    }

    fn found(&self, database: &Database) -> (Arc<Snapshot>, Option<Arc<str>>) {
        let all = database.snapshot();
        let mut found = self.path.lock();
        if let Some(known) = found.as_ref().filter(|known| known.is_for(all.generation, self)) {
            return (known.snapshot.clone(), known.key.clone());
        }
        let (setting, user, role) = self.looks();
        let actor = Actor::of(&all.access, role);
        let (path, closed) = (effective(setting, user, &all, &actor), closed(&all, &actor));
        let is_plain = path == [PUBLIC_SCHEMA];
        let key = (!is_plain).then(|| path.join(",").into());
        let generation = all.generation;
        let snapshot = match is_plain && closed.is_empty() {
            true => all,
            false => Arc::new(all.on(Arc::new(SearchPath::Schemas(path))).without_use_of(closed)),
        };
        let (setting, user) = (setting.to_string(), user.to_string());
        let known = found.insert(Found { generation, role, setting, user, key, snapshot });
        (known.snapshot.clone(), known.key.clone())
    }

    /// What the path depends on beside the catalog: the setting, who `$user` is, and as whom it acts.
    fn looks(&self) -> (&str, &str, ObjectId) {
        let user = match self.get("role") {
            None | Some("none") => self.user.as_str(),
            Some(role) => role,
        };
        (self.get("search_path").unwrap_or_default(), user, self.rights.actor.role)
    }
}

impl Found {
    fn is_for(&self, generation: u64, session: &Session) -> bool {
        self.generation == generation && (self.setting.as_str(), self.user.as_str(), self.role) == session.looks()
    }
}

/// The schemas of the setting that are there and may be used, each once.
pub fn effective(setting: &str, user: &str, snapshot: &Snapshot, actor: &Actor) -> Vec<String> {
    let mut path: Vec<String> = vec![];
    for name in names(setting) {
        let name = match name.as_str() {
            // Who is called as one of the server's schemas has not asked for that.
            "$user" if is_read_only(user) => continue,
            "$user" => user.to_string(),
            _ => name,
        };
        let of = schema_of_history(&name).unwrap_or(&name);
        let is_own = snapshot.schema(of).is_some();
        let may_use = is_own && actor.in_schema(&snapshot.access, of).contains(Privileges::USAGE);
        if (may_use || SYSTEM_SCHEMAS.contains(&name.as_str())) && !path.contains(&name) {
            path.push(name);
        }
    }
    path
}

/// The schemas that there are, those of history too, and that the role may not use.
fn closed(snapshot: &Snapshot, actor: &Actor) -> BTreeSet<String> {
    let all = snapshot.schemas().flat_map(|schema| [schema.name.clone(), history_schema(&schema.name)]);
    all.filter(|schema| !actor.in_schema(&snapshot.access, schema).contains(Privileges::USAGE)).collect()
}

/// The names of a list, as PostgreSQL reads one: those without quotes fold to lower case.
fn names(setting: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut quoted = false;
    let mut letters = setting.chars().peekable();
    while let Some(letter) = letters.next() {
        let Some(name) = names.last_mut() else { break };
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                name.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => names.push(String::new()),
            letter if quoted => name.push(letter),
            letter if letter.is_whitespace() => {}
            letter => name.extend(letter.to_lowercase()),
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_catalog::{Schema, role};

    #[test]
    fn a_list_of_names_is_read_as_postgresql_reads_it() {
        assert_eq!(names("\"$user\", public"), ["$user", "public"]);
        assert_eq!(names("Marts,\"My, marts\" , \"a\"\"b\""), ["marts", "My, marts", "a\"b"]);
        assert!(names("").is_empty() && names("\"\"").is_empty());
    }

    #[test]
    fn only_schemas_that_are_there_and_may_be_used_are_looked_into() {
        let schema = |id, name: &str| Schema { id: ObjectId(id), name: name.into(), created_us: 0, comment: None };
        let mut access = tidemark_catalog::Access::default();
        access.put_role(tidemark_catalog::Role::new(ObjectId(20000), "ann"));
        access.add_schema("marts", role::OWNER);
        access.add_schema("ann", ObjectId(20000));
        let snapshot = Snapshot::default().with_schemas([schema(10, "marts"), schema(11, "ann")]).with_access(access);
        let of =
            |role: ObjectId, setting: &str| effective(setting, "ann", &snapshot, &Actor::of(&snapshot.access, role));
        let all = "\"$user\", gone, marts, history_marts, public, marts, pg_catalog";
        assert_eq!(of(role::OWNER, all), ["ann", "marts", "history_marts", "public", "pg_catalog"]);
        assert_eq!(of(ObjectId(20000), all), ["ann", "public", "pg_catalog"]);
        let closed_to = |role: ObjectId| closed(&snapshot, &Actor::of(&snapshot.access, role));
        assert!(closed_to(role::OWNER).is_empty());
        let for_ann = closed_to(ObjectId(20000));
        assert!(for_ann.contains("marts") && for_ann.contains("history_marts") && !for_ann.contains("ann"));
        // The superuser is called as a schema of the server's.
        let default = "\"$user\", public";
        assert_eq!(effective(default, "tidemark", &snapshot, &Actor::of(&snapshot.access, role::OWNER)), ["public"]);
    }
}
