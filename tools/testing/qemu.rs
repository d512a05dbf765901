//! A machine in QEMU, without KVM, which runs everywhere: what it says on its serial console, and the socket by which
//! things are plugged in and pulled out while it runs. Included by the tests that boot something.
#![allow(dead_code)] // not every test uses all of it
#![allow(clippy::print_stderr)] // a test that fails says what the machine said

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};

/// How long the machine may say nothing: emulated, on a machine with other work, a kernel takes a minute to load.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) struct Qemu {
    process: Child,
    lines: Receiver<String>,
    /// What was heard so far, for the report when the machine goes silent.
    heard: Vec<String>,
    control: BufReader<UnixStream>,
}

impl Qemu {
    /// Switches a machine on that has what `devices` adds; `socket` is a path that is free.
    ///
    /// # Errors
    /// QEMU is not installed.
    pub(crate) fn start(socket: &Path, devices: impl FnOnce(&mut Command)) -> Result<Self, String> {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", "tcg", "-cpu", "max", "-m", "512", "-nodefaults", "-display", "none"]);
        command.args(["-no-reboot", "-serial", "stdio"]);
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
        devices(&mut command);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut process = spawned.map_err(|e| format!("no qemu-system-x86_64: {e}"))?;
        let (sender, lines) = channel();
        let (out, error) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
        let said_by_qemu = sender.clone();
        std::thread::spawn(move || {
            BufReader::new(error).lines().map_while(Result::ok).all(|line| said_by_qemu.send(line).is_ok())
        });
        std::thread::spawn(move || {
            // Firmware and kernel write what is no UTF-8.
            BufReader::new(out)
                .split(b'\n')
                .map_while(Result::ok)
                .all(|line| sender.send(String::from_utf8_lossy(&line).trim().to_owned()).is_ok())
        });
        let mut heard = Vec::new();
        let stream = connect(socket, &mut process, &lines, &mut heard);
        let mut machine = Self { process, lines, heard, control: BufReader::new(stream) };
        machine.answer(); // the greeting
        machine.command("qmp_capabilities", &json!({}));
        Ok(machine)
    }

    /// The next line on the serial console. `wanted` is what the caller waits for.
    pub(crate) fn line(&mut self, wanted: &str) -> String {
        let line = match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("no {wanted}; the machine said:\n{}", self.report()),
            Err(RecvTimeoutError::Disconnected) => panic!("it ended and said:\n{}", self.report()),
        };
        self.heard.push(line.clone());
        line
    }

    /// Waits until QEMU ends by itself, as it does when the machine restarts; gives all that was heard.
    pub(crate) fn end(&mut self) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.heard.push(line),
                Err(RecvTimeoutError::Disconnected) => return self.report(),
                Err(RecvTimeoutError::Timeout) => panic!("it does not restart; it said:\n{}", self.report()),
            }
        }
    }

    /// All that was heard so far.
    pub(crate) fn report(&self) -> String {
        self.heard.join("\n")
    }

    /// Tells QEMU to do something; events that come in between are not ours.
    pub(crate) fn command(&mut self, name: &str, arguments: &Value) {
        let command = json!({"execute": name, "arguments": arguments});
        writeln!(self.control.get_mut(), "{command}").unwrap();
        loop {
            let answer = self.answer();
            assert!(answer.get("error").is_none(), "{command}: {answer}");
            if answer.get("return").is_some() {
                return;
            }
        }
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.control.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("QEMU said {line:?}"))
    }
}

impl Drop for Qemu {
    /// Pulls the plug.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            self.heard.extend(self.lines.try_iter());
            eprintln!("the machine said:\n{}", self.report());
        }
    }
}

/// QEMU opens its control socket some moments after it was started.
fn connect(path: &Path, qemu: &mut Child, lines: &Receiver<String>, heard: &mut Vec<String>) -> UnixStream {
    loop {
        if let Ok(stream) = UnixStream::connect(path) {
            return stream;
        }
        heard.extend(lines.recv_timeout(Duration::from_millis(50)));
        if qemu.try_wait().unwrap().is_some() {
            heard.extend(lines.iter());
            panic!("QEMU ended: {}", heard.join("\n"));
        }
    }
}
