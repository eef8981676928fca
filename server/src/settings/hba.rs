//! Rules of who may connect from where and how he shows who he is: the columns of PostgreSQL's `pg_hba.conf`, in order,
//! by lines or semicolons. The first that fits decides; where none does the client is refused.
//!
//! ```text
//! # type   database  user    address        method
//! hostssl  all       +apps   10.0.0.0/8     scram-sha-256
//! hostssl  all       etl     10.1.2.3/32    cert
//! host     all       all     127.0.0.1/32   trust
//! ```

use super::value::Parsed;
use std::net::IpAddr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hba(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    encryption: Encryption,
    /// `None`: all.
    databases: Option<Vec<String>>,
    users: Option<Vec<User>>,
    addresses: Addresses,
    pub method: Method,
    /// `clientcert=verify-full`: beside the method a certificate of that name.
    pub wants_certificate: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    /// `host`
    Any,
    /// `hostssl`
    Encrypted,
    /// `hostnossl`
    Plain,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum User {
    Named(String),
    /// `+role`: its members.
    MemberOf(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Addresses {
    All,
    /// The first so many bits of the address.
    Net(IpAddr, u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Trust,
    Scram,
    /// A client certificate with the user's name.
    Cert,
    Reject,
}

/// Who wants to connect.
pub struct Caller<'a> {
    pub address: IpAddr,
    pub is_encrypted: bool,
    pub user: &'a str,
    pub database: &'a str,
}

const EXPECTED: &str = "auto, or rules by lines or semicolons: host|hostssl|hostnossl DATABASE USER ADDRESS \
                        trust|scram-sha-256|cert|reject, such as: hostssl all all 10.0.0.0/8 scram-sha-256";

/// `auto` is `None`.
pub fn hba(text: &str) -> Parsed<Option<Hba>> {
    if text.trim() == "auto" {
        return Ok(None);
    }
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let rules = lines.flat_map(|line| line.split(';')).map(str::trim).filter(|rule| !rule.is_empty());
    let rules = rules.map(|line| rule(line).ok_or(EXPECTED)).collect::<Parsed<Vec<Rule>>>()?;
    if rules.is_empty() { Err(EXPECTED) } else { Ok(Some(Hba(rules))) }
}

fn rule(line: &str) -> Option<Rule> {
    let mut words = line.split_whitespace();
    let encryption = match words.next()? {
        "host" => Encryption::Any,
        "hostssl" => Encryption::Encrypted,
        "hostnossl" => Encryption::Plain,
        _ => return None,
    };
    let databases = list(words.next()?).map(|names| names.into_iter().map(unquoted).collect());
    let users = list(words.next()?).map(|names| names.into_iter().map(user).collect());
    let addresses = addresses(words.next()?)?;
    let method = match words.next()? {
        "trust" => Method::Trust,
        "scram-sha-256" => Method::Scram,
        "cert" => Method::Cert,
        "reject" => Method::Reject,
        _ => return None,
    };
    let wants_certificate = match words.next() {
        None => false,
        Some("clientcert=verify-full") => true,
        Some(_) => return None,
    };
    // Without encryption there is no certificate.
    let has_certificate = encryption == Encryption::Encrypted || !(wants_certificate || method == Method::Cert);
    let is_whole = words.next().is_none() && has_certificate;
    is_whole.then_some(Rule { encryption, databases, users, addresses, method, wants_certificate })
}

/// Names by commas; `None`: all.
fn list(text: &str) -> Option<Vec<&str>> {
    let names: Vec<&str> = text.split(',').filter(|name| !name.is_empty()).collect();
    if names.contains(&"all") { None } else { Some(names) }
}

fn unquoted(name: &str) -> String {
    name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(name).to_string()
}

fn user(name: &str) -> User {
    match name.strip_prefix('+') {
        Some(role) => User::MemberOf(unquoted(role)),
        None => User::Named(unquoted(name)),
    }
}

fn addresses(text: &str) -> Option<Addresses> {
    if text == "all" {
        return Some(Addresses::All);
    }
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let all = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(all);
    (bits <= all).then_some(Addresses::Net(address, bits))
}

impl Addresses {
    fn contain(self, address: IpAddr) -> bool {
        let Addresses::Net(net, bits) = self else { return true };
        match (net, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                let rest = 32 - u32::from(bits);
                net.to_bits().checked_shr(rest) == address.to_bits().checked_shr(rest)
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                let rest = 128 - u32::from(bits);
                net.to_bits().checked_shr(rest) == address.to_bits().checked_shr(rest)
            }
            _ => false,
        }
    }

    /// Whether nobody else than this machine is in it.
    fn are_loopback(self) -> bool {
        match self {
            Addresses::All => false,
            Addresses::Net(IpAddr::V4(net), bits) => bits >= 8 && net.is_loopback(),
            Addresses::Net(IpAddr::V6(net), bits) => bits == 128 && net.is_loopback(),
        }
    }
}

impl Hba {
    /// The first rule that fits, and its number from 1. `is_member` says whether the user is a member of a role.
    pub fn find(&self, caller: &Caller<'_>, is_member: impl Fn(&str) -> bool) -> Option<(usize, &Rule)> {
        let is_named = |names: &Option<Vec<String>>| {
            names.as_ref().is_none_or(|names| names.iter().any(|name| name == caller.database))
        };
        let is_user = |users: &Option<Vec<User>>| {
            users.as_ref().is_none_or(|users| {
                users.iter().any(|user| match user {
                    User::Named(name) => name == caller.user,
                    User::MemberOf(role) => is_member(role),
                })
            })
        };
        let fits = |rule: &Rule| {
            let encryption = match rule.encryption {
                Encryption::Any => true,
                Encryption::Encrypted => caller.is_encrypted,
                Encryption::Plain => !caller.is_encrypted,
            };
            encryption && rule.addresses.contain(caller.address) && is_named(&rule.databases) && is_user(&rule.users)
        };
        self.0.iter().position(fits).map(|at| (at + 1, &self.0[at]))
    }

    /// The number of a rule that trusts somebody beyond this machine.
    pub fn trusting(&self) -> Option<usize> {
        let trusts = |rule: &Rule| rule.method == Method::Trust && !rule.wants_certificate;
        self.0.iter().position(|rule| trusts(rule) && !rule.addresses.are_loopback()).map(|at| at + 1)
    }

    /// Whether a rule wants a certificate of the client.
    pub fn wants_certificates(&self) -> bool {
        self.0.iter().any(|rule| rule.method == Method::Cert || rule.wants_certificate)
    }

    /// Whether a rule is about encrypted connections.
    pub fn wants_encryption(&self) -> bool {
        self.0.iter().any(|rule| rule.encryption == Encryption::Encrypted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rules: &str, address: &str, is_encrypted: bool, user: &str) -> Option<(usize, Method)> {
        let hba = hba(rules).unwrap().unwrap();
        let caller = Caller { address: address.parse().unwrap(), is_encrypted, user, database: "tidemark" };
        hba.find(&caller, |role| role == "apps" && user == "shop").map(|(at, rule)| (at, rule.method))
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = "# who may come\nhost all mallory all reject\nhostssl all +apps 10.0.0.0/8 scram-sha-256 # apps\n\
                     hostssl tidemark,other \"etl\" 10.1.2.3 cert; host all all 127.0.0.1/32 trust\n";
        assert_eq!(found(rules, "127.0.0.1", false, "mallory"), Some((1, Method::Reject)));
        assert_eq!(found(rules, "10.200.3.4", true, "shop"), Some((2, Method::Scram)));
        assert_eq!(found(rules, "10.200.3.4", false, "shop"), None);
        assert_eq!(found(rules, "11.200.3.4", true, "shop"), None);
        assert_eq!(found(rules, "10.1.2.3", true, "etl"), Some((3, Method::Cert)));
        assert_eq!(found(rules, "10.1.2.4", true, "etl"), None);
        assert_eq!(found(rules, "127.0.0.1", false, "anybody"), Some((4, Method::Trust)));
        assert_eq!(found(rules, "::1", false, "anybody"), None);
        assert_eq!(found("hostnossl other all all trust", "127.0.0.1", false, "a"), None);
        assert_eq!(found("host all all 0.0.0.0/0 reject", "1.2.3.4", true, "a"), Some((1, Method::Reject)));
        assert_eq!(found("host all all 2001:db8::/32 reject", "2001:db8:1::1", true, "a"), Some((1, Method::Reject)));
        assert_eq!(found("host all all 2001:db8::/32 reject", "2001:db9::1", true, "a"), None);
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for bad in [
            "",
            "# nothing",
            "local all all trust",
            "host all all trust",
            "host all all 10.0.0.0/33 trust",
            "host all all 10.0.0.0/8 md5",
            "host all all 10.0.0.0/8 trust twice",
            "host all all 10.0.0.0/8 cert",
            "host all all 10.0.0.0/8 scram-sha-256 clientcert=verify-full",
            "host all all nowhere trust",
        ] {
            assert!(hba(bad).is_err(), "{bad}");
        }
        assert_eq!(hba(" auto "), Ok(None));
    }

    #[test]
    fn trust_beyond_this_machine_is_known() {
        let trusting = |rules: &str| hba(rules).unwrap().unwrap().trusting();
        assert_eq!(trusting("host all all 127.0.0.0/8 trust; host all all ::1/128 trust"), None);
        assert_eq!(trusting("host all all ::1 trust; host all all all scram-sha-256"), None);
        assert_eq!(trusting("host all all ::1 trust; host all all all trust"), Some(2));
        assert_eq!(trusting("host all all 10.0.0.1 trust"), Some(1));
        assert_eq!(trusting("host all all 126.0.0.0/7 trust"), Some(1));
        assert_eq!(trusting("hostssl all all all trust clientcert=verify-full"), None);
    }
}
