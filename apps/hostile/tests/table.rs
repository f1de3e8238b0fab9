//! The tables of `docs/protection.md` are those of the list, row by row.
use hostile::{Answer, KINDS, Misdeed};

fn row(misdeed: &Misdeed) -> String {
    let answer = match misdeed.answer {
        Answer::Refused => "refused".to_owned(),
        // An exception of any kind, in the image.
        Answer::Ended(" at 0x400") => {
            "ended: an exception, which one depends on the processor".to_owned()
        }
        Answer::Ended(text) => format!("ended: `{text}`"),
        Answer::EndedByCpu(text) => format!("ended: `{text}` (QEMU's emulation does not raise it)"),
    };
    format!("| `{}` | {} | {answer} |", misdeed.name, misdeed.what)
}

fn tables() -> String {
    let mut text = String::new();
    for kind in KINDS {
        let rows: Vec<String> = kind.misdeeds.iter().map(row).collect();
        let head = "| order | what it does | the kernel's answer |\n|---|---|---|";
        text += &format!("### {}\n\n{head}\n{}\n\n", kind.title, rows.join("\n"));
    }
    text
}

#[test]
fn the_tables_of_the_documentation_are_those_of_the_list() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protection.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let tables = tables();
    assert!(page.contains(&tables), "docs/protection.md should contain:\n{tables}");
}

#[test]
fn every_misdeed_has_a_name_of_its_own() {
    let mut names: Vec<&str> = KINDS.iter().flat_map(|k| k.misdeeds).map(|m| m.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(count > 100, "{count} misdeeds");
    assert!(hostile::find("ud2").is_some() && hostile::find("nothing").is_none());
}
