//! The kernel booted in QEMU: boot, protection, traps, cores, user mode, control page.
//!
//! Each test is one machine. Without `qemu-system-x86_64` they print SKIPPED and the reason.

mod control;
mod hardware;
mod place;
mod vm;

use vm::{APP, APP_FAILED, APP_KILLED, EXCEPTION, OK, PANIC, Run, UNSUPPORTED, Vm};

/// Boots with a self-test and passes the run on, if there is a QEMU.
fn selftest(name: &str) -> Option<Run> {
    Vm::new(format!("selftest={name}")).run()
}

/// Runs the test application alone in one of its modes.
fn user(mode: &str) -> Option<Run> {
    // No limit: on a busy host a well-behaved program may seem slow.
    user_with_limit(mode, 0)
}

fn user_with_limit(mode: &str, ms: u32) -> Option<Run> {
    Vm::new(format!("limit={ms} heap=64 selftest=user app={APP} -- {mode}")).run()
}

fn ended_well(run: Option<Run>) {
    if let Some(run) = run {
        run.ended_with(OK);
    }
}

#[test]
fn every_number_of_cores_comes_up() {
    for cores in [1, 2, 4, 8] {
        let vm = Vm { cores, ..Vm::new("selftest=boot") };
        let Some(run) = vm.run() else { return };
        run.ended_with(OK).says(&format!("cores: {cores} of {cores}"));
    }
}

#[test]
fn fewer_cores_than_there_are_can_be_asked_for() {
    let vm = Vm { cores: 4, ..Vm::new("cores=2 selftest=boot") };
    let Some(run) = vm.run() else { return };
    run.ended_with(OK).says("cores: 2 of 4");
}

#[test]
fn old_and_new_cpus_boot_with_x2apic_or_xapic() {
    for cpu in ["max", "qemu64", "max,-x2apic", "max,-smap,-smep,-umip,-pdpe1gb", "Skylake-Server"]
    {
        let vm = Vm { cpu, ..Vm::new("selftest=wxcheck") };
        let Some(run) = vm.run() else { return };
        run.ended_with(OK).says("APIC, TSC");
    }
}

#[test]
fn protection_that_the_cpu_has_is_on() {
    let Some(run) = selftest("boot") else { return };
    run.ended_with(OK).says("protection: W^X NX SMEP SMAP UMIP");
}

#[test]
fn memory_above_four_gibibytes_is_used() {
    let vm = Vm { memory_mib: 6144, ..Vm::new("selftest=high") };
    let Some(run) = vm.run() else { return };
    run.ended_with(OK).says("memory: 6143 MiB");
}

#[test]
fn all_memory_can_be_taken_and_given_back() {
    ended_well(selftest("memory"));
}

#[test]
fn no_page_is_writable_and_executable() {
    ended_well(selftest("wxcheck"));
}

#[test]
fn a_panic_names_place_core_and_calls() {
    let Some(run) = selftest("panic") else { return };
    run.ended_with(PANIC)
        .says("crash on core 0")
        .says("faults.rs")
        .says("asked for by selftest=panic")
        .says("ix_kernel::selftest::faults::panic +")
        .says("ix_kernel::start::boot_core +");
}

#[test]
fn a_panic_on_another_core_stops_the_machine() {
    let vm = Vm { cores: 4, ..Vm::new("selftest=panic-other") };
    let Some(run) = vm.run() else { return };
    run.ended_with(PANIC).says("crash on core 3");
}

#[test]
fn without_the_archive_a_backtrace_still_has_addresses() {
    let vm = Vm { archive: false, ..Vm::new("selftest=panic") };
    let Some(run) = vm.run() else { return };
    run.ended_with(PANIC).says("#0  0xffffffff80").does_not_say("ix_kernel::selftest");
}

#[test]
fn exceptions_in_the_kernel_are_named_with_registers() {
    for (name, says) in [
        ("fault", "page fault (vector 14)"),
        ("fault", "read at 0xffffbffffffff000: not mapped"),
        ("fault", "rsp 0x"),
        ("fault", "ix_kernel::selftest::faults::page_fault +"),
        ("undefined", "invalid opcode (vector 6)"),
        ("double", "double fault (vector 8)"),
    ] {
        let Some(run) = selftest(name) else { return };
        run.ended_with(EXCEPTION).says(says);
    }
}

