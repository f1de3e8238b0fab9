//! Real machines' surprises: what the loader left anywhere in memory, what a machine lacks.

use ix_kernel_core::{archive, symbols};

use crate::place::{Place, Protocol, kernel_end};
use crate::vm::{APP, KERNEL, OK, Run, TESTAPP, UNSUPPORTED, Vm};

const MIB: u64 = 1 << 20;

/// An archive small enough for low memory.
fn small_archive() -> Vec<u8> {
    let filler: Vec<u8> =
        (0..150_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    archive::build(&[("filler", &filler)]).expect("packs")
}

fn whole_archive() -> Vec<u8> {
    let table = symbols::build(&std::fs::read(KERNEL).expect("a kernel")).expect("symbols");
    let app = std::fs::read(TESTAPP).expect("the test application");
    archive::build(&[(symbols::MEMBER, &table), (APP, &app)]).expect("packs")
}

/// Boots with everything in its place and holds the archive against what it was. `None`: no QEMU.
fn placed(name: &str, place: Place, words: &str, archive: &[u8]) -> Option<Run> {
    let (file, hash) = place.file(name, words, archive);
    let mut vm = Vm::new("");
    vm.memory_mib = (place.memory / MIB) as u32;
    vm.kernel = Some(file.clone());
    vm.archive = false;
    let run = vm.run();
    let _ = std::fs::remove_file(file);
    let run = run?.says(&format!("module at {:#x}, {} bytes", place.module, archive.len()));
    Some(if words.contains("placement") {
        run.says(&format!("archive hash {hash:#018x}"))
    } else {
        run
    })
}

fn place(protocol: Protocol, module: u64, info: u64) -> Place {
    Place { protocol, memory: 128 * MIB, module, info, stub: 0x700_0000 }
}

#[test]
fn the_archive_and_the_loaders_information_may_lie_anywhere() {
    let end = kernel_end();
    let small = small_archive();
    let len = small.len() as u64;
    let top = 126 * MIB;
    for (n, (module, info)) in [
        (end, 0x5_0000),              // right behind the kernel; information in low memory
        (0x20_0000 - len, end),       // right below it; information right behind
        (0x2_0000, 0x1_0000),         // both in low memory
        (0x10_0000, 0x9_E000),        // at 1 MiB; information where the trampoline would go
        (top - len, end + 4096 - 16), // the last bytes before the firmware's
        (64 * MIB + 5, 64 * MIB + 5 + len), // odd addresses, next to each other
        (end + 1, end + 1 + len),
    ]
    .into_iter()
    .enumerate()
    {
        for protocol in [Protocol::Pvh, Protocol::Multiboot2] {
            // Tags are at multiples of 8, so is what holds them.
            let info =
                if protocol == Protocol::Multiboot2 { info.next_multiple_of(8) } else { info };
            let place = place(protocol, module, info);
            let name = format!("place-{n}-{protocol:?}");
            let Some(run) = placed(&name, place, "report=1 selftest=placement", &small) else {
                return;
            };
            run.ended_with(OK).says("cores: 2 of 2");
        }
    }
}

#[test]
fn any_place_does() {
    // Seeds are fixed; `cargo xtask prove` walks through many.
    let seeds = if std::env::var_os("IX_PROVE").is_some() { 100 } else { 4 };
    let end = kernel_end();
    let small = small_archive();
    for seed in 1..=seeds {
        let mut x = 0x9E37_79B9_7F4A_7C15u64.wrapping_mul(seed);
        let mut rnd = |n: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x % n
        };
        let memory = (48 + rnd(400)) * MIB;
        let top = memory - 3 * MIB;
        let protocol = if rnd(2) == 0 { Protocol::Pvh } else { Protocol::Multiboot2 };
        // The stub out of the way, at the top; the rest between it and the kernel, or below.
        let info_low = rnd(2) == 0;
        let module = end + rnd(top - end - 2 * MIB);
        let info = if info_low { 0x1_0000 + rnd(0x8_0000) } else { end + rnd(top - end - 2 * MIB) };
        let info = info & !7;
        let len = small.len() as u64;
        let info = if module < info + 4096 && info < module + len {
            (module + len).next_multiple_of(8)
        } else {
            info
        };
        let place = Place { protocol, memory, module, info, stub: top };
        println!("seed {seed}: {place:x?}");
        let name = format!("any-{seed}");
        let Some(run) = placed(&name, place, "report=1 selftest=placement", &small) else { return };
        run.ended_with(OK);
    }
}

