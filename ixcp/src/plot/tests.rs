use super::*;

const CSV: &str = "# kv, a line each 100ms\nseconds,requests_per_s,cores,wants,busy,p50_us,p99_us\n\
    0.1,1000,1,,0.5,3,9\n0.2,2000,2,2,0.6,,\n0.3,500,1,1,0.2,2,4\n";

#[test]
fn a_recording_becomes_a_picture() {
    let table = Table::parse(CSV).unwrap();
    let chart = of_table(&table, "run".to_owned(), Some(100.0));
    let names: Vec<_> = chart.panels.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(
        names,
        ["load, requests/s", "cores", "busy, share of the time", "queueing delay, µs"]
    );
    let svg = chart.svg();
    assert!(svg.contains("kv, a line each") && svg.contains("100 µs"));
    let few = Table::parse("seconds,cores\n0,1\n1,2\n").unwrap();
    assert_eq!(of_table(&few, String::new(), None).panels.len(), 1);
}

#[test]
fn what_is_no_recording_is_refused_with_the_line() {
    for (text, words) in [
        ("", "empty"),
        ("a,b\n1,2\n3,4\n", "seconds"),
        ("# IX\n\nIX is a system, and this no recording.\n", "names no column `seconds`"),
        ("some text\n- more, of it\n", "names no column `seconds`"),
        ("seconds,b\n1,2\n3\n", "line 3 has 1 values"),
        ("seconds,b\n1,x\n3,4\n", "line 2, b: \"x\" is no number"),
        ("seconds,b\n1,2\n", "two lines"),
    ] {
        let said = format!("{:#}", Table::parse(text).unwrap_err());
        assert!(said.contains(words) && !said.contains("literal"), "{text:?}: {said}");
    }
}
