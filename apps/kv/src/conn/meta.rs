//! Meta commands: their flags, the line of an answer, and `mn`. Which flag is looked at when, and what
//! is said about a wrong one, is memcached 1.6.18's.
mod read;
mod write;

pub(super) use write::MetaSet;

use super::Conn;
use super::command::Tokens;
use crate::base64;
use crate::limits::{KEY_BYTES_MAX, META_OPAQUE_MAX, META_TOKENS_MAX};
use crate::num::{parse_i32, parse_u32, parse_u64, write_u64};
use crate::worker::Worker;

const BAD_LINE: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
const BAD_TOKEN: &[u8] = b"CLIENT_ERROR bad token in command line format\r\n";
const BAD_FLAG: &[u8] = b"CLIENT_ERROR invalid or duplicate flag\r\n";
const OPAQUE_TOO_LONG: &[u8] = b"CLIENT_ERROR opaque token too long\r\n";
const TOO_MANY_FLAGS: &[u8] = b"CLIENT_ERROR options flags too long\r\n";

/// Room for a key, decoded or not.
type KeyBytes = [u8; base64::ENCODED_MAX];

/// The flags of a meta command.
#[derive(Debug)]
struct Flags {
    /// `u`: no use of the item.
    no_update: bool,
    /// Looks at the item as it was before this use of it.
    before_use: bool,
    value: bool,
    invalidate: bool,
    quiet: bool,
    binary_key: bool,
    /// Length of the decoded key.
    key_len: usize,
    /// What `M` names; 0 = nothing.
    mode: u8,
    expected: Option<u64>,
    ttl: Option<u32>,
    vivify: Option<u32>,
    recache: u32,
    client_flags: u32,
    delta: u64,
    initial: u64,
}

impl Default for Flags {
    fn default() -> Flags {
        Flags {
            no_update: false,
            before_use: false,
            value: false,
            invalidate: false,
            quiet: false,
            binary_key: false,
            key_len: 0,
            mode: 0,
            expected: None,
            ttl: None,
            vivify: None,
            recache: 0,
            client_flags: 0,
            delta: 1,
            initial: 0,
        }
    }
}

impl Flags {
    /// Reads the flags from token `start` on. Several may be wrong: an unknown or a repeated one ends
    /// it, of the others the last is told. The key, decoded if need be, goes to `key`.
    fn parse(
        tokens: &Tokens<'_>,
        start: usize,
        worker: &Worker<'_>,
        key: &mut KeyBytes,
    ) -> Result<Flags, &'static [u8]> {
        let mut flags = Flags { key_len: tokens.get(1).len(), ..Flags::default() };
        key[..flags.key_len].copy_from_slice(tokens.get(1));
        let mut seen = 0u128;
        let mut error = None;
        for n in start..tokens.len() {
            let token = tokens.get(n);
            let letter = token[0];
            if letter >= 127 || seen & (1 << letter) != 0 {
                return Err(b"CLIENT_ERROR duplicate flag\r\n");
            }
            seen |= 1 << letter;
            if letter == b'b' {
                flags.binary_key = true;
                match base64::decode(tokens.get(1), key) {
                    Some(len) => flags.key_len = len,
                    None => error = Some(&b"CLIENT_ERROR error decoding key\r\n"[..]),
                }
            } else if let Err(problem) = flags.take(letter, &token[1..], token.len(), worker) {
                if !is_known(letter) {
                    return Err(problem);
                }
                // A wrong `F` does not say what is wrong.
                error = if letter == b'F' { error.or(Some(BAD_LINE)) } else { Some(problem) };
            }
        }
        error.map_or(Ok(flags), Err)
    }

    fn take(
        &mut self,
        letter: u8,
        argument: &[u8],
        len: usize,
        worker: &Worker<'_>,
    ) -> Result<(), &'static [u8]> {
        let time = || parse_i32(argument).map(|time| worker.deadline(time)).ok_or(BAD_TOKEN);
        match letter {
            b'N' | b'T' | b'R' | b'l' | b'h' => self.before_use = true,
            _ => {}
        }
        match letter {
            b'N' => self.vivify = Some(time()?),
            b'T' => self.ttl = Some(time()?),
            b'R' => self.recache = time()?,
            b'v' => self.value = true,
            b'u' => self.no_update = true,
            b'q' => self.quiet = true,
            b'I' => self.invalidate = true,
            b'F' => self.client_flags = parse_u32(argument).ok_or(BAD_LINE)?,
            b'C' => self.expected = Some(parse_u64(argument).ok_or(BAD_TOKEN)?),
            b'M' if len != 2 => return Err(b"CLIENT_ERROR incorrect length for M token\r\n"),
            b'M' => self.mode = argument[0],
            b'J' => {
                let wrong = &b"CLIENT_ERROR invalid numeric initial value\r\n"[..];
                self.initial = parse_u64(argument).ok_or(wrong)?;
            }
            b'D' => {
                let wrong = &b"CLIENT_ERROR invalid numeric delta value\r\n"[..];
                self.delta = parse_u64(argument).ok_or(wrong)?;
            }
            _ if is_known(letter) => {}
            _ => return Err(b"CLIENT_ERROR invalid flag\r\n"),
        }
        Ok(())
    }
}

