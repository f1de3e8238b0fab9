//! The floors that the engine is held against answer as it does: the clients look at every answer.
use ix_bench::run::{Run, Subject};

#[test]
fn each_floor_answers_each_request() {
    for subject in [Subject::Bare, Subject::Contract] {
        for (batch, offload) in [(1, false), (1, true), (64, false), (64, true)] {
            let run = Run { subject, batch, offload, connections: 100, ..Run::default() };
            assert_eq!(run.run(), run.operations, "{run:?}");
        }
    }
}
