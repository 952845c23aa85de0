//! Copies of requests for another pool. Whatever happens to a copy, the client's request does not notice: a mirror that
//! cannot keep pace loses the copy.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::header;

use super::body::RequestBody;
use super::client::Client;
use super::hosts::CompiledRoute;
use super::policy::{View, addresses};
use super::pools::PoolId;
use super::request::{Outgoing, RequestId};
use super::terms::Terms;
use super::upstream::{Answer, Trace, ask};
use crate::model::policy::{MirrorTo, Names};

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
    let names = original.names;
    let raw = original.raw.map(<[u8]>::to_vec);
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
            raw: raw.as_deref(),
            names,
            host: Cow::Owned(host),
            request_id: parts.headers.get(super::request::X_REQUEST_ID).map_or(RequestId::Made(id), RequestId::Given),
            upgrade: None,
            edited,
            origin: None,
            prefer: None,
        };
        let answer = ask(&client.worker, &pool, &found.terms, &outgoing, copy, &mut Trace::default()).await;
        if let Ok(answer) = answer {
            drain(answer).await;
        }
    });
}

async fn drain(answer: Answer) {
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

/// `mirror-target`: to a server outside of all pools, which gets the client's fields without what we would add (golden case 292).
pub(super) fn elsewhere(client: &Rc<Client>, to: &Arc<MirrorTo>, view: &View<'_>, body: &mut RequestBody) {
    let (target, host) = (view.fill(&to.target), view.fill(&to.name));
    // A setting's variables come from the client: what would end the request line, or the field, is not sent.
    if !target.starts_with('/') || target.bytes().any(|b| b <= b' ' || b == 0x7f) || host.bytes().any(|b| b <= b' ') {
        return;
    }
    let mut fields = view.parts.headers.clone();
    for name in [
        header::HOST,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::EXPECT,
    ] {
        fields.remove(name);
    }
    let copy = if to.body { body.mirrored() } else { RequestBody::empty() };
    let (client, to, parts) = (Rc::clone(client), Arc::clone(to), view.parts.clone());
    tokio::task::spawn_local(async move {
        let worker = &client.worker;
        let Some(addresses) = addresses(worker, &to.host, to.port, to.secure).await else { return };
        let pool = worker.question_pool(&to.host, to.port, to.secure, addresses);
        let outgoing = Outgoing {
            parts: &parts,
            client: &client,
            target: Cow::Owned(target),
            raw: None,
            names: Names::default(),
            host: Cow::Owned(host.into_bytes()),
            request_id: RequestId::None,
            upgrade: None,
            edited: Some(fields),
            origin: None,
            prefer: None,
        };
        let terms = Terms::default();
        if let Ok(answer) = ask(worker, &pool, &terms, &outgoing, copy, &mut Trace::default()).await {
            drain(answer).await;
        }
    });
}
