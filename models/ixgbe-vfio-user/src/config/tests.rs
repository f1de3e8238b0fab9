use super::*;

const MAC: [u8; 6] = [2, 3, 4, 5, 6, 7];

fn long(config: &Config, at: usize) -> u32 {
    let mut bytes = [0; 4];
    config.read(at, &mut bytes);
    u32::from_le_bytes(bytes)
}

#[test]
fn bars_tell_their_sizes_by_what_cannot_be_written() {
    let mut config = Config::new(0x10fb, MAC);
    assert_eq!(long(&config, 0), 0x10fb_8086);
    for bar in 0..6 {
        config.write(0x10 + 4 * bar, &[0xff; 4]);
    }
    let read: Vec<u32> = (0..6).map(|bar| long(&config, 0x10 + 4 * bar)).collect();
    assert_eq!(read, [0xfff8_000c, !0, 0, 0, 0xffff_c00c, !0]);
}

#[test]
fn capabilities_form_a_list_that_ends() {
    let config = Config::new(0x10fb, MAC);
    let mut at = long(&config, 0x34) as usize & 0xff;
    let mut ids = Vec::new();
    while at != 0 {
        let head = long(&config, at);
        ids.push(head as u8);
        at = (head >> 8) as usize & 0xff;
        assert!(ids.len() < 10);
    }
    assert_eq!(ids, [0x01, 0x05, 0x11, 0x10]);
    assert_eq!(long(&config, MSIX) >> 16 & 0x7ff, 63);
}

#[test]
fn only_a_master_of_the_bus_that_is_awake_may_reach_memory() {
    let mut config = Config::new(0x10fb, MAC);
    assert!(!config.is_bus_master());
    config.write(COMMAND, &[6, 0]);
    assert!(config.is_bus_master());
    assert_eq!(config.write(POWER_STATE, &[3]), Effect::None);
    assert!(!config.is_bus_master());
    assert_eq!(config.write(POWER_STATE, &[0]), Effect::Reset);
}

#[test]
fn a_function_reset_is_asked_for_by_one_bit_that_is_not_kept() {
    let mut config = Config::new(0x10fb, MAC);
    assert_eq!(config.write(EXPRESS + 8, &[0x10, 0x28]), Effect::None);
    assert_eq!(config.write(EXPRESS + 8, &[0x10, 0xa8]), Effect::Reset);
    assert_eq!(long(&config, EXPRESS + 8) & 0xffff, 0x2810);
    config.write(COMMAND, &[6, 0]);
    config.reset();
    assert_eq!(long(&config, COMMAND) & 0xffff, 0);
}
