//! Rings that make sense and rings that do not, the order of packets, files block by block, filters.
use super::format::Counts;
use super::merge::Packet;
use super::*;
use crate::fake::{Scene, scene};
use ix_abi::capture::{Head, NO_GROUP, flag};

/// The kernel's side of a ring, as `docs/control.md` says it.
struct Kernel<'a> {
    page: &'a Page,
    at: usize,
    produced: u64,
}

impl Kernel<'_> {
    fn record(&mut self, head: Head, bytes: &[u8]) {
        let size = Head::bytes_for(bytes.len() as u16);
        let capacity = (ring_bytes(2) - ring::DATA) as u64;
        let left = capacity - self.produced % capacity;
        if left < u64::from(size) {
            self.words(&[left]);
            self.produced += left;
        }
        let captured = bytes.len() as u16;
        let original = head.original.max(captured);
        let mut words = Head { bytes: size, captured, original, ..head }.encode().to_vec();
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            words.push(u64::from_le_bytes(word));
        }
        self.words(&words);
        self.produced += u64::from(size);
        self.page.store_release(self.at + ring::PRODUCED, self.produced);
    }

    fn words(&self, words: &[u64]) {
        let capacity = (ring_bytes(2) - ring::DATA) as u64;
        let place = (self.produced % capacity) as usize;
        for (i, word) in words.iter().enumerate() {
            self.page.store(self.at + ring::DATA + place + i * 8, *word);
        }
    }
}

fn head(time_ns: u64, number: u64) -> Head {
    Head { original: 100, time_ns, group: 5, number, ..Head::default() }
}

fn rig(scene: &Scene, core: usize) -> (Kernel<'_>, Reader) {
    let at = ring_offset(core, 2);
    (Kernel { page: &scene.page, at, produced: 0 }, Reader::new(core, at, ring_bytes(2)))
}

/// Remembers what is written.
#[derive(Default)]
struct Seen(Vec<(u64, u64, usize)>);

