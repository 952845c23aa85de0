//! As much of WebSocket (RFC 6455) as the test peers speak: the handshake's key and unfragmented frames. Payloads above
//! 1 MiB are refused, so that a broken length cannot eat the machine.

use std::io::{Error, ErrorKind, Result};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const LARGEST: u64 = 1 << 20;

/// RFC 6455 §5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: Opcode,
    pub payload: Vec<u8>,
}

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (RFC 6455 §4.2.2, item 5.4).
pub fn accept(key: &str) -> String {
    let joined = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, joined.as_bytes()))
}

/// Reads one frame and takes its mask off.
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Frame> {
    let mut head = [0; 2];
    from.read_exact(&mut head).await?;
    if head[0] & 0x80 == 0 {
        return Err(Error::new(ErrorKind::Unsupported, "a fragmented message"));
    }
    let opcode = match head[0] & 0x0f {
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        other => return Err(Error::new(ErrorKind::InvalidData, format!("opcode {other}"))),
    };
    let length = match head[1] & 0x7f {
        126 => u64::from(from.read_u16().await?),
        127 => from.read_u64().await?,
        short => u64::from(short),
    };
    if length > LARGEST {
        return Err(Error::new(ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    let mut mask = [0; 4];
    if head[1] & 0x80 != 0 {
        from.read_exact(&mut mask).await?;
    }
    let mut payload = vec![0; length as usize];
    from.read_exact(&mut payload).await?;
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Ok(Frame { opcode, payload })
}

/// Writes one frame. Clients must mask theirs and servers must not (RFC 6455 §5.1).
pub async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    opcode: Opcode,
    payload: &[u8],
    mask: Option<[u8; 4]>,
) -> Result<()> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![0x80 | opcode as u8];
    match payload.len() {
        short @ 0..=125 => frame.push(masked | short as u8),
        middle @ 126..=0xffff => {
            frame.push(masked | 0x7e);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(masked | 0x7f);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    let key = mask.unwrap_or_default();
    if mask.is_some() {
        frame.extend(key);
    }
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    to.write_all(&frame).await?;
    to.flush().await
}

/// Answers messages and pings until the other side closes.
pub async fn echo(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<()> {
    loop {
        let frame = read(stream).await?;
        match frame.opcode {
            Opcode::Ping => write(stream, Opcode::Pong, &frame.payload, None).await?,
            Opcode::Pong => {}
            Opcode::Close => return write(stream, Opcode::Close, &frame.payload, None).await,
            Opcode::Text | Opcode::Binary => write(stream, frame.opcode, &frame.payload, None).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_rfc_6455_section_1_3() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn frames_of_every_length_form_survive_with_and_without_a_mask() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let payload: Vec<u8> = (0..length).map(|n: u32| n as u8).collect();
                let mut bytes = Vec::new();
                write(&mut bytes, Opcode::Binary, &payload, mask).await.expect("a Vec takes all");
                let frame = read(&mut bytes.as_slice()).await.expect("a whole frame");
                assert_eq!(frame, Frame { opcode: Opcode::Binary, payload });
            }
        }
    }
}
