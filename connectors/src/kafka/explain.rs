//! What librdkafka says, in words that name what to do.

use super::{KafkaError, Kind, Options, options::TOPIC_RULE};
use parking_lot::Mutex;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use tidemark_catalog::{HIDDEN, is_secret};

/// What librdkafka has last complained about: errors of its calls say only that there was no answer.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    last: Mutex<Option<String>>,
}

impl Complaints {
    /// Takes note of a line of its log; the level as in syslog.
    pub fn hear(&self, level: i32, text: &str) {
        const WARNING: i32 = 4;
        // `[thrd:host:9092/bootstrap]: host:9092/bootstrap: Connect to … failed: …`
        let said = text.split_once("]: ").map_or(text, |(_, said)| said);
        // A setting of consumers that a producer does not have, or the other way round, is none.
        if level <= WARNING && !said.starts_with("Configuration property") {
            *self.last.lock() = Some(said.to_string());
        }
    }

    pub fn last(&self) -> Option<String> {
        self.last.lock().clone()
    }

    pub fn forget(&self) {
        *self.last.lock() = None;
    }
}

/// What was to be done, for what is missing to do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Reading,
    Writing,
}

/// A client could not be made: librdkafka does not know an option, or not its value.
pub(super) fn creation(error: ClientError) -> KafkaError {
    match error {
        ClientError::ClientConfig(_, said, name, value) => {
            let said = match is_secret(&name) && !value.is_empty() {
                true => said.replace(&value, HIDDEN),
                false => said,
            };
            KafkaError::new(Kind::Options, format!("option \"properties.{name}\": {said}"))
                .hint("properties.* are librdkafka's settings")
        }
        other => KafkaError::new(Kind::Options, other.to_string()),
    }
}

pub(super) fn no_topic(options: &Options) -> KafkaError {
    KafkaError::new(Kind::NoTopic, format!("topic \"{}\" does not exist", options.topic))
        .hint(format!("create it on {}, or correct its name", options.servers()))
}

/// A call that failed.
pub(super) fn call(options: &Options, complaint: Option<String>, doing: Doing, error: &ClientError) -> KafkaError {
    match error.rdkafka_error_code() {
        Some(failed) => code(options, complaint, doing, failed),
        None => KafkaError::new(Kind::Other, error.to_string()),
    }
}

/// An error that librdkafka has a code for; `complaint`: what it has last complained about.
pub(super) fn code(options: &Options, complaint: Option<String>, doing: Doing, code: RDKafkaErrorCode) -> KafkaError {
    use RDKafkaErrorCode as Code;
    let servers = options.servers();
    let complaint = complaint.unwrap_or_default();
    let code = heard(code, &complaint);
    let complaint = if complaint.is_empty() { complaint } else { format!(": {complaint}") };
    match code {
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicId => {
            no_topic(options)
        }
        Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            let (verb, rights) = match doing {
                Doing::Reading => ("read", "READ and DESCRIBE"),
                Doing::Writing => {
                    ("write to", "WRITE and DESCRIBE, and IDEMPOTENT_WRITE on the cluster before Kafka 2.8")
                }
            };
            KafkaError::new(Kind::Denied, format!("not allowed to {verb} topic \"{}\"", options.topic))
                .hint(format!("the user of properties.sasl.username needs {rights}"))
        }
        Code::Authentication | Code::SaslAuthenticationFailed => {
            KafkaError::new(Kind::Denied, format!("the Kafka broker at {servers} refuses the credentials{complaint}"))
                .hint("properties.security.protocol, properties.sasl.mechanism, …username and …password")
        }
        Code::SSL => {
            let message = format!("no trusted TLS connection to the Kafka broker at {servers}{complaint}");
            KafkaError::new(Kind::Unreachable, message).hint(
                "properties.ssl.ca.location (a file of the server's) or properties.ssl.ca.pem is the CA that signed \
                 the broker's certificate",
            )
        }
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::MessageTimedOut
        | Code::Resolve
        | Code::LeaderNotAvailable => {
            let message = format!("no Kafka broker answers at {servers}{complaint}");
            KafkaError::new(Kind::Unreachable, message).hint(
                "check properties.bootstrap.server, properties.security.protocol, and that the brokers' advertised \
                 addresses can be reached from here",
            )
        }
        Code::InvalidTopic => {
            KafkaError::new(Kind::Options, format!("\"{}\" is no name of a topic", options.topic)).hint(TOPIC_RULE)
        }
        Code::MessageSizeTooLarge => {
            let message = format!("a message is larger than topic \"{}\" takes", options.topic);
            KafkaError::new(Kind::Options, message)
                .hint("properties.message.max.bytes, and max.message.bytes of the topic")
        }
        other => KafkaError::new(Kind::Other, format!("Kafka: {other}{complaint}")),
    }
}

/// Calls only say that nobody answered; why, librdkafka says in its log.
fn heard(code: RDKafkaErrorCode, complaint: &str) -> RDKafkaErrorCode {
    use RDKafkaErrorCode as Code;
    match code {
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut | Code::MessageTimedOut => {
            if complaint.contains("SASL authentication error") || complaint.contains("mechanism handshake failed") {
                Code::Authentication
            } else if complaint.contains("SSL handshake failed") {
                Code::SSL
            } else {
                code
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_nobody_answers_is_heard_from_the_log() {
        use RDKafkaErrorCode as Code;
        // As librdkafka 2.12 and Kafka 4.3 say it.
        let cases = [
            (
                "sasl_ssl://h:1/bootstrap: SASL authentication error: Authentication failed during authentication \
                 due to invalid credentials with SASL mechanism SCRAM-SHA-256 (after 317ms in state AUTH_REQ)",
                Code::Authentication,
            ),
            (
                "sasl_ssl://h:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify \
                 failed: broker certificate could not be verified",
                Code::SSL,
            ),
            ("h:1/bootstrap: Connect to ipv4#h:1 failed: Connection refused", Code::BrokerTransportFailure),
            ("", Code::BrokerTransportFailure),
        ];
        for (complaint, expected) in cases {
            assert_eq!(heard(Code::BrokerTransportFailure, complaint), expected, "{complaint}");
        }
        assert_eq!(heard(Code::UnknownTopic, "SSL handshake failed"), Code::UnknownTopic);
    }
}
