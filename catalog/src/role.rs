//! Roles: who may log in, and what they are members of. A role is never without an id that outlives its name, and its
//! password is kept only as the verifier that SCRAM needs.

use crate::ObjectId;
use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    pub id: ObjectId,
    pub name: String,
    /// It may do everything, and nothing is asked of it.
    pub superuser: bool,
    /// It has what the roles have that it is a member of, without `SET ROLE`.
    pub inherit: bool,
    pub create_role: bool,
    pub create_db: bool,
    pub login: bool,
    /// `SCRAM-SHA-256$iterations:salt$stored key:server key`, as PostgreSQL has it; `None`: no password.
    pub verifier: Option<String>,
    #[serde(default)]
    pub member_of: Vec<Membership>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    pub role: ObjectId,
    /// It may make others members.
    pub admin: bool,
    pub grantor: ObjectId,
}

/// The verifier is nobody's to see.
impl std::fmt::Debug for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Role { id, name, superuser, inherit, create_role, create_db, login, verifier, member_of } = self;
        f.debug_struct("Role")
            .field("id", id)
            .field("name", name)
            .field("superuser", superuser)
            .field("inherit", inherit)
            .field("create_role", create_role)
            .field("create_db", create_db)
            .field("login", login)
            .field("has_password", &verifier.is_some())
            .field("member_of", member_of)
            .finish()
    }
}

/// The superuser that is always there, and owns what nobody else does.
pub const OWNER: ObjectId = ObjectId(10);
/// May see what operators look at: the audit log.
pub const MONITOR: ObjectId = ObjectId(3373);
pub const CHECKPOINT: ObjectId = ObjectId(4544);
/// May name files of the server to read.
pub const READ_SERVER_FILES: ObjectId = ObjectId(4569);
/// May name files of the server to write.
pub const WRITE_SERVER_FILES: ObjectId = ObjectId(4570);
pub const READ_ALL_DATA: ObjectId = ObjectId(6181);
pub const WRITE_ALL_DATA: ObjectId = ObjectId(6182);
/// For serving: SELECT on every feature view and every view, and nothing else.
pub const READER: ObjectId = ObjectId(16011);
/// May name brokers and online stores that the server is to connect to.
pub const CONNECTOR: ObjectId = ObjectId(16012);

/// Roles that are always there: PostgreSQL's by its OIDs where what they mean exists here, and two of our own.
const PREDEFINED: [(ObjectId, &str); 9] = [
    (OWNER, "tidemark"),
    (MONITOR, "pg_monitor"),
    (CHECKPOINT, "pg_checkpoint"),
    (READ_SERVER_FILES, "pg_read_server_files"),
    (WRITE_SERVER_FILES, "pg_write_server_files"),
    (READ_ALL_DATA, "pg_read_all_data"),
    (WRITE_ALL_DATA, "pg_write_all_data"),
    (READER, "tidemark_reader"),
    (CONNECTOR, "tidemark_connector"),
];

/// As they are before anybody has changed one.
pub(crate) fn predefined() -> impl Iterator<Item = Role> {
    PREDEFINED.into_iter().map(|(id, name)| Role {
        superuser: id == OWNER,
        create_role: id == OWNER,
        create_db: id == OWNER,
        login: id == OWNER,
        ..Role::new(id, name)
    })
}

impl Role {
    /// One that may do nothing yet.
    pub fn new(id: ObjectId, name: impl Into<String>) -> Role {
        Role {
            id,
            name: name.into(),
            superuser: false,
            inherit: true,
            create_role: false,
            create_db: false,
            login: false,
            verifier: None,
            member_of: vec![],
        }
    }

    /// Whether it is one of those that are always there.
    pub fn is_predefined(&self) -> bool {
        self.id < ObjectId::FIRST
    }

    /// Names that no role of a user's may have.
    pub fn is_reserved(name: &str) -> bool {
        name.starts_with("pg_") || name == "public" || name == "none"
    }
}
