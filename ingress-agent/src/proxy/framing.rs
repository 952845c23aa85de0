//! The client's HTTP/1 framing, judged before hyper reads it. hyper is lenient where two readers could disagree about
//! where a request ends (a length beside an encoding, bare line feeds, folded lines, junk behind a chunk's size); a proxy
//! that forwards such a request helps to smuggle. This reader only judges: it changes no byte but those of a target that hyper may not see ([`Odd`]).

use memchr::memchr;

use super::odd::{self, Odd};
use super::upstream::response::decimal;
use crate::model::policy::HeadLimits;

/// What is wrong with a request. The answer is 400 (414 for [`Violation::TargetTooLong`]) and the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    BareLineFeed,
    FoldedLine,
    LengthAndEncoding,
    MalformedLength,
    RepeatedLength,
    Encoding,
    NoColon,
    /// nginx says 400, where RFC 6585 has 431.
    HeadTooLarge,
    TargetTooLong,
    ChunkSize,
    ChunkExtension,
    ChunkEnd,
}

/// A chunk's size line.
const CHUNK_LINE_MOST: usize = 512;

pub(super) struct Framing {
    state: State,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    limits: HeadLimits,
    /// Of nginx's buffers, how many are full, and the bytes in the one that is being filled.
    full: u32,
    head_bytes: usize,
    /// Within a request line: the method is over.
    in_target: bool,
    odd: bool,
    /// Those that came since they were last taken, with the numbers of their requests.
    pub(super) found_odd: Vec<(u32, Box<Odd>)>,
    length: Option<u64>,
    encoded: bool,
    /// Heads that are complete, which is also the number of the request whose head or body is being read.
    heads: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between requests.
    Start,
    Fields,
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    /// The line break after a chunk's data.
    ChunkEnd,
    Trailers,
    /// Not judged any more: the connection is closing, or is no longer HTTP.
    Opaque,
}

/// Where the connection stands, for its time limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Head,
    Body,
}

/// The outcome of reading some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Fine,
    /// The head of this request (counted from 0) is not acceptable.
    BadHead(u32, Violation),
    /// The body that is being read is not acceptable: no byte more may be taken from this connection.
    BadBody(Violation),
}