#[test]
fn data_does_not_execute_and_constants_do_not_change() {
    for (name, says) in [("exec", "execute at"), ("rodata", "write at")] {
        let Some(run) = selftest(name) else { return };
        run.ended_with(EXCEPTION).says(says).says("not allowed");
    }
}

#[test]
fn user_memory_is_out_of_the_kernels_reach() {
    for (name, says) in
        [("smap", "read at 0x0000000040000000"), ("smep", "execute at 0x0000000040000000")]
    {
        let Some(run) = selftest(name) else { return };
        run.ended_with(EXCEPTION).says(says).says("not allowed");
    }
}

#[test]
fn a_stack_overflow_hits_its_guard_page() {
    let Some(run) = selftest("stack") else { return };
    run.ended_with(EXCEPTION).says("stack overflow: guard page of core 0's kernel stack");
}

#[test]
fn an_nmi_finds_its_core_whatever_it_interrupts() {
    let vm = Vm { cores: 2, ..Vm::new(format!("limit=0 selftest=nmi app={APP} -- storm")) };
    ended_well(vm.run());
}

#[test]
fn halts_end_by_timer_and_by_ipi() {
    for cpu in ["max", "qemu64"] {
        let vm = Vm { cpu, cores: 4, ..Vm::new("selftest=wake") };
        ended_well(vm.run());
    }
}

#[test]
fn timers_of_the_machine_agree_on_the_frequency() {
    let Some(run) = selftest("timers") else { return };
    run.ended_with(OK).says("ACPI PM timer: TSC").says("HPET: TSC").says("PIT: TSC");
}

/// The machine with a network card whose cable ends in this process, which sends a frame now and then.
fn frames_arrive(vm: Vm, name: &str) {
    use std::os::unix::net::UnixDatagram;
    let (ours, theirs) = (vm::scratch(&format!("{name}-p")), vm::scratch(&format!("{name}-q")));
    let socket = UnixDatagram::bind(&ours).unwrap();
    let netdev = format!(
        "dgram,id=n0,local.type=unix,local.path={},remote.type=unix,remote.path={}",
        theirs.display(),
        ours.display()
    );
    let vm = vm.extra(&["-netdev", &netdev, "-device"]);
    let platform = if name == "iommu" { ",iommu_platform=on" } else { "" };
    let card = format!("virtio-net-pci,disable-legacy=on,netdev=n0,romfile={platform}");
    let vm = vm.extra(&[&card]);
    let mut frame = [0u8; 60];
    frame[..6].fill(0xFF);
    let mut n = 0;
    let run = vm.run_with(|_| {
        n += 1;
        if n % 4 == 0 {
            let _ = socket.send_to(&frame, &theirs);
        }
    });
    let _ = (std::fs::remove_file(&ours), std::fs::remove_file(&theirs));
    ended_well(run);
}

#[test]
fn a_frame_ends_a_halt_by_msi_x() {
    frames_arrive(Vm::new("selftest=msix"), "msix");
}

#[test]
fn what_is_taken_from_the_card_is_out_of_its_reach() {
    let vm = Vm::new("iommu=on selftest=iommu").extra(&["-device", "intel-iommu"]);
    frames_arrive(vm, "iommu");
}

#[test]
fn an_iommu_that_is_wanted_has_to_be_there_and_to_see_the_card() {
    let card =
        ["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,disable-legacy=on,romfile="];
    let Some(run) = Vm::new("iommu=on").extra(&card).run() else { return };
    run.ended_with(UNSUPPORTED).says("no IOMMU that sees the card");
    let vm = Vm::new("iommu=on").extra(&["-device", "intel-iommu"]).extra(&card);
    let Some(run) = vm.run() else { return };
    run.ended_with(UNSUPPORTED).says("QEMU: iommu_platform=on");
}

#[test]
fn a_network_card_with_64_bit_bars_above_ram_works() {
    let vm = Vm { memory_mib: 6144, ..Vm::new("selftest=msix") };
    frames_arrive(vm, "bars");
}

