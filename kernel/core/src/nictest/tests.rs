use super::*;
use alloc::string::ToString;
use std::format;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn written(len: usize, number: u32, sum: Sum) -> [u8; LEN_MAX] {
    let mut bytes = [0xee; LEN_MAX];
    Frame { mac: MAC, number, port: 1234, len }.write(&mut bytes, sum);
    bytes
}

/// The sum over UDP and its pseudo-header, as a receiver has it: all ones if it is right.
fn received_sum(frame: &[u8]) -> u16 {
    let udp = &frame[34..];
    fold(add(17 + udp.len() as u32, &frame[26..34]) + add(0, udp))
}

#[test]
fn frames_of_all_sizes_have_right_checksums_and_differ() {
    for len in LEN_MIN..=LEN_MAX {
        let bytes = written(len, len as u32, Sum::Right);
        let frame = &bytes[..len];
        assert!(bytes[len..].iter().all(|b| *b == 0xee), "{len}: nothing behind it is written");
        assert_eq!(fold(add(0, &frame[14..34])), 0xffff, "{len}");
        assert_eq!(received_sum(frame), 0xffff, "{len}");
        assert_eq!(usize::from(u16::from_be_bytes([frame[16], frame[17]])), len - 14);
        assert_eq!(number_of(frame), Some(len as u32));
        assert_ne!(received_sum(&written(len, len as u32, Sum::Wrong)[..len]), 0xffff, "{len}");
        let other = written(len, 7, Sum::Right);
        assert!(Difference::between(frame, &other[..len]).is_some());
    }
}

#[test]
fn what_the_card_is_to_sum_holds_the_pseudo_header() {
    let right = written(100, 3, Sum::Right);
    let mut done = written(100, 3, Sum::Pseudo);
    let sum = !fold(add(0, &done[34..100]));
    done[40..42].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(Difference::between(&right, &done), None);
}

#[test]
fn differences_are_told_by_place_and_value() {
    assert_eq!(Difference::between(&[1, 2], &[1, 2]), None);
    let said = |a: &[u8], b: &[u8]| Difference::between(a, b).unwrap().to_string();
    assert_eq!(said(&[1, 2, 3], &[1, 0x42, 3]), "byte 1 was sent as 0x02 and came back as 0x42");
    assert_eq!(said(&[1, 2], &[1]), "2 bytes sent, 1 came back");
}

#[test]
fn frames_of_others_are_none_of_ours() {
    assert_eq!(number_of(&[0; 60]), None);
    assert_eq!(number_of(&written(60, 3, Sum::Right)[..45]), None);
    assert_eq!(number_of(&[]), None);
}

#[test]
fn the_report_has_fixed_columns_and_says_whether_all_passed() {
    let line = |verdict, item| format!("{}", Line { verdict, item, found: format_args!("x") });
    assert_eq!(line(Verdict::Pass, "link"), "PASS        link        x");
    assert_eq!(line(Verdict::NotOffered, "statistics"), "NOT OFFERED statistics  x");
    let mut tally = Tally::default();
    assert!(!tally.all_passed(), "nothing was tried");
    tally.add(Verdict::Pass);
    tally.add(Verdict::NotOffered);
    assert_eq!(tally.to_string(), "ALL PASSED: 1 passed, 0 failed, 1 not offered");
    tally.add(Verdict::Fail);
    assert_eq!(tally.to_string(), "NOT ALL PASSED: 1 passed, 1 failed, 1 not offered");
}

#[test]
fn what_tells_cards_apart_and_what_is_no_text_is_left_out() {
    assert_eq!(Anonymous([2, 0x82, 0x59, 1, 2, 3]).to_string(), "02:82:59:xx:xx:xx");
    assert_eq!(Padded(b"AB\x1b C   ").to_string(), "AB? C");
}

#[test]
fn only_the_answer_to_a_question_counts() {
    let (me, other) = ([10, 0, 2, 15], [10, 0, 2, 2]);
    let mut frame = arp_request(MAC, me, other);
    assert!(!is_arp_answer(&frame, me, other), "that is the question");
    frame[21] = 2;
    frame[28..32].copy_from_slice(&other);
    frame[38..42].copy_from_slice(&me);
    assert!(is_arp_answer(&frame, me, other));
    assert!(!is_arp_answer(&frame, other, me) && !is_arp_answer(&frame[..41], me, other));
}
