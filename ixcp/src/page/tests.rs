//! What may and may not be mapped as a control page.
use super::*;

#[test]
fn a_word_written_through_one_mapping_is_read_through_another() {
    let dir = temp_dir::TempDir::new().unwrap();
    let path = dir.path().join("control");
    let one = Page::create(&path).unwrap();
    let two = Page::open(&path).unwrap();
    one.store_release(8, 0x0123_4567_89ab_cdef);
    assert_eq!(two.load_acquire(8), 0x0123_4567_89ab_cdef);
    assert_eq!(two.load(PAGE_BYTES - 8), 0);
}

#[test]
fn a_page_is_made_only_once_and_only_for_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp_dir::TempDir::new().unwrap();
    let path = dir.path().join("control");
    let _page = Page::create(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(Page::create(&path).unwrap_err().to_string().contains("cannot create"));
}

#[test]
fn a_file_of_another_size_is_refused_with_both_sizes() {
    let dir = temp_dir::TempDir::new().unwrap();
    let path = dir.path().join("control");
    for bytes in [0, 4096, PAGE_BYTES - 1, PAGE_BYTES + 1] {
        std::fs::write(&path, vec![0; bytes]).unwrap();
        let message = Page::open(&path).unwrap_err().to_string();
        assert!(message.contains(&format!("{bytes} bytes instead of 8388608")), "{message}");
    }
}

#[test]
fn a_symbolic_link_is_not_followed() {
    let dir = temp_dir::TempDir::new().unwrap();
    let _page = Page::create(&dir.path().join("real")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("real"), dir.path().join("link")).unwrap();
    assert!(matches!(Page::open(&dir.path().join("link")), Err(MapError::Io { .. })));
}

#[test]
#[should_panic(expected = "word offset")]
fn an_offset_outside_the_page_is_a_bug() {
    let dir = temp_dir::TempDir::new().unwrap();
    let page = Page::create(&dir.path().join("control")).unwrap();
    page.load(PAGE_BYTES);
}

#[test]
fn the_cause_is_told_once() {
    let error = anyhow::Error::from(Page::open(Path::new("/nope")).unwrap_err());
    let said = format!("{error:#}");
    assert_eq!(said.matches("os error 2").count(), 1, "{said}");
}
