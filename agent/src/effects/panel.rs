//! A LED panel on a serial port: opens the port, carries lines to and from `core::panel_host`, and begins anew when the
//! panel is pulled out or falls silent. Its buttons are told as events.

use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cardshop_protocol::ids::SlotId;

use super::lights::Lights;
use crate::core::Event;
use crate::core::panel::Lines;
use crate::core::panel_host::PanelHost;

/// Bits a second; a panel that is a USB device itself has no such limit.
const RATE: u32 = 115_200;
/// Longest wait for a panel's word: how late a light may be.
const HEAR_FOR: Duration = Duration::from_millis(20);
/// Pause before ports are tried again.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// Starts the thread; the first of `ports` that opens and answers is used.
///
/// # Errors
/// What the system says when it has no thread to give.
pub(crate) fn start(
    ports: Vec<PathBuf>,
    lights: Lights,
    events: SyncSender<Event>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("panel".into()).spawn(move || {
        let mut next = 0;
        while lights.wait(&lights.frame(), Duration::ZERO) {
            let port = &ports[next % ports.len()];
            next += 1;
            let opened = serialport::new(port.to_string_lossy(), RATE).timeout(HEAR_FOR).open_native();
            match opened {
                Ok(mut line) => {
                    let ended = serve(&mut line, &lights, &events);
                    tracing::debug!(port = %port.display(), ended, "no panel here any more");
                }
                Err(error) => tracing::trace!(port = %port.display(), %error, "no panel here"),
            }
            if next % ports.len() == 0 && !pause(&lights) {
                return;
            }
        }
    })
}

/// Lets a moment pass; false when it is over.
fn pause(lights: &Lights) -> bool {
    let until = Instant::now() + TRY_EVERY;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if !lights.wait(&lights.frame(), left) {
            return false;
        }
        if left.is_zero() {
            return true;
        }
    }
}

/// Talks with a panel until that makes no sense any more; gives the reason.
fn serve(line: &mut (impl Read + Write), lights: &Lights, events: &SyncSender<Event>) -> &'static str {
    let (mut host, mut lines, mut buffer) = (PanelHost::new(Instant::now()), Lines::default(), [0; 512]);
    loop {
        let frame = lights.frame();
        let light = |led: u8| frame.lights.get(&SlotId::numbered(led.into())).map_or([0; 3], |l| l.rgb());
        for text in host.due(Instant::now(), light) {
            if line.write_all(text.as_bytes()).is_err() {
                return "it was pulled out";
            }
        }
        let count = match line.read(&mut buffer) {
            // A port without anybody at its other end.
            Ok(0) => return "it was closed",
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Interrupted) => 0,
            Err(_) => return "it was pulled out",
        };
        let mut pressed = Vec::new();
        lines.take(&buffer[..count], |text| pressed.extend(host.hear(Instant::now(), text)));
        for led in pressed {
            // Fails only when the agent has ended.
            let _ = events.send(Event::Pressed(SlotId::numbered(led.into())));
        }
        if host.is_gone(Instant::now()) {
            return "it says nothing";
        }
        if !lights.wait(&frame, Duration::ZERO) {
            return "the agent ends";
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::panel_device::PanelDevice;
    use cardshop_protocol::led::{Led, LedColour, LedPattern};
    use serialport::{SerialPort, TTYPort};
    use std::sync::mpsc::{Receiver, sync_channel};

    const PATIENCE: Duration = Duration::from_secs(30);
    const TEAL: [u8; 3] = [0, 255, 110];

    /// A simulated panel behind a pseudo terminal, reached by a name that stays the same.
    struct Panel {
        wire: TTYPort,
        device: PanelDevice,
        lines: Lines,
    }

    impl Panel {
        fn plug_in(name: &std::path::Path) -> Self {
            let (mut wire, port) = TTYPort::pair().unwrap();
            wire.set_timeout(Duration::from_millis(50)).unwrap();
            let _ = std::fs::remove_file(name);
            std::os::unix::fs::symlink(port.name().unwrap(), name).unwrap();
            Self { wire, device: PanelDevice::new(4, "pty"), lines: Lines::default() }
        }

        /// Answers until its lights are like this.
        fn until(&mut self, lights: &[[u8; 3]]) {
            let until = Instant::now() + PATIENCE;
            while self.device.lights(Instant::now()) != lights {
                assert!(Instant::now() < until, "{:?}", self.device.lights(Instant::now()));
                self.answer();
            }
        }

        fn answer(&mut self) {
            let mut buffer = [0; 512];
            // Nobody has opened the other end yet, or it says nothing.
            let count = self.wire.read(&mut buffer).unwrap_or(0);
            let Self { device, lines, wire } = self;
            lines.take(&buffer[..count], |line| {
                if let Some(answer) = device.hear(Instant::now(), line) {
                    wire.write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    }

    fn pressed(events: &Receiver<Event>) -> SlotId {
        match events.recv_timeout(PATIENCE).expect("a button was pressed") {
            Event::Pressed(slot) => slot,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_panel_shows_the_slots_is_unplugged_and_plugged_in_again_and_its_buttons_are_heard() {
        let folder = tempfile::tempdir().unwrap();
        let (name, lights) = (folder.path().join("panel"), Lights::default());
        let (events, happened) = sync_channel(16);
        let thread = start(vec![name.clone()], lights.clone(), events).unwrap();
        lights.set(&SlotId::numbered(2), Led { pattern: LedPattern::On, colour: LedColour::Teal });
        let mut panel = Panel::plug_in(&name);
        panel.until(&[[0; 3], TEAL, [0; 3], [0; 3]]);
        lights.set(&SlotId::numbered(4), Led { pattern: LedPattern::On, colour: LedColour::Red });
        panel.until(&[[0; 3], TEAL, [0; 3], [255, 0, 0]]);
        panel.wire.write_all(crate::core::panel::FromPanel::Button(4).line().as_bytes()).unwrap();
        assert_eq!(pressed(&happened), SlotId::numbered(4));
        drop(panel);

        let mut panel = Panel::plug_in(&name);
        panel.until(&[[0; 3], TEAL, [0; 3], [255, 0, 0]]);
        lights.end();
        panel.until(&[[0; 3]; 4]);
        thread.join().unwrap();
    }
}
