//! Charts: panels one below the other, with lines over the same time.
use super::escape;
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 130.0;
const PANEL: f64 = 130.0;
const GAP: f64 = 34.0;
const HEAD: f64 = 76.0;
const COLORS: [&str; 4] = ["#3b78c4", "#d9822b", "#3f9c5a", "#9a5bb5"];
/// Points of a line at most: more cannot be seen.
const POINTS_MAX: usize = 1_600;

/// How values become heights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// In proportion, from 0.
    Linear,
    /// By their logarithm.
    Log,
}

/// A line.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is.
    pub name: String,
    /// Time in seconds and value, in the order of time; what is no number is left out.
    pub points: Vec<(f64, f64)>,
    /// A value holds until the next.
    pub steps: bool,
}

/// Lines that have the same scale.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What is shown, with its unit.
    pub name: String,
    /// The scale.
    pub scale: Scale,
    /// The lines.
    pub lines: Vec<Line>,
    /// A value that is marked, and its name.
    pub mark: Option<(f64, String)>,
    /// The largest value, if it is not to be taken from the lines.
    pub most: Option<f64>,
}

/// The whole.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What stands above.
    pub title: String,
    /// And below that, smaller.
    pub subtitle: String,
    /// From above to below.
    pub panels: Vec<Panel>,
}

impl Chart {
    /// As SVG.
    pub fn svg(&self) -> String {
        let height = HEAD + self.panels.len() as f64 * (PANEL + GAP) + 22.0;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, 'DejaVu Sans', Arial, sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
             <text x=\"{LEFT}\" y=\"24\" font-size=\"16\" fill=\"#20242c\">{}</text>\n\
             <text x=\"{LEFT}\" y=\"42\" fill=\"#5b6472\">{}</text>\n",
            escape(&self.title),
            escape(&self.subtitle)
        );
        let times = self.panels.iter().flat_map(|p| &p.lines).flat_map(|l| &l.points).map(|p| p.0);
        let times = times.filter(|t| t.is_finite());
        let (from, to) = times.fold((f64::MAX, f64::MIN), |(a, b), t| (a.min(t), b.max(t)));
        let (from, to) = if to > from { (from, to) } else { (0.0, 1.0) };
        for (i, panel) in self.panels.iter().enumerate() {
            let top = HEAD + i as f64 * (PANEL + GAP);
            panel.draw(&mut out, top, (from, to), i + 1 == self.panels.len());
        }
        out + "</svg>\n"
    }
}

impl Panel {
    fn draw(&self, out: &mut String, top: f64, (from, to): (f64, f64), last: bool) {
        let bottom = top + PANEL;
        let right = WIDTH - RIGHT;
        let values = self.lines.iter().flat_map(|l| &l.points).map(|p| p.1);
        let values = values.chain(self.mark.iter().map(|m| m.0)).filter(|v| v.is_finite());
        let axis = Axis::new(self.scale, values, self.most);
        let x = |t: f64| LEFT + (t - from) / (to - from) * (right - LEFT);
        let y = |v: f64| bottom - axis.part(v) * PANEL;
        let _ = writeln!(
            out,
            "<text x=\"{LEFT}\" y=\"{:.1}\" fill=\"#20242c\">{}</text>",
            top - 6.0,
            escape(&self.name)
        );
        for tick in &axis.ticks {
            let at = y(*tick);
            let _ = writeln!(
                out,
                "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#e3e6eb\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#5b6472\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                short(*tick)
            );
        }
        let step = nice((to - from) / 8.0);
        let mut tick = (from / step).ceil() * step;
        // Bounded whatever the numbers are.
        for _ in 0..40 {
            if tick > to {
                break;
            }
            let _ =
                writeln!(out, "<path d=\"M{0:.1} {top}V{bottom}\" stroke=\"#eef0f3\"/>", x(tick));
            if last {
                let _ = writeln!(
                    out,
                    "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#5b6472\">{} s</text>",
                    x(tick),
                    bottom + 18.0,
                    short(tick)
                );
            }
            tick += step;
        }
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"#9aa3b0\"/>"
        );
        if let Some((value, name)) = &self.mark {
            let at = y(*value);
            let _ = writeln!(
                out,
                "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#c0392b\" stroke-dasharray=\"5 4\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#c0392b\">{}</text>",
                right + 8.0,
                at + 4.0,
                escape(name)
            );
        }
        for (i, line) in self.lines.iter().enumerate() {
            let color = COLORS[i % COLORS.len()];
            let _ = writeln!(
                out,
                "<path d=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.6\" stroke-linejoin=\"round\"/>",
                line.path(&x, &y)
            );
            if self.lines.len() > 1 {
                let _ = writeln!(
                    out,
                    "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{color}\">{}</text>",
                    right + 8.0,
                    bottom - 6.0 - (self.lines.len() - 1 - i) as f64 * 16.0,
                    escape(&line.name)
                );
            }
        }
    }
}

