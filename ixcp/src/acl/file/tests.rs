use super::*;
use ix_abi::acl::ICMP;

fn good(text: &str) -> Rules {
    parse("rules.toml", text).unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn wrong(text: &str, at: (usize, usize), words: &str) {
    let complaint = parse("rules.toml", text).expect_err("a complaint");
    assert_eq!((complaint.line, complaint.column), at, "{complaint}");
    assert!(complaint.what.contains(words), "{complaint}");
    assert!(complaint.to_string().starts_with("rules.toml:"), "{complaint}");
}

#[test]
fn a_file_is_understood() {
    let rules = good(
        r#"
# The rack, and nobody else.
[default]
in = "deny"

[[rule]]
name = "memcached"
action = "allow"
protocol = "tcp"
remote = "10.0.2.0/24"
remote-ports = "1024-65535"
local-ports = 11211
rate = "100/s burst 20"
connections = 50

[[rule]]
action = "reject"
direction = "both"
protocol = "icmp"
icmp = "unreachable/1"
remote = "2001:db8::/32"
local = "10.0.2.15"
"#,
    );
    assert_eq!(rules.defaults, [Action::Deny, Action::Allow]);
    let [first, second] = &rules.rules[..] else { panic!("{rules:?}") };
    assert_eq!((first.directions, first.protocol), (IN, Some(Protocol::Tcp)));
    assert_eq!((first.remote.len, show_prefix(first.remote)), (120, "10.0.2.0/24".to_owned()));
    assert_eq!((first.remote_ports, first.local_ports), ((1024, 65_535), (11_211, 11_211)));
    assert_eq!((first.rate, first.connections), (Some((100, 20)), Some(50)));
    assert_eq!((second.directions, second.icmp), (IN | OUT, Some((3, Some(1)))));
    assert_eq!(second.to_record().protocol, ICMP);
    assert_eq!(show_prefix(second.remote), "2001:db8::/32");
    assert_eq!(show_prefix(second.local), "10.0.2.15");
    let [a, b] = &rules.notes[..] else { panic!() };
    assert_eq!((a.line, a.name.as_str(), b.line, b.name.as_str()), (6, "memcached", 16, ""));
    // Through the kernel and back.
    let set = ix_acl::decode(rules.to_set(), IpAddress::UNSPECIFIED).unwrap();
    assert_eq!(set.rules(), rules.rules);
    let (text, defaults) = ix_acl::build::text(set.source()).unwrap();
    assert_eq!(notes(&text, 2), ("rules.toml".to_owned(), rules.notes.clone()));
    assert_eq!(defaults, rules.defaults);
}

#[test]
fn an_empty_file_allows_everything() {
    let rules = good("");
    assert_eq!((rules.rules.len(), rules.defaults), (0, [Action::Allow; 2]));
}

#[test]
fn complaints_name_line_and_column_and_what_is_wanted() {
    let rule = |text: &str| format!("[[rule]]\naction = \"allow\"\n{text}");
    wrong("[[rule]]\naction = \"alow\"", (2, 10), "allow, deny or reject");
    wrong("[default]\nin = \"drop\"", (2, 6), "allow, deny or reject");
    wrong("[[rule]]\nname = \"x\"", (1, 1), "action");
    wrong("[[rules]]\naction = \"allow\"", (1, 3), "rules");
    wrong(&rule("port = 1"), (3, 1), "port");
    wrong(&rule("remote = \"10.0.0.256\""), (3, 10), "10.1.2.0/24");
    wrong(&rule("remote = \"10.0.0.1/33\""), (3, 10), "longer than 32");
    wrong(&rule("remote = \"10.0.0.1/24\""), (3, 10), "10.0.0.0/24 is meant?");
    wrong(&rule("remote = 4.5"), (3, 10), "a text or a number");
    wrong(&rule("protocol = \"tcp\"\nlocal-ports = \"20-10\""), (4, 15), "ends before");
    wrong(&rule("protocol = \"tcp\"\nlocal-ports = 70000"), (4, 15), "0 to 65535");
    wrong(&rule("local-ports = 80"), (3, 15), "tcp");
    wrong(&rule("protocol = \"tcp\"\nicmp = 8"), (4, 8), "protocol = \"icmp\"");
    wrong(&rule("protocol = \"icmp\"\nicmp = \"ping\""), (4, 8), "echo-request");
    wrong(&rule("protocol = \"sctp\""), (3, 12), "tcp, udp, icmp or any");
    wrong(&rule("direction = \"inbound\""), (3, 13), "in, out or both");
    wrong(&rule("rate = \"100\""), (3, 8), "100/s burst 20");
    wrong(&rule("rate = \"0/s\""), (3, 8), "1 to 1000000");
    wrong(&rule("connections = 0"), (3, 15), "1 to");
    wrong(&rule("protocol = \"udp\"\nconnections = 5"), (4, 15), "tcp");
    wrong("[[rule]]\naction = \"deny\"\nrate = \"1/s\"", (3, 8), "allow");
    wrong(&rule("name = \"a\\u0007b\""), (3, 8), "one line");
    // What TOML itself cannot read; columns are characters, not bytes.
    wrong(&rule("name = \"ä\" ö"), (3, 12), "");
    wrong(&rule("remote = \"1.2.3.4\"\nremote = \"1.2.3.4\""), (4, 1), "duplicate");
}

#[test]
fn the_largest_set_is_taken_and_one_more_is_not() {
    let one = "[[rule]]\naction = \"deny\"\n";
    assert_eq!(good(&one.repeat(RULES_MAX)).notes[RULES_MAX - 1].line, 2 * RULES_MAX - 1);
    wrong(&one.repeat(RULES_MAX + 1), (2 * RULES_MAX + 1, 1), "at most");
    let long = format!("[[rule]]\naction = \"deny\"\nname = \"{}\"\n", "x".repeat(TEXT_BYTES_MAX));
    wrong(&long, (1, 1), "names");
}

#[test]
fn what_the_kernel_tells_may_be_anything() {
    for text in ["", "\n\n\n", "x\n9999999999999999999999 y\n\u{7}", "\n-1 a b"] {
        assert_eq!(notes(text, 5).1.len(), 5);
    }
    for bytes in [&[][..], &[1; 64], &[0xff; 64], &[1; 200]] {
        assert!(super::super::in_force(bytes).is_err());
    }
}

#[test]
fn packets_are_read_as_people_write_them() {
    use ix_acl::Direction;
    let us = IpAddress::v4([10, 0, 2, 15]);
    let read = |text: &str| super::super::packet::parse(text, us);
    let flow = read("tcp 10.0.2.2:4000 -> :11211").unwrap();
    assert_eq!((flow.direction, flow.remote_port, flow.local_port), (Direction::In, 4000, 11_211));
    assert_eq!((flow.remote, flow.local), (IpAddress::v4([10, 0, 2, 2]), us));
    let flow = read("udp :50 -> 1.2.3.4:53").unwrap();
    assert_eq!((flow.direction, flow.remote_port, flow.local_port), (Direction::Out, 53, 50));
    let flow = read("out tcp 10.0.2.15:1 -> [2001:db8::1]:2").unwrap();
    assert_eq!((flow.direction, flow.remote_port), (Direction::Out, 2));
    let flow = read("icmp 10.0.2.2 -> echo-request").unwrap();
    assert_eq!((flow.protocol, flow.local_port), (Protocol::Icmp, 8 << 8));
    for bad in ["", "tcp", "sctp 1.1.1.1:1 -> :2", "tcp :1 -> :2", "tcp 1.1.1.1 -> :2", "icmp 8"] {
        assert!(read(bad).unwrap_err().contains("wanted is"), "{bad}");
    }
}
