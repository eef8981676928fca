//! Statements about roles, what they may do, and secrets.

use tidemark_catalog::{ObjectKind, Privileges, QualifiedName};

/// A text that is shown nowhere: a password, the value of a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// What `CREATE ROLE` and `ALTER ROLE` say of a role; `None`: nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RoleOptions {
    pub superuser: Option<bool>,
    pub inherit: Option<bool>,
    pub create_role: Option<bool>,
    pub create_db: Option<bool>,
    pub login: Option<bool>,
    /// `Some(None)`: `PASSWORD NULL`.
    pub password: Option<Option<Hidden>>,
    /// `IN ROLE a, b`: it becomes a member of these.
    pub in_roles: Vec<String>,
    /// `ROLE a, b`: these become members of it.
    pub members: Vec<String>,
    /// `ADMIN a, b`: so, and may make others members.
    pub admins: Vec<String>,
}

/// A role as a statement names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleName {
    Named(String),
    /// `CURRENT_USER`, `CURRENT_ROLE`
    Current,
    /// `SESSION_USER`
    Session,
    /// `PUBLIC`: everybody.
    Public,
}

/// On what something is granted.
#[derive(Debug, Clone, PartialEq)]
pub enum GrantTarget {
    /// `[TABLE | SOURCE | FEATURE VIEW | VIEW] name, …`; `None`: of any kind.
    Objects(Option<ObjectKind>, Vec<QualifiedName>),
    /// `ALL { TABLES | SOURCES | FEATURE VIEWS | VIEWS } IN SCHEMA name, …`; `None` is TABLES, which as in PostgreSQL are all
    /// relations: what there is when the statement runs.
    AllIn(Option<ObjectKind>, Vec<String>),
    Schemas(Vec<String>),
}

/// `GRANT privileges ON target TO roles`, `REVOKE privileges ON target FROM roles`
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    pub is_revoke: bool,
    /// `None`: ALL.
    pub privileges: Option<Privileges>,
    pub target: GrantTarget,
    pub roles: Vec<RoleName>,
}

/// `GRANT roles TO members`, `REVOKE [ADMIN OPTION FOR] roles FROM members`
#[derive(Debug, Clone, PartialEq)]
pub struct GrantRoles {
    pub is_revoke: bool,
    pub roles: Vec<String>,
    pub members: Vec<RoleName>,
    /// Of a GRANT: WITH ADMIN OPTION. Of a REVOKE: that alone.
    pub admin: bool,
}
