//! Loads over time: built in, or read from a file.
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;

/// A load over time: points that straight lines join; two points of one time are a jump.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Its name.
    pub name: String,
    /// Seconds from the beginning, and the load there: a share of the peak.
    pub points: Vec<(f64, f64)>,
    /// What the peak is in requests per second, where a recording says it.
    pub peak_rps: Option<f64>,
}

/// The names of those that are built in.
pub const NAMES: [&str; 4] = ["ramp", "mirror", "step", "sine"];

impl Curve {
    /// One that is built in.
    pub fn named(name: &str) -> Option<Curve> {
        let points = match name {
            // Up to 90 % in 10 s, there for 10 s, a burst of 1 s, back down and quiet for 10 s.
            "ramp" => vec![
                (0.0, 0.0),
                (10.0, 0.9),
                (20.0, 0.9),
                (20.0, 1.0),
                (21.0, 1.0),
                (21.0, 0.0),
                (31.0, 0.0),
            ],
            // The same, but down as slowly as up.
            "mirror" => vec![
                (0.0, 0.0),
                (10.0, 0.9),
                (20.0, 0.9),
                (20.0, 1.0),
                (21.0, 1.0),
                (21.0, 0.9),
                (31.0, 0.0),
            ],
            // The shapes that IX was shown with: steps, and a sine.
            "step" => (0..10)
                .flat_map(|i| {
                    let height = f64::from(if i < 5 { i + 1 } else { 10 - i }) * 0.2;
                    let height = height.min(1.0);
                    [(f64::from(i) * 20.0, height), (f64::from(i + 1) * 20.0, height)]
                })
                .collect(),
            "sine" => (0..=200)
                .map(|i| {
                    let t = f64::from(i);
                    (t, 0.5 - 0.45 * (t / 100.0 * std::f64::consts::TAU).cos())
                })
                .collect(),
            _ => return None,
        };
        Some(Curve { name: name.to_owned(), points, peak_rps: None })
    }

    /// A name, or a file of comma-separated values: a column `seconds`, and one `load` (a share of the peak, or with
    /// a per cent sign) or `requests_per_s`, as `ixcp record` writes it.
    pub fn find(text: &str) -> Result<Curve> {
        if let Some(curve) = Curve::named(text) {
            return Ok(curve);
        }
        let path = Path::new(text);
        let content = std::fs::read_to_string(path).with_context(|| {
            format!(
                "{text:?} is neither a load curve ({}) nor a file that can be read",
                NAMES.join(", ")
            )
        })?;
        Curve::parse(text, &content).with_context(|| format!("cannot use {text}"))
    }

    /// The text of such a file.
    pub fn parse(name: &str, text: &str) -> Result<Curve> {
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let (_, head) = lines.next().context("it is empty")?;
        let names: Vec<&str> = head.split(',').map(str::trim).collect();
        let column = |name: &str| names.iter().position(|n| *n == name);
        let seconds = column("seconds").context("its first line names no column `seconds`")?;
        let (load, absolute) = match (column("load"), column("requests_per_s")) {
            (Some(at), _) => (at, false),
            (None, Some(at)) => (at, true),
            (None, None) => {
                bail!("its first line names neither a column `load` nor `requests_per_s`")
            }
        };
        let mut points: Vec<(f64, f64)> = Vec::new();
        for (number, line) in lines {
            let cells: Vec<&str> = line.split(',').map(str::trim).collect();
            let cell = |at: usize| {
                let text = cells.get(at).with_context(|| format!("line {number} is too short"))?;
                let percent = text.strip_suffix('%');
                let Ok(value) = percent.unwrap_or(text).trim().parse::<f64>() else {
                    bail!("line {number}: {text:?} is no number")
                };
                ensure!(
                    value.is_finite() && value >= 0.0,
                    "line {number}: {text:?}, a number that is not negative is wanted"
                );
                Ok(if percent.is_some() { value / 100.0 } else { value })
            };
            let at = cell(seconds)?;
            ensure!(
                points.last().is_none_or(|(last, _)| *last <= at),
                "line {number}: time goes backwards"
            );
            points.push((at, cell(load)?));
        }
        ensure!(points.len() >= 2, "at least two lines of values are wanted");
        let first = points[0].0;
        points.iter_mut().for_each(|(at, _)| *at -= first);
        ensure!(points[points.len() - 1].0 > 0.0, "it takes no time");
        let most = points.iter().map(|p| p.1).fold(0.0, f64::max);
        ensure!(most > 0.0, "there is no load in it");
        if absolute {
            points.iter_mut().for_each(|(_, load)| *load /= most);
        } else {
            ensure!(
                most <= 2.0,
                "a load of {most} times the peak: shares are wanted, or a per cent sign"
            );
        }
        Ok(Curve { name: name.to_owned(), points, peak_rps: absolute.then_some(most) })
    }