#[test]
fn the_archive_may_lie_above_4_gib() {
    // Multiboot2 cannot say so; PVH can.
    let place = Place {
        protocol: Protocol::Pvh,
        memory: 3072 * MIB,
        module: (4 << 30) + 3 * MIB + 8,
        info: 0x5_0000,
        stub: 0x700_0000,
    };
    let words = format!("report=1 heap=64 selftest=user app={APP} -- calls");
    let Some(run) = placed("above", place, &words, &whole_archive()) else { return };
    run.ended_with(OK);
}

#[test]
fn an_application_runs_from_an_archive_in_an_odd_place() {
    let place = place(Protocol::Multiboot2, kernel_end() + 12_345, 0x4_0000);
    let words = format!("report=1 heap=64 selftest=user app={APP} -- calls");
    let Some(run) = placed("odd", place, &words, &whole_archive()) else { return };
    run.ended_with(OK).says("started by a test (multiboot2)");
}

/// Boots a machine that the kernel refuses; gives what it said.
fn refused(vm: &Vm) -> Option<Run> {
    Some(vm.run()?.ended_with(UNSUPPORTED))
}

#[test]
fn a_cpu_that_lacks_something_is_told_all_of_it() {
    for (cpu, lacks) in [
        ("qemu32", "64-bit mode, no-execute pages"),
        ("pentium", "64-bit mode, PAE, global pages, FXSAVE, SSE, SSE2, no-execute pages"),
        ("qemu64,-nx", "no-execute pages"),
        ("qemu64,-sse2,-nx", "SSE2, no-execute pages"),
        ("qemu64,-syscall", "SYSCALL"),
        ("qemu64,-apic", "a local APIC"),
    ] {
        let Some(run) = refused(&Vm { cpu, ..Vm::new("selftest=boot") }) else { return };
        run.says(&format!("ix: error: this CPU lacks: {lacks}. IX needs"));
    }
}

#[test]
fn a_machine_without_acpi_or_memory_or_applications_is_told_so() {
    let acpi = Vm { machine: "pc,acpi=off", ..Vm::new("selftest=boot") };
    let Some(run) = refused(&acpi) else { return };
    run.says("ix: error: no ACPI tables");
    for (memory_mib, says) in [(8, "too little memory"), (64, "give more to the machine")] {
        let vm = Vm { memory_mib, ..Vm::new(format!("app={APP}")) };
        let Some(run) = refused(&vm) else { return };
        run.says(says);
    }
    let vm = Vm { archive: false, ..Vm::new("app=kv") };
    let Some(run) = refused(&vm) else { return };
    run.says("the loader gave no module");
}

#[test]
fn without_a_serial_port_it_runs_all_the_same() {
    let vm = Vm { serial: "none", ..Vm::new("selftest=boot") };
    let Some(run) = vm.run() else { return };
    assert!(run.ended_with(OK).log.is_empty());
}

#[test]
fn without_legacy_timers_or_with_one_alone_the_clock_is_found() {
    for (machine, says) in [
        ("q35,hpet=off", "by ACPI PM timer (confirmed)"),
        ("q35", "by ACPI PM timer (confirmed)"),
        ("microvm,pit=on", "the TSC's frequency is by PIT alone"),
        ("microvm,pit=on,rtc=off", "the TSC's frequency is by PIT alone"),
    ] {
        let Some(run) = (Vm { machine, ..Vm::new("selftest=boot") }).run() else { return };
        run.ended_with(OK).says(says);
    }
    let none = Vm { machine: "microvm,pit=off", ..Vm::new("selftest=boot") };
    let Some(run) = refused(&none) else { return };
    run.says("no timer with a known frequency works");
}

#[test]
fn more_cores_than_64_are_left_alone_and_said() {
    let vm = Vm { cores: 66, memory_mib: 512, ..Vm::new("selftest=boot") };
    let Some(run) = vm.run() else { return };
    run.ended_with(OK).says("cores: 64 of 66").says("the machine has 66 cores: IX uses 64 at most");
}

#[test]
fn network_cards_without_a_driver_are_named() {
    let vm = Vm::new("report=1 selftest=report").extra(&["-device", "e1000e,romfile="]);
    let Some(run) = vm.run() else { return };
    run.ended_with(OK).says("[8086:10d3] 0200 network: no driver");
}

#[test]
fn devices_behind_another_host_bridge_are_found() {
    let vm = Vm::new("report=1 selftest=report").extra(&[
        "-device",
        "pxb-pcie,id=pxb,bus_nr=128,bus=pcie.0",
        "-device",
        "pcie-root-port,id=rp,bus=pxb,chassis=1",
        "-device",
        "virtio-net-pci,bus=rp,romfile=",
    ]);
    let Some(run) = vm.run() else { return };
    run.ended_with(OK).says("PCI 81:00.0 [1af4:1041] 0200 network: virtio-net");
}
