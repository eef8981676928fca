//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's half of it and as much of the client's as `tidemark sql` needs.
//!
//! ```text
//! client                                             server
//!   gs2 header, n=,r=client nonce            ──▶
//!                                            ◀──      r=client nonce + ours, s=salt, i=iterations
//!   c=gs2 header + channel, r=both, p=proof  ──▶      proof ⊕ HMAC(stored key, all of this) hashes to the stored key
//!                                            ◀──      v=HMAC(server key, all of this)
//! ```
//!
//! pgwire has it, behind its own sessions and sources of passwords; this is the same on plain texts.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{digest, hmac, pbkdf2};
use std::{borrow::Cow, fmt, num::NonZeroU32};
use subtle::ConstantTimeEq;
use tidemark_engine::seam::Clock;

/// PostgreSQL's, and the least that RFC 7677 allows: a millisecond for an honest client, once for each connection.
pub const ITERATIONS: u32 = 4096;
/// A verifier that somebody gives us may have more. Beyond this a client would compute for minutes.
const ITERATIONS_MAX: u32 = 10_000_000;
const SALT_BYTES: usize = 16;
/// As PostgreSQL's; in Base64 24 characters.
const NONCE_BYTES: usize = 18;

pub const PLAIN: &str = "SCRAM-SHA-256";
/// With channel binding.
pub const PLUS: &str = "SCRAM-SHA-256-PLUS";

/// What is kept of a password: enough to check it, not enough to log in with.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(…)")
    }
}

/// PostgreSQL's text of it, as `pg_authid.rolpassword` has it.
impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verifier { iterations, salt, stored_key, server_key } = self;
        let [salt, stored_key, server_key] =
            [salt.as_slice(), stored_key, server_key].map(|bytes| STANDARD.encode(bytes));
        write!(f, "{PLAIN}${iterations}:{salt}${stored_key}:{server_key}")
    }
}

impl Verifier {
    /// Of a password, with a salt of its own.
    pub fn of(password: &str, clock: &dyn Clock) -> Verifier {
        Verifier::salted(password, random::<SALT_BYTES>(clock).to_vec(), ITERATIONS)
    }

    fn salted(password: &str, salt: Vec<u8>, iterations: u32) -> Verifier {
        let salted = salted_password(password, &salt, iterations);
        let stored_key = hash(&sign(&salted, b"Client Key"));
        let server_key = sign(&salted, b"Server Key");
        Verifier { iterations, salt, stored_key, server_key }
    }

    /// One that no password fits, for a role that is not there: from outside it looks like any other, and the same every
    /// time for the same name.
    pub fn mock(user: &str, secret: u64) -> Verifier {
        let made = |what: &[u8]| sign(&secret.to_be_bytes(), &[what, user.as_bytes()].concat());
        let salt = made(b"salt ")[..SALT_BYTES].to_vec();
        Verifier { iterations: ITERATIONS, salt, stored_key: made(b"stored "), server_key: made(b"server ") }
    }

    /// Reads PostgreSQL's text; `None`: it is none, but a password.
    pub fn read(text: &str) -> Option<Verifier> {
        let rest = text.strip_prefix(PLAIN)?.strip_prefix('$')?;
        let (head, keys) = rest.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let iterations = iterations.parse().ok().filter(|n| (1..=ITERATIONS_MAX).contains(n))?;
        let key = |text: &str| <[u8; 32]>::try_from(STANDARD.decode(text).ok()?).ok();
        let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        Some(Verifier { iterations, salt, stored_key: key(stored_key)?, server_key: key(server_key)? })
    }
}

/// Why an exchange cannot go on. Only [`Failure::Password`] says anything about the password.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// It breaks the rules; the words are for the client.
    Malformed(&'static str),
    /// Client and server did not see the same connection, or somebody between them took the better mechanism away.
    Binding(&'static str),
    Password,
}

/// How the client said it binds to the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gs2 {
    /// `n`: it cannot.
    Cannot,
    /// `y`: it could, and thinks that the server cannot.
    Could,
    /// `p=tls-server-end-point`
    EndPoint,
}

/// The exchange after the client's first message.
pub struct Exchange {
    verifier: Verifier,
    gs2: Gs2,
    gs2_header: String,
    client_first: String,
    server_first: String,
    /// Of both.
    nonce: String,
}

