//! Nothing that the core loop runs synchronises with another core: no `lock` prefix, no `xchg` with memory, no
//! `mfence` in any function of the kernel's image that can be reached from the loop. Read from the machine code, calls by
//! way of fixed pointers followed; what is rare by design is listed as [`COLD`] and not entered.
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register,
};
use ix_tests::need;
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The loop, of which an iteration is a part (`core_loop::turn`); and the iteration by itself, before a core rests.
const ROOTS: [&str; 2] =
    ["ix_kernel::platform::KernelPlatform::run", "ix_dataplane::core_loop::run_once"];

/// What is not part of a packet's way, with the reason; what only it reaches is not looked at. Parts of names.
const COLD: [(&str, &str); 19] = [
    ("ix_kernel::platform::KernelPlatform::rest", "a core has nothing to do"),
    ("ix_kernel::platform::KernelPlatform::run_background", "a core that is reserved"),
    ("ix_kernel::manager::", "commands, and the control page's millisecond on core 0"),
    ("ix_kernel::platform::KernelPlatform>::change_app", "an application comes or goes"),
    ("ix_kernel::user::lifecycle::", "the same"),
    ("ix_kernel::user::calls::", "direct calls of the application: map, unmap, log"),
    ("ix_kernel::user::thread::Thread::map_on", "the same, in steps"),
    ("ix_kernel::user::thread::Thread::faulted", "the application's end"),
    ("ix_kernel::user::thread::Thread::preempted", "it has overrun its bound, which is logged"),
    ("ix_kernel::renew::", "the device is reset"),
    ("ix_kernel::watch::", "a capture or the trace begins, ends, prints"),
    ("ix_kernel::mem::heap::", "a warm loop allocates nothing (benches/tests/sharing.rs)"),
    ("ix_dataplane::acl::swap::", "a rule set comes or goes"),
    ("drop_in_place<alloc::boxed::Box<ix_dataplane::acl", "the same"),
    ("log::__private_api", "a line is logged"),
    ("core::panicking::", "the end"),
    ("core::fmt::", "text: of a line that is logged"),
    ("ix_dataplane::tap::Tap::stamp", "a capture asks the clock it was given, which is the loop's"),
    ("ix_dataplane::tap::line::", "the trace writes a line of text"),
];

/// Pointers to functions that are kept in memory: the caller, and the functions that are put there.
const KEPT: [(&str, &str, &str); 5] = [
    (ROOTS[0], "ix_kernel::net::wake", "a core whose queue is another's rings it (`MuxTx`)"),
    (ROOTS[1], "ix_kernel::net::wake", "the same"),
    (
        "ix_dataplane::core_loop::calm::finish_calmly",
        "ix_kernel::net::wake",
        "the same, when all is calm",
    ),
    (
        "ix_dataplane::core_loop::calm::go_on",
        "ix_kernel::net::wake",
        "the same, when it was not answered at once",
    ),
    ("ix_dataplane::core_loop::finish", "ix_kernel::net::wake", "the same, at the loop's end"),
];

struct Function {
    name: String,
    start: u64,
    code: Vec<u8>,
}

struct Image {
    functions: BTreeMap<u64, Function>,
    /// Bytes that the program never writes, by address: where pointers to functions of other crates are.
    data: Vec<(u64, Vec<u8>)>,
}

