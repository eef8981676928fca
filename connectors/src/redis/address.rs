//! Where a Redis is, as a URL says it.
//!
//! ```text
//! redis[s]://[[user]:password@]host[:port][/database][?parameter=value&…]       one server
//! redis[s]+cluster://[[user]:password@]host[:port],host[:port],…[?…]             a cluster, by some of its nodes
//! redis[s]+sentinel://[[user]:password@]host[:port],…/name[/database][?…]        the master that Sentinels know by a name
//! ```
//!
//! Parameters: `prefix` of all keys (default `tidemark`), `buckets` of each view (a power of two from 64 to 4194304, default
//! 4096), `layout` (`packed`, the default, or `hash`), `ca` (with `rediss`: a file of certificates in PEM, instead of the system's), `sentinel` (`[user]:password` of the
//! Sentinels, where they want one). User and password are percent-encoded.

use super::{
    layout::{GROUPS, Shape},
    link::{ANSWER, CONNECT},
};
use redis::{
    Client, ConnectionInfo, IntoConnectionInfo, TlsCertificates, TlsMode,
    cluster::ClusterClient,
    io::tcp::TcpSettings,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};
use tokio::sync::Mutex;

/// 4,096 buckets are small hashes for up to some two million entities (512 in each, as far as Redis 7 keeps one in a block), and
/// 100,000 entities share the cost of their buckets by 24: 76 bytes each, where 1,024 buckets would take 74 and 16,384 94.
const BUCKETS: u32 = 1 << 12;
const BUCKETS_MAX: u32 = 1 << 22;

const PARAMETERS: [&str; 5] = ["prefix", "buckets", "layout", "ca", "sentinel"];

/// Where a Sentinel listens if nothing else is said.
const SENTINEL_PORT: u16 = 26_379;

pub struct Address {
    pub(super) target: Target,
    pub(super) prefix: String,
    pub(super) buckets: u32,
    pub(super) shape: Shape,
    /// Without user and password.
    pub(super) shown: String,
    /// Two addresses under which the same keys are found have the same.
    keys: String,
}