impl Exchange {
    /// Reads the client's first message. `mechanism`: the one it chose; `end_point`: what identifies this connection's
    /// certificate, where there is one.
    pub fn begin(
        verifier: Verifier,
        mechanism: &str,
        first: &[u8],
        end_point: Option<&[u8]>,
        clock: &dyn Clock,
    ) -> Result<Exchange, Failure> {
        let nonce = STANDARD.encode(random::<NONCE_BYTES>(clock));
        Exchange::begin_with(verifier, mechanism, first, end_point, &nonce)
    }

    fn begin_with(
        verifier: Verifier,
        mechanism: &str,
        first: &[u8],
        end_point: Option<&[u8]>,
        ours: &str,
    ) -> Result<Exchange, Failure> {
        let first = std::str::from_utf8(first).map_err(|_| Failure::Malformed("it is not UTF-8"))?;
        let (flag, rest) = first.split_once(',').ok_or(Failure::Malformed("it has no channel binding flag"))?;
        let gs2 = match flag {
            "n" => Gs2::Cannot,
            "y" => Gs2::Could,
            "p=tls-server-end-point" => Gs2::EndPoint,
            _ if flag.starts_with("p=") => return Err(Failure::Malformed("that type of channel binding is unknown")),
            _ => return Err(Failure::Malformed("its channel binding flag is unknown")),
        };
        match (mechanism == PLUS, gs2) {
            (true, Gs2::EndPoint) if end_point.is_some() => {}
            (true, _) => return Err(Failure::Malformed("it chose channel binding and does not bind")),
            (false, Gs2::EndPoint) => return Err(Failure::Malformed("it binds and did not choose channel binding")),
            // It would have been offered: somebody between us took the offer away.
            (false, Gs2::Could) if end_point.is_some() => {
                return Err(Failure::Binding(
                    "the client supports channel binding and thinks that the server does not",
                ));
            }
            (false, _) => {}
        }
        let (identity, bare) = rest.split_once(',').ok_or(Failure::Malformed("it has no identity"))?;
        if !identity.is_empty() {
            return Err(Failure::Malformed("it wants to act as somebody else"));
        }
        let mut attributes = bare.split(',');
        // The name is the startup packet's, as in PostgreSQL.
        let user = attributes.next().unwrap_or_default();
        if user.starts_with("m=") {
            return Err(Failure::Malformed("it requires an extension"));
        }
        if !user.starts_with("n=") {
            return Err(Failure::Malformed("it has no user name"));
        }
        let theirs = attributes.next().and_then(|text| text.strip_prefix("r=")).unwrap_or_default();
        if theirs.is_empty() || !theirs.bytes().all(|byte| matches!(byte, 0x21..=0x7e)) {
            return Err(Failure::Malformed("its nonce is missing or not printable"));
        }
        let nonce = format!("{theirs}{ours}");
        let server_first = format!("r={nonce},s={},i={}", STANDARD.encode(&verifier.salt), verifier.iterations);
        let gs2_header = format!("{flag},{identity},");
        let client_first = bare.to_string();
        Ok(Exchange { verifier, gs2, gs2_header, client_first, server_first, nonce })
    }

    /// The server's first message.
    pub fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Reads the client's last message, and returns the server's.
    pub fn finish(&self, last: &[u8], end_point: Option<&[u8]>) -> Result<String, Failure> {
        let last = std::str::from_utf8(last).map_err(|_| Failure::Malformed("it is not UTF-8"))?;
        let (without_proof, proof) = last.rsplit_once(",p=").ok_or(Failure::Malformed("it has no proof"))?;
        let mut attributes = without_proof.split(',');
        let channel = attributes.next().and_then(|text| text.strip_prefix("c="));
        let channel = channel.ok_or(Failure::Malformed("it has no channel binding"))?;
        let nonce = attributes.next().and_then(|text| text.strip_prefix("r="));
        let nonce = nonce.ok_or(Failure::Malformed("it has no nonce"))?;
        if !bool::from(nonce.as_bytes().ct_eq(self.nonce.as_bytes())) {
            return Err(Failure::Malformed("its nonce is not the server's"));
        }
        let mut expected = self.gs2_header.clone().into_bytes();
        if self.gs2 == Gs2::EndPoint {
            expected.extend_from_slice(end_point.unwrap_or_default());
        }
        if channel != STANDARD.encode(&expected) {
            return Err(Failure::Binding("channel binding check failed"));
        }
        let proof = STANDARD.decode(proof).ok().and_then(|proof| <[u8; 32]>::try_from(proof).ok());
        let proof = proof.ok_or(Failure::Malformed("its proof has the wrong length"))?;
        let signed = format!("{},{},{without_proof}", self.client_first, self.server_first);
        let signature = sign(&self.verifier.stored_key, signed.as_bytes());
        let client_key = xor(&proof, &signature);
        if !bool::from(hash(&client_key).ct_eq(&self.verifier.stored_key)) {
            return Err(Failure::Password);
        }
        let signature = sign(&self.verifier.server_key, signed.as_bytes());
        Ok(format!("v={}", STANDARD.encode(signature)))
    }
}

