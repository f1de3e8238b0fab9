//! Commands against a kernel played by a thread: answered, refused, unanswered, restarted.
use super::*;
use crate::fake::{Kernel, scene};
use ix_abi::control::header;

const PATIENCE: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(30);
const NO_ARGS: [u64; 4] = [0; 4];

fn writer(scene: &crate::fake::Scene) -> Writer {
    Writer::lock(&scene.lock, PATIENCE).unwrap()
}

#[test]
fn a_command_is_answered_with_the_value_of_its_outcome() {
    let scene = scene(1);
    let kernel = Kernel::start(&scene, |code, arg| (Status::Ok, code * 1000 + arg));
    let value = writer(&scene).send(&scene.page, CommandCode::SetBatch, [7, 0, 0, 0], PATIENCE);
    assert_eq!(value, Ok(3007));
    assert_eq!(kernel.end(), [3]);
}

#[test]
fn a_refusal_says_the_kernels_reason() {
    let scene = scene(1);
    let _kernel = Kernel::start(&scene, |_, _| (Status::Limit, 0));
    let error = writer(&scene).send(&scene.page, CommandCode::Nop, NO_ARGS, PATIENCE).unwrap_err();
    assert_eq!(error, CommandError::Refused(Status::Limit));
    assert_eq!(error.to_string(), "the kernel refuses: limit reached");
}

#[test]
fn a_kernel_that_does_not_answer_is_reported_and_later_commands_do_not_overwrite_the_first() {
    let scene = scene(1);
    let writer = writer(&scene);
    let first = writer.send(&scene.page, CommandCode::SetBatch, [5, 0, 0, 0], SHORT);
    assert_eq!(first, Err(CommandError::TimedOut(SHORT)));
    let second = writer.send(&scene.page, CommandCode::Stop, NO_ARGS, SHORT);
    assert_eq!(second, Err(CommandError::Pending { pending: 1, waited: SHORT }));
    assert_eq!(scene.page.load(command::CODE), u64::from(CommandCode::SetBatch.0));
    assert_eq!(scene.page.load(command::ARGS), 5);
}

#[test]
fn nobody_is_told_that_nothing_has_changed_when_that_is_not_known() {
    let scene = scene(1);
    let writer = writer(&scene);
    let say = || {
        let sent = writer.send(&scene.page, CommandCode::SetCores, [1, 0, 0, 0], SHORT);
        format!("{:#}", sent.unwrap_err().told("the cores are as they were"))
    };
    let first = say();
    assert!(first.starts_with("it is not known whether this was done: no answer"), "{first}");
    assert!(first.ends_with("may still be carried out; look at `ixcp status`"), "{first}");
    // This one was not even sent.
    assert!(say().starts_with("the cores are as they were: the kernel has not answered"));
    let refused = CommandError::Refused(Status::Limit).told("the cores are as they were");
    assert!(format!("{refused:#}").starts_with("the cores are as they were: the kernel refuses"));
}

#[test]
fn a_kernel_that_restarts_meanwhile_has_not_carried_the_command_out() {
    let scene = scene(1);
    std::thread::scope(|s| {
        s.spawn(|| {
            while scene.page.load_acquire(command::SEQUENCE) == 0 {
                std::thread::sleep(Duration::from_micros(100));
            }
            scene.page.store(header::EPOCH, 0xbeef);
        });
        let result = writer(&scene).send(&scene.page, CommandCode::Nop, NO_ARGS, PATIENCE);
        assert_eq!(result, Err(CommandError::Restarted));
    });
}

#[test]
fn an_epoch_of_another_boot_is_refused_by_the_kernel_not_carried_out() {
    let scene = scene(1);
    // A command written for another boot, as a writer that was stopped half-way would leave it.
    scene.page.store(command::EPOCH, 0xdead);
    scene.page.store(command::CODE, CommandCode::Stop.0.into());
    scene.page.store_release(command::SEQUENCE, 1);
    let kernel = Kernel::start(&scene, |_, _| (Status::Ok, 0));
    assert_eq!(writer(&scene).send(&scene.page, CommandCode::Nop, NO_ARGS, PATIENCE), Ok(0));
    assert_eq!(kernel.end(), [u64::from(CommandCode::Nop.0)]);
    assert_eq!(scene.page.load(outcome::SEQUENCE), 2);
}

#[test]
fn an_answer_to_a_command_that_nobody_sent_is_corruption() {
    let scene = scene(1);
    std::thread::scope(|s| {
        s.spawn(|| {
            while scene.page.load_acquire(command::SEQUENCE) == 0 {
                std::thread::sleep(Duration::from_micros(100));
            }
            scene.page.store_release(outcome::SEQUENCE, 77);
        });
        let result = writer(&scene).send(&scene.page, CommandCode::Nop, NO_ARGS, PATIENCE);
        assert_eq!(result, Err(CommandError::Sequence { found: 77, expected: 1 }));
    });
}

#[test]
fn nothing_is_written_to_a_page_that_is_not_understood() {
    let scene = scene(1);
    scene.page.store(header::VERSION, 9);
    let result = writer(&scene).send(&scene.page, CommandCode::Stop, NO_ARGS, SHORT);
    assert!(matches!(result, Err(CommandError::Page(PageError::Version { found_major: 9, .. }))));
    assert_eq!(scene.page.load(command::SEQUENCE), 0);
}

#[test]
fn a_second_writer_waits_its_turn_and_both_are_answered() {
    let scene = scene(1);
    let kernel = Kernel::start(&scene, |_, arg| (Status::Ok, arg));
    std::thread::scope(|s| {
        for who in 0..2_u64 {
            let scene = &scene;
            s.spawn(move || {
                for i in 0..50 {
                    let args = [who << 32 | i, 0, 0, 0];
                    let writer = Writer::lock(&scene.lock, PATIENCE).unwrap();
                    let sent = writer.send(&scene.page, CommandCode::Nop, args, PATIENCE);
                    assert_eq!(sent, Ok(args[0]));
                }
            });
        }
    });
    assert_eq!(kernel.end().len(), 100);
}

#[test]
fn a_second_writer_gives_up_with_the_name_of_the_lock() {
    let scene = scene(1);
    let _first = writer(&scene);
    let error = Writer::lock(&scene.lock, SHORT).unwrap_err();
    assert!(error.to_string().contains("control.lock"), "{error}");
}