pub(super) enum Target {
    One(Box<Client>),
    Cluster(Box<ClusterClient>),
    /// It keeps its connections to the Sentinels.
    Sentinel(Box<Mutex<SentinelClient>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    One,
    Cluster,
    Sentinel,
}

impl Address {
    /// # Errors
    /// What is wrong with the URL, without its password.
    pub fn parse(url: &str) -> Result<Address, String> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("there is no \"://\" in it"))?;
        let (kind, scheme) = match scheme {
            "redis" | "rediss" => (Kind::One, scheme),
            "redis+cluster" => (Kind::Cluster, "redis"),
            "rediss+cluster" => (Kind::Cluster, "rediss"),
            "redis+sentinel" => (Kind::Sentinel, "redis"),
            "rediss+sentinel" => (Kind::Sentinel, "rediss"),
            other if other.chars().all(|c| c.is_ascii_alphanumeric() || c == '+') => {
                return Err(wrong(&format!("scheme \"{other}\" is not known")));
            }
            _ => return Err(wrong("its scheme is not known")),
        };
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !place.contains('@') && (path.contains('@') || is_cut(parameters)) {
            return Err(wrong("in user and password / is written %2F, ? %3F and @ %40"));
        }
        let (credentials, hosts) = match place.rsplit_once('@') {
            Some((credentials, hosts)) => (format!("{credentials}@"), hosts),
            None => (String::new(), place),
        };
        let (master, database) = match kind {
            Kind::Sentinel => path.split_once('/').unwrap_or((path, "")),
            Kind::One | Kind::Cluster => ("", path),
        };
        if hosts.split(',').any(str::is_empty) {
            return Err(wrong("a host is missing"));
        }
        if hosts.contains(',') && kind == Kind::One {
            return Err(wrong("several hosts are a cluster, redis+cluster://, or Sentinels, redis+sentinel://"));
        }
        if kind == Kind::Cluster && !database.is_empty() && database != "0" {
            return Err(wrong("a cluster has no databases"));
        }
        if kind == Kind::Sentinel && master.is_empty() {
            return Err(wrong("the name that the Sentinels have for the master is missing behind the hosts"));
        }
        if !hosts.split(',').all(has_port) {
            return Err(wrong("the port of a host is no number from 0 to 65535"));
        }
        let (mut prefix, mut buckets, mut shape) = ("tidemark".to_string(), BUCKETS, Shape::Packed);
        let (mut ca, mut sentinel) = (None, String::new());
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
                "layout" => {
                    let known = Shape::ALL.into_iter().find(|shape| shape.name() == value);
                    shape = known.ok_or_else(|| wrong("parameter layout is packed or hash"))?;
                }
                "ca" if scheme == "rediss" => ca = Some(value),
                "ca" => return Err(wrong("parameter ca is for rediss://")),
                "sentinel" if kind == Kind::Sentinel && value.contains(':') && !value.contains(['@', '/']) => {
                    sentinel = format!("{value}@");
                }
                "sentinel" => return Err(wrong("parameter sentinel is [user]:password, for redis+sentinel://")),
                other => {
                    let known = PARAMETERS.join(", ");
                    return Err(wrong(&format!("parameter \"{other}\" is not known ({known})")));
                }
            }
        }
        let ca =
            ca.map(|path| std::fs::read(path).map_err(|error| format!("certificates {path} cannot be read: {error}")));
        let certificates = ca.transpose()?.map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) });
        let hosts_with_port = hosts.split(',').map(|host| match kind {
            Kind::Sentinel if host.ends_with(']') || !host.contains(':') => format!("{host}:{SENTINEL_PORT}"),
            _ => host.to_string(),
        });
        let nodes: Vec<ConnectionInfo> = hosts_with_port
            .map(|host| node(&format!("{scheme}://{credentials}{host}/{database}")))
            .collect::<Result<_, String>>()?;
        let target = match kind {
            Kind::One => Target::One(Box::new(one(nodes, certificates)?)),
            Kind::Cluster => Target::Cluster(Box::new(cluster(nodes, certificates)?)),
            Kind::Sentinel => {
                let asking = node(&format!("{scheme}://{sentinel}host/"))?;
                Target::Sentinel(Box::new(Mutex::new(sentinels(
                    &nodes,
                    &asking,
                    master,
                    scheme == "rediss",
                    certificates,
                )?)))
            }
        };
        let shown = match kind {
            Kind::One | Kind::Cluster => format!("Redis at {hosts}"),
            Kind::Sentinel => format!("Redis \"{master}\" of the Sentinels at {hosts}"),
        };
        let database = if database.is_empty() { "0" } else { database };
        let keys = format!("{shown}/{database}?prefix={prefix}");
        Ok(Address { target, prefix, buckets, shape, shown, keys })
    }

    /// Which keys these are: of two addresses with the same, what is put under one is found under the other.
    pub fn keys(&self) -> &str {
        &self.keys
    }
}

/// Whether a host has a port that can be one, or none. It is not shown: where the host has been forgotten it is a password.
fn has_port(host: &str) -> bool {
    let behind = host.rsplit_once(']').map_or(host, |(_, behind)| behind);
    behind.rsplit_once(':').is_none_or(|(_, port)| port.is_empty() || port.parse::<u16>().is_ok())
}

fn wrong(what: &str) -> String {
    format!("{what}; a Redis is redis[s][+cluster|+sentinel]://[[user]:password@]host[:port][/database]")
}

fn of_redis(error: redis::RedisError) -> String {
    wrong(&error.to_string())
}

fn node(url: &str) -> Result<ConnectionInfo, String> {
    let node = url.into_connection_info();
    // Where the host has been forgotten, what stands in its place is a password.
    let node = node.map_err(|error| wrong(&format!("a host, its port or the database is wrong: {error}")))?;
    Ok(node.set_tcp_settings(tcp()))
}

/// Small commands are not to wait for the answer to the one before.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn one(nodes: Vec<ConnectionInfo>, certificates: Option<TlsCertificates>) -> Result<Client, String> {
    let node = nodes.into_iter().next().ok_or_else(|| wrong("a host is missing"))?;
    match certificates {
        Some(certificates) => Client::build_with_tls(node, certificates).map_err(of_redis),
        None => Client::open(node).map_err(of_redis),
    }
}

