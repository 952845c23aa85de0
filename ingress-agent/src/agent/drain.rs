//! The agent's end: addresses, requests and connections, in that order where there are elections.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::signals::{Caught, Signals};
use super::{Control, answer};
use crate::admin::query::Query;
use crate::proxy::Proxy;

/// Longest wait for another node to take the addresses: several times what it needs where there is one.
const TAKEN_WITHIN: Duration = Duration::from_secs(1);
/// Adverts in which it answers.
const TAKEN_ADVERTS: u32 = 8;
/// A connection that is idle for so long after its address has moved is closed. Closing one at once would lose a request that is on its
/// way; whoever asks is told that the connection ends.
const IDLE: Duration = Duration::from_secs(3);
/// For so long clients may go on to open connections here that have not heard of the move: the second announcement comes after 50 ms.
const LATE_CLIENTS: Duration = Duration::from_millis(200);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// With elections the addresses go first: another node takes them, and sends on what belongs to connections that the proxy still
/// finishes. Until then everything is served: nothing is refused that the next node would take. Without elections the proxy
/// finishes first: while nobody else holds the addresses, a request under way would die with them. Programs and maps stay
/// and forward on, so that a restart interrupts no flow; `uninstall` removes them.
pub(super) async fn drain(
    mut control: Control,
    proxy: Proxy,
    queries: &mut mpsc::Receiver<Query>,
    signals: &mut Signals,
) {
    control.draining = true;
    control.report();
    let until = Instant::now() + control.config.drain_timeout;
    if hand_over(&mut control, &proxy, queries, signals, until).await {
        let finished = proxy.drain(until.saturating_duration_since(Instant::now()));
        tokio::pin!(finished);
        loop {
            tokio::select! {
                () = &mut finished => break,
                Some(query) = queries.recv() => answer::answer(query, &mut control, None),
                caught = signals.next() => if is_cut(&caught) { break },
            }
        }
    }
    if let Some(vips) = control.vips.take()
        && let Err(e) = vips.release().await
    {
        error!("{e:#}; addresses may be left on {}", control.config.vips.interface);
    }
    if let Some(status) = control.status.take() {
        status.stop().await;
    }
    info!("stopped; the programs stay attached and forward on (`sluicegate uninstall` removes them)");
}

/// Gives the addresses to other nodes, if there are any, and connections the time to notice. False: everything is to end now.
async fn hand_over(
    control: &mut Control,
    proxy: &Proxy,
    queries: &mut mpsc::Receiver<Query>,
    signals: &mut Signals,
    until: Instant,
) -> bool {
    let Some(vrrp) = &control.config.vips.vrrp else { return true };
    let taken_by = (Instant::now() + TAKEN_WITHIN.max(vrrp.interval * TAKEN_ADVERTS)).min(until);
    let Some(vips) = &control.vips else { return true };
    vips.drain(true);
    let mut moved: Option<Instant> = None;
    loop {
        control.follow_moves(proxy);
        let now = Instant::now();
        if moved.is_none() && control.moves.is_empty() {
            moved = Some(now);
        }
        let over = match moved {
            Some(at) => now >= (at + IDLE).min(until) || proxy.open_connections() == 0 && now >= at + LATE_CLIENTS,
            None => now >= taken_by,
        };
        if over {
            return true;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            Some(query) = queries.recv() => answer::answer(query, control, Some(proxy)),
            caught = signals.next() => if is_cut(&caught) { return false },
        }
    }
}

fn is_cut(caught: &Caught) -> bool {
    if let Caught::Stop(name) = caught {
        warn!("{name} again: what is under way is cut");
        return true;
    }
    false
}
