//! What command lines are understood, and what is said of others.
use super::*;
use clap::CommandFactory;

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn everything_after_two_dashes_is_the_applications() {
    let cli = Cli::try_parse_from(["ixcp", "run", "--cores", "1", "--", "-m", "64"]).unwrap();
    let Command::Run(run) = cli.command else { panic!("not run") };
    assert_eq!((run.app.as_str(), run.cores), ("kv", 1));
    assert_eq!(run.args, ["-m", "64"]);
}

#[test]
fn which_dataplane_and_json_may_stand_before_and_after_what_is_done() {
    for words in [
        "cores --name kv --json set 2",
        "cores set 2 --name kv --json",
        "cores --json set --name kv 2",
        "cores --name kv --json",
    ] {
        let cli = Cli::try_parse_from(["ixcp"].into_iter().chain(words.split(' '))).unwrap();
        let Command::Cores(cores) = cli.command else { panic!("not cores") };
        assert!(cores.target.which() == Some("kv") && cores.json, "{words}: {cores:?}");
    }
    let words = ["ixcp", "flows", "move", "0", "1", "--serial", "line"];
    let Command::Flows(flows) = Cli::try_parse_from(words).unwrap().command else { panic!() };
    assert!(flows.target.which() == Some("./line") && !flows.json, "{flows:?}");
}

#[test]
fn every_exit_code_is_in_the_help() {
    let mut command = Cli::command();
    let run = command.find_subcommand_mut("run").unwrap().render_help().to_string();
    for help in [run, Cli::command().render_help().to_string()] {
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let codes = words.split_once("Exit codes:").expect("they are listed").1;
        assert!((0..=9).all(|code| codes.contains(&format!("{code} "))), "{codes}");
    }
}

#[test]
fn a_wrong_value_is_refused_with_what_is_wanted() {
    let error = Cli::try_parse_from(["ixcp", "run", "--net", "bridge"]).unwrap_err();
    assert!(error.to_string().contains("user, stream=PATH or tap=INTERFACE"), "{error}");
    assert!(Cli::try_parse_from(["ixcp", "run", "--cores", "0"]).is_err());
    for (core, words) in [("0", "core 0 always serves"), ("64", "1 to 63 is wanted")] {
        let error = Cli::try_parse_from(["ixcp", "cores", "park", core]).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(Cli::try_parse_from(["ixcp", "cores", "park", "63"]).is_ok());
    assert!(Cli::try_parse_from(["ixcp", "stop", "--timeout", "-1"]).is_err());
}
