//! An IOMMU between network card and memory: the dataplane serves behind it, and no request of the card is refused, while
//! applications come and go and memory with them.
use crate::{Kv, serves};
use ix_tests::vm::{Config, Vm};
use ix_tests::{ixgbe, need};

/// Values of half a MiB.
const VALUES: u32 = 80;

/// MiB of the two that the kernel's line names.
fn reach(vm: &Vm) -> (u64, u64) {
    let log = vm.log();
    let line = log.lines().find_map(|line| line.split_once("IOMMU: of ")).map(|(_, text)| text);
    let words: Vec<&str> = line.unwrap_or_default().split(' ').collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse().ok());
    number(0).zip(number(6)).unwrap_or_else(|| panic!("no line of the IOMMU: {log}"))
}

fn serves_behind_it(config: Config) {
    let vm = config.cores(2).forward("11211").flag("--iommu").boot();
    let (all, reached) = reach(&vm);
    assert!(reached > 0 && reached < all / 2, "{reached} of {all} MiB");
    for round in 0..3 {
        serves(&vm);
        let mut client = Kv::connect(&vm);
        // More than the 32 MiB that are mapped at the start: the application asks for memory, which it sends from.
        let value = vec![b'a' + round; 1 << 19];
        for i in 0..VALUES {
            client.set(&format!("key{i}"), &value);
        }
        for i in 0..VALUES {
            assert_eq!(client.get(&format!("key{i}")).as_deref(), Some(&value[..]));
        }
        drop(client);
        vm.ixcp_ok(&["restart-app"]);
    }
    serves(&vm);
    let events = vm.ixcp_ok(&["events"]);
    assert!(!events.contains("dma refused"), "{events}");
    assert!(!vm.log().contains("tried to"), "{}", vm.log());
}

#[test]
fn a_dataplane_serves_behind_it_on_virtio() {
    let _machine = need::machine();
    let Some(built) = need::built() else { return };
    serves_behind_it(Config::new(&built, "kv"));
}

#[test]
fn a_dataplane_serves_behind_it_on_the_82599() {
    let _machine = need::machine();
    let Some(built) = need::built() else { return };
    let Some(config) = ixgbe::with_card(Config::new(&built, "kv")) else { return };
    serves_behind_it(config);
}
