//! A client's first TLS message, read where its name decides who ends the connection: rustls reads it, and the bytes are kept for the one who
//! may have to read it again. Only listeners with such hosts come here.

use std::io::{Error, ErrorKind, Read, Result};

use rustls::server::{Accepted, Acceptor};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Bytes that are kept. A hello with post-quantum keys has 2 KiB; ingress-nginx looks at 4. Who says more is not passed on, and rustls ends
/// what gets longer than 64 KiB.
const MOST: usize = 16 * 1024;

pub(super) struct Hello {
    pub(super) accepted: Accepted,
    /// All that was read; `None`: more than is kept.
    pub(super) bytes: Option<Vec<u8>>,
}

/// Nothing that was read from the client is lost, however it was cut. An error has been told to the client as far as TLS has a word for it.
pub(super) async fn read(stream: &mut TcpStream) -> Result<Hello> {
    let mut acceptor = Acceptor::default();
    let mut bytes = Some(Vec::new());
    loop {
        stream.readable().await?;
        match acceptor.read_tls(&mut Kept { stream, bytes: &mut bytes }) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(Hello { accepted, bytes }),
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut told = Vec::new();
                alert.write_all(&mut told)?;
                stream.write_all(&told).await?;
                return Err(Error::new(ErrorKind::InvalidData, error));
            }
        }
    }
}

/// Reads what there is, and keeps a copy.
struct Kept<'a> {
    stream: &'a TcpStream,
    bytes: &'a mut Option<Vec<u8>>,
}

impl Read for Kept<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = self.stream.try_read(buffer)?;
        if let Some(bytes) = self.bytes {
            bytes.extend_from_slice(&buffer[..count]);
            if bytes.len() > MOST {
                *self.bytes = None;
            }
        }
        Ok(count)
    }
}
