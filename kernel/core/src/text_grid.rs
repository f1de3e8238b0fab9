//! The screen console's text: a grid of characters with a cursor that wraps and scrolls. It remembers
//! what each cell shows and reports only the cells that change, so that the screen is written to and
//! never read: reading a framebuffer is slow enough to be seen.

#[cfg(test)]
mod tests;

/// Columns and rows that are used at most.
pub const COLUMNS_MAX: usize = 240;
pub const ROWS_MAX: usize = 100;

/// What shows the characters.
pub trait Surface {
    fn draw(&mut self, column: usize, row: usize, character: u8);
}

/// The grid. All blanks to begin with, as the surface must be.
#[derive(Debug)]
pub struct TextGrid {
    cells: [u8; COLUMNS_MAX * ROWS_MAX],
    columns: usize,
    rows: usize,
    column: usize,
    row: usize,
}

impl TextGrid {
    /// A grid of at most [`COLUMNS_MAX`] by [`ROWS_MAX`].
    #[must_use]
    pub const fn new(columns: usize, rows: usize) -> Self {
        Self {
            cells: [b' '; COLUMNS_MAX * ROWS_MAX],
            columns: if columns < COLUMNS_MAX { columns } else { COLUMNS_MAX },
            rows: if rows < ROWS_MAX { rows } else { ROWS_MAX },
            column: 0,
            row: 0,
        }
    }

    /// Another size, all blank.
    pub fn reset(&mut self, columns: usize, rows: usize) {
        self.cells.fill(b' ');
        (self.columns, self.rows) = (columns.min(COLUMNS_MAX), rows.min(ROWS_MAX));
        (self.column, self.row) = (0, 0);
    }

    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Writes text. A line that is too long goes on in the next row; what is not ASCII is a `?`.
    pub fn write(&mut self, text: &str, surface: &mut impl Surface) {
        if self.columns == 0 || self.rows == 0 {
            return;
        }
        for c in text.chars() {
            if c == '\n' {
                self.column = 0;
                self.row += 1;
                continue;
            }
            if self.column == self.columns {
                self.column = 0;
                self.row += 1;
            }
            // Scrolled only when there is something to write: the last row is used, too.
            while self.row >= self.rows {
                self.scroll(surface);
            }
            let c = if c == ' ' || c.is_ascii_graphic() { c as u8 } else { b'?' };
            self.set(self.column, self.row, c, surface);
            self.column += 1;
        }
    }

    fn scroll(&mut self, surface: &mut impl Surface) {
        for row in 0..self.rows {
            for column in 0..self.columns {
                let below = (row + 1) * self.columns + column;
                let c = if row + 1 < self.rows { self.cells[below] } else { b' ' };
                self.set(column, row, c, surface);
            }
        }
        self.row -= 1;
    }

    fn set(&mut self, column: usize, row: usize, c: u8, surface: &mut impl Surface) {
        let cell = &mut self.cells[row * self.columns + column];
        if *cell != c {
            *cell = c;
            surface.draw(column, row, c);
        }
    }
}
