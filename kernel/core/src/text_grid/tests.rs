//! The grid against what a surface shows.

use super::*;
use std::string::String;
use std::vec::Vec;

struct Shown {
    columns: usize,
    cells: Vec<u8>,
    drawn: usize,
}

impl Shown {
    fn new(columns: usize, rows: usize) -> Self {
        Self { columns, cells: std::vec![b' '; columns * rows], drawn: 0 }
    }

    fn lines(&self) -> Vec<String> {
        let rows = self.cells.chunks(self.columns);
        rows.map(|r| String::from_utf8_lossy(r).trim_end().into()).collect()
    }
}

impl Surface for Shown {
    fn draw(&mut self, column: usize, row: usize, character: u8) {
        self.cells[row * self.columns + column] = character;
        self.drawn += 1;
    }
}

#[test]
fn lines_wrap_and_scroll_and_the_last_row_is_used() {
    let mut s = Shown::new(5, 3);
    let mut g = TextGrid::new(5, 3);
    g.write("one\ntwo\n", &mut s);
    assert_eq!(s.lines(), ["one", "two", ""]);
    g.write("three-f\n", &mut s);
    assert_eq!(s.lines(), ["two", "three", "-f"]);
    g.write("é\tx", &mut s);
    assert_eq!(s.lines(), ["three", "-f", "??x"]);
}

#[test]
fn any_text_shows_its_last_lines() {
    for seed in 1..200u64 {
        let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut rnd = |n: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x % n
        };
        let (columns, rows) = (1 + rnd(20) as usize, 1 + rnd(8) as usize);
        let mut s = Shown::new(columns, rows);
        let mut g = TextGrid::new(columns, rows);
        let mut want: Vec<String> = Vec::new();
        for _ in 0..rnd(30) {
            let text: String = (0..rnd(40)).map(|_| (b'!' + rnd(90) as u8) as char).collect();
            g.write(&text, &mut s);
            g.write("\n", &mut s);
            let bytes: Vec<char> = text.chars().collect();
            want.extend(bytes.chunks(columns).map(|c| c.iter().collect::<String>()));
            if bytes.is_empty() {
                want.push(String::new());
            }
        }
        // Empty lines at the end are not scrolled in before something follows them.
        while want.last().is_some_and(String::is_empty) {
            want.pop();
        }
        let tail = want.len().saturating_sub(rows);
        let mut shown = s.lines();
        while shown.last().is_some_and(String::is_empty) {
            shown.pop();
        }
        assert_eq!(shown, want[tail..], "seed {seed}");
    }
}

#[test]
fn a_cell_that_stays_as_it_is_is_not_drawn() {
    let mut s = Shown::new(80, 25);
    let mut g = TextGrid::new(80, 25);
    for _ in 0..25 {
        g.write("the same line\n", &mut s);
    }
    let before = s.drawn;
    g.write("the same line\n", &mut s);
    // The scroll changes nothing but the last row, twice.
    assert!(s.drawn - before <= 2 * 13, "{}", s.drawn - before);
}

#[test]
fn sizes_beyond_the_limits_are_cut_and_none_at_all_shows_nothing() {
    let g = TextGrid::new(10_000, 10_000);
    assert_eq!((g.columns(), g.rows()), (COLUMNS_MAX, ROWS_MAX));
    let mut s = Shown::new(1, 1);
    TextGrid::new(0, 5).write("x\nx", &mut s);
    TextGrid::new(5, 0).write("x\nx", &mut s);
    assert_eq!(s.drawn, 0);
}
