//! One request, from its head to the head of its response: strict checks, then its route, then what every answer gets.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Instant;

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::body::Body;
use super::client::{Client, Order};
use super::coding::compress;
use super::framing::Violation;
use super::line::{head_length, line, sent_target};
use super::meter::Meter;
use super::path::normalise;
use super::policy::{Origin, View};
use super::record::Record;
use super::reply::{After, page};
use super::request::{RequestId, X_REQUEST_ID};
use super::routed::routed;
use super::target::{Target, path, target};
use super::worker::Worker;

pub(super) async fn answer(client: Rc<Client>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let started = Instant::now();
    client.worker.deadlines.set_now(started);
    let record = Record::new(Rc::clone(&client), started);
    let (parts, body) = request.into_parts();
    let mut response = respond(&client, &parts, body, record).await;
    if client.says_last() && parts.version != Version::HTTP_2 && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// The answer if the request may not go further.
fn refused(client: &Client, parts: &Parts) -> Option<(StatusCode, After)> {
    if parts.version != Version::HTTP_2 {
        let number = client.requests.get();
        client.requests.set(number.wrapping_add(1));
        if let Some((bad, violation)) = client.bad_head.get()
            && bad == number
        {
            tracing::debug!(peer = %client.peer, ?violation, "request refused");
            let status = match violation {
                Violation::TargetTooLong => StatusCode::URI_TOO_LONG,
                _ => StatusCode::BAD_REQUEST,
            };
            return Some((status, After::Close));
        }
    }
    // A reverse proxy opens no tunnels and echoes no requests (RFC 9110 §9.3.6, §9.3.8).
    match parts.method {
        // nginx's word for it (golden case 012).
        Method::CONNECT => Some((StatusCode::BAD_REQUEST, After::Close)),
        Method::TRACE => Some((StatusCode::METHOD_NOT_ALLOWED, After::Close)),
        _ => None,
    }
}

async fn respond(client: &Rc<Client>, parts: &Parts, body: Incoming, mut record: Record) -> Response<Body> {
    let worker = &client.worker;
    let listener = client.compiled();
    let made;
    let request_id = match parts.headers.get(X_REQUEST_ID) {
        Some(given) if !given.is_empty() => RequestId::Given(given),
        _ if !listener.settings.request_id => RequestId::None,
        _ => {
            made = digits(worker);
            RequestId::Made(made)
        }
    };
    let refused = refused(client, parts);
    // hyper hands the requests of a connection over in their order.
    let http1 = parts.version != Version::HTTP_2;
    let odd = if http1 { client.odd_target(client.requests.get().wrapping_sub(1)) } else { None };
    if worker.logs() {
        record.line = line(client, &listener, parts, odd.as_deref(), &request_id);
    }
    if worker.meters.is_some() {
        record.measure(Meter::new(&parts.method, head_length(parts, sent_target(parts, odd.as_deref()))));
    }
    if let Some((status, after)) = refused {
        return page(status, after, record);
    }
    let Some(Target { authority, name }) = target(parts) else {
        return page(StatusCode::BAD_REQUEST, After::Close, record);
    };
    let sent = odd.as_ref().map_or_else(|| path(&parts.uri).map(str::as_bytes), |odd| Some(odd.path()));
    let Some(Ok(normalised)) = sent.map(normalise) else {
        return page(StatusCode::BAD_REQUEST, After::Close, record);
    };
    if parts.version == Version::HTTP_2
        && let (Some(server_name), Some(tls)) = (&client.server_name, &listener.tls)
        && tls.misdirected(server_name, &name)
    {
        // RFC 9110 §15.5.20: the client reused a connection whose certificate was not meant for this host.
        return page(StatusCode::MISDIRECTED_REQUEST, After::KeepAlive, record);
    }
    let settings = &listener.settings;
    let origin = Origin::of(client, parts, settings);
    if let Some(line) = &mut record.line {
        line.peer = origin.address;
    }
    let (id, odd) = (request_id.as_bytes(), odd.as_deref());
    let view = View { client, parts, origin: &origin, name: &name, authority, path: &normalised, request_id: id, odd };
    let (mut response, bare) = if listener.blocked.blocks(settings, origin.address, &parts.headers) {
        (page(StatusCode::FORBIDDEN, After::KeepAlive, record), false)
    } else {
        routed(client, &listener, &view, &request_id, body, record).await
    };
    if client.tls
        && !bare
        && let Some(hsts) = &settings.hsts
    {
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    for (name, template) in &settings.add {
        if let Ok(value) = HeaderValue::try_from(view.fill(template)) {
            response.headers_mut().insert(name.clone(), value);
        }
    }
    if let Some(compression) = &settings.compression {
        compress(compression, &parts.headers, &mut response);
    }
    if let Some(mut meter) = response.body_mut().record.meter.take() {
        meter.answer_head(response.headers());
        response.body_mut().record.meter = Some(meter);
    }
    if let Some(most) = settings.client.requests
        && client.answered() >= most
    {
        // nginx's `keepalive_requests`: this was the last one.
        if http1 {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        } else {
            client.tell(Order::Finish);
        }
    }
    response
}

fn digits(worker: &Worker) -> [u8; 32] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let (mut high, mut low) = (worker.random(), worker.random());
    let mut out = [0; 32];
    for i in 0..16 {
        out[i] = HEX[(high & 15) as usize];
        out[i + 16] = HEX[(low & 15) as usize];
        high >>= 4;
        low >>= 4;
    }
    out
}
