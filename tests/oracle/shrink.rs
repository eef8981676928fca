//! A smaller case that still fails, kept for ever.

use crate::coverage::Coverage;
use crate::model::Case;
use crate::postgres::Postgres;
use crate::under_test::UnderTest;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Runs of the whole case that one shrinking may take.
const ATTEMPTS_MAX: usize = 60;

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/kept")
}

/// The cases that ever failed, by file name.
pub fn kept() -> Result<Vec<(String, Case)>> {
    let mut cases = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder()) else { return Ok(cases) };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json") {
            let text = std::fs::read_to_string(&path)?;
            let case = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
            cases.push((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), case));
        }
    }
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(cases)
}

pub fn keep(case: &Case, view: usize) -> Result<PathBuf> {
    std::fs::create_dir_all(folder())?;
    let path = folder().join(format!("{}-{view}.json", case.seed));
    std::fs::write(&path, serde_json::to_string_pretty(case)? + "\n")?;
    Ok(path)
}

/// Keeps one view, then drops outputs, options and rows as long as it still fails. The last row stays: it carries the
/// event clock past all probes.
pub async fn shrink(case: &Case, view: usize, postgres: &Postgres, system: &mut dyn UnderTest) -> Case {
    let mut small = case.clone();
    small.views = vec![case.views[view].clone()];
    let mut attempts = 0;
    // A view alone is born in the middle of the stream; if that hides the failure, a twin beside it lives through all.
    if !fails(&small, postgres, system, &mut attempts).await {
        small.views = vec![case.views[view].clone(), case.views[view].clone()];
        if !fails(&small, postgres, system, &mut attempts).await {
            return case.clone();
        }
    }
    let mut output = 0;
    while output < small.views[0].0.outputs.len() && small.views[0].0.outputs.len() > 1 {
        let mut smaller = small.clone();
        for (view, _) in &mut smaller.views {
            view.outputs.remove(output);
        }
        if fails(&smaller, postgres, system, &mut attempts).await {
            small = smaller;
        } else {
            output += 1;
        }
    }
    let mut plainer = small.clone();
    for (view, _) in &mut plainer.views {
        view.filter = None;
    }
    if small.views[0].0.filter.is_some() && fails(&plainer, postgres, system, &mut attempts).await {
        small = plainer;
    }
    let mut chunk = small.source.rows.len() / 2;
    while chunk > 0 && attempts < ATTEMPTS_MAX {
        let mut from = 0;
        while from + chunk < small.source.rows.len() {
            let mut smaller = small.clone();
            smaller.source.rows.drain(from..from + chunk);
            if fails(&smaller, postgres, system, &mut attempts).await {
                small = smaller;
            } else {
                from += chunk;
            }
        }
        chunk /= 2;
    }
    small
}

async fn fails(case: &Case, postgres: &Postgres, system: &mut dyn UnderTest, attempts: &mut usize) -> bool {
    *attempts += 1;
    if *attempts > ATTEMPTS_MAX || !system.is_alive() {
        return false;
    }
    let name = format!("shrink_{}_{attempts}", case.seed);
    !crate::check::check(case, &name, postgres, system, &mut Coverage::default()).await.is_empty()
}
