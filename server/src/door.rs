//! Who is let in: the rules of the settings over the roles of the catalog.
//!
//! ```text
//! hba = auto    as long as no role has a password   this machine: everybody, under any name        others: nobody
//!               from then on                        everybody by his password, wherever he is
//! hba = rules   the first that fits
//! ```

use crate::{
    pg::{self, Admission, ListenError, Login, PgError, Tls, TlsError, TlsFiles},
    scram::Verifier,
    settings::{
        Settings, Ssl,
        hba::{Caller, Hba, Method},
    },
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tidemark_catalog::{Access, ObjectId, role};
use tokio::net::TcpListener;

pub struct Door {
    /// `None`: auto.
    hba: Option<Hba>,
}

/// Why the server does not open its door.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{0}\nHINT: {1}")]
    Settings(&'static str, &'static str),
}

impl Door {
    pub fn new(settings: &Settings) -> Door {
        Door { hba: settings.hba.clone() }
    }

    /// Opens the port where that is no mistake whatever the catalog has. See [`Door::check`].
    pub async fn listen(&self, address: SocketAddr) -> Result<TcpListener, DoorError> {
        if address.ip().to_canonical().is_loopback() {
            return Ok(pg::bind(address).await?);
        }
        if let Some(rule) = self.hba.as_ref().and_then(Hba::trusting) {
            return Err(ListenError::Trusting { address, rule }.into());
        }
        Ok(pg::bind_guarded(address).await?)
    }

    /// Refuses an address beyond this machine where nobody could show who he is.
    pub fn check(&self, address: SocketAddr, access: &Access) -> Result<(), DoorError> {
        let is_open = !address.ip().to_canonical().is_loopback();
        if is_open && self.hba.is_none() && !access.has_password() {
            return Err(ListenError::NotLoopback { address }.into());
        }
        Ok(())
    }

    /// On what condition a client is let in, and as which role. A name that nobody has is asked for its password, too.
    pub fn admit(&self, access: &Access, login: &Login<'_>) -> Result<Admission, PgError> {
        // One in this process.
        let address = login.peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.ip().to_canonical());
        let Some(hba) = &self.hba else {
            if !access.has_password() && address.is_loopback() {
                let role = access.role_named(login.user).map_or(role::OWNER, |role| role.id);
                return Ok(Admission { verifier: None, role: role.0 });
            }
            return Ok(by_password(access, login.user));
        };
        let caller = Caller { address, is_encrypted: login.is_encrypted, user: login.user, database: login.database };
        let is_member = |of: &str| {
            let (Some(role), Some(of)) = (access.role_named(login.user), access.role_named(of)) else { return false };
            access.memberships(role.id).contains(&of.id)
        };
        let Some((number, rule)) = hba.find(&caller, is_member) else {
            let how = if login.is_encrypted { "encrypted" } else { "not encrypted" };
            return Err(denied(format!(
                "no rule of hba for host \"{address}\", user \"{}\", database \"{}\", {how}",
                login.user, login.database
            )));
        };
        if rule.wants_certificate || rule.method == Method::Cert {
            check_certificate(login)?;
        }
        match rule.method {
            Method::Reject => Err(denied(format!(
                "rule {number} of hba rejects host \"{address}\", user \"{}\", database \"{}\"",
                login.user, login.database
            ))),
            Method::Scram => Ok(by_password(access, login.user)),
            Method::Trust | Method::Cert => match access.role_named(login.user) {
                Some(role) => Ok(Admission { verifier: None, role: role.id.0 }),
                None => Err(denied(format!("role \"{}\" does not exist", login.user))),
            },
        }
    }
}

fn denied(message: String) -> PgError {
    PgError::fatal("28000", message)
}

fn by_password(access: &Access, user: &str) -> Admission {
    let role = access.role_named(user);
    let known = role.and_then(|role| Some((Verifier::read(role.verifier.as_ref()?)?, role.id)));
    let (verifier, id) = known.unwrap_or_else(|| (Verifier::mock(user, access.mock), NOBODY));
    Admission { verifier: Some(verifier), role: id.0 }
}

/// No role has it: nobody is admitted as one that is not there.
const NOBODY: ObjectId = ObjectId(u32::MAX);

fn check_certificate(login: &Login<'_>) -> Result<(), PgError> {
    let user = login.user;
    let failed = |why: String| {
        let message = format!("certificate authentication failed for user \"{user}\"");
        Err(PgError::fatal("28000", message).detail(why))
    };
    let Some(certificate) = login.certificate else {
        return failed("the client has shown no certificate".to_string());
    };
    match pg::common_name(certificate) {
        Some(name) if name == user => Ok(()),
        Some(name) => failed(format!("its certificate is for \"{name}\"")),
        None => failed("its certificate has no common name".to_string()),
    }
}

