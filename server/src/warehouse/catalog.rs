//! Which catalog the history's tables are in, when that is not a file beside them: a REST catalog or one in a PostgreSQL, as
//! `--history-catalog` writes it. `DATA/CATALOG` has it, without who we are there, for the same reason as `DATA/WAREHOUSE`: in
//! another catalog there is no history.
//!
//! ```text
//! rest+http://host:port/path?warehouse=NAME&prefix=TEXT&oauth2=URL&scope=SCOPE
//! postgres://user:password@host:port/database?catalog=NAME&prefix=TEXT
//! ```

use super::{has_catalog, keep, line};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::path::Path;
use tidemark_connectors::iceberg::{Credential, PostgresSettings, RestSettings};

const FILE: &str = "CATALOG";

/// A catalog that is not a file of ours.
#[derive(Debug)]
pub enum Elsewhere {
    Rest(RestSettings),
    Postgres(Box<PostgresSettings>),
}

/// The catalog elsewhere of a data directory whose file catalog would be in `folder`; `None`: that file.
pub fn catalog(data: &Path, folder: &Path, url: Option<&str>, credential: Option<&str>) -> Result<Option<Elsewhere>> {
    let kept = line(&data.join(FILE)).with_context(|| format!("cannot read the catalog of {}", data.display()))?;
    let Some(url) = url else {
        if let Some(kept) = kept {
            bail!(
                "the history of data directory {} is in the catalog {kept}: start the server with --history-catalog {kept}",
                data.display()
            );
        }
        return Ok(None);
    };
    let settings = parse(url, credential)?;
    let shown = shown(&settings);
    if let Some(kept) = kept.filter(|kept| *kept != shown) {
        bail!(
            "the history of data directory {} is in the catalog {kept} and cannot be moved to {shown}: start the server \
             with --history-catalog {kept}, or give it a new data directory",
            data.display()
        );
    }
    ensure!(
        !has_catalog(folder),
        "the history of data directory {} is in a catalog of its own, {}: leave --history-catalog out, or give the server \
         a new data directory",
        data.display(),
        folder.join("catalog.db").display()
    );
    Ok(Some(settings))
}

/// Keeps which catalog it is, when it has answered.
pub fn begun(data: &Path, settings: &Elsewhere) -> Result<()> {
    keep(data, FILE, &shown(settings)).context("cannot keep which catalog the history is in")
}

/// What has to stay the same, as `--history-catalog` has it.
fn shown(settings: &Elsewhere) -> String {
    let settings = match settings {
        Elsewhere::Rest(settings) => settings,
        Elsewhere::Postgres(settings) => return settings.shown().to_string(),
    };
    let prefix = Some(&settings.prefix).filter(|prefix| !prefix.is_empty()).map(|prefix| format!("prefix={prefix}"));
    let warehouse = settings.warehouse.as_ref().map(|name| format!("warehouse={name}"));
    let query: Vec<String> = prefix.into_iter().chain(warehouse).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("rest+{}{mark}{}", settings.uri, query.join("&"))
}

fn parse(url: &str, credential: Option<&str>) -> Result<Elsewhere> {
    if PostgresSettings::is_meant(url) {
        let settings = PostgresSettings::parse(url, credential).map_err(|why| anyhow!("--history-catalog: {why}"))?;
        return Ok(Elsewhere::Postgres(Box::new(settings)));
    }
    parse_rest(url, credential).map(Elsewhere::Rest)
}

