//! A machine with readers: QEMU without KVM, which runs everywhere. Starts it, hears what the guest says, and
//! pulls cards out as told.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::image::MIB;
use crate::initramfs;
use crate::nbd::{self, Lie};

/// Bytes each card says it has.
pub(crate) const CARD_SIZE: u64 = 16 * MIB;
/// How long the guest may say nothing: it boots in half a minute on a machine that has time.
const PATIENCE: Duration = Duration::from_secs(300);
/// What a slow card moves, bytes a second: there is time to pull it out.
const SLOW: u64 = 256 * 1024;

/// What is behind a reader.
#[derive(Clone, Copy)]
pub(crate) enum Card {
    Good,
    /// Writes to this byte's sector give EIO.
    FailsToWrite(u64),
    /// Reads of this byte's sector give EIO.
    FailsToRead(u64),
    Locked,
    /// Takes everything and keeps nothing.
    Forgets,
    Lies(Lie),
    /// Slow, and pulled out when this phase begins.
    Pulled(&'static str),
    /// Slow, and the card, not the reader, is taken out when this phase begins.
    Ejected(&'static str),
}

/// How the card is connected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    UsbStorage,
    /// USB attached SCSI.
    Uas,
    /// An mmc host.
    Sd,
}

pub(crate) struct Slot {
    pub(crate) name: &'static str,
    pub(crate) reader: Reader,
    pub(crate) card: Card,
    pub(crate) probe: bool,
}

/// What became of a card.
pub(crate) struct Ending {
    pub(crate) verified: bool,
    /// The fault's code, offset and text, as the agent would report them.
    pub(crate) code: String,
    pub(crate) offset: Option<u64>,
    pub(crate) text: String,
    /// What a reader of the card would get now; nothing where the card keeps nothing that could be looked at.
    pub(crate) bytes: Vec<u8>,
}

/// Boots a machine with these slots and waits until every card came to its end.
///
/// # Errors
/// What is missing here.
pub(crate) fn run(slots: &[Slot]) -> Result<BTreeMap<&'static str, Ending>, String> {
    let kernel = kernel()?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let plan: Vec<Value> = (1..)
        .zip(slots)
        .map(|(port, slot)| {
            json!({"name": slot.name, "place": place(slot, port), "probe": slot.probe,
            "never_reset": matches!(slot.card, Card::Lies(Lie::Hangs(_)))})
        })
        .collect();
    let initramfs = folder.path().join("initramfs");
    fs::write(&initramfs, initramfs::build(&kernel, &Value::from(plan).to_string())?)
        .map_err(|e| e.to_string())?;
    let mut machine = Machine::start(&kernel, folder.path(), &initramfs, slots)?;
    let mut endings = BTreeMap::new();
    while endings.len() < slots.len() {
        let told = machine.next();
        let Some((number, slot)) = slots.iter().enumerate().find(|(_, slot)| told["card"] == slot.name)
        else {
            panic!("the guest said {told}");
        };
        match (&told["phase"], slot.card) {
            (Value::String(phase), Card::Pulled(at)) if phase == at => {
                machine.command("device_del", &json!({"id": format!("reader{number}")}));
            }
            (Value::String(phase), Card::Ejected(at)) if phase == at => {
                machine.command("eject", &json!({"id": format!("reader{number}"), "force": true}));
            }
            (Value::String(_), _) => {}
            _ => drop(endings.insert(slot.name, ending(&told, &card_file(folder.path(), number)))),
        }
    }
    Ok(endings)
}

fn kernel() -> Result<PathBuf, String> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let folder = cache.or_else(home).ok_or("no HOME")?.join("cardshop/guest-kernel");
    if !folder.join("vmlinuz").exists() {
        return Err("no kernel for a guest (tools/guest-kernel fetches it)".to_owned());
    }
    Ok(folder)
}

/// The end of a part of the device's path below `/sys` that tells the slot.
fn place(slot: &Slot, port: usize) -> String {
    if slot.reader == Reader::Sd { "mmcblk0".to_owned() } else { format!("-{port}") }
}

fn card_file(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("card{number}"))
}

fn ending(told: &Value, file: &Path) -> Ending {
    let fault = &told["fault"];
    let text = |key: &str| fault[key].as_str().unwrap_or_default().to_owned();
    Ending {
        verified: told["verified"] == true,
        code: text("code"),
        offset: fault["offset"].as_u64(),
        text: text("text"),
        bytes: fs::read(file).unwrap_or_default(),
    }
}

struct Machine {
    qemu: Child,
    lines: Receiver<String>,
    /// What was heard so far, for the report when the guest goes silent.
    heard: Vec<String>,
    control: BufReader<UnixStream>,
}

