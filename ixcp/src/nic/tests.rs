use super::*;
use crate::cli::{Cli, Command as Verb};
use clap::Parser;

fn options(words: &[&str]) -> Run {
    let words = ["ixcp", "run"].iter().chain(words);
    match Cli::try_parse_from(words).unwrap().command {
        Verb::Run(run) => *run,
        other => panic!("{other:?}"),
    }
}

fn player(words: &[&str]) -> Player {
    let all = [&["--nic", "ixgbe", "--nic-program", "/bin/sh"], words].concat();
    Player::find(&options(&all)).unwrap().unwrap()
}

#[test]
fn the_cable_leads_where_the_options_say() {
    let dir = Path::new("/d");
    let wire = |words: &[&str]| player(words).args(dir)[3].clone().into_string().unwrap();
    assert_eq!(wire(&[]), "listen=/d/wire");
    assert_eq!(wire(&["--net", "stream=/p"]), "stream=/p");
    assert_eq!(wire(&["--net", "tap=t0"]), "tap=t0");
    assert_eq!(player(&[]).shell(dir), "/bin/sh --socket /d/nic --wire listen=/d/wire");
    assert!(Player::find(&options(&[])).unwrap().is_none());
}

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let given = options(&["--nic", "ixgbe", "--nic-program", "/none"]);
    assert!(Player::find(&given).unwrap_err().to_string().contains("/none"));
    // Not QEMU at all.
    let given = options(&["--nic", "ixgbe", "--qemu", "/bin/true"]);
    let said = find_qemu(&given, Path::new("/none/images")).unwrap_err().to_string();
    assert!(said.contains("/bin/true") && said.contains("cargo xtask qemu --vfio-user"), "{said}");
}

#[test]
fn a_player_that_fails_is_an_error_with_its_words() {
    let dir = temp_dir::TempDir::new().unwrap();
    let program = dir.child("player");
    std::fs::write(&program, "#!/bin/sh\necho no such wire >&2\nexit 3\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    let base = crate::instance::Base::at(dir.child("base")).unwrap();
    let claim = base.claim("it").unwrap();
    let player = Player { program, net: Backend::User };
    let said = format!("{:#}", player.start(&claim.instance).unwrap_err());
    assert!(said.contains("no such wire") && said.contains('3'), "{said}");
}

#[test]
fn a_player_lives_until_it_is_dropped() {
    let dir = temp_dir::TempDir::new().unwrap();
    let program = dir.child("player");
    std::fs::write(&program, "#!/bin/sh\n: > \"$2\"\nsleep 60\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    let base = crate::instance::Base::at(dir.child("base")).unwrap();
    let claim = base.claim("it").unwrap();
    let mut played = Player { program, net: Backend::User }.start(&claim.instance).unwrap();
    assert!(played.ended().unwrap().is_none());
    let pid = played.pid();
    drop(played);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}
