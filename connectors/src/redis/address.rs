//! Where a Redis is, as a URL says it.
//!
//! ```text
//! redis[s]://[[user]:password@]host[:port][/database][?parameter=value&…]       one server
//! redis[s]+cluster://[[user]:password@]host[:port],host[:port],…[?…]             a cluster, by some of its nodes
//! ```
//!
//! Parameters: `prefix` of all keys (default `tidemark`), `buckets` of each view (a power of two from 64 to 4194304, default
//! 4096), `ca` (with `rediss`: a file of certificates in PEM, instead of the system's). User and password are
//! percent-encoded.

use super::{
    layout::GROUPS,
    link::{ANSWER, CONNECT},
};
use redis::{
    Client, ConnectionInfo, IntoConnectionInfo, TlsCertificates, cluster::ClusterClient, io::tcp::TcpSettings,
};

/// 4,096 buckets are small hashes for up to some two million entities (512 in each, as far as Redis 7 keeps one in a block), and
/// 100,000 entities share the cost of their buckets by 24: 76 bytes each, where 1,024 buckets would take 74 and 16,384 94.
const BUCKETS: u32 = 1 << 12;
const BUCKETS_MAX: u32 = 1 << 22;

const PARAMETERS: [&str; 3] = ["prefix", "buckets", "ca"];

pub struct Address {
    pub(super) target: Target,
    pub(super) prefix: String,
    pub(super) buckets: u32,
    /// Without user and password.
    pub(super) shown: String,
}

pub(super) enum Target {
    One(Box<Client>),
    Cluster(Box<ClusterClient>),
}

impl Address {
    /// # Errors
    /// What is wrong with the URL, without its password.
    pub fn parse(url: &str) -> Result<Address, String> {
        let wrong =
            |what: &str| format!("{what}; a Redis is redis[s][+cluster]://[[user]:password@]host[:port][/database]");
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("there is no \"://\" in it"))?;
        let (is_cluster, scheme) = match scheme {
            "redis" | "rediss" => (false, scheme),
            "redis+cluster" => (true, "redis"),
            "rediss+cluster" => (true, "rediss"),
            other if other.chars().all(|c| c.is_ascii_alphanumeric() || c == '+') => {
                return Err(wrong(&format!("scheme \"{other}\" is not known")));
            }
            _ => return Err(wrong("its scheme is not known")),
        };
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
        if !place.contains('@') && (database.contains('@') || is_cut(parameters)) {
            return Err(wrong("in user and password / is written %2F, ? %3F and @ %40"));
        }
        let (credentials, hosts) = match place.rsplit_once('@') {
            Some((credentials, hosts)) => (format!("{credentials}@"), hosts),
            None => (String::new(), place),
        };
        if hosts.split(',').any(str::is_empty) {
            return Err(wrong("a host is missing"));
        }
        if hosts.contains(',') && !is_cluster {
            return Err(wrong("several hosts are a cluster: redis+cluster://"));
        }
        if is_cluster && !database.is_empty() && database != "0" {
            return Err(wrong("a cluster has no databases"));
        }
        let (mut prefix, mut buckets, mut ca) = ("tidemark".to_string(), BUCKETS, None);
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name {
                "prefix" if !value.is_empty() && !value.contains(['{', '}']) => prefix = value.to_string(),
                "prefix" => return Err(wrong("parameter prefix is empty or has a brace")),
                "buckets" => {
                    let number = value.parse().ok().filter(|n: &u32| n.is_power_of_two());
                    let number = number.filter(|n| (GROUPS..=BUCKETS_MAX).contains(n));
                    buckets = number.ok_or_else(|| {
                        wrong(&format!("parameter buckets is no power of two from {GROUPS} to {BUCKETS_MAX}"))
                    })?;
                }
                "ca" if scheme == "rediss" => ca = Some(value),
                "ca" => return Err(wrong("parameter ca is for rediss://")),
                other => return Err(wrong(&format!("parameter \"{other}\" is not known (prefix, buckets, ca)"))),
            }
        }
        let ca =
            ca.map(|path| std::fs::read(path).map_err(|error| format!("certificates {path} cannot be read: {error}")));
        let certificates = ca.transpose()?.map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) });
        let nodes: Vec<ConnectionInfo> = hosts
            .split(',')
            .map(|host| {
                let node = format!("{scheme}://{credentials}{host}/{database}").into_connection_info();
                // Where the host has been forgotten, what stands in its place is a password.
                let node =
                    node.map_err(|error| wrong(&format!("a host, its port or the database is wrong: {error}")))?;
                // Small commands are not to wait for the answer to the one before.
                Ok(node.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
            })
            .collect::<Result<_, String>>()?;
        let of_redis = |error: redis::RedisError| wrong(&error.to_string());
        let target = match (is_cluster, certificates) {
            (true, certificates) => {
                let cluster = ClusterClient::builder(nodes)
                    .tcp_settings(TcpSettings::default().set_nodelay(true))
                    .connection_timeout(CONNECT)
                    .response_timeout(ANSWER);
                let cluster = match certificates {
                    Some(certificates) => cluster.certs(certificates),
                    None => cluster,
                };
                Target::Cluster(Box::new(cluster.build().map_err(of_redis)?))
            }
            (false, certificates) => {
                let node = nodes.into_iter().next().ok_or_else(|| wrong("a host is missing"))?;
                Target::One(Box::new(match certificates {
                    Some(certificates) => Client::build_with_tls(node, certificates).map_err(of_redis)?,
                    None => Client::open(node).map_err(of_redis)?,
                }))
            }
        };
        Ok(Address { target, prefix, buckets, shown: format!("Redis at {hosts}") })
    }
}

