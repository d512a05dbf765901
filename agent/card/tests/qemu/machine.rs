//! A machine with readers. Starts it, hears what the guest says, and pulls cards out as told.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::image::MIB;
use crate::initramfs;
use crate::nbd::{self, Lie};
use crate::qemu::Qemu;

/// Bytes each card says it has.
pub(crate) const CARD_SIZE: u64 = 16 * MIB;
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
    let mut machine = start(&kernel, folder.path(), &initramfs, slots)?;
    let mut endings = BTreeMap::new();
    while endings.len() < slots.len() {
        let told = next(&mut machine);
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

fn start(kernel: &Path, folder: &Path, initramfs: &Path, slots: &[Slot]) -> Result<Qemu, String> {
    Qemu::start(&folder.join("control"), |command| {
        command.arg("-kernel").arg(kernel.join("vmlinuz")).arg("-initrd").arg(initramfs);
        command.args([
            "-append",
            "console=ttyS0 loglevel=1 panic=-1 -- inside_the_guest --exact --ignored --nocapture",
        ]);
        command.args(["-device", "qemu-xhci,p2=15,p3=15"]);
        for (number, slot) in slots.iter().enumerate() {
            command.args(arguments(folder, number, slot));
        }
    })
}

/// The next object the guest says.
fn next(machine: &mut Qemu) -> Value {
    loop {
        let line = machine.line("card");
        // The test harness in the guest begins a line and does not end it.
        let object = line.find('{').and_then(|at| serde_json::from_str::<Value>(line[at..].trim()).ok());
        if let Some(object) = object.filter(|object| object.get("card").is_some()) {
            return object;
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