impl Line {
    fn path(&self, x: &impl Fn(f64) -> f64, y: &impl Fn(f64) -> f64) -> String {
        let mut out = String::new();
        let mut pen = 'M';
        let every = self.points.len().div_ceil(POINTS_MAX).max(1);
        // Of those that share a place, the highest: peaks are not to be lost.
        for part in self.points.chunks(every) {
            let (t, mut v) = part[0];
            for (_, more) in part {
                if *more > v || !v.is_finite() {
                    v = *more;
                }
            }
            if !t.is_finite() || !v.is_finite() {
                pen = 'M';
                continue;
            }
            let _ = match (pen, self.steps) {
                ('L', true) => write!(out, "H{:.1}V{:.1}", x(t), y(v)),
                _ => write!(out, "{pen}{:.1} {:.1}", x(t), y(v)),
            };
            pen = 'L';
        }
        out
    }
}

struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64>, most: Option<f64>) -> Axis {
        let values: Vec<f64> = values.collect();
        let largest = values.iter().copied().fold(0.0, f64::max).min(1e15);
        match scale {
            Scale::Linear => {
                let high = most.unwrap_or(largest);
                let high = if high > 0.0 { high } else { 1.0 };
                let step = nice(high / 4.0);
                let count = (high / step).ceil().clamp(1.0, 20.0) as u32;
                let ticks = (0..=count).map(|i| f64::from(i) * step);
                let high = if most.is_some() { high } else { f64::from(count) * step };
                Axis {
                    scale,
                    low: 0.0,
                    high,
                    ticks: ticks.filter(|t| *t <= high * 1.001).collect(),
                }
            }
            Scale::Log => {
                let positive = values.iter().copied().filter(|v| *v > 0.0);
                let smallest = positive.fold(f64::MAX, f64::min).clamp(1e-3, 1e12);
                let low = smallest.log10().floor();
                let high = largest.max(smallest * 1.001).log10().ceil().max(low + 1.0);
                let ticks = (low as i32..=high as i32).map(|e| 10f64.powi(e)).collect();
                Axis { scale, low, high, ticks }
            }
        }
    }

    /// From 0 at the bottom to 1 at the top.
    fn part(&self, value: f64) -> f64 {
        let at = match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(1e-300).log10(),
        };
        ((at - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

/// The next of 1, 2, 5, 10, … that is not smaller.
fn nice(value: f64) -> f64 {
    let value = if value.is_finite() { value.max(1e-9) } else { 1.0 };
    let unit = 10f64.powf(value.log10().floor());
    let found = [1.0, 2.0, 5.0].into_iter().find(|f| f * unit >= value * 0.999);
    found.unwrap_or(10.0) * unit
}

fn short(value: f64) -> String {
    let text = |value: f64, unit: &str| {
        let digits = format!("{value:.2}");
        format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
    };
    match value {
        v if v >= 1e6 => text(v / 1e6, "M"),
        v if v >= 1e4 => text(v / 1e3, "k"),
        v => text(v, ""),
    }
}
