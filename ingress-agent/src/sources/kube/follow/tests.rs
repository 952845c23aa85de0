//! The protocol against a server that says what a test has it say, also what a real one says rarely.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Mutex;

use k8s_openapi::api::core::v1::Service;
use kube::Client;

use super::*;
use crate::sources::kube::kinds;

/// Status and body for the n-th request, whose path is the second argument.
type Script = fn(usize, &str) -> (u16, String);

struct Server {
    url: http::Uri,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves until the test's process ends: a connection a request, one after the other.
    fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut lines = BufReader::new(stream.unwrap());
                let mut first = String::new();
                lines.read_line(&mut first).unwrap();
                let mut line = String::new();
                while lines.read_line(&mut line).unwrap() > 2 {
                    line.clear();
                }
                let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                let count = {
                    let mut asked = told.lock().unwrap();
                    asked.push(path.clone());
                    asked.len() - 1
                };
                let (status, body) = script(count, &path);
                let head =
                    format!("HTTP/1.1 {status} x\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n");
                // Its end is the end of the connection, as of a watch that is cut.
                let _ = lines.get_mut().write_all((head + &body).as_bytes());
            }
        });
        Self { url, asked }
    }

    fn watch(&self, name: &str) -> (Watch<Service>, mpsc::Receiver<(WatchId, News)>) {
        let (tell, news) = mpsc::channel(100);
        let client = Client::try_from(kube::Config::new(self.url.clone())).unwrap();
        let resource =
            Resource { plural: "services".into(), group: String::new(), namespace: "n".into(), name: name.into() };
        let (_, doubt) = watch::channel(0);
        let watch = Watch {
            id: WatchId(1),
            kind: &kinds::SERVICE,
            api: Api::namespaced(client, "n"),
            resource,
            labels: None,
            options: Arc::default(),
            tell,
            doubt,
        };
        (watch, news)
    }

    /// Follows until `until` is told; what was told, a word each, and what was asked.
    async fn told(&self, until: &str) -> (String, Vec<String>) {
        let (watch, mut news) = self.watch("");
        let mut told: Vec<String> = Vec::new();
        tokio::select! {
            () = watch.follow() => panic!("it ended"),
            () = async {
                while told.last().is_none_or(|last| last != until) {
                    told.push(word(news.recv().await.unwrap().1));
                }
            } => {}
            () = tokio::time::sleep(Duration::from_secs(20)) => panic!("waited in vain for {until}"),
        }
        (told.join(" "), self.asked.lock().unwrap().clone())
    }
}

fn word(news: News) -> String {
    match news {
        News::Answers => "answers".into(),
        News::Begun => "begun".into(),
        News::Listed(read) => format!("+{}", read.identity.name.name),
        News::Complete => "complete".into(),
        News::Changed(read) => format!("~{}", read.identity.name.name),
        News::Gone(name) => format!("-{}", name.name),
        News::Fails(trouble) => format!("fails({})", trouble.text),
    }
}