/// Whether what stands where parameters do is the rest of a password.
fn is_cut(parameters: &str) -> bool {
    let first = parameters.split(['&', '=']).next().unwrap_or_default();
    !first.is_empty() && !PARAMETERS.contains(&first) && parameters.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_where_and_how_and_mistakes_are_told_without_the_password() {
        let parsed = |url: &str| Address::parse(url).map(|a| (a.shown, a.prefix, a.buckets)).map_err(|e| e.to_string());
        let default = |shown: &str| Ok((shown.to_string(), "tidemark".to_string(), BUCKETS));
        assert_eq!(parsed("redis://h"), default("Redis at h"));
        assert_eq!(parsed("redis://u:secret@h:7000/3"), default("Redis at h:7000"));
        assert_eq!(parsed("redis+cluster://:secret@a:1,b:2"), default("Redis at a:1,b:2"));
        assert_eq!(parsed("redis://h?prefix=shop&buckets=64"), Ok(("Redis at h".to_string(), "shop".to_string(), 64)));
        for (url, said) in [
            ("localhost:6379", "no \"://\""),
            ("http://h", "scheme \"http\" is not known"),
            ("redis://a,b", "several hosts are a cluster"),
            ("redis://", "a host is missing"),
            ("redis+cluster://h/2", "no databases"),
            ("redis://:secret@h?bucket=64", "parameter \"bucket\" is not known"),
            ("redis://:secret@h?buckets=65", "no power of two"),
            ("redis://:secret@h?ca=/x", "for rediss"),
            ("rediss://:secret@h?ca=/no/such/file", "cannot be read"),
            ("redis://:secret@h:port", "a host, its port or the database is wrong"),
            ("redis://h/first", "a host, its port or the database is wrong"),
            // The host has been forgotten, or the password is not encoded.
            ("redis://me:secret", "a host, its port or the database is wrong"),
            ("redis://me:sec/ret@h", "/ is written %2F"),
            ("redis://me:secret?x@h", "? %3F"),
            ("redis://me:se#secret@h", "is wrong"),
            ("me:secret@redis://h", "its scheme is not known"),
        ] {
            let error = parsed(url).expect_err(url);
            assert!(error.contains(said) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
