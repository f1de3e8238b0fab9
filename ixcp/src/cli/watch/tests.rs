//! What is refused, and with which words.
use crate::cli::{Cli, Command};
use clap::Parser;
use std::time::Duration;

fn refused(args: &[&str]) -> String {
    Cli::try_parse_from(args).expect_err("refused").to_string()
}

#[test]
fn metrics_listens_on_this_machine_only() {
    for own in ["127.0.0.1:0", "127.8.0.1:9000", "[::1]:9000"] {
        let cli = Cli::try_parse_from(["ixcp", "metrics", "--listen", own]).unwrap();
        assert!(matches!(cli.command, Command::Metrics(_)));
    }
    for far in ["0.0.0.0:9478", "10.0.2.2:9478", "[::]:9478", "[::ffff:127.0.0.1]:9478"] {
        let words = refused(&["ixcp", "metrics", "--listen", far]);
        assert!(words.contains("other machines") && words.contains(":9478"), "{words}");
    }
    assert!(refused(&["ixcp", "metrics", "--listen", "localhost"]).contains("127.0.0.1:9478"));
}

#[test]
fn the_interval_of_top_has_bounds() {
    let cli = Cli::try_parse_from(["ixcp", "top", "--interval", "0.5"]).unwrap();
    let Command::Top(top) = cli.command else { panic!("not top") };
    assert_eq!(top.interval, Duration::from_millis(500));
    for bad in ["0", "0.01", "1e9", "-1", "nan", "soon"] {
        assert!(
            refused(&["ixcp", "top", &format!("--interval={bad}")]).contains("seconds"),
            "{bad}"
        );
    }
}

#[test]
fn every_shell_has_a_script_that_knows_every_command() {
    use clap::{CommandFactory, ValueEnum};
    for shell in clap_complete::Shell::value_variants() {
        let script = super::Completions { shell: *shell }.script();
        for command in Cli::command().get_subcommands() {
            assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
        }
    }
    assert!(refused(&["ixcp", "completions", "sh"]).contains("bash"));
}
