//! Copies of requests for another pool. Whatever happens to a copy, the client's request does not notice: a mirror that
//! cannot keep pace loses the copy.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::body::RequestBody;
use super::client::Client;
use super::hosts::CompiledRoute;
use super::pools::PoolId;
use super::request::{Outgoing, RequestId};
use super::upstream::{Trace, ask};

pub(super) fn send(
    client: &Rc<Client>,
    pool: PoolId,
    found: &Arc<CompiledRoute>,
    original: &Outgoing<'_>,
    body: &mut RequestBody,
) {
    let Some(pool) = client.worker.pool(pool) else { return };
    let (client, found) = (Rc::clone(client), Arc::clone(found));
    let parts = original.parts.clone();
    let target = original.target.clone().into_owned();
    let host = original.host.clone().into_owned();
    let edited = original.edited.clone();
    let mut id = [b'0'; 32];
    let given = original.request_id.as_bytes();
    if let Ok(made) = given.try_into() {
        id = made;
    }
    let copy = body.mirrored();
    tokio::task::spawn_local(async move {
        let outgoing = Outgoing {
            parts: &parts,
            client: &client,
            target: Cow::Owned(target),
            host: Cow::Owned(host),
            request_id: parts.headers.get(super::request::X_REQUEST_ID).map_or(RequestId::Made(id), RequestId::Given),
            upgrade: None,
            edited,
            origin: None,
            prefer: None,
        };
        let answer = ask(&client.worker, &pool, &found.route, &outgoing, copy, &mut Trace::default()).await;
        if let Ok(answer) = answer {
            let mut kind = answer.kind;
            std::future::poll_fn(|cx| {
                loop {
                    match kind.poll_frame(cx) {
                        Poll::Ready(Some(Ok(_))) => {}
                        Poll::Ready(_) => return Poll::Ready(()),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            })
            .await;
        }
    });
}
