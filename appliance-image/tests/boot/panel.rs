//! A LED panel on the PC's USB: QEMU's serial converter, a socket of this machine, and the simulated panel behind it.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use cardshop_agent::core::panel::Lines;
use cardshop_agent::core::panel_device::PanelDevice;

pub(crate) const DARK: [u8; 3] = [0; 3];
/// A finished card.
pub(crate) const TEAL: [u8; 3] = [0, 255, 110];
/// A finished card that was put in again.
pub(crate) const BLUE: [u8; 3] = [0, 0, 255];

pub(crate) struct Panel {
    socket: PathBuf,
    device: Arc<Mutex<PanelDevice>>,
}

impl Panel {
    /// A panel with eight lights, waiting for QEMU.
    pub(crate) fn new(folder: &Path) -> Self {
        let socket = folder.join("panel");
        let device = Arc::new(Mutex::new(PanelDevice::new(8, "simulated")));
        let (listener, inner) = (UnixListener::bind(&socket).unwrap(), Arc::clone(&device));
        std::thread::spawn(move || {
            let (mut wire, _) = listener.accept().unwrap();
            let (mut lines, mut bytes) = (Lines::default(), [0; 512]);
            // Until QEMU goes away.
            while let Ok(count @ 1..) = wire.read(&mut bytes) {
                let mut answers = Vec::new();
                lines.take(&bytes[..count], |line| {
                    answers.extend(inner.lock().unwrap().hear(Instant::now(), line));
                });
                if wire.write_all(answers.concat().as_bytes()).is_err() {
                    return;
                }
            }
        });
        Self { socket, device }
    }

    /// Plugs it into the PC.
    pub(crate) fn plug_in(&self, command: &mut Command) {
        command.arg("-chardev").arg(format!("socket,id=panel,path={}", self.socket.display()));
        command.args(["-device", "usb-serial,bus=usb.0,port=5,chardev=panel"]);
    }

    /// The light of slot `n`.
    pub(crate) fn light(&self, n: usize) -> [u8; 3] {
        self.device.lock().unwrap().lights(Instant::now())[n - 1]
    }
}
