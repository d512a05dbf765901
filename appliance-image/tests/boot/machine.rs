//! A PC in QEMU, without KVM, which runs everywhere: boots from a USB stick, reaches this machine's loopback at 10.0.2.2,
//! and gets cards plugged in while it runs.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};

/// How long the machine may say nothing: emulated, on a machine with other work, a kernel takes a minute to load.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the PC starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firmware {
    Bios,
    /// Debian's package ovmf.
    Uefi,
}

pub(crate) const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

pub(crate) struct Machine {
    qemu: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
    control: BufReader<UnixStream>,
}

impl Machine {
    /// Switches it on.
    pub(crate) fn start(stick: &Path, firmware: Firmware, folder: &Path) -> Self {
        let socket = folder.join(format!("control-{firmware:?}"));
        let disk =
            json!({"driver": "raw", "node-name": "stick", "file": {"driver": "file", "filename": stick}});
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", "tcg", "-cpu", "max", "-m", "512", "-nodefaults", "-display", "none"]);
        command.args(["-no-reboot", "-serial", "stdio", "-device", "qemu-xhci,id=usb,p2=8,p3=8"]);
        command.args(["-netdev", "user,id=net", "-device", "e1000,netdev=net", "-device", "i6300esb"]);
        command.arg("-blockdev").arg(disk.to_string());
        command.args(["-device", "usb-storage,bus=usb.0,port=1,drive=stick,removable=on,bootindex=1"]);
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
        if firmware == Firmware::Uefi {
            command.args(["-bios", OVMF]);
        }
        let mut qemu =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let (out, error) = (qemu.stdout.take().unwrap(), qemu.stderr.take().unwrap());
        let said_by_qemu = sender.clone();
        std::thread::spawn(move || {
            BufReader::new(error).lines().map_while(Result::ok).all(|line| said_by_qemu.send(line).is_ok())
        });
        std::thread::spawn(move || {
            // Firmware writes what is no UTF-8.
            BufReader::new(out)
                .split(b'\n')
                .map_while(Result::ok)
                .all(|line| sender.send(String::from_utf8_lossy(&line).trim().to_owned()).is_ok())
        });
        let mut heard = Vec::new();
        let stream = connect(&socket, &mut qemu, &lines, &mut heard);
        let mut machine = Self { qemu, lines, heard, control: BufReader::new(stream) };
        machine.answer(); // the greeting
        machine.command("qmp_capabilities", &json!({}));
        machine
    }

    /// The next line on the serial console with this text in it.
    pub(crate) fn hears(&mut self, text: &str) -> String {
        loop {
            let line = match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no {text:?}; the machine said:\n{}", self.heard.join("\n"))
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("it ended and said:\n{}", self.heard.join("\n"))
                }
            };
            self.heard.push(line.clone());
            assert!(!line.contains("Kernel panic"), "{}", self.heard.join("\n"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Plugs a reader with a card into a port; `write_bps` slows it down.
    pub(crate) fn insert(&mut self, port: u32, card: &Path, write_bps: Option<u64>) {
        let mut node = json!({"driver": "raw", "file": {"driver": "file", "filename": card}});
        if let Some(write_bps) = write_bps {
            let slow = format!("slow{port}");
            let limits = json!({"bps-write": write_bps});
            self.command("object-add", &json!({"qom-type": "throttle-group", "id": slow, "limits": limits}));
            node = json!({"driver": "throttle", "throttle-group": slow, "file": node});
        }
        node["node-name"] = format!("card{port}").into();
        self.command("blockdev-add", &node);
        let reader = json!({"driver": "usb-storage", "id": format!("reader{port}"), "bus": "usb.0",
            "port": port.to_string(), "drive": format!("card{port}"), "removable": true});
        self.command("device_add", &reader);
    }

    /// Pulls the plug.
    pub(crate) fn cut_power(mut self) -> Vec<String> {
        self.qemu.kill().unwrap();
        self.qemu.wait().unwrap();
        std::mem::take(&mut self.heard)
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.control.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("QEMU said {line:?}"))
    }

    fn command(&mut self, command: &str, arguments: &Value) {
        let text = json!({"execute": command, "arguments": arguments}).to_string();
        self.control.get_mut().write_all(text.as_bytes()).unwrap();
        loop {
            let answer = self.answer();
            assert!(answer.get("error").is_none(), "{command}: {answer}");
            if answer.get("return").is_some() {
                return;
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        if std::thread::panicking() {
            self.heard.extend(self.lines.try_iter());
            eprintln!("the machine said:\n{}", self.heard.join("\n"));
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
