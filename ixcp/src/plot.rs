//! `ixcp plot`: load, cores and queueing delay over time, as a picture.
use crate::cli::Plot;
use crate::policy::Kind;
use crate::sim::Report;
use crate::svg::{self, Chart, Line, Panel, Scale};
use anyhow::{Context, Result, bail, ensure};

/// `ixcp plot`.
pub fn run(options: &Plot) -> Result<u8> {
    let text = std::fs::read_to_string(&options.file)
        .with_context(|| format!("cannot read {}", options.file.display()))?;
    let table = Table::parse(&text)
        .with_context(|| format!("{} is no recording", options.file.display()))?;
    let name = options.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let title = options.title.clone().unwrap_or(name);
    svg::write(&options.write, &of_table(&table, title, options.target).svg())?;
    Ok(0)
}

/// Named columns of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The first lines, that begin with `#`.
    pub notes: Vec<String>,
    /// Names and values; what is empty is not a number.
    pub columns: Vec<(String, Vec<f64>)>,
}

impl Table {
    /// Comma-separated values with a line of names.
    pub fn parse(text: &str) -> Result<Table> {
        let notes = text.lines().filter_map(|l| l.strip_prefix('#')).map(|l| l.trim().to_owned());
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let mut lines = lines.filter(|(_, l)| !l.is_empty() && !l.starts_with('#'));
        let (_, head) = lines.next().context("it is empty")?;
        let mut columns: Vec<(String, Vec<f64>)> =
            head.split(',').map(|name| (name.trim().to_owned(), Vec::new())).collect();
        // Before its lines: of some other file these would be the lesser matter.
        let is_recording = columns.iter().any(|(name, _)| name == "seconds");
        ensure!(is_recording, "its first line names no column `seconds`");
        for (number, line) in lines {
            let cells: Vec<&str> = line.split(',').collect();
            ensure!(
                cells.len() == columns.len(),
                "line {number} has {} values instead of {}",
                cells.len(),
                columns.len()
            );
            for ((name, values), cell) in columns.iter_mut().zip(cells) {
                let cell = cell.trim();
                let value = match cell {
                    "" => f64::NAN,
                    _ => match cell.parse() {
                        Ok(value) => value,
                        Err(_) => bail!("line {number}, {name}: {cell:?} is no number"),
                    },
                };
                values.push(value);
            }
        }
        let table = Table { notes: notes.collect(), columns };
        ensure!(
            table.column("seconds").is_some_and(|s| s.len() >= 2),
            "at least two lines of values are wanted"
        );
        Ok(table)
    }

    fn column(&self, name: &str) -> Option<&[f64]> {
        self.columns.iter().find(|(n, _)| n == name).map(|(_, values)| values.as_slice())
    }

    fn line(&self, column: &str, name: &str, steps: bool) -> Option<Line> {
        let seconds = self.column("seconds")?;
        let points = seconds.iter().copied().zip(self.column(column)?.iter().copied()).collect();
        Some(Line { name: name.to_owned(), points, steps })
    }
}

fn of_table(table: &Table, title: String, target: Option<f64>) -> Chart {
    let lines = |wanted: &[(&str, &str, bool)]| {
        wanted.iter().filter_map(|(column, name, steps)| table.line(column, name, *steps)).collect()
    };
    let panel = |name: &str, scale, lines: Vec<Line>, mark| Panel {
        name: name.to_owned(),
        scale,
        lines,
        mark,
        most: None,
    };
    let mark = target.map(|us| (us, format!("{us} µs")));
    let cores = [("cores", "that serve", true), ("wants", "wanted", true)];
    let delay = [("p99_us", "99th percentile", false), ("p50_us", "median", false)];
    let panels = vec![
        panel("load, requests/s", Scale::Linear, lines(&[("requests_per_s", "load", false)]), None),
        panel("cores", Scale::Linear, lines(&cores), None),
        panel("busy, share of the time", Scale::Linear, lines(&[("busy", "busy", false)]), None),
        panel("queueing delay, µs", Scale::Log, lines(&delay), mark),
    ];
    let panels = panels.into_iter().filter(|p| !p.lines.is_empty()).collect();
    Chart { title, subtitle: table.notes.first().cloned().unwrap_or_default(), panels }
}

/// What a simulation came to.
pub fn of_report(r: &Report) -> String {
    let line = |name: &str, value: fn(&crate::sim::report::Point) -> f64, steps| Line {
        name: name.to_owned(),
        points: r.points.iter().map(|p| (p.seconds, value(p))).collect(),
        steps,
    };
    let panel = |name: &str, scale, lines, mark, most| Panel {
        name: name.to_owned(),
        scale,
        lines,
        mark,
        most,
    };
    let cores = f64::from(r.cores);
    let mut panels = vec![
        panel(
            "load, share of the peak",
            Scale::Linear,
            vec![line("load", |p| p.load, false)],
            None,
            Some(1.0),
        ),
        panel(
            "cores that serve",
            Scale::Linear,
            vec![line("cores", |p| f64::from(p.cores), true)],
            None,
            Some(cores),
        ),
    ];
    if r.policy == Kind::Efficient {
        let lines = vec![line("frequency", |p| p.frequency, true)];
        panels.push(panel(
            "frequency, share of the highest",
            Scale::Linear,
            lines,
            None,
            Some(1.0),
        ));
    }
    if r.policy == Kind::Background {
        let lines = vec![line("lent", |p| f64::from(p.lent), true)];
        panels.push(panel("CPUs of the job", Scale::Linear, lines, None, Some(cores)));
    }
    // Where nothing was asked, nothing waited.
    let delays = vec![
        line("99th percentile", |p| if p.p99_us > 0.0 { p.p99_us } else { f64::NAN }, false),
        line("median", |p| if p.p99_us > 0.0 { p.p50_us } else { f64::NAN }, false),
    ];
    let target = format!("target {} µs", r.target_us);
    panels.push(panel("queueing delay, µs", Scale::Log, delays, Some((r.target_us, target)), None));
    let mut subtitle = format!(
        "{} cores, peak {:.2} M requests/s, seed {}: p99 {:.0} µs, {:.1} % fewer core-seconds",
        r.cores,
        r.peak_rps / 1e6,
        r.seed,
        r.delay_us.1,
        r.saved * 100.0
    );
    if r.policy == Kind::Efficient {
        subtitle += &format!(", {:.1} % less energy (a model)", r.energy_saved * 100.0);
    }
    if let Some(job) = r.job {
        subtitle += &format!(", the job does {:.1} %", job * 100.0);
    }
    let title = format!("policy {} under the load {:?}, in simulated time", r.policy, r.load);
    Chart { title, subtitle, panels }.svg()
}

#[cfg(test)]
mod tests;
