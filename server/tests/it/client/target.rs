//! Where to connect.

use tidemark_server::client::Target;

fn target(url: &str) -> Result<(String, u16, String, String), String> {
    let environment = [("PGUSER".to_string(), "ann".to_string())];
    Target::from_environment(environment).with_url(url).map(|t| (t.host, t.port, t.user, t.database))
}

#[test]
fn a_url_goes_before_the_environment_and_that_before_the_defaults() {
    let is = |host: &str, port, user: &str, database: &str| Ok((host.into(), port, user.into(), database.into()));
    assert_eq!(target("postgres://localhost"), is("localhost", 5433, "ann", "tidemark"));
    assert_eq!(target("postgres://bob@h:1/d"), is("h", 1, "bob", "d"));
    assert_eq!(target("postgresql://[::1]:7/?sslmode=disable"), is("::1", 7, "ann", "tidemark"));
}

#[test]
fn a_password_comes_from_the_url_or_the_environment_and_is_not_shown() {
    let environment = [("PGPASSWORD".to_string(), "geheim".to_string())];
    let target = Target::from_environment(environment.clone());
    assert_eq!(target.password.as_deref(), Some("geheim"));
    assert!(!format!("{target:?}").contains("geheim"));
    let target = target.with_url("postgres://ann:it%40s%25@h/").expect("a URL");
    assert_eq!((target.user.as_str(), target.password.as_deref()), ("ann", Some("it@s%")));
    let address = "127.0.0.1:1".parse().expect("an address");
    assert_eq!(Target::local(address, environment).password.as_deref(), Some("geheim"));
    let user = [("PGUSER".to_string(), "ann".to_string())];
    assert_eq!(Target::local(address, user).user, "tidemark");
}

#[test]
fn a_url_that_asks_for_what_is_not_there_is_refused() {
    let cases = [
        ("localhost:5433", "does not begin with postgres://"),
        ("postgres://h:port/", "port is not a number"),
        ("postgres://h/?sslmode=require", "\"sslmode=require\" is not supported"),
    ];
    for (url, expected) in cases {
        let error = target(url).expect_err(url);
        assert!(!error.contains(url), "a URL may have a password in it: {error}");
        assert!(error.contains(expected) && error.contains("HINT: "), "{url}: {error}");
    }
}
