//! What the hostile application can do wrong, and how the kernel has to answer. One list: the
//! application, the test that boots it and `docs/protection.md` are held to it.
#![no_std]
#![deny(unsafe_code)]

/// How the kernel has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It ends the application, with this text on the serial log (after `app hostile: `).
    Ended(&'static str),
    /// The same where the processor raises the exception; QEMU's emulation does not.
    EndedByCpu(&'static str),
    /// It refuses, or serves within its limits; the application checks how and goes on.
    Refused,
}

/// A misdeed.
#[derive(Clone, Copy, Debug)]
pub struct Misdeed {
    /// What the application is told.
    pub name: &'static str,
    /// What it then does.
    pub what: &'static str,
    /// What has to come of it.
    pub answer: Answer,
}

/// A part of the list.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name: the file with the code, and the test.
    pub name: &'static str,
    /// What it has in common.
    pub title: &'static str,
    /// Its misdeeds.
    pub misdeeds: &'static [Misdeed],
}

/// Port where it echoes TCP and UDP.
pub const ECHO_PORT: u16 = 7;
/// UDP port where it takes orders: the name of a misdeed, perhaps a number behind it.
pub const ORDER_PORT: u16 = 66;
/// First answer to an order, before it is carried out.
pub const BEGUN: &str = "begun";
/// Last answer, if the application still lives and all was as the ABI says.
pub const REFUSED: &str = "refused";
/// What the last answer begins with if it was not.
pub const BROKEN: &str = "broken: ";

/// The order to send datagrams to the peer for a second, as many as go.
pub const FLOOD: &str = "flood";
/// The order to look for [`MARK`] in the receive area: refused if it is nowhere.
pub const LOOK: &str = "look";
/// Bytes that a test sends to one application, and that the next must not see.
pub const MARK: [u8; 8] = *b"!SECRET!";

const fn ended(name: &'static str, what: &'static str, says: &'static str) -> Misdeed {
    Misdeed { name, what, answer: Answer::Ended(says) }
}

const fn by_cpu(name: &'static str, what: &'static str, says: &'static str) -> Misdeed {
    Misdeed { name, what, answer: Answer::EndedByCpu(says) }
}

const fn refused(name: &'static str, what: &'static str) -> Misdeed {
    Misdeed { name, what, answer: Answer::Refused }
}

/// Every misdeed there is.
pub const KINDS: &[Kind] = &[
    Kind { name: "handles", title: "Handles", misdeeds: HANDLES },
    Kind { name: "gather", title: "Scatter-gather entries", misdeeds: GATHER },
    Kind { name: "calls", title: "Calls that make no sense", misdeeds: CALLS },
    Kind { name: "rings", title: "Rings", misdeeds: RINGS },
    Kind { name: "memory", title: "Memory", misdeeds: MEMORY },
    Kind {
        name: "privileged",
        title: "Privileged and forbidden instructions",
        misdeeds: PRIVILEGED,
    },
    Kind { name: "state", title: "Registers at every entry of the kernel", misdeeds: STATE },
    Kind {
        name: "exhaust",
        title: "Keeping the core, exhausting what can be asked for",
        misdeeds: EXHAUST,
    },
    Kind { name: "background", title: "Background threads", misdeeds: BACKGROUND },
];

const HANDLES: &[Misdeed] = &[
    refused(
        "handle-made-up",
        "every call with handles that were never issued: 0, all ones, other groups, indices and generations",
    ),
    refused(
        "handle-stale",
        "timers, ports and connections used after they were closed and their slots used again",
    ),
    refused(
        "handle-other-kind",
        "a listener as connection, a connection as timer, a timer as UDP port, each with each",
    ),
    refused(
        "handle-other-group",
        "a live connection's handle with another group and another generation",
    ),
    refused("handle-other-core", "a connection of another context's flow group"),
];

