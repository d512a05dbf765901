//! Lights of the kernel: `/sys/class/leds/cardshop:{slot}:{colour}`, one or several plain ones for each slot, or one of
//! the multi-colour class. They may come and go. What does not change is not written again.
//!
//! **Source:** Linux `Documentation/leds/leds-class.rst`, `leds-class-multicolor.rst`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cardshop_protocol::ids::SlotId;
use cardshop_protocol::led::LedColour;

use super::lights::Lights;
use crate::config::{MAX_SLOTS, read_bounded};
use crate::core::light::Light;

/// How often the folder is looked at for LEDs that have come.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// LEDs taken: a red, a green and a blue one for each slot, and one more.
const MAX_LEDS: usize = 4 * MAX_SLOTS;

/// Starts the thread that shows frames on the LEDs below `class`; they are dark when it ends.
///
/// # Errors
/// What the system says when it has no thread to give.
pub(crate) fn start(class: PathBuf, lights: Lights) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("leds".into()).spawn(move || {
        let mut leds = KernelLeds::new(class);
        loop {
            let frame = lights.frame();
            leds.show(&frame.lights, Instant::now());
            let limit = if leds.lamps.is_empty() { LOOK_EVERY } else { frame.left };
            if !lights.wait(&frame, limit) {
                break;
            }
        }
        leds.show(&BTreeMap::new(), Instant::now());
    })
}

/// What a LED can do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// One colour, by the kernel's name for it.
    Plain(String),
    /// Parts of red (0), green (1) and blue (2), in the order the kernel wants them.
    Multi(Vec<Option<usize>>),
}

#[derive(Debug)]
struct Lamp {
    slot: SlotId,
    kind: Kind,
    max: u32,
    /// What was written last, by file.
    written: BTreeMap<&'static str, String>,
}

/// The LEDs of all slots.
#[derive(Debug)]
struct KernelLeds {
    class: PathBuf,
    lamps: BTreeMap<PathBuf, Lamp>,
    looked: Option<Instant>,
}

impl KernelLeds {
    fn new(class: PathBuf) -> Self {
        Self { class, lamps: BTreeMap::new(), looked: None }
    }

    /// Shows these lights; slots that are not among them are dark.
    fn show(&mut self, lights: &BTreeMap<SlotId, Light>, now: Instant) {
        if self.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK_EVERY) {
            self.looked = Some(now);
            self.look();
        }
        let plain = self.plain_colours();
        let mut lost = Vec::new();
        for (folder, lamp) in &mut self.lamps {
            let light = lights.get(&lamp.slot).copied().unwrap_or(Light::DARK);
            let chosen = plain.get(&lamp.slot).map(|colours| choose(colours, light.colour));
            if let Err(error) = lamp.show(folder, light, chosen) {
                tracing::debug!(led = %folder.display(), %error, "a LED is gone");
                lost.push(folder.clone());
            }
        }
        lost.iter().for_each(|folder| drop(self.lamps.remove(folder)));
    }

    fn look(&mut self) {
        let entries = fs::read_dir(&self.class).into_iter().flatten().flatten();
        for entry in entries.take(MAX_LEDS) {
            let path = entry.path();
            if self.lamps.contains_key(&path) {
                continue;
            }
            if let Some(lamp) = Lamp::open(&path) {
                tracing::info!(led = %path.display(), slot = %lamp.slot, "a LED");
                self.lamps.insert(path, lamp);
            }
        }
    }

    /// The colours of each slot's plain LEDs.
    fn plain_colours(&self) -> BTreeMap<SlotId, Vec<String>> {
        let mut colours: BTreeMap<SlotId, Vec<String>> = BTreeMap::new();
        for lamp in self.lamps.values() {
            if let Kind::Plain(colour) = &lamp.kind {
                colours.entry(lamp.slot.clone()).or_default().push(colour.clone());
            }
        }
        colours
    }
}