fn parse_rest(url: &str, credential: Option<&str>) -> Result<RestSettings> {
    let expected = "is not understood: write rest+http://host:port/path?warehouse=NAME&prefix=TEXT&oauth2=URL&scope=SCOPE, \
                    or postgres://user:password@host:port/database?catalog=NAME&prefix=TEXT, of which all from the ? on \
                    may be left out";
    let Some(uri) = url.strip_prefix("rest+").filter(|uri| uri.starts_with("http://") || uri.starts_with("https://"))
    else {
        bail!("--history-catalog {expected}");
    };
    let (uri, query) = uri.split_once('?').unwrap_or((uri, ""));
    ensure!(
        !uri.contains('@'),
        "--history-catalog has no user in it: a token or id:secret is --history-catalog-credential"
    );
    let mut settings = RestSettings {
        uri: uri.trim_end_matches('/').to_string(),
        warehouse: None,
        prefix: String::new(),
        credential: credential.map(Credential::parse),
        oauth2: None,
        scope: None,
    };
    for part in query.split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("warehouse", name)) if !name.is_empty() => settings.warehouse = Some(name.to_string()),
            Some(("prefix", text)) if text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_') => {
                settings.prefix = text.to_string();
            }
            // It is shown in errors.
            Some(("oauth2", url)) if url.contains('@') => {
                bail!("--history-catalog: oauth2 has no user in it: id:secret is --history-catalog-credential")
            }
            Some(("oauth2", url)) if url.starts_with("http") => settings.oauth2 = Some(url.to_string()),
            Some(("scope", scope)) => settings.scope = Some(scope.to_string()),
            _ => bail!("--history-catalog: {part:?} {expected}"),
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_is_written_as_a_url_and_its_secret_elsewhere() {
        let url =
            "rest+https://lake.example/api/?warehouse=main&prefix=prod_&oauth2=https://id.example/token&scope=ALL";
        let settings = parse_rest(url, Some("me:secret")).unwrap();
        assert_eq!(settings.uri, "https://lake.example/api");
        assert_eq!(settings.warehouse.as_deref(), Some("main"));
        assert_eq!(settings.oauth2.as_deref(), Some("https://id.example/token"));
        assert!(!format!("{settings:?}").contains("secret"));
        assert_eq!(shown(&Elsewhere::Rest(settings)), "rest+https://lake.example/api?prefix=prod_&warehouse=main");
        assert_eq!(shown(&parse("rest+http://host:1", None).unwrap()), "rest+http://host:1");
        for (url, why) in [
            ("http://host", "rest+http://"),
            ("rest+ftp://host", "rest+http://"),
            ("rest+http://user:word@host", "--history-catalog-credential"),
            ("rest+http://host?token=word", "\"token=word\""),
            ("rest+http://host?prefix=a.b", "is not understood"),
            ("postgres://me:word@host/lake?sslmode=require", "sslmode=disable"),
            ("postgresql+psycopg2://me:word@host/lake", "postgres://user:password@host"),
        ] {
            let error = parse(url, None).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("me:word"), "{error}");
        }
    }

    #[test]
    fn a_catalog_in_postgres_is_kept_without_its_user_and_may_have_another() {
        let folder = tempfile::tempdir().unwrap();
        let (data, own) = (folder.path(), folder.path().join("warehouse"));
        let find = |url: &str, password: Option<&str>| {
            catalog(data, &own, Some(url), password).map_err(|error| error.to_string())
        };
        let settings = find("postgres://me:hidden@host/lake", None).unwrap().unwrap();
        begun(data, &settings).unwrap();
        assert_eq!(std::fs::read_to_string(data.join(FILE)).unwrap(), "postgres://host:5432/lake\n");
        find("postgresql://other@host:5432/lake", Some("changed")).unwrap().unwrap();
        let error = find("postgres://me:hidden@host/other", None).unwrap_err();
        assert!(
            error.contains("cannot be moved to postgres://host:5432/other") && !error.contains("hidden"),
            "{error}"
        );
    }

    #[test]
    fn history_stays_in_its_catalog() {
        let folder = tempfile::tempdir().unwrap();
        let (data, own) = (folder.path(), folder.path().join("warehouse"));
        std::fs::create_dir(&own).unwrap();
        let find = |url: Option<&str>| catalog(data, &own, url, None).map_err(|error| error.to_string());
        assert!(find(None).unwrap().is_none());
        let settings = find(Some("rest+http://host:1")).unwrap().unwrap();
        // It has not answered yet: another may be given.
        find(Some("rest+http://host:2")).unwrap().unwrap();
        begun(data, &settings).unwrap();
        find(Some("rest+http://host:1/?scope=other")).unwrap().unwrap();
        assert!(find(Some("rest+http://host:2")).unwrap_err().contains("cannot be moved to"));
        assert!(find(None).unwrap_err().contains("start the server with --history-catalog rest+http://host:1"));
        std::fs::remove_file(data.join(FILE)).unwrap();
        std::fs::write(own.join("catalog.db"), "").unwrap();
        assert!(find(Some("rest+http://host:1")).unwrap_err().contains("leave --history-catalog out"));
    }
}
