//! The kernel's own commands, what must never pass, and all values against a second opinion.

use super::*;

const OWN: [u32; 3] = [4, 6, 0x1_0002];
const ASSERT: u64 = 0x4000;

fn to(id: u32, low: u64) -> u64 {
    u64::from(id) << 32 | low
}

#[test]
fn what_the_kernel_sends_passes() {
    // apic.rs: wake, NMI, INIT, start-up at page 8, NMI to all others.
    assert_eq!(
        judge(to(6, ASSERT | 0x41), &OWN, 0),
        Action::Deliver { to: Cores(2), vector: 0x41 }
    );
    assert_eq!(
        judge(to(4, ASSERT | 0x41), &OWN, 0),
        Action::Deliver { to: Cores(1), vector: 0x41 }
    );
    assert_eq!(judge(to(0x1_0002, ASSERT | 0x400), &OWN, 0), Action::Nmi(Cores(4)));
    assert_eq!(judge(to(6, ASSERT | 0x500), &OWN, 0), Action::Init(Cores(2)));
    assert_eq!(judge(to(6, ASSERT | 0x608), &OWN, 0), Action::Startup { to: Cores(2), page: 8 });
    assert_eq!(judge(to(0, ASSERT | 0x400 | 3 << 18), &OWN, 1), Action::Nmi(Cores(0b101)));
    assert_eq!(fixed(6, 0x41), to(6, ASSERT | 0x41));
}

#[test]
fn shorthands_mean_own_cores_only() {
    let deliver = |to| Action::Deliver { to: Cores(to), vector: 0x30 };
    assert_eq!(judge(to(99, 1 << 18 | 0x30), &OWN, 1), deliver(2));
    assert_eq!(judge(to(99, 2 << 18 | 0x30), &OWN, 1), deliver(7));
    assert_eq!(judge(to(99, 3 << 18 | 0x30), &OWN, 1), deliver(5));
    assert_eq!(judge(to(u32::MAX, 0x30), &OWN, 1), deliver(7), "a broadcast");
    assert_eq!(judge(to(0, 3 << 18 | 0x500), &OWN, 1), Action::Init(Cores(5)));
    assert_eq!(judge(3 << 18 | 0x500, &OWN[..1], 0), Action::Init(Cores(0)), "nobody");
}

#[test]
fn everything_else_is_refused_by_name() {
    for (value, why) in [
        (to(5, ASSERT | 0x41), Refusal::NotOwn(5)),
        (to(5, ASSERT | 0x500), Refusal::NotOwn(5)),
        (to(0x1_0004, ASSERT | 0x400), Refusal::NotOwn(0x1_0004)),
        (to(6, ASSERT | 0x241), Refusal::Smi),
        (to(6, ASSERT | 0x141), Refusal::LowestPriority),
        (to(6, ASSERT | 0x341), Refusal::ReservedMode),
        (to(6, ASSERT | 0x741), Refusal::ExtInt),
        (to(6, ASSERT | 0x841), Refusal::Logical),
        (to(u32::MAX, 0x841), Refusal::Logical),
        (to(6, ASSERT | 0xF), Refusal::Vector(15)),
        (to(6, ASSERT | 0x1F), Refusal::Vector(31)),
        (to(6, ASSERT | 0x1041), Refusal::ReservedBits),
        (to(6, ASSERT | 0x8041), Refusal::LevelTriggered),
        (to(4, ASSERT | 0x500), Refusal::Oneself),
        (to(6, ASSERT | 2 << 18 | 0x500), Refusal::Oneself),
        (to(6, 1 << 18 | 0x608), Refusal::Oneself),
    ] {
        assert_eq!(judge(value, &OWN, 0), Action::Refuse(why), "{value:#x}");
    }
    assert_eq!(judge(to(6, 0x8500), &OWN, 0), Action::Nothing, "INIT de-assert");
    assert_eq!(judge(to(5, 0x8500), &OWN, 0), Action::Refuse(Refusal::NotOwn(5)));
}

/// Every low half with every kind of destination: nobody is reached who is not the dataplane's, and only
/// what the four modes are for comes out.
#[test]
fn nothing_reaches_a_stranger() {
    let own = Cores::first(OWN.len());
    for low in 0..1u64 << 20 {
        for destination in [0u32, 4, 5, u32::MAX] {
            let value = to(destination, low);
            let (cores, mode) = match judge(value, &OWN, 0) {
                Action::Deliver { to, vector } => {
                    assert!(vector >= 16 && u64::from(vector) == low & 0xFF);
                    (to, 0)
                }
                Action::Nmi(to) => (to, 4),
                Action::Init(to) => (to, 5),
                Action::Startup { to, .. } => (to, 6),
                Action::Nothing => (Cores(0), 5),
                Action::Refuse(_) => continue,
            };
            assert_eq!(low >> 8 & 7, mode, "{value:#x}");
            assert_eq!(cores.and(own), cores, "{value:#x}");
            let is_shorthand = low >> 18 & 3 != 0;
            assert!(is_shorthand || destination == 4 || destination == u32::MAX, "{value:#x}");
            assert!(is_shorthand || low & 0x800 == 0, "{value:#x}: logical");
            assert_eq!(low & 0x3_3000, 0, "{value:#x}: reserved");
        }
    }
    for bit in 20..32 {
        assert_eq!(judge(to(4, 1 << bit | 0x30), &OWN, 0), Action::Refuse(Refusal::ReservedBits));
    }
}

#[test]
fn sets_of_cores() {
    assert_eq!(Cores::first(64), Cores(u64::MAX));
    assert_eq!(Cores::first(65), Cores(u64::MAX));
    assert_eq!(Cores::one(64), Cores(0));
    assert!(!Cores(u64::MAX).has(64));
    assert!(Cores(0b1010).iter().eq([1, 3]));
    assert_eq!((Cores(0b1010).len(), Cores(0).is_empty()), (2, true));
}
