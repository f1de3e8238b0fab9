//! Corpora in the tree: one file per target, since a thousand files of twenty bytes each would say no
//! more and cost a disk block and a line of every diff each. Two bytes of length (little endian), then
//! the input, again and again.
use std::path::{Path, PathBuf};

/// Where the corpora are.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The inputs in a packed file.
pub fn unpack(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut inputs = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk::<2>() {
        let len = usize::from(u16::from_le_bytes(*len));
        let input = rest.get(..len).ok_or("the file ends within an input")?;
        inputs.push(input.to_vec());
        bytes = &rest[len..];
    }
    if bytes.is_empty() { Ok(inputs) } else { Err("a byte is left at the end".into()) }
}

/// The packed file of inputs, each below 64 KiB, sorted.
pub fn pack(mut inputs: Vec<Vec<u8>>) -> Vec<u8> {
    inputs.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    inputs.dedup();
    let mut bytes = Vec::new();
    for input in inputs {
        let len = u16::try_from(input.len()).expect("inputs are short");
        bytes.extend(len.to_le_bytes());
        bytes.extend(input);
    }
    bytes
}

/// The corpus of a target; empty if there is none yet.
pub fn of(target: &str) -> Result<Vec<Vec<u8>>, String> {
    let path = directory().join(format!("{target}.bin"));
    match std::fs::read(&path) {
        Ok(bytes) => unpack(&bytes).map_err(|e| format!("{}: {e}", path.display())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}
