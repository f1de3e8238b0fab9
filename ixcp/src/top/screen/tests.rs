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
    let picture = picture(&seen, &HashMap::new(), None);
    assert!(picture.starts_with("\x1b[H\x1b[Kkv: its page is empty\r\n"), "{picture:?}");
    assert!(picture.ends_with("\r\n\x1b[Jq quits"), "{picture:?}");
}

#[test]
fn a_window_gets_as_much_as_it_holds_and_is_never_moved() {
    let small = Some(Size { rows: 3, columns: 6 });
    let lines = "packets  ▁▄█\n▁▄█▂▁▄█▂\nthird\nfourth\n";
    assert_eq!(
        fitted(lines, "q quits", small),
        "\x1b[H\x1b[Kpacket\r\n\x1b[K▁▄█▂▁▄\r\n\x1b[Jq quit",
        "cut by characters"
    );
    let wide = Some(Size { rows: 4, columns: 80 });
    let text = fitted(lines, "q quits", wide);
    assert_eq!(text.matches("\r\n").count(), 3, "{text:?}");
    assert!(text.ends_with("q quits; the window is too small for 1 more line"), "{text:?}");
    let fits = fitted(lines, "q quits", Some(Size { rows: 5, columns: 80 }));
    assert!(fits.contains("fourth\r\n") && fits.ends_with("\x1b[Jq quits"), "{fits:?}");
    assert_eq!(fitted("a\n", "q", Some(Size { rows: 1, columns: 1 })), "\x1b[H\x1b[Jq");
}