#[test]
fn without_ecam_pci_works_by_ports() {
    let vm = Vm { machine: "pc", ..Vm::new("log=debug selftest=msix") };
    frames_arrive(vm, "cf8");
}

#[test]
fn interrupts_leave_the_red_zone_alone() {
    ended_well(selftest("redzone"));
}

#[test]
fn a_mistake_on_the_command_line_is_named() {
    let Some(run) = Vm::new("cores=2 bogus=1").run() else { return };
    run.ended_with(UNSUPPORTED).says("`bogus=1`: unknown key");
}

#[test]
fn an_archive_that_is_none_is_refused() {
    let path = vm::scratch("rubbish");
    std::fs::write(&path, vec![7u8; 5000]).unwrap();
    let vm = Vm { archive: false, ..Vm::new("selftest=boot") };
    let Some(run) = vm.extra(&["-initrd", path.to_str().unwrap()]).run() else { return };
    run.ended_with(UNSUPPORTED).says("no boot archive");
}

#[test]
fn an_app_that_is_not_there_is_named() {
    let Some(run) = Vm::new("app=nothere").run() else { return };
    run.ended_with(UNSUPPORTED).says("app nothere: it is not in the boot archive");
}

#[test]
fn an_app_sees_what_the_abi_promises() {
    for mode in ["ok", "abi", "registers", "vectors", "flags", "calls", "preempted"] {
        ended_well(user(mode));
    }
}

#[test]
fn an_app_maps_and_unmaps_its_heap() {
    ended_well(user("memory"));
}

#[test]
fn an_apps_exit_code_arrives() {
    let Some(run) = user("fail") else { return };
    run.ended_with(APP_FAILED).says("exited with 3");
}

#[test]
fn what_an_app_logs_cannot_forge_a_line() {
    let Some(run) = user("calls") else { return };
    run.ended_with(OK).says("ix: testapp: two.lines.[31m");
}

/// Every way to hurt the kernel ends the application with a reason, and gives all its memory back
/// (the self-test counts it).
#[test]
fn a_misbehaving_app_is_ended_by_name_and_the_kernel_goes_on() {
    for (mode, says) in [
        ("null", "page fault writing 0x0 (not mapped)"),
        ("kernel-read", "page fault reading 0xffffffff8020a000 (not allowed)"),
        ("direct-map", "page fault writing 0xffff800000100000 (not allowed)"),
        ("non-canonical", "general protection"),
        ("text", "page fault writing 0x40000000 (not allowed)"),
        ("rx", "page fault writing 0x2000000000 (not allowed)"),
        ("info", "page fault writing 0x2f00000000 (not allowed)"),
        ("events", "page fault writing 0x3000000000 (not allowed)"),
        ("stack", "page fault writing 0x30005ffff8 (not mapped)"),
        ("heap-end", "(not mapped)"),
        ("execute", "page fault executing 0x1000000000 (not allowed)"),
        ("jump-kernel", "page fault executing 0xffffffff8020a000 (not allowed)"),
        ("jump-wild", "general protection"),
        ("top-syscall", "page fault executing 0x7ffffffffffe (not mapped)"),
        ("bad-stack", "testapp: "),
        ("ud2", "invalid opcode"),
        ("divide", "divide error"),
        ("trap-flag", "debug"),
    ] {
        let Some(run) = user(mode) else { return };
        run.ended_with(APP_KILLED).says(says);
    }
}

#[test]
fn privileged_instructions_end_the_app() {
    for mode in ["cli", "hlt", "port", "msr", "cr3", "int", "int3", "sidt"] {
        let Some(run) = user(mode) else { return };
        run.ended_with(APP_KILLED).says("general protection");
    }
}

#[test]
fn an_app_that_does_not_return_is_taken_back_reported_and_ended() {
    for mode in ["loop", "clock-loop"] {
        let Some(run) = user_with_limit(mode, 300) else { return };
        run.ended_with(APP_KILLED)
            .says("does not return on core 0: taken back")
            .says("not responding for 300 ms: ended");
    }
}