impl Image {
    fn read(path: &PathBuf) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = object::File::parse(&*bytes).expect("an ELF file");
        let sections: Vec<(u64, Vec<u8>)> = file
            .sections()
            .filter_map(|s| Some((s.address(), s.data().ok()?.to_vec())))
            .filter(|(address, data)| *address != 0 && !data.is_empty())
            .collect();
        let at = |start: u64, len: u64| {
            let inside =
                |(a, d): &&(u64, Vec<u8>)| start >= *a && start + len <= a + d.len() as u64;
            let (address, data) = sections.iter().find(inside)?;
            let from = usize::try_from(start - address).ok()?;
            Some(data[from..from + usize::try_from(len).ok()?].to_vec())
        };
        // What is written in assembly has no size: it goes up to the next symbol.
        let text = |s: &object::Symbol<'_, '_>| {
            let kind = matches!(s.kind(), SymbolKind::Text | SymbolKind::Unknown);
            let section = s.section_index().and_then(|i| file.section_by_index(i).ok());
            kind && section.is_some_and(|s| s.kind() == SectionKind::Text)
        };
        let mut symbols: Vec<_> = file.symbols().filter(text).collect();
        symbols.sort_by_key(ObjectSymbol::address);
        let next = symbols.iter().skip(1).map(|s| Some(s.address())).chain([None]);
        let functions = symbols.iter().zip(next).filter_map(|(s, next)| {
            let name = format!("{:#}", rustc_demangle::demangle(s.name().ok()?));
            let len = if s.size() > 0 {
                s.size()
            } else {
                next?.checked_sub(s.address()).filter(|l| *l > 0)?
            };
            Some((s.address(), Function { name, start: s.address(), code: at(s.address(), len)? }))
        });
        Self { functions: functions.collect(), data: sections.clone() }
    }

    fn owner(&self, address: u64) -> Option<&Function> {
        let (_, function) = self.functions.range(..=address).next_back()?;
        (address < function.start + function.code.len() as u64).then_some(function)
    }

    fn named(&self, name: &str) -> Option<u64> {
        self.functions.values().find(|f| f.name == name).map(|f| f.start)
    }

    fn bytes<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let inside =
            |(a, d): &&(u64, Vec<u8>)| address >= *a && address + N as u64 <= a + d.len() as u64;
        let (start, data) = self.data.iter().find(inside)?;
        let from = usize::try_from(address - start).ok()?;
        data[from..from + N].try_into().ok()
    }

    fn word(&self, address: u64) -> Option<u64> {
        self.bytes(address).map(u64::from_le_bytes)
    }

    fn half_word(&self, address: u64) -> Option<i32> {
        self.bytes(address).map(i32::from_le_bytes)
    }
}

/// What one walk has found.
#[derive(Default)]
struct Found {
    reached: BTreeSet<u64>,
    /// Synchronising instructions, with the way to them.
    sins: Vec<String>,
    /// Calls that the walk cannot follow.
    unknown: Vec<String>,
}

/// Whether it is an instruction by which cores synchronise: locked, or a barrier for stores.
fn synchronises(i: &Instruction) -> bool {
    let exchanges = i.mnemonic() == Mnemonic::Xchg
        && (i.op0_kind() == OpKind::Memory || i.op1_kind() == OpKind::Memory);
    i.has_lock_prefix() || exchanges || i.mnemonic() == Mnemonic::Mfence
}

/// Where an instruction may go that leaves its function; `None` if it cannot be told.
fn targets(image: &Image, function: &Function, i: &Instruction) -> Option<Vec<u64>> {
    match i.flow_control() {
        FlowControl::Call | FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
            let near = i.op0_kind() == OpKind::NearBranch64;
            Some(if near { vec![i.near_branch_target()] } else { vec![] })
        }
        FlowControl::IndirectCall | FlowControl::IndirectBranch => {
            if i.op0_kind() == OpKind::Memory {
                if i.memory_base() == Register::RIP {
                    return Some(image.word(i.ip_rel_memory_address()).into_iter().collect());
                }
                let kept = KEPT.iter().filter(|(caller, ..)| *caller == function.name);
                let kept: Vec<u64> =
                    kept.filter_map(|(_, callee, _)| image.named(callee)).collect();
                return (!kept.is_empty()).then_some(kept);
            }
            let jumps = i.flow_control() == FlowControl::IndirectBranch;
            if jumps && function.is_by_table(image, i) {
                return Some(vec![]);
            }
            let loaded = function.loaded(image);
            (!loaded.is_empty()).then_some(loaded)
        }
        _ => Some(vec![]),
    }
}

impl Function {
    fn instructions(&self) -> impl Iterator<Item = Instruction> {
        let mut decoder = Decoder::with_ip(64, &self.code, self.start, DecoderOptions::NONE);
        std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
    }

    fn holds(&self, address: u64) -> bool {
        (self.start..self.start + self.code.len() as u64).contains(&address)
    }

    /// Whether a jump is a `match`: the table whose address was taken last before it leads back into the function.
    fn is_by_table(&self, image: &Image, jump: &Instruction) -> bool {
        let before = self.instructions().take_while(|i| i.ip() < jump.ip());
        let taken =
            before.filter(|i| i.mnemonic() == Mnemonic::Lea && i.memory_base() == Register::RIP);
        let Some(table) = taken.last().map(|i| i.ip_rel_memory_address()) else { return false };
        image
            .half_word(table)
            .is_some_and(|first| self.holds(table.wrapping_add_signed(first.into())))
    }

