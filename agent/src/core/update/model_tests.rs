//! A machine, a boot loader and a disk of a few words: whatever is cut off when, it boots a set that is whole, and comes to
//! rest in one that works.

use proptest::prelude::*;

use super::grubenv::GrubEnv;
use super::tests::running;
use super::*;

/// What a set does when it is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Cannot be opened.
    Torn,
    /// Works.
    Good(u32),
    /// The kernel panics.
    Panics(u32),
    /// The agent never comes up: whoever guards the trial restarts the machine.
    Mute(u32),
    /// Works, but does not reach the server.
    Deaf(u32),
}

#[derive(Debug, Clone)]
struct Disk {
    sets: [Content; 2],
    env: GrubEnv,
    memory: Memory,
}

impl Disk {
    fn content(&mut self, set: Set) -> &mut Content {
        &mut self.sets[usize::from(set == Set::B)]
    }

    /// What `grub.cfg` does: the set that is to be tried is forgotten before it is started.
    fn boot(&mut self) -> Option<(Set, bool)> {
        let stays = self.env.get("set").and_then(Set::named).unwrap_or(Set::A);
        let tried = self.env.get("try").and_then(Set::named);
        self.env = self.env.with("try", "").unwrap();
        let order = tried.into_iter().chain([stays, Set::A, Set::B]);
        let found = order.into_iter().find(|set| *self.content(*set) != Content::Torn)?;
        Some((found, tried == Some(found)))
    }
}

/// When the plug is pulled: after so many steps that are on the disk.
struct Plug(u32);

impl Plug {
    /// True when the power is still there.
    fn step(&mut self) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 > 0
    }
}

fn version_of(content: Content) -> u32 {
    match content {
        Content::Good(n) | Content::Panics(n) | Content::Mute(n) | Content::Deaf(n) => n,
        Content::Torn => unreachable!("it does not start"),
    }
}

/// One start of the machine up to a restart, a cut, or rest. True when it has come to rest.
fn life(disk: &mut Disk, update: Option<Content>, plug: &mut Plug) -> bool {
    let (set, tried) = disk.boot().expect("a set that can be started");
    let content = *disk.content(set);
    if !plug.step() || matches!(content, Content::Panics(_) | Content::Mute(_)) {
        return false;
    }
    let stays = disk.env.get("set").and_then(Set::named).unwrap_or(Set::A);
    let version = version_of(content).to_string();
    let running = Running { tried, stays, ..running(set, &version) };
    let mut updater = Updater::start(running, disk.memory.clone());
    let desired = update.map(|content| DesiredUpdate {
        version: version_of(content).to_string().parse().unwrap(),
        image: ImageId([version_of(content) as u8; 32]),
        warehouses: Vec::new(),
        allow_older: false,
    });
    let mut idle = 0;
    for minute in 0..30 {
        let facts = Facts {
            uptime: Duration::from_secs(minute * 60),
            desired: desired.as_ref(),
            whole: true,
            connected: !matches!(content, Content::Deaf(_)),
            readers_listed: true,
        };
        let deeds = updater.look(facts);
        idle = if deeds.is_empty() { idle + 1 } else { 0 };
        if idle == 15 {
            return true;
        }
        for deed in deeds {
            match deed {
                Deed::Apply { .. } => {
                    for step in STEPS {
                        let target = set.other();
                        match step {
                            Step::Invalidate => *disk.content(target) = Content::Torn,
                            Step::Fill | Step::ReadBack => {}
                            Step::Seal => *disk.content(target) = update.unwrap(),
                            Step::Arm => disk.env = disk.env.with("try", target.name()).unwrap(),
                        }
                        if !plug.step() {
                            return false;
                        }
                    }
                    let digest = "new".to_owned();
                    let version = desired.clone().unwrap().version;
                    updater.applied(Duration::from_secs(minute * 60), Ok((version, digest)));
                }
                Deed::Record => {
                    disk.memory = updater.memory().clone();
                    updater.recorded(true);
                }
                Deed::Keep(set) => disk.env = disk.env.with("set", set.name()).unwrap(),
                Deed::Restart => return false,
                Deed::Decided => {}
            }
            if !plug.step() {
                return false;
            }
        }
    }
    true
}

fn update() -> impl Strategy<Value = Content> {
    prop_oneof![
        Just(Content::Good(2)),
        Just(Content::Panics(2)),
        Just(Content::Mute(2)),
        Just(Content::Deaf(2)),
        Just(Content::Good(1)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_power_cut_at_any_point_leaves_a_machine_that_boots_and_ends_in_a_set_that_works(
        update in update(),
        other in prop_oneof![Just(Content::Torn), Just(Content::Good(0))],
        cuts in proptest::collection::vec(1_u32..25, 0..6),
    ) {
        let env = GrubEnv::default().with("set", "a").unwrap();
        let mut disk = Disk { sets: [Content::Good(1), other], env, memory: Memory::default() };
        for cut in &cuts {
            life(&mut disk, Some(update), &mut Plug(*cut));
            let stays = disk.env.get("set").and_then(Set::named).unwrap();
            prop_assert!(matches!(disk.content(stays), Content::Good(_)), "what stays works: {:?}", disk);
        }
        // The power stays: within a few restarts it has come to rest, in what is good of the two.
        let rests = (0..4).position(|_| life(&mut disk, Some(update), &mut Plug(u32::MAX)));
        prop_assert!(rests.is_some(), "it goes on restarting: {:?}", disk);
        let stays = disk.env.get("set").and_then(Set::named).unwrap();
        let works = matches!(disk.content(stays), Content::Good(_));
        prop_assert!(works, "{:?}", disk);
        // A cut in the middle of a trial looks like a version that does not come up, and counts as one.
        if update == Content::Good(2) && cuts.is_empty() {
            prop_assert_eq!(*disk.content(stays), update);
        }
    }
}
