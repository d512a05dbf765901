//! A PC in QEMU: boots from a USB stick, reaches this machine's loopback at 10.0.2.2,
//! and gets cards plugged in while it runs.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::qemu::Qemu;

/// What the PC starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firmware {
    Bios,
    /// Debian's package ovmf.
    Uefi,
}

pub(crate) const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

pub(crate) struct Machine(Qemu);

impl Machine {
    /// Switches it on; `more` plugs in what else it has.
    pub(crate) fn start(
        stick: &Path,
        firmware: Firmware,
        folder: &Path,
        more: impl FnOnce(&mut Command),
    ) -> Self {
        let disk =
            json!({"driver": "raw", "node-name": "stick", "file": {"driver": "file", "filename": stick}});
        let qemu = Qemu::start(&folder.join(format!("control-{firmware:?}")), |command| {
            command.args(["-device", "qemu-xhci,id=usb,p2=8,p3=8"]);
            command.args(["-netdev", "user,id=net", "-device", "e1000,netdev=net", "-device", "i6300esb"]);
            command.arg("-blockdev").arg(disk.to_string());
            command.args(["-device", "usb-storage,bus=usb.0,port=1,drive=stick,removable=on,bootindex=1"]);
            more(command);
            if firmware == Firmware::Uefi {
                command.args(["-bios", OVMF]);
            }
        });
        Self(qemu.unwrap())
    }

    /// The next line on the serial console with this text in it.
    pub(crate) fn hears(&mut self, text: &str) -> String {
        loop {
            let line = self.0.line(text);
            assert!(!line.contains("Kernel panic"), "{}", self.0.report());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The next line with one of these texts in it.
    pub(crate) fn hears_one_of(&mut self, texts: &[&str]) -> String {
        loop {
            let line = self.0.line(texts[0]);
            if texts.iter().any(|text| line.contains(text)) {
                return line;
            }
        }
    }

    /// Waits until the machine restarts, which ends this one.
    pub(crate) fn hears_its_end(mut self) -> String {
        self.0.end()
    }

    /// Plugs a reader with a card into a port; `write_bps` slows it down.
    pub(crate) fn insert(&mut self, port: u32, card: &Path, write_bps: Option<u64>) {
        let mut node = json!({"driver": "raw", "file": {"driver": "file", "filename": card}});
        if let Some(write_bps) = write_bps {
            let slow = format!("slow{port}");
            let limits = json!({"bps-write": write_bps});
            self.0
                .command("object-add", &json!({"qom-type": "throttle-group", "id": slow, "limits": limits}));
            node = json!({"driver": "throttle", "throttle-group": slow, "file": node});
        }
        node["node-name"] = format!("card{port}").into();
        self.0.command("blockdev-add", &node);
        let reader = json!({"driver": "usb-storage", "id": format!("reader{port}"), "bus": "usb.0",
            "port": port.to_string(), "drive": format!("card{port}"), "removable": true});
        self.0.command("device_add", &reader);
    }

    /// Pulls the reader of a port out, with its card in it.
    pub(crate) fn pull_out(&mut self, port: u32) {
        self.0.command("device_del", &json!({"id": format!("reader{port}")}));
    }

    /// Presses keys, one after the other, by QEMU's names.
    pub(crate) fn types(&mut self, keys: &[&str]) {
        for key in keys {
            let key = json!({"keys": [{"type": "qcode", "data": key}]});
            self.0.command("send-key", &key);
        }
    }

    /// Pulls the plug.
    pub(crate) fn cut_power(self) {
        drop(self);
    }
}