impl Lamp {
    /// The LED in a folder, if it is one of ours.
    fn open(folder: &Path) -> Option<Self> {
        let name = folder.file_name()?.to_str()?;
        let (slot, colour) = name.strip_prefix("cardshop:")?.split_once(':')?;
        let slot = slot.parse().ok()?;
        let max =
            read_bounded(&folder.join("max_brightness")).ok()?.trim().parse().ok().filter(|max| *max > 0)?;
        let kind = match read_bounded(&folder.join("multi_index")) {
            Ok(index) => {
                let part = |word: &str| ["red", "green", "blue"].iter().position(|name| *name == word);
                Kind::Multi(index.split_whitespace().map(part).collect())
            }
            Err(_) => Kind::Plain(colour.to_owned()),
        };
        // Whoever blinked it so far (the kernel has triggers of its own) does so no longer. Not every LED has this.
        if folder.join("trigger").exists()
            && let Err(error) = fs::write(folder.join("trigger"), "none")
        {
            tracing::warn!(led = name, %error, "a LED keeps its trigger");
        }
        Some(Self { slot, kind, max, written: BTreeMap::new() })
    }

    /// `chosen` is which of the slot's plain LEDs speaks.
    fn show(&mut self, folder: &Path, light: Light, chosen: Option<&str>) -> io::Result<()> {
        let level = match &self.kind {
            Kind::Plain(colour) if chosen != Some(colour) => 0,
            Kind::Plain(_) => light.level,
            Kind::Multi(parts) => {
                let scaled = |part: &Option<usize>| part.map_or(0, |part| scale(light.hue()[part], self.max));
                let mix: Vec<String> = parts.iter().map(|part| scaled(part).to_string()).collect();
                // A dark LED keeps its colour: one write less for each blink.
                if light.level > 0 {
                    self.write(folder, "multi_intensity", mix.join(" "))?;
                }
                light.level
            }
        };
        self.write(folder, "brightness", scale(level, self.max).to_string())
    }

    fn write(&mut self, folder: &Path, file: &'static str, text: String) -> io::Result<()> {
        if self.written.get(file) == Some(&text) {
            return Ok(());
        }
        // Without O_CREAT: a folder that stays behind in a test is not filled with files.
        let mut opened = fs::OpenOptions::new().write(true).truncate(true).open(folder.join(file))?;
        io::Write::write_all(&mut opened, text.as_bytes())?;
        self.written.insert(file, text);
        Ok(())
    }
}

/// A level of 255, rounded to what the LED can; one that is on or off is on from the half.
fn scale(level: u8, max: u32) -> u32 {
    (u32::from(level).saturating_mul(max).saturating_add(127)) / 255
}

