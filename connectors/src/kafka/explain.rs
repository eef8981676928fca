//! What librdkafka says, in words that name what to do.

use super::{KafkaError, Kind, Options};
use parking_lot::Mutex;
use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError as ClientError, RDKafkaErrorCode},
};

/// What librdkafka has last complained about: errors of its calls say only that there was no answer.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    last: Mutex<Option<String>>,
}

impl ClientContext for Complaints {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", facility, message);
        // CONFWARN: a setting of consumers that a producer does not have, or the other way round.
        if level as i32 <= RDKafkaLogLevel::Warning as i32 && facility != "CONFWARN" {
            // `[thrd:host:9092/bootstrap]: host:9092/bootstrap: Connect to … failed: …`
            let said = message.split_once("]: ").map_or(message, |(_, said)| said);
            *self.last.lock() = Some(said.to_string());
        }
    }

    fn error(&self, error: ClientError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason);
        *self.last.lock() = Some(reason.to_string());
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
        ClientError::ClientConfig(_, said, name, _) => {
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
pub(super) fn call(options: &Options, complaints: &Complaints, doing: Doing, error: &ClientError) -> KafkaError {
    match error.rdkafka_error_code() {
        Some(failed) => code(options, complaints, doing, failed),
        None => KafkaError::new(Kind::Other, error.to_string()),
    }
}

pub(super) fn code(options: &Options, complaints: &Complaints, doing: Doing, code: RDKafkaErrorCode) -> KafkaError {
    use RDKafkaErrorCode as Code;
    let servers = options.servers();
    let complaint = complaints.last.lock().clone();
    let complaint = complaint.map_or(String::new(), |complaint| format!(": {complaint}"));
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
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::MessageTimedOut
        | Code::Resolve
        | Code::LeaderNotAvailable => KafkaError::new(
            Kind::Unreachable,
            format!("no Kafka broker answers at {servers}{complaint}"),
        )
        .hint("check properties.bootstrap.server, and that the brokers' advertised addresses can be reached from here"),
        Code::MessageSizeTooLarge => {
            let message = format!("a message is larger than topic \"{}\" takes", options.topic);
            KafkaError::new(Kind::Options, message)
                .hint("properties.message.max.bytes, and max.message.bytes of the topic")
        }
        other => KafkaError::new(Kind::Other, format!("Kafka: {other}{complaint}")),
    }
}
