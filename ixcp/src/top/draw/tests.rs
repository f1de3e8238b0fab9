//! One frame, cell by cell; choosing; history; any size of the terminal.
use super::*;
use crate::fake::{add, scene};
use crate::observe::Observed;
use crate::snapshot::{self, Snapshot};
use crate::top::Watch;
use ix_abi::control::header;
use ix_abi::stats::Counter;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::time::{Duration, Instant};

fn observed(name: &str, snapshot: Snapshot) -> Observed {
    Observed { name: name.to_owned(), snapshot: Ok(snapshot) }
}

fn rendered(view: &View, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|to| view.draw(to)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned() + "\n").collect()
}

/// Looks a second apart, with so many packets received before each.
fn watched(packets: &[u64]) -> View {
    let scene = scene(2);
    let (mut watch, mut view) = (Watch::default(), View::default());
    let start = Instant::now();
    for (second, n) in packets.iter().enumerate() {
        add(&scene.page, 0, Counter::RxPackets, *n);
        add(&scene.page, 0, Counter::BusyTsc, 1);
        add(&scene.page, 0, Counter::IdleTsc, 3);
        scene.page.store(header::HEARTBEAT, second as u64);
        scene.page.store(header::ACTIVE, if second < 3 { 1 } else { 3 });
        let all = ["a", "kv"].map(|n| observed(n, snapshot::read(&scene.page).unwrap())).to_vec();
        view.update(watch.look(all, start + Duration::from_secs(second as u64)));
    }
    view
}

#[test]
fn a_frame_shows_the_chosen_dataplane_its_cores_and_its_history() {
    let mut view = watched(&[7, 100, 200, 400, 800]);
    view.choose(1);
    let expected = include_str!("tests/frame.txt");
    let found = rendered(&view, 80, 20);
    assert_eq!(found, expected, "\n{found}");
}

#[test]
fn the_choice_goes_round_and_outlives_changes_of_the_list() {
    let mut view = watched(&[0, 1]);
    let shown = |view: &View| rendered(view, 80, 20).lines().nth(1).unwrap().to_owned();
    assert!(shown(&view).starts_with("a:"));
    view.choose(-1);
    assert!(shown(&view).starts_with("kv:"));
    view.choose(1);
    view.choose(1);
    let s = snapshot::read(&scene(1).page).unwrap();
    let all = ["0", "a", "kv"].map(|n| observed(n, s.clone())).to_vec();
    view.update(Watch::default().look(all, Instant::now()));
    assert!(shown(&view).starts_with("kv:"));
    view.update(Watch::default().look(vec![observed("a", s)], Instant::now()));
    assert!(shown(&view).starts_with("a:"));
    view.update(Vec::new());
    view.choose(1);
    assert!(shown(&view).starts_with("no dataplane runs"));
}

#[test]
fn history_begins_again_with_a_boot_and_is_bounded() {
    let mut view = watched(&[1; HISTORY_MAX + 9]);
    assert_eq!(view.history["kv"].packets.len(), HISTORY_MAX);
    let scene = scene(1);
    scene.page.store(header::EPOCH, 0xbeef);
    let s = snapshot::read(&scene.page).unwrap();
    view.update(Watch::default().look(vec![observed("kv", s)], Instant::now()));
    assert_eq!(view.history.len(), 1);
    assert!(view.history["kv"].packets.is_empty());
}

#[test]
fn terminals_of_any_size_and_pages_that_cannot_be_read_are_drawn() {
    let mut view = watched(&[0, 5]);
    for (width, height) in [(1, 1), (5, 3), (20, 10), (80, 7), (300, 100)] {
        rendered(&view, width, height);
    }
    let broken = Observed { name: "kv".to_owned(), snapshot: Err("it boots".to_owned()) };
    view.update(Watch::default().look(vec![broken], Instant::now()));
    assert!(rendered(&view, 80, 5).contains("it boots"));
}