    /// The functions whose addresses the function takes from fixed places into registers. Which register is called
    /// is not traced: more than that is looked at, never less.
    fn loaded(&self, image: &Image) -> Vec<u64> {
        let loads = self.instructions().filter(|i| {
            let from_fixed = i.op1_kind() == OpKind::Memory && i.memory_base() == Register::RIP;
            i.mnemonic() == Mnemonic::Mov && from_fixed
        });
        let words = loads.filter_map(|i| image.word(i.ip_rel_memory_address()));
        words.filter(|w| image.functions.contains_key(w)).collect()
    }
}

fn walk(image: &Image, root: u64) -> Found {
    let mut found = Found::default();
    let mut todo = vec![(root, String::new())];
    while let Some((start, way)) = todo.pop() {
        if !found.reached.insert(start) {
            continue;
        }
        let function = &image.functions[&start];
        let way = format!("{}{}{way}", function.name, if way.is_empty() { "" } else { " < " });
        for i in function.instructions() {
            assert!(
                i.code() != Code::INVALID,
                "{}: not an instruction at {:#x}",
                function.name,
                i.ip()
            );
            if synchronises(&i) {
                found.sins.push(format!("{:#x} {:?} in {way}", i.ip(), i.mnemonic()));
            }
            let Some(targets) = targets(image, function, &i) else {
                found.unknown.push(format!("{:#x} {:?} in {way}", i.ip(), i.mnemonic()));
                continue;
            };
            for address in targets.into_iter().filter(|t| !function.holds(*t)) {
                match image.owner(address) {
                    None => found.unknown.push(format!("{address:#x} from {way}")),
                    Some(next) if COLD.iter().any(|(cold, _)| next.name.contains(cold)) => {}
                    Some(next) => todo.push((next.start, way.clone())),
                }
            }
        }
    }
    found
}

fn kernel() -> Option<PathBuf> {
    need::built()?;
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let root = need::workspace();
    Some(target.map_or(root.join("target"), |d| root.join(d)).join("release/ix-kernel"))
}

#[test]
fn nothing_that_the_core_loop_reaches_synchronises_with_another_core() {
    let Some(path) = kernel() else { return };
    let image = Image::read(&path);
    for root in ROOTS {
        let found = walk(&image, image.named(root).expect("the loop has a symbol"));
        println!("{} functions reached from {root}", found.reached.len());
        // The loop and the whole engine: if the walk ends early, it has seen nothing.
        assert!(found.reached.len() > 200, "{} functions", found.reached.len());
        let some = |f: &str| found.reached.iter().any(|a| image.functions[a].name.contains(f));
        for f in ["tcp::output::segment", "calls::run_call", "VirtioRx", "recovery::acknowledged"] {
            assert!(some(f), "{f} is not reached from {root}");
        }
        assert!(found.unknown.is_empty(), "cannot be followed:\n{}", found.unknown.join("\n"));
        assert!(found.sins.is_empty(), "synchronise:\n{}", found.sins.join("\n"));
    }
}

#[test]
fn the_audit_can_fail() {
    let Some(path) = kernel() else { return };
    let image = Image::read(&path);
    let found = |name: &str| walk(&image, image.named(name).unwrap_or_else(|| panic!("no {name}")));
    // It takes locks, and says so.
    let tick = found("ix_kernel::manager::Manager::tick");
    assert!(!tick.sins.is_empty() || !tick.unknown.is_empty());
    for (code, sin) in [
        (&[0xf0, 0x0f, 0xc1, 0x07][..], true), // lock xadd [rdi], eax
        (&[0x87, 0x07][..], true),             // xchg [rdi], eax: locks without the prefix
        (&[0x87, 0xdb][..], false),            // xchg ebx, ebx
        (&[0x0f, 0xae, 0xf0][..], true),       // mfence
        (&[0x0f, 0xae, 0xe8][..], false),      // lfence
        (&[0x89, 0x07][..], false),            // mov [rdi], eax
    ] {
        let i = Decoder::with_ip(64, code, 0, DecoderOptions::NONE).decode();
        assert_eq!(synchronises(&i), sin, "{code:x?}");
    }
}
