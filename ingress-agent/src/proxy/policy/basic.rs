//! Basic authentication. A password is hashed on a thread beside the workers', and a verdict that let somebody in is remembered under a keyed
//! digest, so that it is not hashed for each request. Refusals are not remembered: whoever guesses pays for each guess.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use tokio::sync::Semaphore;

use super::{Reply, password};
use crate::model::policy::BasicAuth;
use crate::proxy::worker::Worker;

/// Verdicts that a worker remembers.
const REMEMBERED: usize = 4096;
/// Passwords that a worker has hashed at one time.
const HASHING: usize = 2;

pub(in crate::proxy) struct Passwords {
    key: hmac::Key,
    /// With whose list it was: a verdict dies with the list.
    known: RefCell<HashMap<[u8; 32], std::sync::Weak<BasicAuth>>>,
    hashing: Semaphore,
}

impl Passwords {
    pub(in crate::proxy) fn new(seed: u64) -> Self {
        use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
        let mut secret = [0; 32];
        if SystemRandom::new().fill(&mut secret).is_err() {
            // Without randomness the digest is still no password.
            secret[..8].copy_from_slice(&seed.to_ne_bytes());
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Self { key, known: RefCell::default(), hashing: Semaphore::new(HASHING) }
    }
}

pub(super) async fn check(worker: &Rc<Worker>, users: &Arc<BasicAuth>, headers: &HeaderMap) -> Result<(), Reply> {
    let refused = || {
        let challenge = HeaderValue::try_from(format!("Basic realm=\"{}\"", users.realm));
        let fields = challenge.ok().map(|value| (header::WWW_AUTHENTICATE, value));
        Reply { fields: fields.into_iter().collect(), ..Reply::new(StatusCode::UNAUTHORIZED) }
    };
    let Some((user, given)) = credentials(headers) else { return Err(refused()) };
    let Ok(at) = users.users.binary_search_by(|(name, _)| name.as_bytes().cmp(&user)) else { return Err(refused()) };
    let hash = users.users[at].1.clone();
    let passwords = &worker.passwords;
    let digest = {
        let mut context = hmac::Context::with_key(&passwords.key);
        for part in [hash.as_bytes(), &user, &given] {
            context.update(&(part.len() as u64).to_ne_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    };
    let same = |list: &std::sync::Weak<BasicAuth>| std::ptr::eq(list.as_ptr(), Arc::as_ptr(users));
    if passwords.known.borrow().get(&digest).is_some_and(same) {
        return Ok(());
    }
    let Ok(_turn) = passwords.hashing.acquire().await else { return Err(refused()) };
    // A password may cost a tenth of a second: not on the thread of other people's requests.
    let verdict = tokio::task::spawn_blocking(move || password::verify(&given, &hash)).await;
    if !matches!(verdict, Ok(true)) {
        return Err(refused());
    }
    let mut known = passwords.known.borrow_mut();
    if known.len() >= REMEMBERED {
        known.clear();
    }
    known.insert(digest, Arc::downgrade(users));
    Ok(())
}

/// RFC 7617 §2. Two fields are none: nobody knows which one a backend would believe.
fn credentials(headers: &HeaderMap) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let field = fields.next()?.as_bytes();
    if fields.next().is_some() {
        return None;
    }
    let (scheme, rest) = field.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|&b| b == b':')?;
    Some((decoded[..colon].to_vec(), decoded[colon + 1..].to_vec()))
}