impl Framing {
    pub(super) const fn new(limits: HeadLimits) -> Self {
        Self {
            state: State::Start,
            partial: Vec::new(),
            limits,
            full: 0,
            head_bytes: 0,
            in_target: false,
            odd: false,
            found_odd: Vec::new(),
            length: None,
            encoded: false,
            heads: 0,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self.state {
            State::Start if self.partial.is_empty() => Phase::Idle,
            State::Start | State::Fields => Phase::Head,
            State::Opaque => Phase::Idle,
            _ => Phase::Body,
        }
    }

    pub(super) fn feed(&mut self, mut bytes: &mut [u8]) -> Judgement {
        while !bytes.is_empty() {
            match self.state {
                State::Opaque => return Judgement::Fine,
                State::Body(left) => {
                    let (used, left) = skip(bytes.len(), left);
                    self.state = if left == 0 { State::Start } else { State::Body(left) };
                    bytes = &mut bytes[used..];
                    continue;
                }
                State::ChunkData(left) => {
                    let (used, left) = skip(bytes.len(), left);
                    self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
                    bytes = &mut bytes[used..];
                    continue;
                }
                _ => {}
            }
            let Some(end) = memchr(b'\n', bytes) else {
                self.partial.extend_from_slice(bytes);
                if self.state == State::Start {
                    self.hide(bytes);
                }
                return self.too_long(self.partial.len());
            };
            let (line, rest) = bytes.split_at_mut(end + 1);
            bytes = rest;
            let starts = self.state == State::Start;
            let judged = if self.partial.is_empty() {
                if starts && odd::any(line) {
                    let raw = line.to_vec();
                    self.hide(line);
                    self.keep(&raw);
                }
                self.line(line)
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                if starts {
                    self.hide(line);
                    self.keep(&whole);
                }
                let judged = self.line(&whole);
                whole.clear();
                self.partial = whole;
                judged
            };
            if starts {
                (self.in_target, self.odd) = (false, false);
            }
            if let Err(violation) = judged {
                return self.bad(violation);
            }
        }
        Judgement::Fine
    }

    /// Masks the odd bytes of a piece of a request line, behind the method.
    fn hide(&mut self, piece: &mut [u8]) {
        let from = if self.in_target { 0 } else { memchr(b' ', piece).map_or(piece.len(), |at| at + 1) };
        self.in_target |= from < piece.len() || piece.last() == Some(&b' ');
        if odd::any(&piece[from..]) {
            self.odd = true;
            odd::mask(&mut piece[from..]);
        }
    }

    /// Of a whole request line, what it was before.
    fn keep(&mut self, line: &[u8]) {
        if self.odd {
            self.found_odd.extend(Odd::of_line(line.trim_ascii_end()).map(|odd| (self.heads, Box::new(odd))));
        }
    }

    fn bad(&mut self, violation: Violation) -> Judgement {
        let head = matches!(self.state, State::Start | State::Fields);
        self.state = State::Opaque;
        self.partial = Vec::new();
        if head { Judgement::BadHead(self.heads, violation) } else { Judgement::BadBody(violation) }
    }

    /// An unfinished line must not fill memory.
    fn too_long(&mut self, partial: usize) -> Judgement {
        match self.state {
            State::ChunkSize if partial > CHUNK_LINE_MOST => self.bad(Violation::ChunkExtension),
            State::ChunkEnd if partial > 1 => self.bad(Violation::ChunkEnd),
            State::Start if partial > self.limits.size as usize => self.bad(Violation::TargetTooLong),
            State::Fields | State::Trailers if partial > self.limits.size as usize => self.bad(Violation::HeadTooLarge),
            _ => Judgement::Fine,
        }
    }

    /// `line` with its line feed.
    fn line(&mut self, line: &[u8]) -> Result<(), Violation> {
        // RFC 9112 §2.2: a recipient MAY take a bare LF as the end of a line. Not this one: others do not.
        let Some(text) = line.strip_suffix(b"\r\n") else { return Err(Violation::BareLineFeed) };
        match self.state {
            State::Start => {
                // RFC 9112 §2.2: empty lines before the request line are ignored.
                if !text.is_empty() {
                    if line.len() > self.limits.size as usize {
                        return Err(Violation::TargetTooLong);
                    }
                    (self.full, self.head_bytes) = (0, 0);
                    self.fits(line.len())?;
                    self.length = None;
                    self.encoded = false;
                    self.state = State::Fields;
                }
                Ok(())
            }
            State::Fields if text.is_empty() => self.head_complete(),
            State::Fields => self.field(text, line.len()),
            State::ChunkSize => {
                let size = chunk_size(text)?;
                (self.full, self.head_bytes) = (0, 0);
                self.state = if size == 0 { State::Trailers } else { State::ChunkData(size) };
                Ok(())
            }
            State::ChunkEnd if text.is_empty() => {
                self.state = State::ChunkSize;
                Ok(())
            }
            State::ChunkEnd => Err(Violation::ChunkEnd),
            State::Trailers if text.is_empty() => {
                self.head_bytes = 0;
                self.state = State::Start;
                Ok(())
            }
            State::Trailers => {
                self.fits(line.len())?;
                if matches!(text.first(), Some(b' ' | b'\t')) {
                    return Err(Violation::FoldedLine);
                }
                memchr(b':', text).map(|_| ()).ok_or(Violation::NoColon)
            }
            State::Body(_) | State::ChunkData(_) | State::Opaque => Ok(()),
        }
    }

    /// nginx fills its first buffer, then large ones, and a line lies in one of them.
    fn fits(&mut self, line: usize) -> Result<(), Violation> {
        self.head_bytes += line;
        let size = if self.full == 0 { self.limits.first } else { self.limits.size } as usize;
        if self.head_bytes > size {
            self.full += 1;
            self.head_bytes = line;
        }
        let over = self.full > self.limits.buffers || line > self.limits.size as usize;
        if over { Err(Violation::HeadTooLarge) } else { Ok(()) }
    }

    fn field(&mut self, text: &[u8], line: usize) -> Result<(), Violation> {
        self.fits(line)?;
        // RFC 9112 §5.2: obs-fold in a request is refused or replaced; refused.
        if matches!(text[0], b' ' | b'\t') {
            return Err(Violation::FoldedLine);
        }
        // Only two fields say where a request ends; hyper judges the rest.
        match text[0] | 0x20 {
            b'c' | b't' => {}
            _ => return Ok(()),
        }
        let colon = memchr(b':', text).ok_or(Violation::NoColon)?;
        let (name, value) = (&text[..colon], text[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            // RFC 9110 §8.6 lets a recipient fold equal lengths into one; RFC 9112 §6.3 lets it refuse, which is safer.
            if self.length.is_some() {
                return Err(Violation::RepeatedLength);
            }
            self.length = Some(decimal(value).ok_or(Violation::MalformedLength)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // RFC 9112 §6.1: we know no other encoding than chunked, and it may be applied only once.
            if self.encoded || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Violation::Encoding);
            }
            self.encoded = true;
        }
        Ok(())
    }

    fn head_complete(&mut self) -> Result<(), Violation> {
        // RFC 9112 §6.1: both together "ought to be handled as an error".
        if self.encoded && self.length.is_some() {
            return Err(Violation::LengthAndEncoding);
        }
        self.heads = self.heads.wrapping_add(1);
        self.head_bytes = 0;
        self.state = match (self.encoded, self.length) {
            (true, _) => State::ChunkSize,
            (false, None | Some(0)) => State::Start,
            (false, Some(length)) => State::Body(length),
        };
        Ok(())
    }
}

fn skip(have: usize, left: u64) -> (usize, u64) {
    let used = usize::try_from(left).unwrap_or(usize::MAX).min(have);
    (used, left - used as u64)
}

/// RFC 9112 §7.1: `1*HEXDIG [ chunk-ext ]`.
fn chunk_size(text: &[u8]) -> Result<u64, Violation> {
    let digits = text.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    // 16 digits would be more than any body; hyper stops there as well.
    if digits == 0 || digits > 15 {
        return Err(Violation::ChunkSize);
    }
    let size = text[..digits].iter().fold(0_u64, |sum, &b| sum * 16 + u64::from((b as char).to_digit(16).unwrap_or(0)));
    if text.len() > CHUNK_LINE_MOST {
        return Err(Violation::ChunkExtension);
    }
    if extensions(&text[digits..]) { Ok(size) } else { Err(Violation::ChunkExtension) }
}

/// RFC 9112 §7.1.1: `*( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] )`.
fn extensions(mut text: &[u8]) -> bool {
    while !text.is_empty() {
        let Some(rest) = text.trim_ascii_start().strip_prefix(b";") else { return false };
        let Some(rest) = token(rest.trim_ascii_start()) else { return false };
        text = rest;
        let Some(value) = rest.trim_ascii_start().strip_prefix(b"=") else { continue };
        let value = value.trim_ascii_start();
        let after = if value.first() == Some(&b'"') { quoted(&value[1..]) } else { token(value) };
        let Some(rest) = after else { return false };
        text = rest;
    }
    true
}

/// What follows a token (RFC 9110 §5.6.2) of at least one character.
fn token(text: &[u8]) -> Option<&[u8]> {
    let length = text.iter().take_while(|&&b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)).count();
    (length > 0).then(|| &text[length..])
}

/// What follows the closing quote.
fn quoted(text: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => return Some(&text[at + 1..]),
            b'\\' => at += 1,
            0..0x20 if byte != b'\t' => return None,
            0x7f => return None,
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
