//! Names, locks, stale directories.
use super::*;

fn base() -> (temp_dir::TempDir, Base) {
    let dir = temp_dir::TempDir::new().unwrap();
    let base = Base::at(dir.path().join("ix")).unwrap();
    (dir, base)
}

#[test]
fn a_name_is_taken_as_long_as_its_claim_lives() {
    let (_dir, base) = base();
    let claim = base.claim("kv").unwrap();
    let error = base.claim("kv").unwrap_err().to_string();
    assert!(error.contains("kv runs already") && error.contains("--name"), "{error}");
    assert_eq!(base.find(None).unwrap().name, "kv");
    drop(claim);
    assert!(base.find(None).is_err());
    base.claim("kv").unwrap();
}

#[test]
fn what_a_dead_instance_left_is_cleaned_by_the_next_of_its_name() {
    let (_dir, base) = base();
    let claim = base.claim("kv").unwrap();
    assert!(!claim.cleaned);
    std::fs::write(claim.instance.serial(), "old").unwrap();
    std::fs::write(claim.instance.control(), "old").unwrap();
    drop(claim);
    let claim = base.claim("kv").unwrap();
    assert!(claim.cleaned && !claim.instance.serial().exists());
    claim.remove();
    assert!(!base.0.join("kv").exists());
}

#[test]
fn a_child_that_shares_the_lock_keeps_the_instance_alive() {
    let (_dir, base) = base();
    let claim = base.claim("kv").unwrap();
    claim.share_lock().unwrap();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    drop(claim);
    assert!(base.find(Some("kv")).is_ok());
    assert!(base.claim("kv").is_err());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(base.find(Some("kv")).is_err());
}

#[test]
fn without_a_name_the_only_instance_is_meant_and_several_are_listed() {
    let (_dir, base) = base();
    assert!(base.find(None).unwrap_err().to_string().contains("ixcp run"));
    let _a = base.claim("a").unwrap();
    assert_eq!(base.find(None).unwrap().name, "a");
    let _b = base.claim("b").unwrap();
    assert!(base.find(None).unwrap_err().to_string().ends_with("--name: a, b"));
    assert!(base.find(Some("c")).unwrap_err().to_string().contains("these do: a, b"));
}

#[test]
fn a_directory_that_others_can_enter_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp_dir::TempDir::new().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = Base::at(dir.path().to_owned()).unwrap_err().to_string();
    assert!(error.contains("IX_RUNTIME_DIR"), "{error}");
}

#[test]
fn names_are_safe_as_file_names() {
    for good in ["kv", "a.b-c_9"] {
        check_name(good).unwrap();
    }
    for bad in ["", ".", "..", "a/b", "-a", "ä", "a b", &"x".repeat(33)] {
        assert!(check_name(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_process_of_a_description_must_be_the_instances_qemu() {
    let (_dir, base) = base();
    let claim = base.claim("kv").unwrap();
    let me = serde_json::json!({ "qemu_pid": std::process::id() });
    claim.write_description(&me).unwrap();
    assert_eq!(claim.instance.qemu_pid(), None);
}

#[test]
fn who_finds_nothing_is_told_where_it_was_looked_for() {
    let dir = temp_dir::TempDir::new().unwrap();
    let base = Base::at(dir.path().join("ix")).unwrap();
    let said = format!("{:#}", base.find(None).unwrap_err());
    assert!(said.contains(&base.path().display().to_string()), "{said}");
    let _kv = base.claim("kv").unwrap();
    assert!(base.ensure_free("kv").unwrap_err().to_string().contains("kv runs already"));
    base.ensure_free("web").unwrap();
}

#[test]
fn a_line_that_is_missing_or_no_line_is_called_a_line_and_the_cause_is_told_once() {
    let dir = temp_dir::TempDir::new().unwrap();
    let base = Base::at(dir.path().join("ix")).unwrap();
    let said = format!("{:#}", base.find(Some("/nonexist")).unwrap_err());
    assert!(said.contains("the serial line /nonexist"), "{said}");
    assert_eq!(said.matches("os error 2").count(), 1, "{said}");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let said = base.find(file.to_str()).unwrap_err().to_string();
    assert!(said.contains("neither a terminal nor a socket"), "{said}");
}