const GATHER: &[Misdeed] = &[
    refused("sg-kernel", "entries in the kernel's image, direct map and stacks"),
    refused("sg-unmapped", "entries at 0, in gaps, in the upper half, not canonical"),
    refused("sg-past-heap", "entries past the heap's end, and across it"),
    refused("sg-wrapping", "address and length wrap around"),
    refused("sg-huge", "lengths above 2^30, a sum above 2^64"),
    refused(
        "sg-not-sendable",
        "the information page, both rings, received buffers that it does not hold, bytes beside a held datagram",
    ),
    refused("sg-zero-length", "64 entries of length 0, at any address"),
    refused("sg-count", "counts of 0, 65 and 65535 entries"),
    refused("sg-unmapped-under", "heap pages unmapped while they are being sent"),
];

const CALLS: &[Misdeed] = &[
    refused(
        "call-unknown",
        "every operation number that there is not, every flag, every reserved bit",
    ),
    refused(
        "call-absurd",
        "backlogs, ports, delays, byte counts and addresses that are impossible",
    ),
    refused(
        "call-direct",
        "direct calls that there are not; log, map and unmap with ranges that lie",
    ),
];

const RINGS: &[Misdeed] = &[
    ended(
        "ring-ahead",
        "the syscall ring's index is more than its capacity ahead",
        "ended: impossible index in its syscall ring",
    ),
    ended(
        "ring-back",
        "the syscall ring's index goes back",
        "ended: impossible index in its syscall ring",
    ),
    ended(
        "ring-events-ahead",
        "it says to have read events that were not written",
        "ended: impossible index in its syscall ring",
    ),
    ended(
        "ring-events-back",
        "it takes back that it has read events",
        "ended: impossible index in its syscall ring",
    ),
    refused("ring-cut", "a call of 17 slots of which one is published"),
    refused("ring-full", "512 calls at once that all want a result"),
    refused(
        "ring-rewritten",
        "another core rewrites the syscall ring's slots while the kernel reads them",
    ),
    ended(
        "ring-header-rewritten",
        "another core rewrites the ring's indices while the kernel reads them",
        "ended: impossible index in its syscall ring",
    ),
    refused(
        "sendv-rewritten",
        "another core rewrites memory that a `sendv` named, while it is sent",
    ),
];

const MEMORY: &[Misdeed] = &[
    ended(
        "write-info",
        "writes to the information page",
        "page fault writing 0x2f00000000 (not allowed)",
    ),
    ended("write-events", "writes to its event ring", "page fault writing 0x30"),
    ended(
        "write-rx",
        "writes to the receive area",
        "page fault writing 0x2000000000 (not allowed)",
    ),
    ended("write-code", "writes to its own code", "page fault writing 0x40000000 (not allowed)"),
    ended("write-null", "writes to address 0", "page fault writing 0x0 (not mapped)"),
    ended("write-kernel", "writes to the kernel's image", "(not allowed)"),
    ended("write-direct-map", "writes to the kernel's view of RAM", "(not allowed)"),
    ended("write-not-canonical", "writes to an address that is none", "general protection"),
    ended("read-kernel", "reads the kernel's image", "(not allowed)"),
    ended("read-percore", "reads the kernel's stacks", "page fault reading 0xff"),
    ended("read-past-heap", "reads past its heap", "(not mapped)"),
    ended("stack-overflow", "recurses until its stack ends", "page fault writing 0x30"),
    ended(
        "jump-kernel",
        "jumps into the kernel",
        "page fault executing 0xffffffff8020a000 (not allowed)",
    ),
    ended("jump-heap", "executes its heap", "page fault executing 0x1000000000 (not allowed)"),
    ended(
        "jump-rx",
        "executes a received packet",
        "page fault executing 0x2000000000 (not allowed)",
    ),
    ended("jump-not-canonical", "jumps to an address that is none", "general protection"),
    ended(
        "jump-top",
        "a SYSCALL at the very end of the lower half",
        "page fault executing 0x7ffffffffffe (not mapped)",
    ),
];

const GP: &str = "general protection";
/// An exception in the image, whichever: processors (and QEMU's) differ in which one.
const SOME: &str = " at 0x400";
const UD: &str = "invalid opcode";

