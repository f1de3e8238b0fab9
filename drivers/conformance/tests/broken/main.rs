//! The suite can fail: drivers that are broken in one way each, and the rule that finds it. Every rule finds something.
#![deny(unsafe_code)]

mod bench;
mod defect;
mod parts;

use bench::Broken;
use defect::{DEFECTS, Defect};
use ix_driver_conformance::{Make, Rule, Verdict, Wishes, rules_of};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a rule says of a driver: `Err` is the panic's message.
fn verdict(rule: Rule<Broken>, defect: Option<Defect>) -> Result<Verdict, String> {
    let make = move |wishes: &Wishes| Broken::open(wishes, defect);
    let make: &Make<'_, Broken> = &make;
    catch_unwind(AssertUnwindSafe(|| rule(make))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?").to_owned()
    })
}

/// Panics are what is wanted here: they need not be printed.
fn in_silence<T>(run: impl FnOnce() -> T) -> T {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let result = catch_unwind(AssertUnwindSafe(run));
    std::panic::set_hook(before);
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// One test, since the silence is the whole program's.
#[test]
fn each_defect_is_found_by_its_rule_each_rule_finds_one_and_without_a_defect_all_are_kept() {
    let rules = rules_of::<Broken>();
    let complaints = in_silence(|| {
        let mut complaints = Vec::new();
        for (name, rule) in &rules {
            let verdict = verdict(*rule, None);
            if verdict != Ok(Verdict::Kept) {
                complaints.push(format!("{name}, and there is no defect: {verdict:?}"));
            }
        }
        let mut finders = BTreeSet::new();
        for (defect, finder) in DEFECTS {
            let Some((_, rule)) = rules.iter().find(|(name, _)| name == finder) else {
                complaints.push(format!("{finder} is not a rule"));
                continue;
            };
            finders.insert(*finder);
            match verdict(*rule, Some(*defect)) {
                Err(why) => println!("{defect:?}: {finder}: {}", why.lines().next().unwrap_or("")),
                Ok(verdict) => complaints.push(format!("{defect:?} is {verdict:?} by {finder}")),
            }
        }
        let idle = rules.iter().filter(|(name, _)| !finders.contains(name));
        complaints.extend(idle.map(|(name, _)| format!("{name} finds no defect")));
        complaints
    });
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
