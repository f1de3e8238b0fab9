//! Keys.
use super::*;

#[test]
fn keys_quit_and_choose() {
    let key = |code, modifiers| act(&Event::Key(KeyEvent::new(code, modifiers)));
    let plain = |code| key(code, KeyModifiers::NONE);
    for quit in [KeyCode::Char('q'), KeyCode::Esc] {
        assert_eq!(plain(quit), Act::Quit);
    }
    assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Act::Quit);
    assert_eq!(plain(KeyCode::Char('c')), Act::Redraw);
    assert_eq!((plain(KeyCode::Left), plain(KeyCode::Up)), (Act::Choose(-1), Act::Choose(-1)));
    assert_eq!((plain(KeyCode::Right), plain(KeyCode::Down)), (Act::Choose(1), Act::Choose(1)));
    assert_eq!(act(&Event::Resize(80, 24)), Act::Redraw);
}
