use super::*;

#[test]
fn layouts_become_whole_lines_and_keep_larger_alignments() {
    for (size, align, lines, aligned) in
        [(1, 1, 1, 64), (64, 8, 1, 64), (65, 8, 2, 64), (8, 4096, 1, 4096), (4097, 256, 65, 256)]
    {
        let layout = whole_lines(Layout::from_size_align(size, align).unwrap()).unwrap();
        assert_eq!(
            (layout.size(), layout.align()),
            (lines * LINE_BYTES, aligned),
            "{size}, {align}"
        );
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let largest = isize::MAX as usize;
    assert!(whole_lines(Layout::from_size_align(largest, 1).unwrap()).is_none());
    assert!(whole_lines(Layout::from_size_align(largest - 63, 1).unwrap()).is_some());
}
