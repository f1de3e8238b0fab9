//! Pictures as SVG: charts with a common time axis, and what a terminal shows. They have no scripts and no fonts of their
//! own, and are readable on light and dark paper.
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::path::Path;

pub mod chart;

pub use chart::{Chart, Line, Panel, Scale};

/// Writes a picture into a file; `-` is standard output.
pub fn write(file: &Path, svg: &str) -> Result<()> {
    if file == Path::new("-") {
        crate::control::print(svg);
        return Ok(());
    }
    std::fs::write(file, svg).with_context(|| format!("cannot write {}", file.display()))
}

/// Text as it stands in XML.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Not allowed in XML, not even escaped.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A terminal's window with this text.
pub fn terminal(title: &str, text: &str) -> String {
    const CELL: f64 = 8.4;
    const LINE: f64 = 18.0;
    const MARGIN: f64 = 14.0;
    const BAR: f64 = 30.0;
    let lines: Vec<&str> = text.lines().collect();
    let columns = lines.iter().map(|l| l.chars().count()).max().unwrap_or(0).max(20);
    let width = columns as f64 * CELL + 2.0 * MARGIN;
    let height = lines.len() as f64 * LINE + 2.0 * MARGIN + BAR;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" \
         font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#1d2129\"/>\n\
         <text x=\"{:.0}\" y=\"20\" fill=\"#8b93a3\" text-anchor=\"middle\">{}</text>\n",
        width / 2.0,
        escape(title)
    );
    for (i, color) in ["#e0645c", "#e3b341", "#5fb865"].iter().enumerate() {
        let _ = writeln!(
            out,
            "<circle cx=\"{}\" cy=\"15\" r=\"6\" fill=\"{color}\"/>",
            MARGIN + 6.0 + i as f64 * 20.0
        );
    }
    for (i, line) in lines.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
        let y = BAR + MARGIN + (i as f64 + 0.75) * LINE;
        let _ = writeln!(
            out,
            "<text x=\"{MARGIN}\" y=\"{y:.1}\" fill=\"#d7dbe2\" xml:space=\"preserve\" \
             textLength=\"{:.1}\" lengthAdjust=\"spacingAndGlyphs\">{}</text>",
            line.chars().count() as f64 * CELL,
            escape(line)
        );
    }
    out + "</svg>\n"
}

#[cfg(test)]
mod tests;