/// The client's half, without channel binding.
pub struct Client {
    nonce: String,
    password: String,
    expected: Option<String>,
}

impl Client {
    pub fn new(password: &str, clock: &dyn Clock) -> Client {
        let nonce = STANDARD.encode(random::<NONCE_BYTES>(clock));
        Client { nonce, password: password.to_string(), expected: None }
    }

    pub fn first(&self) -> String {
        format!("n,,n=,r={}", self.nonce)
    }

    /// The last message, to the server's first; `None`: that is none, or not to ours.
    pub fn last(&mut self, server_first: &str) -> Option<String> {
        let attribute = |name: &str| server_first.split(',').find_map(|text| text.strip_prefix(name));
        let nonce = attribute("r=").filter(|nonce| nonce.starts_with(&self.nonce) && nonce.len() > self.nonce.len())?;
        let salt = STANDARD.decode(attribute("s=")?).ok()?;
        let iterations = attribute("i=")?.parse().ok().filter(|n| (1..=ITERATIONS_MAX).contains(n))?;
        let salted = salted_password(&self.password, &salt, iterations);
        let client_key = sign(&salted, b"Client Key");
        let without_proof = format!("c={},r={nonce}", STANDARD.encode("n,,"));
        let signed = format!("n=,r={},{server_first},{without_proof}", self.nonce);
        let proof = xor(&client_key, &sign(&hash(&client_key), signed.as_bytes()));
        let server_key = sign(&salted, b"Server Key");
        self.expected = Some(format!("v={}", STANDARD.encode(sign(&server_key, signed.as_bytes()))));
        Some(format!("{without_proof},p={}", STANDARD.encode(proof)))
    }

    /// Whether the server has shown that it knows the verifier.
    pub fn is_server_known(&self, server_last: &str) -> bool {
        self.expected.as_deref() == Some(server_last)
    }
}

/// `Hi(Normalize(password), salt, i)`. As in PostgreSQL, a password that SASLprep refuses is taken as it is.
fn salted_password(password: &str, salt: &[u8], iterations: u32) -> [u8; 32] {
    let normalised = stringprep::saslprep(password).unwrap_or(Cow::Borrowed(password));
    let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, normalised.as_bytes(), &mut salted);
    salted
}

fn sign(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut signature = [0; 32];
    signature.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref());
    signature
}

fn hash(text: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, text).as_ref());
    hash
}

fn xor(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|i| a[i] ^ b[i])
}