/// What encrypts connections, by the settings.
///
/// # Errors
/// It is asked for and cannot be had: then the server does not start.
pub fn tls(settings: &Settings) -> Result<Option<Arc<Tls>>, DoorError> {
    let hba = settings.hba.as_ref();
    let Settings { ssl, ssl_cert_file, ssl_key_file, ssl_ca_file, .. } = settings;
    if *ssl == Ssl::Off {
        let has_file = [ssl_cert_file, ssl_key_file, ssl_ca_file].iter().any(|file| file.is_some());
        if has_file || hba.is_some_and(Hba::wants_encryption) {
            return Err(DoorError::Settings(
                "certificates or rules for encrypted connections are given, and ssl is off",
                "--ssl on, or --ssl require to refuse all others",
            ));
        }
        return Ok(None);
    }
    let (Some(certificate), Some(key)) = (ssl_cert_file, ssl_key_file) else {
        return Err(DoorError::Settings(
            "ssl needs a certificate and its private key",
            "--ssl-cert-file and --ssl-key-file name PEM files; the server does not start without encryption instead",
        ));
    };
    if ssl_ca_file.is_none() && hba.is_some_and(Hba::wants_certificates) {
        return Err(DoorError::Settings(
            "a rule of hba wants client certificates, and there is nothing to verify them with",
            "--ssl-ca-file names a PEM file of the root certificates that sign them",
        ));
    }
    let files = TlsFiles { certificate, key, client_roots: ssl_ca_file.as_deref() };
    Ok(Some(Arc::new(Tls::load(files, *ssl == Ssl::Require)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_catalog::Role;

    fn access(roles: &[(&str, bool)]) -> Access {
        let mut access = Access::default();
        for (i, (name, has_password)) in roles.iter().enumerate() {
            let verifier = has_password.then(|| Verifier::mock(name, 1).to_string());
            let id = ObjectId(20_000 + i as u32);
            access.put_role(Role { login: true, verifier, ..Role::new(id, *name) });
        }
        access
    }

    fn admitted(rules: &str, access: &Access, peer: &str, user: &str) -> Result<(bool, u32), String> {
        let door = Door { hba: crate::settings::hba::hba(rules).unwrap() };
        let peer = Some(SocketAddr::new(peer.parse().unwrap(), 1));
        let login = Login { peer, is_encrypted: false, certificate: None, user, database: "tidemark" };
        let admission = door.admit(access, &login).map_err(|error| error.message)?;
        Ok((admission.verifier.is_some(), admission.role))
    }

    #[test]
    fn without_passwords_this_machine_is_trusted_and_nobody_else() {
        let access = access(&[("ann", false)]);
        assert_eq!(admitted("auto", &access, "127.0.0.1", "ann"), Ok((false, 20_000)));
        assert_eq!(admitted("auto", &access, "::1", "anybody"), Ok((false, 10)));
        assert_eq!(admitted("auto", &access, "::ffff:127.0.0.1", "tidemark"), Ok((false, 10)));
        assert_eq!(admitted("auto", &access, "10.0.0.1", "ann"), Ok((true, u32::MAX)));
    }

    #[test]
    fn as_soon_as_one_role_has_a_password_everybody_needs_one() {
        let access = access(&[("ann", false), ("ben", true)]);
        for (user, role) in [("ann", u32::MAX), ("ben", 20_001), ("tidemark", u32::MAX), ("nobody", u32::MAX)] {
            assert_eq!(admitted("auto", &access, "127.0.0.1", user), Ok((true, role)), "{user}");
        }
    }

    #[test]
    fn rules_go_before() {
        let access = access(&[("ann", false), ("ben", true)]);
        let rules =
            "host all ben 10.0.0.0/8 scram-sha-256; host all mallory all reject; host all all 127.0.0.1/32 trust";
        assert_eq!(admitted(rules, &access, "10.1.1.1", "ben"), Ok((true, 20_001)));
        assert_eq!(admitted(rules, &access, "127.0.0.1", "ben"), Ok((false, 20_001)));
        assert_eq!(admitted(rules, &access, "127.0.0.1", "nobody"), Err("role \"nobody\" does not exist".into()));
        assert!(admitted(rules, &access, "10.1.1.1", "ann").unwrap_err().starts_with("no rule of hba"));
        assert!(admitted(rules, &access, "127.0.0.1", "mallory").unwrap_err().starts_with("rule 2 of hba rejects"));
    }

    #[test]
    fn an_open_address_needs_a_password_or_rules_that_trust_nobody_beyond() {
        let open = "0.0.0.0:5433".parse().unwrap();
        let auto = Door { hba: None };
        assert!(auto.check(open, &access(&[("ann", false)])).is_err());
        assert!(auto.check(open, &access(&[("ann", true)])).is_ok());
        assert!(auto.check("127.0.0.1:5433".parse().unwrap(), &Access::default()).is_ok());
    }
}
