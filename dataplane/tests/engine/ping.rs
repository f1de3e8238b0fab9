//! ICMP over IPv4.
use crate::support::talk::*;
use ix_abi::stats::Drop as Reason;
use ix_dataplane::time::Duration;

#[test]
fn a_ping_is_answered_in_the_buffer_in_which_it_came() {
    let mut talk = Talk::new(|_| {});
    let _ = std::mem::take(&mut talk.others);
    let mut f =
        vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 38, 0, 0, 0, 0, 64, 1, 0, 0];
    f.extend(talk.ip);
    f.extend([10, 0, 0, 1]);
    let sum = ix_dataplane::checksum::finish(ix_dataplane::checksum::sum(&f[14..34]));
    f[24..26].copy_from_slice(&sum);
    f.extend([8, 0, 0, 0, 1, 2, 3, 4]);
    f.extend(b"0123456789");
    let sum = ix_dataplane::checksum::finish(ix_dataplane::checksum::sum(&f[34..]));
    f[36..38].copy_from_slice(&sum);
    talk.give(f.clone());
    talk.step();
    let [answer] = &talk.others[..] else { panic!("{:?}", talk.others) };
    assert_eq!((answer[34], &answer[38..], &answer[26..30]), (0, &f[38..], &[10, 0, 0, 1][..]));
    assert!(ix_dataplane::checksum::is_good(ix_dataplane::checksum::sum(&answer[34..])));
    f[38] ^= 1;
    talk.give(f);
    talk.step();
    assert_eq!(talk.station.dropped(Reason::Icmp), 1, "a wrong checksum");
    talk.pass(Duration::from_ms(1));
    talk.station.assert_all_quiet();
}