const PRIVILEGED: &[Misdeed] = &[
    ended("hlt", "HLT", GP),
    ended("cli", "CLI", GP),
    ended("sti", "STI", GP),
    ended("in", "IN from the serial port", GP),
    ended("out", "OUT to the debug-exit port", GP),
    ended("outsb", "REP OUTSB", GP),
    ended("cr0-read", "reads CR0", GP),
    ended("cr0-write", "clears CR0.WP", GP),
    ended("cr3-read", "reads CR3", GP),
    ended("cr3-write", "loads CR3", GP),
    ended("cr4-write", "clears CR4.SMAP", GP),
    ended("cr8-write", "writes the task priority", GP),
    ended("dr7-write", "sets a breakpoint register", GP),
    ended("rdmsr", "reads LSTAR", GP),
    ended("wrmsr", "writes LSTAR", GP),
    ended("rdpmc", "reads a performance counter", GP),
    ended("lgdt", "loads a GDT of its own", GP),
    ended("lidt", "loads an IDT of its own", GP),
    ended("lldt", "loads an LDT", GP),
    ended("ltr", "loads a task register", GP),
    ended("lmsw", "LMSW", GP),
    ended("clts", "CLTS", GP),
    ended("sgdt", "asks where the GDT is (UMIP)", GP),
    ended("sidt", "asks where the IDT is (UMIP)", GP),
    ended("sldt", "asks for the LDT (UMIP)", GP),
    ended("str", "asks for the task register (UMIP)", GP),
    ended("smsw", "reads CR0's low word (UMIP)", GP),
    ended("invlpg", "flushes a TLB entry", GP),
    ended("invd", "INVD", GP),
    ended("wbinvd", "WBINVD", GP),
    ended("swapgs", "SWAPGS", GP),
    ended("sysret", "SYSRET", GP),
    ended("sysenter", "SYSENTER", SOME),
    ended("sysexit", "SYSEXIT", SOME),
    ended("iret-kernel", "IRETQ to a ring 0 selector", SOME),
    ended("retf-kernel", "RETFQ to a ring 0 selector", SOME),
    ended("retf-ldt", "RETFQ to a selector of the LDT", SOME),
    ended("far-call-tss", "a far call through the task register's selector", GP),
    ended("far-jump-kernel", "a far jump to the kernel's code selector", GP),
    ended("stac", "STAC: ring 3 cannot open SMAP", UD),
    ended("clac", "CLAC", UD),
    ended("xsetbv", "XSETBV", SOME),
    ended("wrfsbase", "WRFSBASE", UD),
    ended("wrgsbase", "WRGSBASE to an address that is not canonical", UD),
    ended("vmcall", "VMCALL", UD),
    ended("vmmcall", "VMMCALL", UD),
    ended("vmxon", "VMXON", UD),
    ended("monitor", "MONITOR and MWAIT", UD),
    ended("ud2", "UD2", UD),
    ended("into", "INTO", UD),
    ended("int3", "INT3", GP),
    ended("int1", "INT1, which no gate's privilege stops", SOME),
    ended("int", "INT n; with every vector as its own order", GP),
    ended("divide", "divides by zero", "divide error"),
    by_cpu("simd-error", "an SSE exception, unmasked", "SIMD error"),
    ended("x87-error", "an x87 exception, unmasked", "x87 error"),
];

