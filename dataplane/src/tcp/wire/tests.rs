use super::*;

#[test]
fn options_of_a_syn_are_read_and_malformed_ones_end_them() {
    let good = [2, 4, 5, 0xb4, 1, 3, 3, 7, 4, 2, 0];
    let expected =
        Options { mss: Some(1460), shift: Some(7), sack_permitted: true, ..Options::default() };
    assert_eq!(parse_options(&good), expected);
    assert_eq!(parse_options(&[3, 3, 200]).shift, Some(14));
    let bad: [&[u8]; 9] = [
        &[2, 0, 5, 5],
        &[2, 1, 5, 5],
        &[2, 40, 5, 5],
        &[2],
        &[8, 255],
        &[8, 9, 0, 0, 0, 0, 0, 0, 0],
        &[4, 3, 0],
        &[5, 9, 0, 0, 0, 1, 0, 0, 0],
        &[0, 4, 2],
    ];
    for bad in bad {
        assert_eq!(parse_options(bad), Options::default(), "{bad:?}");
    }
}

#[test]
fn timestamps_and_selective_acknowledgements_are_read_wherever_they_are() {
    let mut options = [0; 12];
    emit_timestamps(&mut options, 0x0102_0304, 0xfffe_fdfc);
    assert_eq!(options, [1, 1, 8, 10, 1, 2, 3, 4, 255, 254, 253, 252]);
    assert_eq!(timestamps(&options), Some((0x0102_0304, 0xfffe_fdfc)));
    assert_eq!(parse_options(&options).timestamps, timestamps(&options));
    let other = [8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 5, 18, 0, 0, 0, 3, 0, 0, 0, 4, 255, 255, 255, 255];
    let other = [&other[..], &[0, 0, 0, 9, 1, 1]].concat();
    assert_eq!(timestamps(&other), Some((1, 2)));
    let blocks = [(WrappingSeq(3), WrappingSeq(4)), (WrappingSeq(u32::MAX), WrappingSeq(9))];
    assert_eq!(parse_options(&other).sack[..], blocks);
    assert_eq!(timestamps(&[]), None);
    assert_eq!(timestamps(&[1, 1, 8, 10, 0, 0, 0, 1]), None);
}

#[test]
fn a_syn_has_its_options_in_whole_words_and_they_read_back() {
    for case in 0..8 {
        let given = SynOptions {
            mss: 1460,
            shift: (case & 1 != 0).then_some(3),
            sack_permitted: case & 2 != 0,
            timestamps: (case & 4 != 0).then_some((7, 8)),
        };
        let mut bytes = [0xff; SYN_OPTIONS_MAX];
        let (len, sum) = emit_syn_options(&mut bytes, &given);
        assert_eq!(checksum::fold(sum), checksum::fold(checksum::sum(&bytes[..len])));
        assert!(len.is_multiple_of(4) && len <= 20, "{len}");
        let read = parse_options(&bytes[..len]);
        assert_eq!(syn_options(&bytes[..len]), read, "in one look or in many");
        assert_eq!(read.mss, Some(1460));
        assert_eq!((read.shift, read.sack_permitted), (given.shift, given.sack_permitted));
        assert_eq!(read.timestamps, given.timestamps);
    }
}

#[test]
fn a_header_that_does_not_fit_is_refused() {
    let mut header = [0u8; 24];
    header[12] = 6 << 4;
    assert!(parse(&header).is_some());
    assert!(parse(&header[..23]).is_none());
    header[12] = 4 << 4;
    assert!(parse(&header).is_none());
    assert!(parse(&[]).is_none());
}
