//! The wire format from rules: what clients call.
use crate::rule::Rule;
use alloc::string::String;
use alloc::vec::Vec;
use ix_abi::acl::{Action, Header, MAGIC, Record, VERSION, checksum};
use zerocopy::{FromBytes, IntoBytes};

/// Where a set came from, and what a client remembers of it: text that the kernel carries along.
pub fn build(rules: &[Rule], defaults: [Action; 2], text: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for rule in rules {
        body.extend_from_slice(rule.to_record().as_bytes());
    }
    body.extend_from_slice(text.as_bytes());
    let header = Header {
        magic: MAGIC,
        version: VERSION,
        rules: rules.len() as u32,
        text_bytes: text.len() as u32,
        default_in: defaults[0] as u8,
        default_out: defaults[1] as u8,
        reserved: [0; 2],
        checksum: checksum(&body),
        reserved_2: [0; 4],
    };
    let mut set = Vec::from(header.as_bytes());
    set.append(&mut body);
    set
}

/// The text of a set, and its defaults; `None` if it is not one.
pub fn text(set: &[u8]) -> Option<(String, [Action; 2])> {
    let (header, rest) = Header::read_from_prefix(set).ok()?;
    let text = rest.get(header.rules as usize * size_of::<Record>()..)?;
    let defaults = [header.default_in, header.default_out].map(Action::from_u8);
    let [Some(a), Some(b)] = defaults else { return None };
    Some((String::from_utf8_lossy(text).into_owned(), [a, b]))
}
