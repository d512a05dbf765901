//! A site in a process of its own, so that its memory is its own: `cardshop up` on free ports, until it is dropped. `sim` and
//! `bench scheduler` start it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

/// A running site.
pub(crate) struct Served {
    child: Child,
    pub(crate) http: String,
    pub(crate) mqtt: String,
    /// Told at the first start only.
    pub(crate) password: Option<String>,
    /// From its start to its being ready.
    pub(crate) took: Duration,
}

impl Served {
    /// Starts a site that keeps everything in `data`, and waits until it is ready; `warehouse` is its warehouse's port, any
    /// that is free without one.
    pub(crate) fn start(data: &Path, warehouse: Option<u16>) -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["up", "--json", "--listen", "127.0.0.1:0", "--data"]).arg(data);
        if let Some(port) = warehouse {
            command.args(["--warehouse-listen", &format!("127.0.0.1:{port}")]);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("it has a standard output")?;
        let read = BufReader::new(stdout).read_line(&mut line);
        let ready: Value = match read.map(|_| serde_json::from_str(&line)) {
            Ok(Ok(ready)) => ready,
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                anyhow::bail!("the site does not start; it has said why above ({line:?})");
            }
        };
        let text = |field: &str| ready[field].as_str().map(str::to_owned);
        Ok(Self {
            http: text("http").context("it says where it is")?,
            mqtt: text("mqtt").context("it says where its broker is")?,
            password: text("password"),
            took: began.elapsed(),
            child,
        })
    }

    /// Memory of its process, MiB.
    pub(crate) fn resident_mib(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse().context("VmRSS is a number")?;
        Ok(kib / 1024.0)
    }

    /// Has it end in good order.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Ended already where it was stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
