//! What the terminal shows. Draws into a buffer of any size; the loop around it is `screen`.
use super::Seen;
use super::rates::Frame;
use super::text::{self, COLUMNS};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, RenderDirection, Row, Sparkline, Table, Wrap};
use std::collections::{HashMap, VecDeque};

/// Looks that are remembered; more cells no terminal has.
const HISTORY_MAX: usize = 512;
/// Lines of a graph with its title.
const GRAPH_LINES: u16 = 5;

/// What a dataplane did at the last looks, the newest first.
#[derive(Debug, Default)]
struct History {
    /// Boot that it is of.
    epoch: String,
    /// Frames received and sent per second.
    packets: VecDeque<u64>,
    /// Cores that served.
    serving: VecDeque<u64>,
}

/// All that is shown, and what was chosen.
#[derive(Debug, Default)]
pub struct View {
    seen: Vec<Seen>,
    history: HashMap<String, History>,
    /// By name: the list changes.
    chosen: Option<String>,
}

impl View {
    /// Takes in what a look has found.
    pub fn update(&mut self, seen: Vec<Seen>) {
        self.history.retain(|name, _| seen.iter().any(|s| s.name == *name));
        for s in &seen {
            let Ok(frame) = &s.frame else { continue };
            let history = self.history.entry(s.name.clone()).or_default();
            if history.epoch != frame.epoch {
                *history = History { epoch: frame.epoch.clone(), ..History::default() };
            }
            // The first look at a boot has no rates.
            let (Some(rx), Some(tx)) = (frame.total.rx_pps, frame.total.tx_pps) else { continue };
            remember(&mut history.packets, (rx + tx) as u64);
            remember(&mut history.serving, frame.serving as u64);
        }
        self.seen = seen;
    }

    /// Chooses the dataplane `by` places further on; the list is a ring.
    pub fn choose(&mut self, by: isize) {
        let count = self.seen.len() as isize;
        if count > 0 {
            let at = (self.at() as isize + by).rem_euclid(count) as usize;
            self.chosen = Some(self.seen[at].name.clone());
        }
    }

    /// The chosen one's place; the first if it has ended.
    fn at(&self) -> usize {
        self.seen.iter().position(|s| Some(&s.name) == self.chosen.as_ref()).unwrap_or(0)
    }

    /// Draws it.
    pub fn draw(&self, to: &mut ratatui::Frame<'_>) {
        let [tabs, body, keys] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)])
                .areas(to.area());
        to.render_widget(self.tabs(), tabs);
        let dim = Style::new().add_modifier(Modifier::DIM);
        to.render_widget(Line::styled("q quit   ← → another dataplane", dim), keys);
        match self.seen.get(self.at()) {
            None => to.render_widget("no dataplane runs: start one with `ixcp run`", body),
            Some(Seen { frame: Err(e), .. }) => {
                let words = Paragraph::new(e.as_str()).wrap(Wrap { trim: true });
                to.render_widget(words, body);
            }
            Some(Seen { name, frame: Ok(frame) }) => {
                dataplane(to, body, frame, self.history.get(name));
            }
        }
    }

    fn tabs(&self) -> Line<'_> {
        let mut spans = vec![Span::from("ixcp top ")];
        for (i, s) in self.seen.iter().enumerate() {
            let chosen = if i == self.at() { Modifier::REVERSED } else { Modifier::empty() };
            spans.push(Span::styled(format!(" {} ", s.name), Style::new().add_modifier(chosen)));
        }
        Line::from(spans)
    }
}

fn remember(all: &mut VecDeque<u64>, value: u64) {
    all.push_front(value);
    all.truncate(HISTORY_MAX);
}

fn dataplane(to: &mut ratatui::Frame<'_>, area: Rect, frame: &Frame, history: Option<&History>) {
    let lines = text::rows(frame).len() as u16 + 1;
    // A table of many cores takes its lines from the graphs.
    let [head, table, packets, serving] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Max(lines + 1),
        Constraint::Length(GRAPH_LINES),
        Constraint::Length(GRAPH_LINES),
    ])
    .areas(area);
    let [first, second] = text::head(frame);
    let well = frame.state == "ready" && frame.alive != Some(false);
    let first = Line::styled(first, if well { Color::Green } else { Color::Red });
    to.render_widget(Paragraph::new(vec![first, Line::from(second)]), head);
    to.render_widget(cores(frame), table);
    let Some(history) = history else { return };
    let most = history.packets.iter().max().unwrap_or(&0);
    let title = format!("packets/s, in and out (highest shown: {most})");
    graph(to, packets, &title, &history.packets, None);
    let title = format!("cores that serve (of {})", frame.cores.len());
    graph(to, serving, &title, &history.serving, Some(frame.cores.len() as u64));
}

fn cores(frame: &Frame) -> Table<'_> {
    let row = |cells: [String; COLUMNS.len()]| {
        Row::new(cells.into_iter().enumerate().map(|(i, cell)| match i {
            0 | 1 => Line::from(cell),
            _ => Line::from(cell).right_aligned(),
        }))
    };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let widths = COLUMNS.map(|(_, width)| Constraint::Length(width as u16));
    Table::new(text::rows(frame).into_iter().map(row), widths)
        .header(row(COLUMNS.map(|(name, _)| name.to_owned())).style(bold))
        .column_spacing(1)
}

/// The newest value is at the right edge.
fn graph(
    to: &mut ratatui::Frame<'_>,
    area: Rect,
    title: &str,
    data: &VecDeque<u64>,
    max: Option<u64>,
) {
    let mut graph = Sparkline::default()
        .block(Block::new().title(title))
        .direction(RenderDirection::RightToLeft)
        .style(Style::new().fg(Color::Cyan))
        .data(data.iter().copied());
    if let Some(max) = max {
        graph = graph.max(max);
    }
    to.render_widget(graph, area);
}

#[cfg(test)]
mod tests;
