//! The first program of the guest: sees each reader's card come, and writes it as the agent does. What it says
//! goes over the serial line, one JSON object a line.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cardshop_card::{CardError, Job, Policy, StopFlag, claim, gather, probe, write_card};
use cardshop_protocol::message::{Verify, Wipe};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::image::Image;

/// How long a card may take to show itself; an emulated machine takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Does everything; the host ends the machine when it has heard of every card.
pub(crate) fn run() -> ! {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        let none: Option<&str> = None;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), none).unwrap();
    }
    for module in fs::read_to_string("/modules").unwrap().lines() {
        let bytes = fs::read(Path::new("/").join(module)).unwrap();
        if let Err(errno) = nix::kmod::init_module(&bytes, &CString::default()) {
            say(&json!({"module": module, "errno": errno.to_string()}));
        }
    }
    let plan: Value = serde_json::from_str(&fs::read_to_string("/plan").unwrap()).unwrap();
    let image = Image::new();
    std::thread::scope(|scope| {
        for card in plan.as_array().unwrap() {
            scope.spawn(|| {
                let result = one_card(card, &image);
                let fault = result.as_ref().err().map(CardError::fault);
                say(&json!({"card": card["name"], "verified": result.is_ok_and(|verified| verified), "fault": fault}));
            });
        }
    });
    loop {
        std::thread::park();
    }
}

/// Probes when the plan says so, then writes and reads back.
fn one_card(card: &Value, image: &Image) -> Result<bool, CardError> {
    let device = wait_for(card["place"].as_str().unwrap());
    if card["never_reset"] == true {
        // The kernel would reset the card after 30 s, and QEMU stands still until the request is answered.
        let name = device.file_name().unwrap();
        fs::write(Path::new("/sys/block").join(name).join("device/timeout"), "3600").unwrap();
    }
    let mut claimed = claim(&device, &Policy::readers(vec!["devices".into()]))?;
    let stop = StopFlag::new();
    if card["probe"] == true {
        probe(&mut claimed, &stop)?;
    }
    let job =
        Job { index: &image.index, source: image, wipe: Wipe::None, verify: Verify::Full, passport: None };
    let mut phase = None;
    let outcome = write_card(&mut claimed, &job, &stop, &mut |progress| {
        if phase.replace(progress.phase) != Some(progress.phase) {
            say(&json!({"card": card["name"], "phase": progress.phase}));
        }
    })?;
    Ok(outcome.is_verified())
}

/// The device below a place of the machine, once it is there and has a card in it.
fn wait_for(place: &str) -> PathBuf {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        for entry in fs::read_dir("/sys/block").unwrap().flatten() {
            let folder = fs::canonicalize(entry.path()).unwrap_or_default();
            let device = Path::new("/dev").join(entry.file_name());
            let is_there = folder.iter().any(|part| part.to_string_lossy().ends_with(place));
            if is_there && gather(&device).is_ok_and(|facts| facts.size() > 0) {
                return device;
            }
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    panic!("no card came at {place}");
}

fn say(value: &Value) {
    println!("{value}");
}
