//! Options whose values are nobody's to see: kept to connect with, and shown nowhere.

/// What is shown in their place.
pub const HIDDEN: &str = "********";

/// Whether an option of `WITH ( … )` is one.
pub fn is_secret(option: &str) -> bool {
    let name = option.strip_prefix("properties.").unwrap_or(option);
    ["password", "secret"].iter().any(|word| name.contains(word))
        || name.starts_with("sasl.jaas.")
        || matches!(name, "ssl.key.pem" | "sasl.oauthbearer.config" | "sasl.oauthbearer.assertion.private.key.pem")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lets_somebody_in_is_secret() {
        let cases = [
            ("properties.sasl.password", true),
            ("properties.ssl.key.password", true),
            ("properties.ssl.keystore.password", true),
            ("properties.ssl.key.pem", true),
            ("properties.sasl.jaas.config", true),
            ("properties.sasl.oauthbearer.client.secret", true),
            ("properties.sasl.username", false),
            ("properties.ssl.ca.pem", false),
            ("topic", false),
        ];
        for (option, expected) in cases {
            assert_eq!(is_secret(option), expected, "{option}");
        }
    }
}
