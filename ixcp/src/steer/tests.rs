use super::*;

#[test]
fn groups_are_named_in_ranges() {
    let owners = [0, 0, 0, 1, 0, 2, 0, 0];
    assert_eq!(ranges(&owners, 0), "0-2 4 6-7");
    assert_eq!(ranges(&owners, 1), "3");
    assert_eq!(ranges(&owners, 3), "none");
    assert_eq!(ranges(&[], 0), "none");
}