/// Which of a slot's plain LEDs speaks for a colour: the pattern does, so any will do.
fn choose(colours: &[String], wanted: LedColour) -> &str {
    let preferred: &[&str] = match wanted {
        LedColour::None | LedColour::White => &["white", "blue", "yellow", "amber", "green"],
        LedColour::Blue => &["blue", "white", "cyan"],
        LedColour::Yellow => &["yellow", "amber", "orange", "white"],
        LedColour::Teal => &["green", "cyan", "lime", "blue"],
        LedColour::Red => &["red", "orange", "amber"],
    };
    let found = preferred.iter().find_map(|name| colours.iter().find(|colour| colour == name));
    found.or(colours.first()).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEAL: Light = Light { level: 255, colour: LedColour::Teal };
    const RED: Light = Light { level: 255, colour: LedColour::Red };

    struct Class(tempfile::TempDir);

    impl Class {
        fn led(&self, name: &str, max: u32, multi_index: Option<&str>) {
            let folder = self.0.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("max_brightness"), format!("{max}\n")).unwrap();
            fs::write(folder.join("brightness"), "9").unwrap();
            fs::write(folder.join("trigger"), "[heartbeat] none").unwrap();
            if let Some(index) = multi_index {
                fs::write(folder.join("multi_index"), index).unwrap();
                fs::write(folder.join("multi_intensity"), "").unwrap();
            }
        }
        fn says(&self, led: &str, file: &str) -> String {
            fs::read_to_string(self.0.path().join(led).join(file)).unwrap()
        }
    }

    fn lights(light: Light) -> BTreeMap<SlotId, Light> {
        BTreeMap::from([(SlotId::numbered(1), light), (SlotId::numbered(2), light)])
    }

    #[test]
    fn plain_and_multi_colour_leds_of_a_slot_show_its_light_and_others_are_left_alone() {
        let class = Class(tempfile::tempdir().unwrap());
        class.led("cardshop:s01:rgb", 100, Some("blue red green"));
        for colour in ["red", "green", "amber"] {
            class.led(&format!("cardshop:s02:{colour}"), 1, None);
        }
        class.led("input3::capslock", 1, None);
        let (mut leds, now) = (KernelLeds::new(class.0.path().into()), Instant::now());
        leds.show(&lights(TEAL), now);
        let multi = |file| class.says("cardshop:s01:rgb", file);
        assert_eq!((multi("multi_intensity"), multi("brightness")), ("43 0 100".into(), "100".into()));
        assert_eq!(multi("trigger"), "none");
        let plain =
            || ["red", "green", "amber"].map(|c| class.says(&format!("cardshop:s02:{c}"), "brightness"));
        assert_eq!(plain(), ["0", "1", "0"]);
        leds.show(&lights(Light { level: 127, ..RED }), now);
        assert_eq!(plain(), ["0", "0", "0"], "on or off: on from the half");
        assert_eq!((multi("multi_intensity"), multi("brightness")), ("0 100 0".into(), "50".into()));
        leds.show(&lights(Light { level: 128, ..RED }), now);
        assert_eq!(plain(), ["1", "0", "0"]);
        leds.show(&BTreeMap::new(), now);
        assert_eq!((plain(), multi("brightness")), (["0", "0", "0"].map(String::from), "0".into()));
        assert_eq!(class.says("input3::capslock", "brightness"), "9");
    }

    #[test]
    fn one_led_of_any_colour_is_enough_and_one_that_is_unplugged_comes_back() {
        let class = Class(tempfile::tempdir().unwrap());
        class.led("cardshop:s01:violet", 255, None);
        let (mut leds, now) = (KernelLeds::new(class.0.path().into()), Instant::now());
        leds.show(&lights(Light { level: 77, ..TEAL }), now);
        assert_eq!(class.says("cardshop:s01:violet", "brightness"), "77");
        fs::remove_dir_all(class.0.path().join("cardshop:s01:violet")).unwrap();
        leds.show(&lights(RED), now);
        assert!(leds.lamps.is_empty());
        class.led("cardshop:s01:violet", 255, None);
        leds.show(&lights(RED), now + LOOK_EVERY);
        assert_eq!(class.says("cardshop:s01:violet", "brightness"), "255");
    }

    #[test]
    fn what_does_not_change_is_not_written_again() {
        let class = Class(tempfile::tempdir().unwrap());
        class.led("cardshop:s01:red", 1, None);
        let (mut leds, now) = (KernelLeds::new(class.0.path().into()), Instant::now());
        leds.show(&lights(RED), now);
        fs::write(class.0.path().join("cardshop:s01:red/brightness"), "untouched").unwrap();
        leds.show(&lights(RED), now);
        assert_eq!(class.says("cardshop:s01:red", "brightness"), "untouched");
    }

    /// **Source:** Linux `Documentation/leds/uleds.rst`: a name of 64 bytes and the highest brightness go in, each
    /// brightness that is set comes out as an integer.
    #[test]
    fn a_led_of_the_kernel_shows_what_a_slot_says() {
        use std::io::{Read, Write};
        let opened = fs::OpenOptions::new().read(true).write(true).open("/dev/uleds");
        let Ok(mut uleds) = opened else {
            #[allow(clippy::print_stdout)] // a test that is skipped says so
            return println!("SKIPPED: this kernel has no /dev/uleds (CONFIG_LEDS_USER)");
        };
        let mut wanted = [0; 68];
        wanted[..17].copy_from_slice(b"cardshop:t99:teal");
        wanted[64..].copy_from_slice(&255i32.to_ne_bytes());
        uleds.write_all(&wanted).unwrap();
        let mut leds = KernelLeds::new("/sys/class/leds".into());
        let slot: SlotId = "t99".parse().unwrap();
        leds.show(&BTreeMap::from([(slot, Light { level: 200, ..TEAL })]), Instant::now());
        let mut brightness = [0; 4];
        uleds.read_exact(&mut brightness).unwrap();
        assert_eq!(i32::from_ne_bytes(brightness), 200);
    }
}
