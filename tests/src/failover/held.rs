//! TCP connections through the L4 path that are held over a move.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lan::Host;

/// A lost packet is resent within half a second, a few times at worst; a lost connection never answers.
const PATIENCE: Duration = Duration::from_secs(5);

/// To a `demo_backend`, which greets and then returns what it gets.
#[derive(Debug)]
pub(super) struct Held(TcpStream);

impl Held {
    /// So many from `client`, by turns to each of these.
    pub(super) fn open(client: &Host, to: &[SocketAddr], count: usize) -> Result<Vec<Self>> {
        client.inside(|| to.iter().cycle().take(count).map(|to| Self::one(*to)).collect())
    }

    fn one(to: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connect to {to}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut byte = [0];
        while byte != *b"\n" {
            ensure!(stream.read(&mut byte).context("wait for the greeting")? == 1, "closed before the greeting");
        }
        Ok(Self(stream))
    }

    /// Whether a question is answered.
    pub(super) fn works(&mut self) -> bool {
        const QUESTION: &[u8; 8] = b"still on";
        let mut answer = [0; QUESTION.len()];
        self.0.write_all(QUESTION).is_ok() && self.0.read_exact(&mut answer).is_ok() && answer == *QUESTION
    }
}
