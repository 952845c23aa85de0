//! The agent comes and goes: nothing that flows is touched. Dropping a `Dataplane` closes descriptors and nothing else, as
//! `kill -9` does; the demo kills the real process.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ingress_agent::dataplane::{self, XdpMode};
use ingress_agent::model::snapshot::{Backend, Protocol::Tcp, Protocol::Udp};
use ingress_agent::model::traffic::AttachMode;
use ingress_tests::echo::Asker;
use ingress_tests::l4::{PinPath, Snapshots, nat, options};
use ingress_tests::l4_lan::L4Lan;
use ingress_tests::wait::SetOnDrop;
use xdp_ebpf::SCHEMA;

const VIP: &str = "203.0.113.10:80";

fn endpoints() -> Vec<Backend> {
    (1..=3).map(|i| nat(&L4Lan::endpoint(i, false))).collect()
}

fn world() -> Snapshots {
    Snapshots::default().service("s", Tcp, VIP, &endpoints()).service("s", Udp, VIP, &endpoints())
}

#[track_caller]
fn open_flows(lan: &L4Lan) -> Vec<(Asker, String)> {
    let open = |i| {
        let mut asker = lan.ask(if i % 2 == 0 { Tcp } else { Udp }, 0, VIP).expect("connect");
        let name = asker.ask().expect("an answer").name;
        (asker, name)
    };
    (0..24).map(open).collect()
}

#[track_caller]
fn all_go_on(flows: &mut [(Asker, String)], when: &str) {
    for (asker, name) in flows {
        let local = asker.local().expect("a local address");
        let answer = asker.ask().unwrap_or_else(|e| panic!("{local}, {when}: {e:#}"));
        assert_eq!(answer.name, *name, "{when}");
    }
}

#[test]
fn flows_old_and_new_outlive_the_agent_and_the_next_one_adopts_them() {
    let lan = L4Lan::new("rsadopt").expect("make the LAN");
    let mut first = lan.open();
    first.apply(&world().build()).expect("apply");
    let mut flows = open_flows(&lan);
    drop(first);
    all_go_on(&mut flows, "without an agent");
    flows.extend(open_flows(&lan));
    let mut second = lan.open();
    all_go_on(&mut flows, "adopted, no snapshot yet");
    second.apply(&world().build()).expect("apply");
    all_go_on(&mut flows, "first snapshot applied");
    second.tick().expect("tick");
    assert_eq!(second.read().expect("read").flows, 48);
}

/// A child that was forked and has not yet exec'ed shares every descriptor of the agent, so its claims as well.
#[test]
fn a_claim_that_a_forked_child_still_shares_is_waited_for() {
    let lan = L4Lan::new("rsfork").expect("make the LAN");
    let agent = lan.open();
    let (mut forked, tell) = std::io::pipe().expect("a pipe");
    let mut command = std::process::Command::new("true");
    // SAFETY: write(2) and usleep(3) are async-signal-safe, and the pipe outlives the call.
    unsafe {
        command.pre_exec(move || {
            (&tell).write_all(b"!")?;
            libc::usleep(150_000);
            Ok(())
        });
    }
    std::thread::scope(|scope| {
        let child = scope.spawn(move || command.status());
        forked.read_exact(&mut [0]).expect("the child is there");
        drop(agent);
        drop(lan.open());
        assert!(child.join().expect("join").expect("start").success());
    });
}

