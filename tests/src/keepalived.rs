//! The real keepalived in a host's namespace, with one `vrrp_instance` or several. It is what users have, and what ours must understand.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::lan::Host;
use crate::netns::Running;

/// A running keepalived. Dropping it kills it and removes its files; its addresses then stay, as after a crash.
#[derive(Debug)]
pub struct Keepalived {
    directory: PathBuf,
    running: Option<Running>,
}

/// What its configuration says of an instance.
#[derive(Clone, Debug)]
pub struct Instance<'a> {
    pub vrid: u8,
    pub priority: u8,
    /// Seconds, as keepalived wants it: `0.1`.
    pub advert_int: &'a str,
    pub version: u8,
    /// `virtual_ipaddress`, as written there.
    pub addresses: &'a [&'a str],
    /// Further lines of the instance.
    pub more: &'a str,
}

impl Default for Instance<'_> {
    fn default() -> Self {
        Self { vrid: 51, priority: 100, advert_int: "0.1", version: 3, addresses: &["10.1.0.100/32"], more: "" }
    }
}

impl Keepalived {
    /// Starts it on `eth0`, as a backup. `label` must be unique among the tests of one process.
    pub fn start(host: &Host, label: &str, instance: &Instance<'_>) -> Result<Self> {
        Self::start_all(host, label, std::slice::from_ref(instance))
    }

    /// The same with several instances, all of them of the first one's version.
    pub fn start_all(host: &Host, label: &str, instances: &[Instance<'_>]) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("sg-keepalived-{label}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).context("make keepalived's directory")?;
        let version = instances.first().context("an instance")?.version;
        // Real-time priority, as ours: what is compared is the protocol.
        let mut text = format!(
            "global_defs {{\n  vrrp_version {version}\n  vrrp_rt_priority 10\n  vrrp_rlimit_rttime 1000000\n  vrrp_garp_master_delay 1\n  router_id {label}\n}}\n"
        );
        for (n, Instance { vrid, priority, advert_int, addresses, more, .. }) in instances.iter().enumerate() {
            let list = addresses.join("\n    ");
            write!(
                text,
                "vrrp_instance V{n} {{\n  state BACKUP\n  interface eth0\n  virtual_router_id {vrid}\n  priority {priority}\n  \
                 advert_int {advert_int}\n  {more}\n  virtual_ipaddress {{\n    {list}\n  }}\n}}\n"
            )?;
        }
        let config = directory.join("keepalived.conf");
        fs::write(&config, text).context("write keepalived's configuration")?;
        let log = File::create(directory.join("log")).context("make keepalived's log")?;
        let mut command = Command::new("keepalived");
        command.args(["--dont-fork", "--vrrp", "--log-console", "--log-detail", "--use-file"]).arg(&config);
        command.arg("--pid").arg(directory.join("pid")).arg("--vrrp_pid").arg(directory.join("vrrp.pid"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let running = host.ns.spawn(&mut command).context("start keepalived (package keepalived)")?;
        Ok(Self { directory, running: Some(running) })
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// SIGTERM: it says priority 0, removes its addresses and ends.
    pub fn stop(&mut self) -> Result<()> {
        let mut running = self.running.take().context("keepalived runs no more")?;
        running.signal(libc::SIGTERM);
        let end = Instant::now() + Duration::from_secs(20);
        while running.0.try_wait()?.is_none() {
            ensure!(Instant::now() < end, "keepalived did not end; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// `kill -9`: its addresses stay.
    pub fn kill(mut self) -> Result<()> {
        self.signal(libc::SIGKILL)?;
        // Dropping reaps.
        drop(self.running.take());
        Ok(())
    }

    /// To it and to its child, which does the work.
    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        let running = self.running.as_ref().context("keepalived runs no more")?;
        let child = fs::read_to_string(self.directory.join("vrrp.pid")).context("read its child's id")?;
        let child: libc::pid_t = child.trim().parse().context("an id")?;
        for id in [running.id() as libc::pid_t, child] {
            // SAFETY: kill takes no pointer; both are alive, for the parent reaps its child.
            unsafe { libc::kill(id, signal) };
        }
        Ok(())
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        // Its child notices the parent's death only if that is orderly.
        if self.running.is_some() {
            let _ = self.stop();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}
