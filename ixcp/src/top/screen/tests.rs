use super::*;

#[test]
fn a_graph_has_the_largest_value_as_its_highest_bar() {
    let of = |values: &[f64]| graph(&values.iter().copied().collect());
    assert_eq!(of(&[0.0, 1.0, 4.0, 8.0, 2.0]), " ▁▄█▂");
    assert_eq!(of(&[0.0, 0.0]), "  ");
    assert_eq!(of(&[]), "");
}

#[test]
fn each_line_replaces_the_one_before_and_what_cannot_be_read_is_said() {
    let seen = [Seen { name: "kv".to_owned(), frame: Err("its page is empty".to_owned()) }];
    let picture = picture(&seen, &HashMap::new());
    assert!(picture.starts_with("\x1b[Hkv: its page is empty\x1b[K\r\n"), "{picture:?}");
    assert!(picture.ends_with("q quits\x1b[K\r\n\x1b[J"), "{picture:?}");
}