fn service(name: &str, version: u32) -> String {
    format!(r#"{{"metadata":{{"name":"{name}","namespace":"n","resourceVersion":"{version}"}},"spec":{{}}}}"#)
}

fn event(kind: &str, object: &str) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

fn bookmark(version: u32, end: bool) -> String {
    let annotations = if end { r#","annotations":{"k8s.io/initial-events-end":"true"}"# } else { "" };
    let metadata = format!(r#"{{"resourceVersion":"{version}"{annotations}}}"#);
    event("BOOKMARK", &format!(r#"{{"kind":"Service","apiVersion":"v1","metadata":{metadata}}}"#))
}

fn status(code: u16, message: &str) -> String {
    format!(r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"{message}","code":{code}}}"#)
}

#[tokio::test]
async fn a_watch_that_is_cut_goes_on_where_it_was() {
    let server = Server::start(|n, _| match n {
        0 => (200, event("ADDED", &service("a", 3)) + &bookmark(7, true) + &event("MODIFIED", &service("a", 8))),
        _ => (200, event("DELETED", &service("a", 9))),
    });
    let (told, asked) = server.told("-a").await;
    let cut = "fails(services in namespace n: the watch ends at once)";
    assert_eq!(told, format!("answers begun +a complete ~a {cut} answers -a"));
    assert!(asked[0].contains("sendInitialEvents=true") && asked[0].contains("resourceVersion=0"), "{asked:?}");
    assert!(!asked[1].contains("sendInitialEvents") && asked[1].contains("resourceVersion=8"), "{asked:?}");
}

#[tokio::test]
async fn a_list_that_is_cut_begins_again() {
    let server = Server::start(|n, _| match n {
        0 => (200, event("ADDED", &service("a", 3))),
        _ => (200, event("ADDED", &service("b", 3)) + &bookmark(7, true)),
    });
    let (told, asked) = server.told("complete").await;
    let cut = "fails(the list of services in namespace n ended before it was complete)";
    assert_eq!(told, format!("answers begun +a {cut} answers begun +b complete"));
    assert!(asked[1].contains("sendInitialEvents=true"), "{asked:?}");
}

#[tokio::test]
async fn a_version_that_is_too_old_is_listed_anew_without_a_word() {
    let server = Server::start(|n, _| match n {
        0 => (200, bookmark(7, true) + &event("ERROR", &status(410, "too old resource version"))),
        // Some servers refuse it at once.
        2 => (410, status(410, "too old resource version")),
        _ => (200, bookmark(7, true)),
    });
    let (told, asked) = server.told("fails(services in namespace n: the watch ends at once)").await;
    assert_eq!(told.matches("begun complete").count(), 2, "{told}");
    assert!(asked[1].contains("sendInitialEvents=true"), "{asked:?}");
    assert!(!told.contains("too old"), "{told}");
}

#[test]
fn a_version_that_grew_too_old_while_the_server_was_away_is_listed_anew_soon() {
    let (mut place, mut backoff) = (Place { version: Some("5".into()), streaming: true }, Backoff::default());
    let pauses: Vec<_> = [Failure::Other("away".into()), Failure::Other("away".into()), Failure::Gone, Failure::Gone]
        .map(|failure| place.pause(&failure, &mut backoff, 1.0).as_secs())
        .into();
    assert_eq!(pauses, [1, 2, 1, 2], "and one that says so again and again is not pressed");
    assert_eq!(place.version, None);
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_asked_for_pages() {
    let server = Server::start(|n, _| {
        let page = |items: &str, token: &str| {
            let metadata = format!(r#"{{"resourceVersion":"5","continue":"{token}"}}"#);
            (200, format!(r#"{{"kind":"ServiceList","apiVersion":"v1","metadata":{metadata},"items":[{items}]}}"#))
        };
        match n {
            0 => (422, status(422, "sendInitialEvents is forbidden for watch unless the WatchList feature gate is on")),
            1 => page(&service("a", 1), "more"),
            2 => page(&service("b", 2), ""),
            _ => (200, event("ADDED", &service("c", 6))),
        }
    });
    let (told, asked) = server.told("~c").await;
    assert_eq!(told, "answers begun +a +b complete answers ~c");
    assert!(asked[1].contains("limit=500") && !asked[1].contains("watch=true"), "{asked:?}");
    assert!(asked[2].contains("continue=more") && !asked[2].contains("resourceVersion"), "{asked:?}");
    assert!(asked[3].contains("watch=true") && asked[3].contains("resourceVersion=5"), "{asked:?}");
}

#[tokio::test]
async fn a_single_object_is_there_or_not() {
    let server = Server::start(|n, _| match n {
        0 => (200, service("a", 1)),
        1 => (404, status(404, "no")),
        _ => (403, status(403, "no")),
    });
    let (watch, mut news) = server.watch("a");
    for expected in ["answers begun +a complete", "answers begun complete"] {
        if let Err(End::Failed(_, failure)) = watch.look().await {
            panic!("{failure:?}");
        }
        let mut told = Vec::new();
        while let Ok((_, news)) = news.try_recv() {
            told.push(word(news));
        }
        assert_eq!(told.join(" "), expected);
    }
    assert!(matches!(watch.look().await, Err(End::Failed("get", Failure::Forbidden(_)))));
    assert_eq!(server.asked.lock().unwrap()[0], "/api/v1/namespaces/n/services/a");
}