impl Machine {
    fn start(kernel: &Path, folder: &Path, initramfs: &Path, slots: &[Slot]) -> Result<Self, String> {
        let control = folder.join("control");
        let mut command = Command::new("qemu-system-x86_64");
        command.args([
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-m",
            "512",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
        ]);
        command.arg("-kernel").arg(kernel.join("vmlinuz")).arg("-initrd").arg(initramfs);
        command.args([
            "-append",
            "console=ttyS0 loglevel=1 panic=-1 -- inside_the_guest --exact --ignored --nocapture",
        ]);
        command.args(["-serial", "stdio", "-device", "qemu-xhci,p2=15,p3=15"]);
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", control.display()));
        for (number, slot) in slots.iter().enumerate() {
            command.args(arguments(folder, number, slot));
        }
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut qemu = spawned.map_err(|e| format!("no qemu-system-x86_64: {e}"))?;
        let (sender, lines) = channel();
        let (out, error) = (qemu.stdout.take().unwrap(), qemu.stderr.take().unwrap());
        let said_by_qemu = sender.clone();
        std::thread::spawn(move || {
            BufReader::new(error).lines().map_while(Result::ok).all(|l| said_by_qemu.send(l).is_ok())
        });
        std::thread::spawn(move || {
            // Firmware and kernel write what is no UTF-8.
            BufReader::new(out)
                .split(b'\n')
                .map_while(Result::ok)
                .all(|line| sender.send(String::from_utf8_lossy(&line).into_owned()).is_ok())
        });
        let mut heard = Vec::new();
        let stream = connect(&control, &mut qemu, &lines, &mut heard);
        let mut machine = Self { qemu, lines, heard, control: BufReader::new(stream) };
        machine.answer(); // the greeting
        machine.command("qmp_capabilities", &json!({}));
        Ok(machine)
    }

    /// The next object the guest says.
    fn next(&mut self) -> Value {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("the guest says nothing any more; it said:\n{}", self.heard.join("\n"));
            };
            // The test harness in the guest begins a line and does not end it.
            let object = line.find('{').and_then(|at| serde_json::from_str::<Value>(line[at..].trim()).ok());
            self.heard.push(line);
            if let Some(object) = object.filter(|object| object.get("card").is_some()) {
                return object;
            }
        }
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.control.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("QEMU said {line:?}"))
    }

    /// Tells QEMU to do something; events that come in between are not ours.
    fn command(&mut self, name: &str, arguments: &Value) {
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
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
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

/// One slot as QEMU's arguments: a file, what makes it bad, and the reader.
fn arguments(folder: &Path, number: usize, slot: &Slot) -> Vec<String> {
    let (path, node) = (card_file(folder, number), format!("card{number}"));
    let id = format!("reader{number}");
    let mut arguments = Vec::new();
    let mut add = |option: &str, value: Value| arguments.extend([option.to_owned(), value.to_string()]);
    let old_bytes = || File::create(&path).unwrap().write_all(&vec![0x5a; CARD_SIZE as usize]).unwrap();
    let file = json!({"driver": "file", "filename": path});
    let failing = |kind: &str, at: u64| {
        json!({"driver": "blkdebug", "node-name": node, "image": {"driver": "raw", "file": file},
            "inject-error": [{"event": "none", "iotype": kind, "errno": 5, "sector": at / 512, "once": false}]})
    };
    let read_only = matches!(slot.card, Card::Locked);
    let disk = match slot.card {
        Card::Lies(lie) => {
            let socket = folder.join(format!("nbd{number}"));
            nbd::serve(&socket, CARD_SIZE, lie);
            json!({"driver": "nbd", "node-name": node, "server": {"type": "unix", "path": socket}})
        }
        Card::Forgets => {
            json!({"driver": "null-co", "node-name": node, "size": CARD_SIZE, "read-zeroes": true})
        }
        Card::FailsToWrite(at) => failing("write", at),
        Card::FailsToRead(at) => failing("read", at),
        Card::Pulled(phase) | Card::Ejected(phase) => {
            let limit = if phase == "verifying" { "bps-read" } else { "bps-write" };
            add(
                "-object",
                json!({"qom-type": "throttle-group", "id": format!("slow{number}"), "limits": {limit: SLOW}}),
            );
            json!({"driver": "throttle", "node-name": node, "throttle-group": format!("slow{number}"),
                "file": {"driver": "raw", "file": file}})
        }
        Card::Good | Card::Locked => {
            json!({"driver": "raw", "node-name": node, "read-only": read_only, "file": file})
        }
    };
    if !matches!(slot.card, Card::Lies(_) | Card::Forgets) {
        old_bytes();
    }
    add("-blockdev", disk);
    let port = (number + 1).to_string();
    match slot.reader {
        Reader::UsbStorage => add(
            "-device",
            json!({"driver": "usb-storage", "id": id, "drive": node, "port": port, "removable": true,
                "werror": "report", "rerror": "report"}),
        ),
        Reader::Uas => {
            add("-device", json!({"driver": "usb-uas", "id": format!("uas{number}"), "port": port}));
            add(
                "-device",
                json!({"driver": "scsi-hd", "id": id, "drive": node, "bus": format!("uas{number}.0"),
                    "removable": true, "werror": "report", "rerror": "report"}),
            );
        }
        Reader::Sd => {
            add("-device", json!({"driver": "sdhci-pci", "id": format!("host{number}")}));
            add("-device", json!({"driver": "sd-card", "id": id, "drive": node}));
        }
    }
    arguments
}