/// `O`, `P` and `L` are for whoever comes after (a proxy), `k`, `s`, `t`, `c`, `f` for the answer.
fn is_known(letter: u8) -> bool {
    b"NTRlOPLkstcfvhuqFCMJDIb".contains(&letter)
}

/// A line of an answer.
struct Line {
    bytes: [u8; 1024],
    len: usize,
}

impl Line {
    fn new() -> Line {
        Line { bytes: [0; 1024], len: 0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn number(&mut self, number: u64) {
        self.len += write_u64(&mut self.bytes[self.len..], number);
    }

    /// ` <letter><number>`
    fn flag(&mut self, letter: u8, number: u64) {
        self.push(&[b' ', letter]);
        self.number(number);
    }

    fn base64(&mut self, bytes: &[u8]) {
        self.len += base64::encode(bytes, &mut self.bytes[self.len..]);
    }

    fn key(&mut self, key: &[u8], binary: bool) {
        self.push(b" k");
        if binary {
            self.base64(key);
            self.push(b" b");
        } else {
            self.push(key);
        }
    }

    fn opaque(&mut self, token: &[u8]) -> Result<(), &'static [u8]> {
        if token.len() > META_OPAQUE_MAX {
            return Err(OPAQUE_TOO_LONG);
        }
        self.push(b" ");
        self.push(token);
        Ok(())
    }

    /// The opaque and the key of the request: all that a miss repeats.
    fn echo(&mut self, tokens: &Tokens<'_>, key: &[u8], binary: bool) -> Result<(), &'static [u8]> {
        for n in 2..tokens.len() {
            match tokens.get(n)[0] {
                b'O' => self.opaque(tokens.get(n))?,
                b'k' => self.key(key, binary),
                _ => {}
            }
        }
        Ok(())
    }

    /// Seconds until an expiry; those of an item that never expires are -1.
    fn ttl(&mut self, expires: u32, now: u32) {
        self.push(b" t");
        match expires {
            0 => self.push(b"-1"),
            _ => self.number(u64::from(expires.wrapping_sub(now))),
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Conn {
    /// `m` and one more letter.
    pub(super) fn meta(&mut self, worker: &mut Worker<'_>, tokens: &Tokens<'_>) {
        match tokens.get(0)[1] {
            b'g' => self.meta_get(worker, tokens),
            b's' => self.meta_set(worker, tokens),
            b'd' => self.meta_delete(worker, tokens),
            b'a' => self.meta_arithmetic(worker, tokens),
            b'e' => self.meta_debug(worker, tokens),
            b'n' => self.reply(worker, false, b"MN\r\n"),
            _ => self.reply(worker, false, b"ERROR\r\n"),
        }
    }

    /// What all meta commands but `me` and `mn` check first; false if it has been answered.
    fn meta_checked(
        &mut self,
        worker: &mut Worker<'_>,
        tokens: &Tokens<'_>,
        too_many: &'static [u8],
    ) -> bool {
        let problem = if tokens.len() < 2 {
            &b"ERROR\r\n"[..]
        } else if tokens.get(1).len() > KEY_BYTES_MAX {
            BAD_LINE
        } else if tokens.len() >= META_TOKENS_MAX {
            too_many
        } else {
            return true;
        };
        self.reply(worker, false, problem);
        false
    }
}