    /// How long it is, s.
    pub fn seconds(&self) -> f64 {
        self.points.last().map_or(0.0, |p| p.0)
    }

    /// The load at a time; at a jump, the later one.
    pub fn at(&self, seconds: f64) -> f64 {
        let next = self.points.partition_point(|(at, _)| *at <= seconds);
        match (next.checked_sub(1).map(|i| self.points[i]), self.points.get(next).copied()) {
            (Some((t0, l0)), Some((t1, l1))) => l0 + (l1 - l0) * (seconds - t0) / (t1 - t0),
            (Some((_, load)), None) | (None, Some((_, load))) => load,
            (None, None) => 0.0,
        }
    }

    /// The average load.
    pub fn mean(&self) -> f64 {
        let area = self.points.windows(2).map(|w| (w[1].0 - w[0].0) * (w[0].1 + w[1].1) / 2.0);
        area.sum::<f64>() / self.seconds()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ramp_is_the_one_that_was_asked_for() {
        let ramp = Curve::named("ramp").unwrap();
        let at =
            [0.0, 5.0, 10.0, 15.0, 20.0, 20.5, 21.0, 30.0].map(|t| (ramp.at(t) * 100.0).round());
        assert_eq!(at, [0.0, 45.0, 90.0, 90.0, 100.0, 100.0, 0.0, 0.0]);
        assert!((ramp.mean() - 14.5 / 31.0).abs() < 1e-9);
        assert!((Curve::named("mirror").unwrap().mean() - 19.0 / 31.0).abs() < 1e-9);
        assert!(NAMES.iter().all(|name| Curve::named(name).is_some()));
    }

    #[test]
    fn files_are_read_and_complaints_name_the_line() {
        let relative =
            Curve::parse("f", "# c\nseconds, load\n1, 10%\n\n2,0.5\n2,1\n3,1\n").unwrap();
        assert_eq!(relative.points, [(0.0, 0.1), (1.0, 0.5), (1.0, 1.0), (2.0, 1.0)]);
        let absolute = Curve::parse("f", "requests_per_s,x,seconds\n50,,0\n200,,1\n").unwrap();
        assert_eq!((absolute.points[0].1, absolute.peak_rps), (0.25, Some(200.0)));
        for (text, words) in [
            ("", "empty"),
            ("a,b\n", "no column `seconds`"),
            ("seconds\n", "neither"),
            ("seconds,load\n0,x\n", "line 2"),
            ("seconds,load\n0,1\n0.5,NaN\n", "line 3"),
            ("seconds,load\n1,1\n0,1\n", "backwards"),
            ("seconds,load\n1,1\n", "two lines"),
            ("seconds,load\n1\n", "too short"),
            ("seconds,load\n0,90\n1,90\n", "per cent"),
            ("seconds,load\n0,0\n1,0\n", "no load"),
            ("seconds,load\n1,1\n1,1\n", "no time"),
        ] {
            let said = format!("{:#}", Curve::parse("f", text).unwrap_err());
            assert!(said.contains(words), "{text:?}: {said}");
        }
    }
}
