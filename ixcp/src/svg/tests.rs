use super::*;

/// Whether it is XML as far as that matters here: every tag is closed, nothing strange is in texts.
fn well_formed(svg: &str) {
    let mut open = Vec::new();
    let mut rest = svg;
    while let Some(at) = rest.find('<') {
        assert!(!rest[..at].contains('>'), "stray > in {:?}", &rest[..at]);
        let end = at + rest[at..].find('>').expect("a tag ends");
        let tag = &rest[at + 1..end];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closed");
        } else if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().unwrap());
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "{open:?} are not closed");
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

fn chart(points: Vec<(f64, f64)>, scale: Scale, most: Option<f64>) -> String {
    let line = |name: &str, steps| Line { name: name.to_owned(), points: points.clone(), steps };
    let panel = Panel {
        name: "a < b & \"c\"\u{1b}[0m".to_owned(),
        scale,
        lines: vec![line("one", false), line("two", true)],
        mark: Some((5.0, "<mark>".to_owned())),
        most,
    };
    let panels = vec![panel.clone(), panel];
    Chart { title: "t".to_owned(), subtitle: "s".to_owned(), panels }.svg()
}

#[test]
fn charts_are_well_formed_whatever_the_numbers_are() {
    let strange = [
        vec![],
        vec![(0.0, 1.0)],
        vec![(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 4.0)],
        vec![(0.0, 0.0), (1.0, 0.0)],
        vec![(f64::NAN, 1.0), (f64::INFINITY, 2.0), (1.0, f64::INFINITY)],
        vec![(0.0, -5.0), (1e-12, 1e300), (1e12, f64::MIN_POSITIVE)],
        (0..100_000).map(|i| (f64::from(i), f64::from(i % 77))).collect(),
    ];
    for points in strange {
        for scale in [Scale::Linear, Scale::Log] {
            for most in [None, Some(0.0), Some(3.0)] {
                let svg = chart(points.clone(), scale, most);
                well_formed(&svg);
                assert!(svg.len() < 300_000, "{} bytes", svg.len());
            }
        }
    }
}

#[test]
fn peaks_survive_when_points_are_left_out() {
    let mut points: Vec<(f64, f64)> = (0..50_000).map(|i| (f64::from(i), 1.0)).collect();
    points[31_234].1 = 900.0;
    let svg = chart(points, Scale::Linear, Some(900.0));
    // The top of the first panel.
    assert!(svg.contains(" 76.0L"), "the peak is drawn");
}

#[test]
fn a_terminal_shows_its_text_and_nothing_that_controls_one() {
    let svg = terminal("ixcp <top>", "a  b\n\n\u{1b}[31mred & <b>\n│▁█");
    well_formed(&svg);
    assert!(svg.contains(">a  b</text>") && svg.contains("│▁█") && svg.contains("&lt;b&gt;"));
    assert!(!svg.contains('\u{1b}'));
    well_formed(&terminal("", ""));
}
