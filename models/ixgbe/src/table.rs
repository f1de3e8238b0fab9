//! The register table of the datasheet as data (`data/registers.csv`), and how constants are held against it.

/// The table as text.
pub const CSV: &str = include_str!("../data/registers.csv");

/// A row: a run of registers of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// The datasheet's name.
    pub name: &'a str,
    /// Index of the first.
    pub first: u32,
    /// How many there are.
    pub count: u32,
    /// Where the first is.
    pub address: u32,
    /// Bytes from one to the next; 0 for one alone.
    pub stride: u32,
    /// The value after a reset; `None` where the datasheet gives none.
    pub reset: Option<u32>,
    /// `RW`, `RO`, `WO`, `RC`, or what else the datasheet says.
    pub access: &'a str,
    /// Where the datasheet says it.
    pub section: &'a str,
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Reads a table. A line that cannot be read is an error, with its number.
pub fn parse(text: &str) -> Result<Vec<Row<'_>>, String> {
    let mut rows = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') || line.starts_with("name,") {
            continue;
        }
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let row = || {
            let [name, first, count, address, stride, reset, access, section] = fields[..] else {
                return None;
            };
            Some(Row {
                name,
                first: number(first)?,
                count: number(count)?,
                address: number(address)?,
                stride: number(stride)?,
                reset: if reset == "X" { None } else { Some(number(reset)?) },
                access,
                section,
            })
        };
        rows.push(row().ok_or_else(|| format!("line {}: {line}", i + 1))?);
    }
    Ok(rows)
}

/// A run of registers that a program believes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Belief<'a> {
    /// The datasheet's name.
    pub name: &'a str,
    /// Index of the first.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// Where the first is.
    pub address: u32,
    /// Bytes from one to the next.
    pub stride: u32,
}

/// What is wrong with beliefs: a line for the first wrong register of each.
pub fn check<'a>(rows: &[Row<'_>], beliefs: impl IntoIterator<Item = Belief<'a>>) -> Vec<String> {
    let mut complaints = Vec::new();
    for belief in beliefs {
        for i in 0..belief.count {
            let index = belief.first + i;
            let address = belief.address + i * belief.stride;
            let stands = rows.iter().filter(|row| row.name == belief.name).any(|row| {
                let within = index.wrapping_sub(row.first);
                within < row.count && row.address + within * row.stride == address
            });
            if !stands {
                let Belief { name, .. } = belief;
                complaints.push(format!("{name}[{index}] is not at {address:#07x}"));
                break;
            }
        }
    }
    complaints
}