fn cluster(nodes: Vec<ConnectionInfo>, certificates: Option<TlsCertificates>) -> Result<ClusterClient, String> {
    let cluster =
        ClusterClient::builder(nodes).tcp_settings(tcp()).connection_timeout(CONNECT).response_timeout(ANSWER);
    let cluster = match certificates {
        Some(certificates) => cluster.certs(certificates),
        None => cluster,
    };
    cluster.build().map_err(of_redis)
}

/// `nodes`: where Sentinels are, and who we are at the master. `asking`: who we are at the Sentinels.
fn sentinels(
    nodes: &[ConnectionInfo],
    asking: &ConnectionInfo,
    master: &str,
    is_tls: bool,
    certificates: Option<TlsCertificates>,
) -> Result<SentinelClient, String> {
    let addresses: Vec<_> = nodes.iter().map(|node| node.addr().clone()).collect();
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master).map_err(of_redis)?;
    builder = builder.set_client_to_redis_tcp_settings(tcp()).set_client_to_sentinel_tcp_settings(tcp());
    if is_tls {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
    }
    if let Some(certificates) = certificates {
        builder = builder.set_client_to_redis_certificates(certificates.clone());
        builder = builder.set_client_to_sentinel_certificates(certificates);
    }
    if let Some(at_master) = nodes.first().map(ConnectionInfo::redis_settings) {
        builder = builder.set_client_to_redis_db(at_master.db());
        if let Some(user) = at_master.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = at_master.password() {
            builder = builder.set_client_to_redis_password(password);
        }
    }
    let asking = asking.redis_settings();
    if let Some(user) = asking.username() {
        builder = builder.set_client_to_sentinel_username(user);
    }
    if let Some(password) = asking.password() {
        builder = builder.set_client_to_sentinel_password(password);
    }
    builder.build().map_err(of_redis)
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
        assert_eq!(
            parsed("redis+sentinel://me:secret@a,b:1/main/2?sentinel=:secret"),
            default("Redis \"main\" of the Sentinels at a,b:1")
        );
        // With TLS to both.
        assert_eq!(parsed("rediss+sentinel://a/main"), default("Redis \"main\" of the Sentinels at a"));
        assert_eq!(parsed("redis+sentinel://[::1]/main"), default("Redis \"main\" of the Sentinels at [::1]"));
        assert_eq!(parsed("redis://h?prefix=shop&buckets=64"), Ok(("Redis at h".to_string(), "shop".to_string(), 64)));
        assert_eq!(Address::parse("redis://h?layout=hash").map(|address| address.shape), Ok(Shape::Hash));
        let keys = |url: &str| Address::parse(url).map(|address| address.keys().to_string());
        assert_eq!(keys("redis://:secret@h?layout=hash"), keys("rediss://h/0?buckets=64"));
        for other in ["redis://h/1", "redis://h:7000", "redis://h?prefix=p", "redis+sentinel://h/main"] {
            assert_ne!(keys("redis://h"), keys(other), "{other}");
        }
        for (url, said) in [
            ("localhost:6379", "no \"://\""),
            ("http://h", "scheme \"http\" is not known"),
            ("redis://a,b", "several hosts are a cluster"),
            ("redis://", "a host is missing"),
            ("redis+cluster://h/2", "no databases"),
            ("redis://:secret@h?bucket=64", "parameter \"bucket\" is not known"),
            ("redis://:secret@h?buckets=65", "no power of two"),
            ("redis://:secret@h?layout=text", "layout is packed or hash"),
            ("redis://:secret@h?ca=/x", "for rediss"),
            ("rediss://:secret@h?ca=/no/such/file", "cannot be read"),
            ("redis://:secret@h:port", "the port of a host is no number"),
            ("redis+sentinel://:secret@a,b", "the name that the Sentinels have"),
            ("redis+sentinel://:secret@a/main/first", "the database is wrong"),
            ("redis+sentinel://a/main?sentinel=secret", "parameter sentinel is [user]:password"),
            ("redis://h?sentinel=:secret", "parameter sentinel is [user]:password"),
            ("redis://h/first", "a host, its port or the database is wrong"),
            // The host has been forgotten, or the password is not encoded.
            ("redis://me:secret", "the port of a host is no number"),
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
