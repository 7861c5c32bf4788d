//! Writes numbers and plots into `docs/performance.md`, between two marks. The text around them stays.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cases::{Case, MAIN, cases};
use crate::filters::{FILTERS, SERVICE, STRICT};
use crate::plot::{Bar, draw_bars};
use crate::report::Report;
use crate::statistics::Spread;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.md");
const PLOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance");
const BEGIN: &str = "<!-- scripts/bench writes from here -->";
const END: &str = "<!-- to here -->";

/// Writes the tables into the document, and the plots beside it.
pub fn write(report: &Report) -> Result<()> {
    let path = Path::new(DOCUMENT);
    let old = fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
    let (before, rest) = old.split_once(BEGIN).context("no mark to write after in docs/performance.md")?;
    let (_, after) = rest.split_once(END).context("no mark to write up to in docs/performance.md")?;
    let mut middle = report.facts.iter().map(|fact| format!("- {fact}\n")).collect::<String>();
    middle.push('\n');
    fs::create_dir_all(PLOTS)?;
    for (name, title, bars) in plots(report) {
        let file = PathBuf::from(PLOTS).join(format!("{name}.svg"));
        fs::write(&file, draw_bars(title, &bars))?;
        middle.push_str(&format!("![{title}](performance/{name}.svg)\n\n"));
    }
    middle.push_str(&report.print_markdown());
    fs::write(path, format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", middle.trim_end()))?;
    Ok(())
}

fn plots(report: &Report) -> Vec<(&'static str, &'static str, Vec<Bar>)> {
    let bar = |label: &str, key: String, ours| {
        let value = Spread::of(report.series(&key)?);
        Some(Bar { label: label.to_owned(), value, ours })
    };
    let wire = |kind: &str| {
        let is_ours = |name: &str| [STRICT, SERVICE].contains(&name);
        FILTERS
            .iter()
            .filter(|filter| !filter.name.starts_with("XDP, bare"))
            .filter_map(|filter| {
                bar(filter.name, format!("wire/{kind}/{}", filter.name), is_ours(filter.name))
            })
            .collect::<Vec<Bar>>()
    };
    let cost = |sizes: bool| {
        let mut bars = Vec::new();
        for case in cases().iter().filter(|case| is_about_size(case) == sizes) {
            let ours = case.programs[0];
            bars.extend(bar(case.title, format!("cost/{}/{ours}", case.key), true));
            if case.beside != ours {
                let label = format!("({})", case.beside);
                bars.extend(bar(&label, format!("cost/{}/{}", case.key, case.beside), false));
            }
        }
        bars
    };
    let all = vec![
        ("drop", "Nanoseconds added to a packet that is dropped, on the wire", wire("drop")),
        ("pass", "Nanoseconds added to a packet that is forwarded, on the wire", wire("pass")),
        ("cost", "Nanoseconds of a program by test run (and of what it is compared with)", cost(false)),
        ("sizes", "Nanoseconds by test run, policies of all sizes", cost(true)),
    ];
    all.into_iter().filter(|(_, _, bars)| !bars.is_empty()).collect()
}

/// Whether a case compares policies, not programs.
fn is_about_size(case: &Case) -> bool {
    case.programs[0] != MAIN
}
