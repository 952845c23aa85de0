//! Work with an API server that has a thread of its own, so that neither parsing nor waiting holds up traffic or the admin window.

use anyhow::Context;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

/// Running work. It is told to stop when this is dropped, too.
#[derive(Debug)]
pub struct Background {
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Background {
    /// Runs `work` on a thread of this name, which gets what tells it to stop. `does` is for the error: `watches the cluster`.
    pub fn start<W>(name: &str, does: &str, work: W) -> anyhow::Result<Self>
    where
        W: AsyncFnOnce(oneshot::Receiver<()>) + Send + 'static,
    {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .with_context(|| format!("start the runtime that {does}"))?;
        let (stop, stopped) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                LocalSet::new().block_on(&runtime, work(stopped));
                // Nobody waits any more where the agent was told to stop twice.
                let _ = ending.send(());
            })
            .with_context(|| format!("start the thread that {does}"))?;
        Ok(Self { stop, ended })
    }

    /// Tells it to stop, and waits for its end.
    pub async fn stop(self) {
        // It has ended already when nobody receives.
        let _ = self.stop.send(());
        let _ = self.ended.await;
    }
}
