//! `CREATE`, `ALTER` and `DROP SECRET`, in RisingWave's words: `CREATE SECRET name WITH (backend = 'meta') AS 'value'`, and
//! `SECRET name` where an option's value stands.

use super::cursor::Cursor;
use crate::{
    PlanError, PlanResult,
    statement::{Hidden, Statement},
};
use datafusion::sql::sqlparser::tokenizer::Token;
use tidemark_catalog::{PUBLIC_SCHEMA, secret_reference};

/// Behind `CREATE SECRET`.
pub(super) fn create(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    let if_not_exists = c.if_not_exists();
    let name = c.secret_name()?;
    backend(c)?;
    Ok(Statement::CreateSecret { name, if_not_exists, value: value(c)? })
}

/// Behind `ALTER SECRET`.
pub(super) fn alter(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    let name = c.secret_name()?;
    backend(c)?;
    Ok(Statement::AlterSecret { name, value: value(c)? })
}

/// Behind `DROP SECRET`.
pub(super) fn drop(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    let if_exists = c.if_exists();
    let mut names = vec![c.secret_name()?];
    while c.eat_token(&Token::Comma) {
        names.push(c.secret_name()?);
    }
    c.eat("RESTRICT");
    Ok(Statement::DropSecret { if_exists, names })
}

fn backend(c: &mut Cursor<'_>) -> PlanResult<()> {
    let start = *c;
    if !c.eat("WITH") {
        return Ok(());
    }
    let options = c.options()?;
    match options.iter().all(|(name, value)| name == "backend" && value == "meta") {
        true => Ok(()),
        false => Err(start.place(
            PlanError::unsupported("only backend = 'meta' is supported: the value is kept in the catalog")
                .hint("leave WITH out"),
        )),
    }
}

/// `AS 'value'`; what is not a text is not repeated.
fn value(c: &mut Cursor<'_>) -> PlanResult<Hidden> {
    c.expect("AS").map_err(|_| c.place(PlanError::syntax("a secret needs AS and a text in quotes")))?;
    c.string().map(Hidden).map_err(|_| c.place(PlanError::syntax("a secret needs AS and a text in quotes")))
}

impl Cursor<'_> {
    /// Secrets are in no schema; `public` may stand before the name, as it may in RisingWave.
    fn secret_name(&mut self) -> PlanResult<String> {
        let start = *self;
        let name = self.object_name()?;
        match name.schema.as_deref() {
            None | Some(PUBLIC_SCHEMA) => Ok(name.name),
            Some(_) => Err(start.place(PlanError::syntax(format!("secret \"{name}\" cannot be in a schema")))),
        }
    }

    /// `SECRET name` in the place of an option's value, as it is kept; `None`: something else is there.
    pub(super) fn secret_value(&mut self) -> PlanResult<Option<String>> {
        let has_name = matches!(self.peek(1), Some(Token::Word(_)));
        if !(self.at("SECRET") && has_name) {
            return Ok(None);
        }
        self.skip();
        let name = self.secret_name()?;
        if self.at_all(&["AS", "FILE"]) {
            return Err(self.place(
                PlanError::unsupported("SECRET … AS FILE is not supported")
                    .hint("give the text itself where there is an option for it, such as properties.ssl.key.pem"),
            ));
        }
        Ok(Some(secret_reference(&name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;
    use tidemark_catalog::secret_named;

    fn one(sql: &str) -> PlanResult<Statement> {
        parse(sql).map(|mut all| all.remove(0).statement)
    }

    #[test]
    fn a_secret_is_created_in_risingwaves_words() {
        let value = || Hidden("pass'word".into());
        let expected = Statement::CreateSecret { name: "s".into(), if_not_exists: true, value: value() };
        assert_eq!(one("CREATE SECRET IF NOT EXISTS s WITH (backend = 'meta') AS 'pass''word'").unwrap(), expected);
        assert_eq!(
            one("ALTER SECRET s AS 'pass''word'").unwrap(),
            Statement::AlterSecret { name: "s".into(), value: value() }
        );
        let names = vec!["a".to_string(), "b".to_string()];
        assert_eq!(one("DROP SECRET IF EXISTS a, b").unwrap(), Statement::DropSecret { if_exists: true, names });
        for sql in ["CREATE SECRET s AS word", "CREATE SECRET s 'word'", "CREATE SECRET s AS", "ALTER SECRET s word"] {
            let error = one(sql).expect_err(sql);
            assert!(!error.message.contains("word"), "{sql}: {error}");
        }
        assert!(one("CREATE SECRET s WITH (backend = 'hashicorp_vault') AS 'x'").is_err());
        assert!(!format!("{expected:?}").contains("pass"));
    }

    #[test]
    fn an_option_may_name_a_secret() {
        let sql = "CREATE SOURCE s (a INT) WITH (properties.sasl.password = SECRET kafka, topic = secret)";
        let Ok(Statement::CreateRelation(relation)) = one(sql) else { panic!("no CREATE SOURCE") };
        assert_eq!(secret_named(&relation.options["properties.sasl.password"]), Some("kafka"));
        assert_eq!(relation.options["topic"], "secret");
        assert!(one("CREATE SOURCE s (a INT) WITH (properties.ssl.ca.location = SECRET ca AS FILE)").is_err());
    }
}
