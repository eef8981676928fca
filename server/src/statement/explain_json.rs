//! `EXPLAIN (FORMAT JSON)`: the lines of a plan as PostgreSQL's tree of nodes, one below the other as they are indented.
//!
//! ```text
//! SortExec: expr=[a]          [{"Plan": {"Node Type": "SortExec", "Detail": "expr=[a]",
//!   DataSourceExec: …                    "Plans": [{"Node Type": "DataSourceExec", …}]}}]
//! Rows: 3                     "Actual Rows": 3 of the topmost node
//! ```
//! Tools that draw plans look for `Node Type` and `Plans`; the names of the nodes are this server's.

use serde_json::{Map, Value, json};

/// A plan's text as the one document that is answered.
pub fn document(text: &str) -> String {
    let mut rows = None;
    let mut nodes = vec![];
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match line.strip_prefix("Rows: ").and_then(|rows| rows.parse::<u64>().ok()) {
            Some(counted) => rows = Some(counted),
            None => nodes.push((indentation(line), node(line))),
        }
    }
    // The first line is above all others, whatever comes at its side: what is said of the plan comes before it.
    let mut root = nodes.first().map(|(_, node)| node.clone()).unwrap_or_default();
    if let Some(rows) = rows {
        root.insert("Actual Rows".into(), rows.into());
    }
    let below = tree(nodes.get(1..).unwrap_or_default());
    if !below.is_empty() {
        root.insert("Plans".into(), below.into());
    }
    format!("{:#}", json!([{ "Plan": root }]))
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn node(line: &str) -> Map<String, Value> {
    let mut node = Map::new();
    let (kind, detail) = match line.trim().split_once(": ") {
        Some((kind, detail)) => (kind, Some(detail)),
        None => (line.trim(), None),
    };
    node.insert("Node Type".into(), kind.into());
    if let Some(detail) = detail {
        node.insert("Detail".into(), detail.into());
    }
    node
}

/// Each node that is indented no more than those before it, with what is indented more below it. As deep as plans are.
fn tree(nodes: &[(usize, Map<String, Value>)]) -> Vec<Value> {
    let mut all = vec![];
    let mut rest = nodes;
    while let Some(((indented, node), behind)) = rest.split_first() {
        let below = behind.iter().take_while(|(other, _)| other > indented).count();
        let mut node = node.clone();
        if below > 0 {
            node.insert("Plans".into(), tree(&behind[..below]).into());
        }
        all.push(node.into());
        rest = &behind[below..];
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_below_those_that_are_indented_less() {
        let text = "Sort: expr=[a]\n  Join\n    Scan: l\n    Scan: r\nRows: 3\n";
        let found: Value = serde_json::from_str(&document(text)).expect("it is JSON");
        let scan = |detail: &str| json!({ "Node Type": "Scan", "Detail": detail });
        let join = json!({ "Node Type": "Join", "Plans": [scan("l"), scan("r")] });
        let sort = json!({ "Node Type": "Sort", "Detail": "expr=[a]", "Actual Rows": 3, "Plans": [join] });
        assert_eq!(found, json!([{ "Plan": sort }]));
    }

    #[test]
    fn what_is_said_before_a_plan_is_above_it() {
        let found: Value = serde_json::from_str(&document("Insert on t\nScan: s\n")).expect("it is JSON");
        assert_eq!(found[0]["Plan"]["Node Type"], "Insert on t");
        assert_eq!(found[0]["Plan"]["Plans"][0]["Detail"], "s");
    }
}
