//! docs/json.md as a test reads it. A section begins with a heading that names commands in backquotes. Below it
//! stands what they print, and a table of fields. A field that is not always there ends with a question mark.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Fields that take more than a test of all commands can cause. What makes them has tests of its own: those of the
/// alarm engine, and of who did it.
const SELDOM: [&str; 19] = [
    "contacted",
    "looked_up",
    "question",
    "dns",
    "response",
    "follows",
    "folded_into",
    "was",
    "news",
    "change",
    "step",
    "line",
    "frequent",
    "parts[].ports",
    "login",
    "login_uid",
    "sudo_user",
    "ssh_client",
    "note",
];

/// Objects and lists that are as seldom, with what they have.
const BELOW_SELDOM: [&str; 3] = [".frequent[].", "parts[].ports.", "looked_up."];

/// A row of a table.
#[derive(Debug)]
struct Field {
    types: Vec<String>,
    is_optional: bool,
    is_seen: bool,
}

/// What commands of one shape print.
#[derive(Debug, Default)]
struct Shape {
    heading: String,
    is_list: bool,
    fields: BTreeMap<String, Field>,
    is_seen: bool,
}

/// The page, and what was found wrong with it.
#[derive(Debug, Default)]
pub struct Page {
    shapes: Vec<Shape>,
    by_command: BTreeMap<String, usize>,
    problems: BTreeSet<String>,
}

impl Page {
    /// Reads the page of this tree.
    pub fn read() -> Page {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
        Page::parse(&fs::read_to_string(path).expect("the page"))
    }

    fn parse(text: &str) -> Page {
        let mut page = Page::default();
        for line in text.lines() {
            if let Some(heading) = line.strip_prefix("## ") {
                let commands: Vec<&str> = heading.split('`').skip(1).step_by(2).collect();
                page.shapes.push(Shape { heading: heading.to_owned(), ..Shape::default() });
                for command in commands {
                    page.by_command.insert(command.to_owned(), page.shapes.len() - 1);
                }
            }
            let Some(shape) = page.shapes.last_mut() else { continue };
            if line.starts_with("Prints an array") {
                shape.is_list = true;
            }
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let Some(name) = cells.get(1).and_then(|cell| cell.strip_prefix('`')?.split('`').next()) else {
                continue;
            };
            assert_eq!(cells.len(), 7, "five cells in {line}");
            for cell in &cells[2..6] {
                assert!(!cell.is_empty(), "an empty cell in {line}");
            }
            let field = Field {
                types: cells[2].split(" or ").map(str::to_owned).collect(),
                is_optional: name.ends_with('?'),
                is_seen: false,
            };
            let known = shape.fields.insert(name.trim_end_matches('?').to_owned(), field);
            assert!(known.is_none(), "{name} stands twice in {}", shape.heading);
        }
        page
    }

    /// Notes that something is wrong.
    pub fn note(&mut self, problem: String) {
        self.problems.insert(problem);
    }

    /// Holds a value that a command printed against its section.
    pub fn compare(&mut self, command: &str, value: &Value) {
        let Some(shape) = self.by_command.get(command).map(|index| &mut self.shapes[*index]) else {
            self.problems.insert(format!("{command}: the page has no such heading"));
            return;
        };
        shape.is_seen = true;
        match (shape.is_list, value) {
            (true, Value::Array(items)) => {
                for item in items {
                    walk(shape, "", item, &mut self.problems);
                }
            }
            (false, Value::Object(_)) => walk(shape, "", value, &mut self.problems),
            _ => {
                self.problems.insert(format!("{command}: it prints another kind of value: {value}"));
            }
        }
    }

    /// Fails if anything differs, or if the page has what was never seen.
    #[track_caller]
    pub fn finish(mut self) {
        for shape in &self.shapes {
            if !shape.is_seen && !shape.fields.is_empty() {
                self.problems.insert(format!("{}: never printed", shape.heading));
                continue;
            }
            for (name, field) in &shape.fields {
                let is_listed = |seldom: &&str| name == *seldom || name.ends_with(&format!(".{seldom}"));
                // what is always there is no exception
                let is_seldom = (field.is_optional && SELDOM.iter().any(is_listed))
                    || BELOW_SELDOM.iter().any(|parent| name.contains(parent));
                if !(field.is_seen || is_seldom && shape.is_seen) {
                    self.problems
                        .insert(format!("{}: `{name}` is on the page and was never printed", shape.heading));
                }
            }
        }
        let problems: Vec<String> = self.problems.into_iter().collect();
        assert!(problems.is_empty(), "docs/json.md differs from what is printed:\n{}", problems.join("\n"));
    }
}

