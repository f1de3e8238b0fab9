use super::*;
use std::vec::Vec;

#[test]
fn what_the_monitor_answers_the_dataplane_reads() {
    let refusals = GiveRefusal::ALL.iter().map(|why| Err(*why));
    let all: Vec<_> = [Ok(0), Ok(1), Ok(15), Ok(255)].into_iter().chain(refusals).collect();
    for answer in all {
        assert_eq!(from_word(to_word(answer)), answer);
    }
    // A monitor that does not know the call, or answers nothing.
    assert_eq!(from_word(0), Err(GiveRefusal(0)));
}