/// Starts and stops an agent again and again, with a client that never stops asking.
#[test]
fn replacing_the_program_loses_no_packet() {
    let lan = L4Lan::new("rsloop").expect("make the LAN");
    let mut agent = lan.open();
    agent.apply(&world().build()).expect("apply");
    let (stop, asked) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        // Set as well when an assertion below fails: the scope waits for the load.
        let stopping = SetOnDrop(&stop);
        let load = scope.spawn(|| {
            // UDP, so that a single lost packet is a lost answer.
            let mut asker = lan.ask(Udp, 0, VIP).expect("connect");
            while !stop.load(Ordering::Relaxed) {
                asker.ask().expect("every datagram is answered");
                lan.ask(Tcp, 0, VIP).expect("connect").ask().expect("an answer");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
        let enough = |round| round >= 5 && asked.load(Ordering::Relaxed) > 50;
        for _ in (0..).take_while(|round| !enough(*round) && !load.is_finished()) {
            drop(agent);
            agent = lan.open();
            agent.apply(&world().build()).expect("apply");
        }
        drop(stopping);
        load.join().expect("nothing was lost");
    });
}

#[test]
fn a_second_agent_is_refused_by_pin_path_and_by_interface() {
    let lan = L4Lan::new("rstwo").expect("make the LAN");
    let mut first = lan.open();
    first.apply(&world().build()).expect("apply");
    let error = |result: anyhow::Result<dataplane::Dataplane>| format!("{:#}", result.err().expect("refused"));
    let same = error(lan.open_with(|_| {}));
    assert!(same.contains("another agent") && same.contains("--pin-path"), "{same}");
    let other = PinPath::default();
    let elsewhere = error(lan.edge.inside(|| dataplane::Dataplane::open(options(&other, &["eth0"]))));
    assert!(elsewhere.contains("another agent") && elsewhere.contains("eth0"), "{elsewhere}");
    assert!(!fs::exists(other.0.join(format!("v{SCHEMA}"))).expect("look"), "it left no pins");
    lan.ask(Tcp, 0, VIP).expect("connect").ask().expect("the first one serves on");
    drop(first);
    drop(lan.open());
}

#[test]
fn bad_interfaces_and_pins_are_named() {
    let lan = L4Lan::new("rsbad").expect("make the LAN");
    let error = |result: anyhow::Result<dataplane::Dataplane>| format!("{:#}", result.err().expect("refused"));
    let none = error(lan.open_with(|o| o.interfaces = vec!["eth7".into()]));
    assert!(none.contains("no interface eth7") && none.contains("eth0"), "{none}");
    let empty = error(lan.open_with(|o| o.interfaces.clear()));
    assert!(empty.contains("--interface"), "{empty}");
    drop(lan.open());
    // A map of another shape in the place of FLOWS.
    let maps = lan.pins.0.join(format!("v{SCHEMA}/maps"));
    fs::rename(maps.join("FLOWS"), maps.join("X")).expect("move");
    fs::rename(maps.join("POOLS"), maps.join("FLOWS")).expect("move");
    fs::rename(maps.join("X"), maps.join("POOLS")).expect("move");
    let wrong = error(lan.open_with(|_| {}));
    assert!(wrong.contains("POOLS") && wrong.contains("sluicegate uninstall"), "{wrong}");
    // A map that is missing while the program runs on it.
    fs::remove_file(maps.join("FLOWS")).expect("remove");
    let missing = error(lan.open_with(|_| {}));
    assert!(missing.contains("FLOWS missing") && missing.contains("sluicegate uninstall"), "{missing}");
    dataplane::uninstall(&lan.pins.0).expect("uninstall");
    assert!(!fs::exists(&lan.pins.0).expect("look"));
    drop(lan.open());
}

#[test]
fn another_capacity_keeps_the_pinned_one() {
    let lan = L4Lan::new("rscap").expect("make the LAN");
    drop(lan.open());
    let mut second = lan.open_with(|o| (o.max_flows, o.max_frontends) = (1 << 20, 1000)).expect("adopt");
    assert_eq!(second.read().expect("read").flow_capacity, 16_384);
    second.apply(&world().build()).expect("apply");
    lan.ask(Tcp, 0, VIP).expect("connect").ask().expect("an answer");
}

#[test]
fn another_schemas_program_forwards_until_the_first_snapshot_and_is_replaced() {
    let lan = L4Lan::new("rsschema").expect("make the LAN");
    let mut old = lan.open();
    old.apply(&world().build()).expect("apply");
    drop(old);
    // What an agent of schema 0 would have left.
    let directory = |schema: u32| lan.pins.0.join(format!("v{schema}"));
    fs::rename(directory(SCHEMA), directory(0)).expect("move the pins");
    let mut asker = lan.ask(Udp, 0, VIP).expect("connect");
    asker.ask().expect("the old program serves");
    let mut new = lan.open();
    asker.ask().expect("it still does, the new maps are empty");
    assert_eq!(new.attachments(), []);
    lan.edge.inside(|| new.apply(&world().build())).expect("apply");
    assert_eq!(new.attachments().len(), 1);
    assert!(!fs::exists(directory(0)).expect("look"), "the old pins are gone");
    // The flow's record is lost; UDP is chosen anew, and the table is the same.
    asker.ask().expect("the new program serves");
    let counts = new.read().expect("read").frontends;
    assert!(counts.iter().any(|(_, c)| c.new_flows == 1), "{counts:?}");
}

#[test]
fn generic_mode_forwards_and_native_mode_refuses_what_has_none() {
    let lan = L4Lan::new("rsgeneric").expect("make the LAN");
    let mut generic = lan.open_with(|o| o.xdp_mode = XdpMode::Generic).expect("open");
    generic.apply(&world().build()).expect("apply");
    assert_eq!(generic.attachments()[0].mode, AttachMode::Generic);
    let mut flows = open_flows(&lan);
    drop(generic);
    // Back to native: the link is replaced, the flows stay.
    let mut native = lan.open_with(|o| o.xdp_mode = XdpMode::Native).expect("open");
    assert_eq!(native.attachments()[0].mode, AttachMode::Native);
    native.apply(&world().build()).expect("apply");
    all_go_on(&mut flows, "in native mode");
    drop(native);
    dataplane::uninstall(&lan.pins.0).expect("uninstall");

    // A bridge has no native XDP.
    lan.edge.ip(&["link", "add", "br9", "type", "bridge"]).expect("add a bridge");
    lan.edge.ip(&["link", "set", "br9", "up"]).expect("up");
    let refused = lan.open_with(|o| (o.interfaces, o.xdp_mode) = (vec!["br9".into()], XdpMode::Native));
    let refused = format!("{:#}", refused.err().expect("refused"));
    assert!(refused.contains("br9 has no native XDP") && refused.contains("--xdp-mode"), "{refused}");
    let auto = lan.open_with(|o| o.interfaces = vec!["br9".into()]).expect("open");
    let attachment = &auto.attachments()[0];
    assert_eq!(attachment.mode, AttachMode::Generic);
    assert!(attachment.note.as_ref().is_some_and(|note| note.contains("no native XDP")), "{attachment:?}");
}

#[test]
fn another_program_on_the_interface_is_left_alone() {
    let lan = L4Lan::new("rstaken").expect("make the LAN");
    lan.edge.attach_pass("eth0").expect("somebody else's program");
    let error = format!("{:#}", lan.open_with(|_| {}).err().expect("refused"));
    assert!(error.contains("another XDP program") && error.contains("ip link"), "{error}");
}