/// Compares an object with the fields below a path.
fn walk(shape: &mut Shape, path: &str, value: &Value, problems: &mut BTreeSet<String>) {
    let Value::Object(object) = value else {
        problems.insert(format!("{}: `{path}` is no object: {value}", shape.heading));
        return;
    };
    let name_of = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    for (key, value) in object {
        let name = name_of(key);
        let Some(field) = shape.fields.get_mut(&name) else {
            problems.insert(format!("{}: `{name}` ({}) is not on the page", shape.heading, type_of(value)));
            continue;
        };
        field.is_seen = true;
        let types = field.types.clone();
        let fits: Vec<&String> = types.iter().filter(|kind| has_type(value, kind)).collect();
        if fits.is_empty() {
            problems.insert(format!(
                "{}: `{name}` is {}, not {}",
                shape.heading,
                type_of(value),
                types.join(" or ")
            ));
            continue;
        }
        match value {
            Value::Object(inner) if fits.iter().any(|kind| *kind == "map of object") => {
                for value in inner.values() {
                    walk(shape, &format!("{name}.*"), value, problems);
                }
            }
            Value::Object(_) if fits.iter().any(|kind| *kind == "object") => {
                walk(shape, &name, value, problems);
            }
            Value::Array(items) => {
                for item in items.iter().filter(|item| item.is_object()) {
                    walk(shape, &format!("{name}[]"), item, problems);
                }
            }
            _ => {}
        }
    }
    let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
    for (name, field) in &shape.fields {
        let Some(key) = name.strip_prefix(&prefix).filter(|key| !key.contains('.')) else { continue };
        if !field.is_optional && !object.contains_key(key) {
            problems.insert(format!(
                "{}: `{name}` is on the page as always there, and is missing",
                shape.heading
            ));
        }
    }
}

fn has_type(value: &Value, kind: &str) -> bool {
    match kind.split_once(" of ") {
        Some(("array", inner)) => {
            value.as_array().is_some_and(|items| items.iter().all(|item| has_type(item, inner)))
        }
        Some(("map", inner)) => {
            value.as_object().is_some_and(|map| map.values().all(|item| has_type(item, inner)))
        }
        _ => type_of(value) == kind || kind == "number" && value.is_number(),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: &str = "\
## `show x`
Prints an object.
| field | type | unit | meaning | since |
| --- | --- | --- | --- | --- |
| `name` | string | - | its name | 0.1 |
| `age?` | integer or null | s | its age | 0.1 |
| `rows` | array of object | - | its rows | 0.1 |
| `rows[].port` | integer | - | a port | 0.1 |
";

    fn problems(value: &Value) -> Vec<String> {
        let mut page = Page::parse(TEXT);
        page.compare("show x", value);
        page.problems.into_iter().collect()
    }

    #[test]
    fn a_field_that_differs_in_any_way_is_found() {
        let good = json!({"name": "a", "age": null, "rows": [{"port": 1}]});
        assert_eq!(problems(&good), [""; 0]);
        for (bad, words) in [
            (json!({"rows": []}), "`name` is on the page as always there"),
            (json!({"name": 1, "rows": []}), "`name` is integer, not string"),
            (json!({"name": "a", "rows": [], "new": true}), "`new` (boolean) is not on the page"),
            (json!({"name": "a", "rows": [{}]}), "`rows[].port` is on the page as always there"),
            (json!({"name": "a", "rows": [{"port": "x"}]}), "`rows[].port` is string"),
            (json!({"name": "a", "rows": [1]}), "`rows` is array, not array of object"),
            (json!([]), "another kind of value"),
        ] {
            let found = problems(&bad);
            assert!(found.len() == 1 && found[0].contains(words), "{bad}: {found:?}");
        }
    }

    #[test]
    #[should_panic(expected = "`age` is on the page and was never printed")]
    fn a_field_that_nothing_prints_is_found() {
        let mut page = Page::parse(TEXT);
        page.compare("show x", &json!({"name": "a", "rows": [{"port": 1}]}));
        page.finish();
    }
}