fn random<const N: usize>(clock: &dyn Clock) -> [u8; N] {
    let mut bytes = [0; N];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&clock.random().to_be_bytes()[..chunk.len()]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3.
    const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const OUR_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_LAST: &str =
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_LAST: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn pencil() -> Verifier {
        Verifier::salted("pencil", STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), 4096)
    }

    fn begun(mechanism: &str, first: &str, end_point: Option<&[u8]>) -> Result<Exchange, Failure> {
        Exchange::begin_with(pencil(), mechanism, first.as_bytes(), end_point, OUR_NONCE)
    }

    #[test]
    fn the_example_of_the_rfc_holds() {
        let exchange = begun(PLAIN, CLIENT_FIRST, None).unwrap();
        assert_eq!(exchange.server_first(), SERVER_FIRST);
        assert_eq!(exchange.finish(CLIENT_LAST.as_bytes(), None).unwrap(), SERVER_LAST);
    }

    #[test]
    fn a_verifier_is_postgresqls_text_and_read_back() {
        let text = pencil().to_string();
        assert!(text.starts_with("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"), "{text}");
        assert_eq!(Verifier::read(&text), Some(pencil()));
        assert!(!format!("{:?}", pencil()).contains("W22Z"));
        for other in
            ["pencil", "SCRAM-SHA-256$", "SCRAM-SHA-256$0:AA==$AA==:AA==", "SCRAM-SHA-256$4096:W22Z$short:short", ""]
        {
            assert_eq!(Verifier::read(other), None, "{other}");
        }
    }

    #[test]
    fn another_password_nonce_proof_or_channel_is_refused() {
        let exchange = begun(PLAIN, CLIENT_FIRST, None).unwrap();
        let refused = |last: &str| exchange.finish(last.as_bytes(), None).unwrap_err();
        let other = CLIENT_LAST.replace("p=dHzb", "p=eHzb");
        assert_eq!(refused(&other), Failure::Password);
        let other = CLIENT_LAST.replace("hNlF$k0", "hNlF$k1");
        assert_eq!(refused(&other), Failure::Malformed("its nonce is not the server's"));
        let other = CLIENT_LAST.replace("c=biws", "c=eSws");
        assert_eq!(refused(&other), Failure::Binding("channel binding check failed"));
        for last in ["", "c=biws", "r=a,p=AAAA", "c=biws,r=x,p=", "p=AA==", ",,,p="] {
            assert!(matches!(refused(last), Failure::Malformed(_)), "{last}");
        }
        let mock = Exchange::begin_with(Verifier::mock("user", 7), PLAIN, CLIENT_FIRST.as_bytes(), None, OUR_NONCE);
        let mock = mock.unwrap();
        assert_eq!(mock.finish(CLIENT_LAST.as_bytes(), None).unwrap_err(), Failure::Password);
        assert_eq!(Verifier::mock("user", 7), Verifier::mock("user", 7));
        assert_ne!(Verifier::mock("user", 7).salt, Verifier::mock("other", 7).salt);
    }

    #[test]
    fn a_first_message_that_breaks_the_rules_is_refused() {
        for first in
            ["", "n", "x,,n=,r=a", "n,a=me,n=,r=a", "n,,m=x,n=,r=a", "n,,r=a", "n,,n=", "n,,n=,r=", "n,,n=,r=\u{7f}"]
        {
            assert!(matches!(begun(PLAIN, first, None), Err(Failure::Malformed(_))), "{first}");
        }
    }

    #[test]
    fn a_client_that_could_bind_is_not_talked_out_of_it() {
        let end_point: Option<&[u8]> = Some(b"hash");
        assert!(matches!(begun(PLAIN, "y,,n=,r=a", end_point), Err(Failure::Binding(_))));
        assert!(begun(PLAIN, "y,,n=,r=a", None).is_ok());
        assert!(begun(PLAIN, "n,,n=,r=a", end_point).is_ok());
        assert!(begun(PLAIN, "p=tls-server-end-point,,n=,r=a", end_point).is_err());
        assert!(begun(PLUS, "n,,n=,r=a", end_point).is_err());
        assert!(begun(PLUS, "p=tls-server-end-point,,n=,r=a", None).is_err());
        assert!(begun(PLUS, "p=tls-unique,,n=,r=a", end_point).is_err());
        assert!(begun(PLUS, "p=tls-server-end-point,,n=,r=a", end_point).is_ok());
    }

    #[test]
    fn the_certificate_that_the_client_saw_is_part_of_the_proof() {
        let first = "p=tls-server-end-point,,n=,r=abc";
        let exchange = begun(PLUS, first, Some(b"ours")).unwrap();
        let last = |channel: &[u8]| {
            let header = [b"p=tls-server-end-point,,".as_slice(), channel].concat();
            let without_proof = format!("c={},r=abc{OUR_NONCE}", STANDARD.encode(header));
            let salted = salted_password("pencil", &pencil().salt, 4096);
            let client_key = sign(&salted, b"Client Key");
            let signed = format!("n=,r=abc,{},{without_proof}", exchange.server_first());
            let proof = xor(&client_key, &sign(&hash(&client_key), signed.as_bytes()));
            format!("{without_proof},p={}", STANDARD.encode(proof))
        };
        assert!(exchange.finish(last(b"ours").as_bytes(), Some(b"ours")).is_ok());
        let refused = exchange.finish(last(b"another").as_bytes(), Some(b"ours")).unwrap_err();
        assert_eq!(refused, Failure::Binding("channel binding check failed"));
    }

    #[test]
    fn our_client_and_our_server_agree() {
        let mut client = Client { nonce: "abc".into(), password: "pencil".into(), expected: None };
        let exchange = begun(PLAIN, &client.first(), None).unwrap();
        let last = client.last(exchange.server_first()).unwrap();
        assert!(client.is_server_known(&exchange.finish(last.as_bytes(), None).unwrap()));
        assert!(!client.is_server_known("v=AAAA"));
        assert!(client.last("r=other,s=AAAA,i=1").is_none());
    }
}
