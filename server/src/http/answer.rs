//! What each path answers. Pure: a request's line and the server's phase in, a response out.

use super::{Phase, metrics};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
};

/// Prometheus' text format; every version of it, and every agent that scrapes, reads it.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

pub(super) fn to(method: &Method, path: &str, phase: &Phase) -> Response<Full<Bytes>> {
    let known = matches!(path, "/metrics" | "/healthz" | "/readyz");
    if !known {
        return text(StatusCode::NOT_FOUND, "nothing here; there are /metrics, /healthz and /readyz".to_string());
    }
    // The body of an answer to HEAD is left out by the protocol.
    if method != Method::GET && method != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, format!("{path} is only to be read: GET or HEAD"));
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/metrics" => {
            let mut response = Response::new(Full::from(metrics::render(phase)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(EXPOSITION));
            response
        }
        "/healthz" => health(phase),
        _ => readiness(phase),
    }
}

/// Whether the process is as it should be: if not, a supervisor starts it anew.
fn health(phase: &Phase) -> Response<Full<Bytes>> {
    let ended = match phase {
        Phase::Serving(subject) => subject.database.meters.tasks.ended(),
        // Before there are none, and afterwards they are meant to end.
        Phase::Recovering | Phase::Stopping(_) => vec![],
    };
    match ended.is_empty() {
        true => text(StatusCode::OK, "ok".to_string()),
        false => {
            let names = ended.join(", ");
            text(StatusCode::SERVICE_UNAVAILABLE, format!("background tasks have ended, see the log: {names}"))
        }
    }
}

/// Whether clients are to be sent here. What is served then has been recovered, and its catalog read.
fn readiness(phase: &Phase) -> Response<Full<Bytes>> {
    match phase {
        Phase::Recovering => text(StatusCode::SERVICE_UNAVAILABLE, "recovering".to_string()),
        Phase::Serving(_) => match phase.trouble() {
            None => text(StatusCode::OK, "ready".to_string()),
            Some(trouble) => text(StatusCode::SERVICE_UNAVAILABLE, trouble),
        },
        Phase::Stopping(_) => text(StatusCode::SERVICE_UNAVAILABLE, "shutting down".to_string()),
    }
}

fn text(status: StatusCode, line: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(line + "\n"));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_recovers_is_healthy_and_not_ready() {
        for (method, path, status) in [
            (Method::GET, "/healthz", 200),
            (Method::GET, "/readyz", 503),
            (Method::HEAD, "/readyz", 503),
            (Method::GET, "/metrics", 200),
            (Method::GET, "/", 404),
            (Method::GET, "/metrics/", 404),
            (Method::POST, "/elsewhere", 404),
            (Method::POST, "/metrics", 405),
            (Method::DELETE, "/healthz", 405),
        ] {
            let response = to(&method, path, &Phase::Recovering);
            assert_eq!(response.status().as_u16(), status, "{method} {path}");
            assert_eq!(response.headers().contains_key(ALLOW), status == 405, "{method} {path}");
        }
    }
}
