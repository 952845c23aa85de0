//! Where hyper's HTTP/2 runs what it does beside a request: on the worker's own thread.

use std::future::Future;

#[derive(Clone, Copy)]
pub(super) struct LocalTasks;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalTasks
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
