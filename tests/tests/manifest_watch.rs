//! A directory of manifests, live: each way in which files change is seen, and nothing that is half written is.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ingress_agent::model::facts::{Exposure, Facts};
use ingress_agent::model::snapshot::ObjectName;
use ingress_agent::sources::{SourceOptions, manifests};
use tokio::sync::watch;

/// Longer than any machine takes; well below the sweep that would find a change without its event.
const SOON: Duration = Duration::from_secs(5);

struct Watched {
    directory: PathBuf,
    facts: watch::Receiver<Arc<Facts>>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

/// Watches a new directory that `prepare` has filled.
async fn watched(test: &str, prepare: impl FnOnce(&Path)) -> Watched {
    let root = std::env::temp_dir().join(format!("sluicegate-watch-{test}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    let directory = root.join("manifests");
    fs::create_dir_all(&directory).expect("a directory for the test");
    prepare(&directory);
    let (sender, facts) = watch::channel(Arc::new(Facts::default()));
    let task = tokio::spawn(manifests::watch(directory.clone(), SourceOptions::default(), sender));
    let mut watched = Watched { directory, facts, task };
    watched.until("the first reading", |f| f.revision > 0).await;
    watched
}

impl Watched {
    /// The first facts for which this holds.
    #[track_caller]
    fn until(&mut self, what: &str, holds: impl Fn(&Facts) -> bool) -> impl Future<Output = Arc<Facts>> {
        let what = what.to_owned();
        async move {
            let found =
                tokio::time::timeout(SOON, self.facts.wait_for(|f| holds(f))).await.map(|f| f.map(|f| Arc::clone(&f)));
            match found {
                Ok(Ok(facts)) => facts,
                Ok(Err(_)) => panic!("the watch ended while waiting for {what}"),
                Err(tokio::time::error::Elapsed { .. }) => {
                    panic!("{what}: not within {SOON:?}; facts: {:#?}", self.facts.borrow())
                }
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_dir_all(self.directory.parent().unwrap_or(&self.directory));
    }
}

fn service(name: &str, vip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: n}}\n\
         spec: {{type: LoadBalancer, loadBalancerIP: {vip}, ports: [{{port: 80}}]}}\n"
    )
}

fn vip(facts: &Facts, name: &str) -> Option<String> {
    match &facts.services.find(&ObjectName::new("n", name))?.exposure {
        Exposure::LoadBalancer(asks) => Some(asks.wanted.as_ref()?.first()?.address.to_string()),
        _ => None,
    }
}

fn has(name: &'static str, address: &'static str) -> impl Fn(&Facts) -> bool {
    move |facts| vip(facts, name).as_deref() == Some(address)
}

fn faults(facts: &Facts) -> String {
    facts.rejections.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn an_edit_in_place_and_a_new_file_are_live() {
    let mut w = watched("edit", |d| fs::write(d.join("a.yaml"), service("a", "203.0.113.1")).unwrap()).await;
    fs::write(w.path("a.yaml"), service("a", "203.0.113.2")).unwrap();
    w.until("the edit", has("a", "203.0.113.2")).await;
    fs::write(w.path("b.yml"), service("b", "203.0.113.3")).unwrap();
    w.until("the new file", has("b", "203.0.113.3")).await;
    fs::write(w.path("c.json"), r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "c", "namespace": "n"}, "spec": {"type": "LoadBalancer", "loadBalancerIP": "203.0.113.4"}}"#).unwrap();
    w.until("the JSON file", has("c", "203.0.113.4")).await;
    fs::remove_file(w.path("a.yaml")).unwrap();
    let facts = w.until("the deletion", |f| vip(f, "a").is_none()).await;
    assert_eq!(facts.services.len(), 2);
}

#[tokio::test]
async fn an_unchanged_object_keeps_its_arc() {
    let mut w = watched("arc", |d| {
        fs::write(d.join("a.yaml"), service("a", "203.0.113.1") + "---\n" + &service("b", "203.0.113.2")).unwrap();
        fs::write(d.join("c.yaml"), service("c", "203.0.113.3")).unwrap();
    })
    .await;
    let before = Arc::clone(&w.facts.borrow());
    fs::write(w.path("a.yaml"), service("a", "203.0.113.9") + "---\n# said anew\n" + &service("b", "203.0.113.2"))
        .unwrap();
    let after = w.until("the edit", has("a", "203.0.113.9")).await;
    for name in ["b", "c"] {
        let name = ObjectName::new("n", name);
        assert!(Arc::ptr_eq(before.services.find(&name).unwrap(), after.services.find(&name).unwrap()), "{name}");
    }
}

#[tokio::test]
async fn a_rename_over_a_file_and_a_rename_of_a_file_lose_nothing() {
    let mut w = watched("rename", |d| fs::write(d.join("a.yaml"), service("a", "203.0.113.1")).unwrap()).await;
    fs::write(w.path(".a.tmp"), service("a", "203.0.113.2")).unwrap();
    fs::rename(w.path(".a.tmp"), w.path("a.yaml")).unwrap();
    w.until("the rename over it", has("a", "203.0.113.2")).await;
    // The object moves to another file in one step: no published state is without it.
    let revision = w.facts.borrow().revision;
    fs::rename(w.path("a.yaml"), w.path("b.yaml")).unwrap();
    let moved = |f: &Facts| f.services.iter().any(|s| s.origin.place.starts_with("b.yaml"));
    let facts = w.until("the rename of it", moved).await;
    assert_eq!(facts.revision, revision + 1);
}

#[tokio::test]
async fn the_swap_of_a_mounted_config_map_is_one_change() {
    let mut w = watched("swap", |d| {
        fs::create_dir(d.join("..1")).unwrap();
        fs::write(d.join("..1/a.yaml"), service("a", "203.0.113.1")).unwrap();
        fs::write(d.join("..1/b.yaml"), service("b", "203.0.113.2")).unwrap();
        symlink("..1", d.join("..data")).unwrap();
        symlink("..data/a.yaml", d.join("a.yaml")).unwrap();
        symlink("..data/b.yaml", d.join("b.yaml")).unwrap();
    })
    .await;
    assert!(has("a", "203.0.113.1")(&w.facts.borrow()) && has("b", "203.0.113.2")(&w.facts.borrow()));
    let revision = w.facts.borrow().revision;
    fs::create_dir(w.path("..2")).unwrap();
    fs::write(w.path("..2/a.yaml"), service("a", "203.0.113.8")).unwrap();
    fs::write(w.path("..2/b.yaml"), service("b", "203.0.113.9")).unwrap();
    symlink("..2", w.path("..data_tmp")).unwrap();
    fs::rename(w.path("..data_tmp"), w.path("..data")).unwrap();
    fs::remove_dir_all(w.path("..1")).unwrap();
    let facts = w.until("the swap", has("b", "203.0.113.9")).await;
    assert_eq!(vip(&facts, "a").as_deref(), Some("203.0.113.8"), "both files change together");
    assert_eq!(facts.revision, revision + 1);
}

#[tokio::test]
async fn a_broken_file_keeps_its_last_good_state_until_it_is_fixed() {
    let both = service("a", "203.0.113.1") + "---\n" + &service("b", "203.0.113.2");
    let mut w = watched("broken", |d| fs::write(d.join("a.yaml"), &both).unwrap()).await;
    // `b` is broken, `a` changes all the same.
    fs::write(
        w.path("a.yaml"),
        service("a", "203.0.113.9") + "---\napiVersion: v1\nkind: Service\nmetadata: {name: b\n",
    )
    .unwrap();
    let facts = w.until("the half that can be read", has("a", "203.0.113.9")).await;
    assert_eq!(vip(&facts, "b").as_deref(), Some("203.0.113.2"));
    let said = faults(&facts);
    assert!(said.contains("a.yaml, document 2: File a.yaml: broken YAML in line"), "{said}");
    assert!(said.contains("Service n/b keeps its last good state"), "{said}");
    // Broken in another way: still kept.
    fs::write(w.path("a.yaml"), "spec: [").unwrap();
    let facts = w.until("the second fault", |f| faults(f).contains("and 1 more keep their last good state")).await;
    assert_eq!(facts.services.len(), 2);
    // An object whose fields are wrong keeps its own last good state.
    let wrong = service("b", "203.0.113.2").replace("port: 80", "port: eighty");
    fs::write(w.path("a.yaml"), service("a", "203.0.113.9") + "---\n" + &wrong).unwrap();
    let facts = w.until("the third fault", |f| faults(f).contains("spec.ports[0].port")).await;
    assert_eq!(vip(&facts, "b").as_deref(), Some("203.0.113.2"));
    assert!(faults(&facts).contains("its last good state keeps serving"), "{}", faults(&facts));
    // Fixed; then `b` is deleted for good.
    fs::write(w.path("a.yaml"), service("a", "203.0.113.9") + "---\n" + &service("b", "203.0.113.7")).unwrap();
    let facts = w.until("the repair", has("b", "203.0.113.7")).await;
    assert_eq!(faults(&facts), "");
    fs::write(w.path("a.yaml"), service("a", "203.0.113.9")).unwrap();
    w.until("the deletion", |f| vip(f, "b").is_none()).await;
}

#[tokio::test]
async fn half_a_file_is_not_read() {
    use std::io::Write;
    let both = service("a", "203.0.113.1") + "---\n" + &service("b", "203.0.113.2");
    let mut w = watched("half", |d| fs::write(d.join("a.yaml"), &both).unwrap()).await;
    let mut file = fs::File::create(w.path("a.yaml")).unwrap();
    file.write_all(service("a", "203.0.113.3").as_bytes()).unwrap();
    // What is there now is valid, and lacks `b`. Another file shows that events have been seen since.
    fs::write(w.path("z.yaml"), service("z", "203.0.113.4")).unwrap();
    let facts = w.until("the other file", has("z", "203.0.113.4")).await;
    assert_eq!(vip(&facts, "b").as_deref(), Some("203.0.113.2"), "half a file was believed");
    file.write_all(("---\n".to_owned() + &service("b", "203.0.113.5")).as_bytes()).unwrap();
    drop(file);
    let facts = w.until("the whole file", has("b", "203.0.113.5")).await;
    assert_eq!(vip(&facts, "a").as_deref(), Some("203.0.113.3"));
}

#[tokio::test]
async fn a_directory_that_goes_keeps_serving_and_is_followed_when_it_comes_back() {
    let mut w = watched("gone", |d| fs::write(d.join("a.yaml"), service("a", "203.0.113.1")).unwrap()).await;
    let aside = w.directory.with_file_name("aside");
    fs::rename(&w.directory, &aside).unwrap();
    let facts = w.until("the fault", |f| faults(f).contains("cannot be read")).await;
    assert_eq!(vip(&facts, "a").as_deref(), Some("203.0.113.1"));
    let next = w.directory.with_file_name("next");
    fs::create_dir(&next).unwrap();
    fs::write(next.join("a.yaml"), service("a", "203.0.113.2")).unwrap();
    fs::rename(&next, &w.directory).unwrap();
    let facts = w.until("the new directory", has("a", "203.0.113.2")).await;
    assert_eq!(faults(&facts), "");
    fs::write(w.path("a.yaml"), service("a", "203.0.113.3")).unwrap();
    w.until("an edit in the new directory", has("a", "203.0.113.3")).await;
}

#[tokio::test]
async fn links_odd_files_and_other_names() {
    let mut w = watched("links", |d| {
        fs::write(d.parent().unwrap().join("target"), service("a", "203.0.113.1")).unwrap();
        fs::write(d.join("README.md"), "not a manifest").unwrap();
        fs::write(d.join(".hidden.yaml"), service("hidden", "203.0.113.2")).unwrap();
        fs::create_dir(d.join("directory.yaml")).unwrap();
        fs::write(d.join("latin1.yaml"), b"apiVersion: v1\n# \xe9\n").unwrap();
    })
    .await;
    let facts = Arc::clone(&w.facts.borrow());
    let said = faults(&facts);
    assert!(said.contains("directory.yaml: File directory.yaml: is not a regular file"), "{said}");
    assert!(said.contains("latin1.yaml: File latin1.yaml: is not UTF-8 from byte 17 on"), "{said}");
    assert!(facts.services.is_empty());
    symlink("../target", w.path("link.yaml")).unwrap();
    w.until("a symbolic link", has("a", "203.0.113.1")).await;
    fs::write(w.directory.with_file_name("other"), service("b", "203.0.113.5")).unwrap();
    fs::hard_link(w.directory.with_file_name("other"), w.path("hard.yaml")).unwrap();
    w.until("a hard link", has("b", "203.0.113.5")).await;
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_an_error_at_the_start() {
    let (sender, _facts) = watch::channel(Arc::new(Facts::default()));
    let error = manifests::watch("/nonexistent/manifests".into(), SourceOptions::default(), sender).await.unwrap_err();
    assert!(format!("{error:#}").contains("read the manifests in /nonexistent/manifests: No such file"), "{error:#}");
}
