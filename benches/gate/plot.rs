//! Bar charts as SVG, in colours that are legible on white and on black.

use std::fmt::Write as _;

use crate::statistics::Spread;

const TEXT: &str = "#7d7d7d";
const OURS: &str = "#d9822b";
const THEIRS: &str = "#5b8dbf";

/// One bar.
pub struct Bar {
    pub label: String,
    pub value: Spread,
    /// Whether the bar is about the gate.
    pub ours: bool,
}

/// Horizontal bars with a whisker from the lowest to the highest round, and the median beside.
pub fn draw_bars(title: &str, bars: &[Bar]) -> String {
    const LABELS: f64 = 280.0;
    const WIDTH: f64 = 670.0;
    const ROW: f64 = 20.0;
    const TOP: f64 = 30.0;
    let most = bars.iter().map(|bar| bar.value.high).fold(1.0, f64::max);
    let scale = |value: f64| value.max(0.0) / most * (WIDTH - LABELS - 60.0);
    let height = TOP + ROW * bars.len() as f64 + 6.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"{TEXT}\">\n\
         <title>{title}</title>\n<text x=\"0\" y=\"15\" font-size=\"13\" font-weight=\"bold\">{title}</text>\n",
        title = escape(title)
    );
    for (number, bar) in bars.iter().enumerate() {
        let y = TOP + ROW * number as f64;
        let (low, median, high) = (scale(bar.value.low), scale(bar.value.median), scale(bar.value.high));
        let colour = if bar.ours { OURS } else { THEIRS };
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LABELS}\" y=\"{:.0}\" width=\"{median:.1}\" height=\"12\" fill=\"{colour}\"/>\
             <path d=\"M{:.1} {:.0}H{:.1}\" stroke=\"{TEXT}\" stroke-width=\"1.5\"/>\
             <text x=\"{:.1}\" y=\"{:.0}\">{:.0}</text>",
            LABELS - 8.0,
            y + 10.0,
            escape(&bar.label),
            y,
            LABELS + low,
            y + 6.0,
            LABELS + high,
            LABELS + high + 6.0,
            y + 10.0,
            bar.value.median,
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
