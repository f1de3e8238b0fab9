//! The model's registers against the datasheet's table: places, resets, kinds of access.
use ix_model_ixgbe::table::{Belief, CSV, Row, check, parse};
use ix_model_ixgbe::{Chip, Memory, Options, Outside, REGISTERS};

struct Nothing;

impl Memory for Nothing {
    fn read(&self, _: u64, _: &mut [u8]) -> bool {
        false
    }
    fn write(&self, _: u64, _: &[u8]) -> bool {
        false
    }
}

impl Outside for Nothing {
    fn transmit(&mut self, _: &[u8]) {}
    fn interrupt(&mut self, _: u16) {}
}

fn rows() -> Vec<Row<'static>> {
    parse(CSV).expect("the table reads")
}

fn beliefs() -> Vec<Belief<'static>> {
    let of = |spec: &'static ix_model_ixgbe::Spec| {
        spec.banks.iter().map(|bank| Belief {
            name: spec.name,
            first: bank.first.into(),
            count: bank.count.into(),
            address: bank.address,
            stride: bank.stride,
        })
    };
    REGISTERS.iter().flat_map(of).collect()
}

fn places(row: &Row<'_>) -> impl Iterator<Item = u32> {
    let Row { address, stride, count, .. } = *row;
    (0..count).map(move |i| address + i * stride)
}

#[test]
fn every_register_of_the_model_is_where_the_datasheet_has_it() {
    let complaints = check(&rows(), beliefs());
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn the_five_errors_of_another_driver_turn_the_check_red() {
    let wrong = |name, address, stride, count| Belief { name, first: 0, count, address, stride };
    let errors = [
        wrong("STATUS", 0x4, 0, 1),
        wrong("RDLEN", 0x1008, 0x60, 64),
        wrong("TXPBSIZE", 0xcc00, 0x40, 8),
        wrong("TXPBTHRESH", 0x4950, 0x40, 8),
        wrong("DCA_TXCTRL", 0x7200, 4, 16),
    ];
    let complaints = check(&rows(), errors);
    assert_eq!(complaints.len(), 5, "{complaints:#?}");
    assert_eq!(complaints[1], "RDLEN[1] is not at 0x01068");
    // And a stride of the model's own, when it is spoiled.
    let spoiled = beliefs().into_iter().map(|mut belief| {
        if belief.name == "TDT" {
            belief.stride = 0x48;
        }
        belief
    });
    assert_eq!(check(&rows(), spoiled), ["TDT[1] is not at 0x06060"]);
}

#[test]
fn no_two_registers_of_the_table_are_at_one_place() {
    let mut all: Vec<(u32, &str)> =
        rows().iter().flat_map(|row| places(row).map(|at| (at, row.name))).collect();
    all.sort_unstable();
    let twice = all.windows(2).find(|pair| pair[0].0 == pair[1].0);
    assert_eq!(twice, None);
    assert!(all.iter().all(|(at, _)| at % 4 == 0 && *at < Chip::BAR0_BYTES));
}

#[test]
fn the_model_has_every_register_of_the_table_with_the_value_that_a_reset_gives() {
    let mut chip = Chip::new(Options::default());
    for row in rows() {
        for (i, at) in places(&row).enumerate() {
            let value = chip.read32(at);
            if let Some(reset) = row.reset {
                assert_eq!(value, reset, "{}[{}] at {at:#x}", row.name, row.first as usize + i);
            }
        }
    }
    assert_eq!(chip.counts.unknown_reads, 0, "{:#x}", chip.counts.last_unknown);
}

#[test]
fn registers_that_can_only_be_read_stay_as_they_are() {
    for row in rows().iter().filter(|row| matches!(row.access, "RO" | "RC")) {
        let mut chip = Chip::new(Options::default());
        for at in places(row) {
            let before = chip.read32(at);
            // The heads of disabled rings may be written, as Linux does.
            if matches!(row.name, "RDH" | "TDH") {
                chip.write32(at - 0x10 + 0x28, 1 << 25, &Nothing, &mut Nothing);
            }
            chip.write32(at, 0xffff_ffff, &Nothing, &mut Nothing);
            assert_eq!(chip.read32(at), before, "{} at {at:#x}", row.name);
        }
    }
}

#[test]
fn both_addresses_of_a_register_are_one_register() {
    let mut chip = Chip::new(Options::default());
    for (one, other) in [(0xeb80, 0x5c80), (0xeb04, 0x5c04), (0x1014, 0x2100), (0xa200, 0x5400)] {
        chip.write32(one, 0x1234_5678, &Nothing, &mut Nothing);
        assert_eq!(chip.read32(other), 0x1234_5678, "{one:#x}");
    }
}

#[test]
fn a_table_that_cannot_be_read_says_where() {
    assert_eq!(parse("CTRL,0,1,0x0,0,0,RW"), Err("line 1: CTRL,0,1,0x0,0,0,RW".into()));
}