impl PacketWriter for Seen {
    fn packet(&mut self, unix_ns: u64, missed: u64, packet: &Packet) -> std::io::Result<()> {
        self.0.push((unix_ns, missed, packet.bytes.len()));
        Ok(())
    }
    fn counts(&mut self, _: usize, _: Counts) -> std::io::Result<()> {
        Ok(())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn records_come_out_as_they_went_in_also_around_the_end_of_the_ring() {
    let scene = scene(2);
    let (mut kernel, mut reader) = rig(&scene, 1);
    let mut merger = Merger::new(2, 0);
    let mut seen = Seen::default();
    for i in 0..20_000_u64 {
        let bytes = vec![i as u8; (i % 1500) as usize];
        kernel.record(head(i, i), &bytes);
        if i % 100 == 99 {
            assert!(reader.take(&scene.page, &mut merger).unwrap());
        }
    }
    assert!(!reader.take(&scene.page, &mut merger).unwrap());
    merger.write(&mut seen, u64::MAX, None).unwrap();
    let expected: Vec<_> = (0..20_000).map(|i| (i, 0, (i % 1500) as usize)).collect();
    assert!(seen.0 == expected);
    assert_eq!(scene.page.load(ring_offset(1, 2) + ring::CONSUMED), kernel.produced);
}

#[test]
fn a_ring_that_makes_no_sense_is_an_error_that_says_where() {
    let broken = |spoil: &dyn Fn(&Scene, usize)| {
        let scene = scene(2);
        let (mut kernel, mut reader) = rig(&scene, 0);
        let mut merger = Merger::new(2, 0);
        kernel.record(head(1, 0), b"whole");
        reader.take(&scene.page, &mut merger).unwrap();
        kernel.record(head(2, 1), b"to be spoilt");
        spoil(&scene, kernel.at);
        reader.take(&scene.page, &mut merger).unwrap_err().to_string()
    };
    for produced in [u64::MAX, 0, 41, 1 << 40] {
        let text = broken(&|s, at| s.page.store(at + ring::PRODUCED, produced));
        assert!(text.contains("core 0 is corrupted at byte 40 (its count of bytes)"), "{text}");
    }
    for first in [0, u64::MAX, 8 | 1 << 48, 48 | 13 << 32 | 12 << 48, 4096 | 12 << 32 | 100 << 48] {
        let text = broken(&|s, at| s.page.store(at + ring::DATA + 40, first));
        assert!(text.contains("corrupted at byte 40 (the head of a record)"), "{first:#x}: {text}");
    }
}

#[test]
fn packets_of_several_cores_are_put_in_order_and_gaps_are_what_was_missed() {
    let mut merger = Merger::new(2, 1_000_000_000_000);
    let packet =
        |core, time_ns, number| Packet { core, head: head(time_ns, number), bytes: vec![] };
    let ms = 1_000_000;
    for p in
        [packet(0, 10 * ms, 0), packet(0, 30 * ms, 4), packet(1, 5 * ms, 2), packet(1, 90 * ms, 3)]
    {
        merger.add(p);
    }
    let mut seen = Seen::default();
    merger.write(&mut seen, u64::MAX, Some(60 * ms)).unwrap();
    let base = 1_000_000_000_000;
    assert_eq!(seen.0, [(base + 5 * ms, 2, 0), (base + 10 * ms, 0, 0), (base + 30 * ms, 3, 0)]);
    merger.write(&mut seen, u64::MAX, Some(109 * ms)).unwrap();
    assert_eq!(seen.0.len(), 3, "too young");
    merger.write(&mut seen, 3, None).unwrap();
    assert_eq!((seen.0.len(), merger.written), (3, 3), "no more than asked for");
    merger.write(&mut seen, u64::MAX, None).unwrap();
    assert_eq!(seen.0.len(), 4);
}

#[test]
fn a_capture_file_is_made_of_blocks_that_fit_together() {
    let interface =
        |name: &str| Interface { name: name.into(), filter: "port 7".into(), snaplen: 96 };
    let mut file = Vec::new();
    let mut out = Pcapng::begin(&mut file, &[interface("a"), interface("bc")]).unwrap();
    let time = 0x1234_5678_9abc_def0;
    let flags = flag::OUT;
    let sent = Packet { core: 1, head: Head { flags, ..head(9, 9) }, bytes: b"seven..".to_vec() };
    out.packet(time, 3, &sent).unwrap();
    let alone = Head { group: NO_GROUP, ..head(9, 9) };
    out.packet(time, 0, &Packet { core: 0, head: alone, bytes: vec![] }).unwrap();
    out.counts(0, Counts { seen: 9, accepted: 5, missed: 2 }).unwrap();
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let mut kinds = Vec::new();
    let mut at = 0;
    while at < file.len() {
        let len = word(at + 4) as usize;
        assert!(len.is_multiple_of(4) && word(at + len - 4) as usize == len, "block at {at}");
        kinds.push((word(at), at));
        at += len;
    }
    assert_eq!(at, file.len());
    let only: Vec<u32> = kinds.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(only, [0x0a0d_0d0a, 1, 1, 6, 6, 5]);
    let at = kinds[3].1;
    let fixed: Vec<u32> = (2..7).map(|i| word(at + i * 4)).collect();
    assert_eq!(fixed, [1, 0x1234_5678, 0x9abc_def0, 7, 100]);
    assert_eq!(&file[at + 28..at + 36], b"seven..\0");
    // Comment of 7 bytes, flags outbound, a count of 3.
    assert_eq!(word(at + 36), 1 | 7 << 16);
    assert_eq!(&file[at + 40..at + 48], b"group 5\0");
    assert_eq!(
        [word(at + 48), word(at + 52), word(at + 56), word(at + 60)],
        [2 | 4 << 16, 2, 4 | 8 << 16, 3]
    );
}

#[test]
fn filters_are_read_and_said_again() {
    use crate::cli::{FilterArgs, Way};
    let all = FilterArgs::default();
    assert_eq!(filter::text(&filter::of(&all).unwrap()), "all packets");
    let args = FilterArgs {
        address: Some("10.0.2.0/24".into()),
        port: Some(11211),
        group: Some(17),
        protocol: Some("tcp".into()),
        direction: Some(Way::Out),
    };
    let read = filter::of(&args).unwrap();
    assert_eq!(read.address.map(|(_, length)| length), Some(120));
    assert_eq!(filter::text(&read), "address 10.0.2.0/24, port 11211, tcp, group 17, out");
    for (address, text) in [("10.0.0.1", "10.0.0.1/32"), ("::1/64", "::1/64"), ("0.0.0.0/0", "/0")]
    {
        let args = FilterArgs { address: Some(address.into()), ..all.clone() };
        let said = filter::text(&filter::of(&args).unwrap());
        assert!(said.ends_with(text) || address.contains(':'), "{said}");
    }
    for address in ["10.0.0.0/33", "10.0.0/8", "host", "::/129", "1.2.3.4/-1", "1.2.3.4/"] {
        let args = FilterArgs { address: Some(address.into()), ..all.clone() };
        assert!(filter::of(&args).unwrap_err().to_string().contains(address));
    }
    for (protocol, number) in [("arp", 0x806), ("58", 58), ("0x88cc", 0x88cc)] {
        let args = FilterArgs { protocol: Some(protocol.into()), ..all.clone() };
        assert_eq!(filter::of(&args).unwrap().protocol, Some(number));
    }
    for protocol in ["256", "tpc", "0x", "-1", "70000"] {
        let args = FilterArgs { protocol: Some(protocol.into()), ..all.clone() };
        assert!(filter::of(&args).unwrap_err().to_string().contains("--protocol"), "{protocol}");
    }
}

#[test]
fn a_flow_group_that_does_not_exist_is_refused() {
    let scene = scene(2);
    let of = |group| Filter { group: Some(ix_abi::GroupId(group)), ..Filter::default() };
    known(&scene.page, Filter::default()).unwrap();
    assert_eq!(known(&scene.page, of(127)).unwrap(), of(127));
    for group in [128, 999] {
        let said = known(&scene.page, of(group)).unwrap_err().to_string();
        assert!(said.contains(&format!("--group {group}: there is no such")), "{said}");
        assert!(said.contains("`ixcp flows` lists the 128"), "{said}");
    }
}

/// A file that has no more room.
struct Full;

impl PacketWriter for Full {
    fn packet(&mut self, _: u64, _: u64, _: &Packet) -> std::io::Result<()> {
        Err(ErrorKind::StorageFull.into())
    }

    fn counts(&mut self, _: usize, _: Counts) -> std::io::Result<()> {
        Err(ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Err(ErrorKind::StorageFull.into())
    }
}

#[test]
fn a_file_that_takes_no_more_is_named() {
    let dir = temp_dir::TempDir::new().unwrap();
    let instance = Base::at(dir.path().join("ix")).unwrap().claim("kv").unwrap().instance;
    let scene = scene(1);
    let mut session = Session {
        instance: &instance,
        page: &scene.page,
        generation: 1,
        epoch: 0xfeed,
        lease: 0,
        readers: vec![Reader::new(0, ring_offset(0, 1), ring_bytes(1))],
        merger: Merger::new(1, 0),
        ended: true,
    };
    let ended = AtomicBool::new(true);
    let done = session.run(Box::new(Full), None, None, &ended, "cannot write kv.pcapng");
    let said = format!("{:#}", done.unwrap_err());
    assert!(said.starts_with("cannot write kv.pcapng: no storage space"), "{said}");
}