const STATE: &[Misdeed] = &[
    refused("rsp-0", "stack pointer 0 at SYSCALL, at an interrupt, at preemption"),
    refused("rsp-not-canonical", "a stack pointer that is no address, at the same"),
    refused("rsp-kernel", "a stack pointer into the kernel's stacks, at the same"),
    refused("rsp-unmapped", "a stack pointer into a gap, at the same"),
    ended("rsp-kernel-fault", "UD2 with a stack pointer into the kernel's stacks", UD),
    ended("rsp-kernel-push", "pushes onto the kernel's stacks", "page fault writing 0xff"),
    ended("rsp-not-canonical-push", "pushes to an address that is none", SOME),
    refused(
        "flags",
        "AC, NT, DF, RF, ID, IOPL 3, VIF, VIP and all of them, at SYSCALL, at an interrupt, at preemption",
    ),
    ended("flags-fault", "UD2 with AC, NT and DF set", UD),
    ended("flags-tf", "single steps", "debug"),
    refused("flags-tf-syscall", "single steps into SYSCALL"),
    refused("flags-tf-mov-ss", "MOV SS right before SYSCALL while single stepping"),
    refused(
        "segment-registers",
        "null and user selectors in DS, ES, FS, GS, at SYSCALL, at an interrupt, at preemption",
    ),
    ended("segment-kernel", "loads a ring 0 selector into DS", GP),
    ended("segment-ldt", "loads a selector of the LDT into ES", GP),
    ended("segment-beyond", "loads a selector beyond the GDT into FS", GP),
    ended("segment-ss-null", "loads a null selector into SS", GP),
    refused(
        "mxcsr",
        "all SSE exceptions unmasked and pending, at SYSCALL, at an interrupt, at preemption",
    ),
    by_cpu("mxcsr-reserved", "reserved bits of MXCSR", GP),
    refused(
        "x87",
        "an x87 exception pending, all unmasked, at SYSCALL, at an interrupt, at preemption",
    ),
    refused(
        "registers",
        "every register full of ones at SYSCALL; nothing of the kernel comes back",
    ),
];

const EXHAUST: &[Misdeed] = &[
    ended("loop", "an endless loop", "not responding for"),
    ended("loop-calls", "an endless loop of direct calls", "not responding for"),
    ended("loop-log", "an endless loop of log lines", "not responding for"),
    ended("loop-map", "maps and unmaps memory without end", "not responding for"),
    refused("events-unread", "enters without end and reads no event, while peers send"),
    refused(
        "connections",
        "connects until there are no more ports, and to addresses that nobody answers for",
    ),
    refused("listeners", "listens until it may not"),
    refused("udp-ports", "binds UDP ports until it may not"),
    refused("timers", "sets timers until it may not"),
    refused("heap", "maps all the heap that it may reach, at once and page by page"),
    refused(
        "datagrams",
        "sends datagrams until none is taken, to neighbours that answer and to such as do not",
    ),
    refused("segments", "sends one byte at a time until none is taken"),
    refused("log-flood", "logs 2,000 lines of a kilobyte"),
    refused("rx-hoard", "returns no received buffer, of any connection or datagram"),
    refused("calls-expensive", "fills the ring with the most expensive calls, again and again"),
];

const BACKGROUND: &[Misdeed] = &[
    refused(
        "thread-arguments",
        "entries, stacks and blocks that are the kernel's, nobody's, not writable, not aligned; wakes at such addresses",
    ),
    ended(
        "thread-entry-unmapped",
        "a thread that begins where nothing is mapped",
        "page fault executing 0x60000000 (not mapped)",
    ),
    ended(
        "thread-stack-unmapped",
        "a thread whose stack is not there",
        "page fault writing 0x5fff",
    ),
    ended(
        "thread-fault",
        "a thread that writes to address 0",
        "page fault writing 0x0 (not mapped)",
    ),
    ended("thread-exit", "a thread that calls `exit`", "exited with 7"),
    refused("thread-many", "10,000 threads at once, and 2,000 one after the other"),
    refused(
        "thread-waits",
        "waits at addresses that are the kernel's, nobody's, not aligned; for another value; without time",
    ),
    refused("thread-wake-storm", "64 threads wait and are woken as fast as a core can"),
    refused("thread-denied", "a thread that enters; elastic threads that wait or leave"),
    refused("thread-loop", "eight threads that never return"),
    refused("thread-hold", "the same, one of which says for ever that it must not be interrupted"),
    refused("thread-registers", "threads that fill all registers and are preempted"),
    refused("thread-block-unmapped", "a thread whose block is unmapped when it leaves"),
    refused("thread-map", "threads that map and unmap without end"),
    refused("thread-log", "threads that log without end"),
];

/// The misdeed of a name.
pub fn find(name: &str) -> Option<&'static Misdeed> {
    KINDS.iter().flat_map(|kind| kind.misdeeds).find(|misdeed| misdeed.name == name)
}
