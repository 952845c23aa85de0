//! Clients of the demo that curl cannot be: UDP, held and endless TCP, endless new connections, HTTPS load, WebSocket.
//! Each prints what it saw, one fact a line; the endless ones stop when their standard input ends. A wrong byte is a failure,
//! never a warning.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use ingress_tests::load;
use ingress_tests::load::web::{Pace, Site};

/// Traffic for the demo.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Datagrams from as many source ports, and how many each backend answered.
    Udp {
        to: SocketAddr,
        #[arg(long, default_value_t = 300)]
        count: u32,
    },
    /// Connections one after another, and how many each backend took.
    Tcp {
        to: SocketAddr,
        #[arg(long, default_value_t = 300)]
        count: u32,
    },
    /// New connections until standard input ends; prints each failure with its time.
    Connect { to: SocketAddr },
    /// Connections held until standard input ends, with a message on each ten times a second.
    Hold {
        to: SocketAddr,
        #[arg(long, default_value_t = 100)]
        connections: usize,
        /// Try again where this backend answers.
        #[arg(long)]
        avoid: Option<String>,
    },
    /// One transfer that never pauses, checked byte by byte, until standard input ends.
    Transfer {
        to: SocketAddr,
        #[arg(long)]
        avoid: Option<String>,
    },
    /// HTTPS requests on fresh connections until standard input ends; prints each failure with its time.
    Https {
        to: SocketAddr,
        #[arg(long)]
        host: String,
        #[arg(long, default_value = "/")]
        path: String,
        /// PEM file of the authority to trust.
        #[arg(long)]
        ca: PathBuf,
        #[arg(long, default_value_t = 4)]
        workers: usize,
    },
    /// A WebSocket over TLS that echoes messages of several sizes.
    Websocket {
        to: SocketAddr,
        #[arg(long)]
        host: String,
        #[arg(long, default_value = "/")]
        path: String,
        #[arg(long)]
        ca: PathBuf,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    load::allow_many_files();
    let stop = load::Stop::at_end_of_input();
    match Arguments::parse().what {
        What::Udp { to, count } => load::print_spread(&load::udp(to, count).await?),
        What::Tcp { to, count } => load::print_spread(&load::tcp(to, count).await?),
        What::Connect { to } => load::connect(to, stop).await.print(),
        What::Hold { to, connections, avoid } => {
            let opened = || println!("holding {connections}");
            let pause = Duration::from_millis(100);
            load::hold(to, connections, avoid.as_deref(), pause, stop, opened).await?.print();
        }
        What::Transfer { to, avoid } => {
            let bytes = load::transfer(to, avoid.as_deref(), stop).await?;
            println!("bytes {bytes}");
        }
        What::Https { to, host, path, ca, workers } => {
            let site = Site::secure(to, &host, &path, &ca)?;
            // Both connection set-up and keep-alive are exercised.
            let pace = Pace { workers, requests_a_connection: 10, pause: Duration::from_millis(2) };
            load::web::load(&site, pace, stop).await.print();
        }
        What::Websocket { to, host, path, ca } => {
            let site = Site::secure(to, &host, &path, &ca)?;
            println!("echoed {}", load::web::websocket(&site).await?);
        }
    }
    Ok(())
}
