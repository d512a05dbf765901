//! Cards as things: memory that holds bytes and fails as bad cards do, where each of them is, and what is known to be
//! on it. Writing goes through the engine that writes real cards.

use cardshop_agent::core::guard::shows_file_system;
use cardshop_agent::core::{Failure, Finding, PassportFacts, Work};
use cardshop_card::memory::{FaultPlan, MemoryCard};
use cardshop_card::{CardError, FailureNote, Job, PassportFiles, StopFlag, probe, write_card};
use cardshop_protocol::ids::{ApplianceId, ObjectId, OrderId, SlotId};
use cardshop_protocol::keys::encode_signature;
use cardshop_protocol::message::{Passport, Remedy, VERSION};
use cardshop_protocol::time::Timestamp;
use ed25519_dalek::{Signer, SigningKey};

use super::images::{IMAGE_SIZE, Image, PASSPORT_AT};

/// Bytes of a usual card.
const CARD_SIZE: u64 = IMAGE_SIZE + 64 * 1024;

/// What is wrong with a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Good,
    /// It is smaller than any image.
    Small,
    /// Its switch is on.
    Locked,
    /// It holds somebody's files.
    Foreign,
    /// It does not keep one byte.
    Flips,
    /// It fails at one byte.
    Fails,
    /// It says that it is larger than it is.
    Fake,
    /// It takes what is written to its end and forgets it.
    Drops,
    /// It takes ten times as long.
    Slow,
}

impl Kind {
    /// All but `Good`.
    pub(super) const BAD: [Self; 8] = [
        Self::Small,
        Self::Locked,
        Self::Foreign,
        Self::Flips,
        Self::Fails,
        Self::Fake,
        Self::Drops,
        Self::Slow,
    ];

    fn plan(self) -> FaultPlan {
        let none = FaultPlan { discards: true, ..FaultPlan::default() };
        match self {
            Self::Good | Self::Small | Self::Foreign | Self::Slow => none,
            Self::Locked => FaultPlan { write_protected: true, ..none },
            Self::Flips => FaultPlan { flip_at: Some(170 * 1024 + 7), ..none },
            Self::Fails => FaultPlan { io_error_at: Some(20 * 1024), ..none },
            Self::Fake => FaultPlan { real_size: Some(CARD_SIZE / 2), ..none },
            Self::Drops => FaultPlan { drops_from: Some(200 * 1024), ..none },
        }
    }
}

/// Where a card is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// In a slot of an appliance.
    Slot(usize, SlotId),
    /// In the box of finished cards beside an appliance.
    Box(usize),
    /// In a parcel.
    Sent,
    /// Put aside for good.
    Bin,
    /// In the hand of the operator beside an appliance.
    Hand(usize),
}

/// What a card was verified as, on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Finished {
    pub(super) uid: ObjectId,
    pub(super) order: OrderId,
    pub(super) copy: u32,
}

/// One card.
pub(super) struct Card {
    pub(super) kind: Kind,
    pub(super) size: u64,
    memory: MemoryCard,
    pub(super) place: Place,
    /// `None` when nothing on it is on record, or a write has begun since.
    pub(super) finished: Option<Finished>,
    /// A person allowed that what is on it goes.
    pub(super) released: bool,
}

/// How a write ends that was not broken off.
pub(super) struct Written {
    pub(super) uid: ObjectId,
    pub(super) passport: Option<Passport>,
    pub(super) bytes: (u64, u64),
}

/// Who writes.
pub(super) struct Writer<'a> {
    pub(super) key: &'a SigningKey,
    pub(super) appliance: ApplianceId,
    pub(super) slot: &'a SlotId,
    /// The reader flips a bit of whatever it writes.
    pub(super) bad_reader: bool,
    pub(super) now: Timestamp,
}

impl Card {
    pub(super) fn new(kind: Kind, place: Place) -> Self {
        let size = if kind == Kind::Small { IMAGE_SIZE / 2 } else { CARD_SIZE };
        let mut bytes = vec![0; size as usize];
        if kind == Kind::Foreign {
            bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        }
        let memory = MemoryCard::new(bytes, 512, kind.plan());
        Self { kind, size, memory, place, finished: None, released: false }
    }

    /// Every byte, as a reader gives it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.memory.bytes()
    }

    /// A first look, as the agent's probe makes it.
    pub(super) fn look(&self) -> Finding {
        if self.kind == Kind::Locked {
            return Finding::Locked;
        }
        let bytes = self.bytes();
        let in_use = shows_file_system(&bytes);
        // The passport is found by the file system, which a card that is half written has not.
        let passport = passport_on(&bytes).filter(|_| in_use);
        let passport = passport.map(|p| PassportFacts { uid: p.uid, order: p.order, copy: p.copy });
        Finding::Card { passport, in_use, note: FailureNote::find(&bytes), cid: None }
    }

    /// A write that is broken off: what was on the card is gone, nothing else is there.
    pub(super) fn spoil(&self) {
        let mut card = self.memory.claim();
        let image = Image::of(0);
        // Stops before the first chunk comes, after the card was made invalid.
        let stop = StopFlag::new();
        let source = Stopping;
        let job = Job {
            index: &image.index,
            source: &source,
            wipe: Default::default(),
            verify: Default::default(),
            passport: None,
        };
        let broken_off = write_card(&mut card, &job, &stop, &mut |_| ());
        debug_assert!(broken_off.is_err(), "a write without bytes does not succeed");
    }

    /// Writes and verifies an image with the real engine.
    pub(super) fn write(
        &mut self,
        image: &Image,
        work: &Work,
        again: Option<&Option<FailureNote>>,
        uid: ObjectId,
        writer: &Writer<'_>,
    ) -> Result<Written, Failure> {
        let plan = self.kind.plan();
        let bad = FaultPlan { flip_at: Some(30 * 1024 + 1), ..plan.clone() };
        self.memory.set_plan(if writer.bad_reader { bad } else { plan });
        let issued = std::cell::OnceCell::new();
        let passport = || -> PassportFiles {
            let passport = issued.get_or_init(|| issue(work, uid, writer));
            let card_jsn = serde_json::to_vec(passport).expect("plain data has a JSON form");
            PassportFiles { card_jsn, readme: b"a simulated card".to_vec() }
        };
        let job = Job {
            index: &image.index,
            source: image,
            wipe: work.wipe,
            verify: work.verify,
            passport: Some(&passport),
        };
        let (mut claimed, stop) = (self.memory.claim(), StopFlag::new());
        let done =
            probe(&mut claimed, &stop).and_then(|_| write_card(&mut claimed, &job, &stop, &mut |_| ()));
        match done {
            Ok(outcome) if outcome.is_verified() => Ok(Written {
                uid,
                passport: issued.into_inner().filter(|_| outcome.passport_written),
                bytes: (outcome.written_bytes + outcome.zero_written_bytes, outcome.verified_bytes),
            }),
            Ok(_) => Err(Failure::new("not_verified", "the card was not read back", Remedy::Bug)),
            Err(error) => {
                let note = again.filter(|_| matches!(error, CardError::Mismatch { .. }));
                let note = note.and_then(|before| {
                    let mut note = before.clone().unwrap_or_else(|| FailureNote::new(uid));
                    note.add(writer.appliance, writer.slot);
                    note.leave_on(&mut claimed).is_ok().then(|| Box::new(note))
                });
                Err(Failure { fault: error.fault(), remedy: error.remedy(), note })
            }
        }
    }
}

/// A source that has nothing.
struct Stopping;

impl cardshop_card::ChunkSource for Stopping {
    fn read_chunk(&self, chunk: usize, _: &mut [u8], _: &StopFlag) -> Result<(), cardshop_card::SourceError> {
        Err(cardshop_card::SourceError::Stopped { chunk })
    }
}

/// The passport in its place, if there is a whole one.
pub(super) fn passport_on(card: &[u8]) -> Option<Passport> {
    let block = card.get(PASSPORT_AT as usize..PASSPORT_AT as usize + 4096)?;
    let text = block.split(|b| *b == 0).next()?;
    serde_json::from_slice(text.trim_ascii()).ok()
}

fn issue(work: &Work, uid: ObjectId, writer: &Writer<'_>) -> Passport {
    let mut passport = Passport {
        v: VERSION,
        uid,
        order: work.order,
        copy: work.copy,
        total: work.total,
        image: work.image,
        written_at: writer.now,
        shop: "Simulated".into(),
        appliance: writer.appliance,
        result: "verified".into(),
        signature: String::new(),
    };
    passport.signature = encode_signature(&writer.key.sign(&passport.signed_message().0).to_bytes());
    passport
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(kind: Kind, bad_reader: bool) -> (Card, Result<Written, Failure>) {
        let key = SigningKey::from_bytes(&[1; 32]);
        let slot = SlotId::numbered(1);
        let image = Image::of(1);
        let (order, now) = (OrderId::from_parts(1, 1), Timestamp::from_ms(1));
        let work = Work {
            lease: order,
            order,
            order_name: String::new(),
            copy: 1,
            total: 1,
            image: image.id(),
            wipe: Default::default(),
            verify: Default::default(),
        };
        let writer = Writer { key: &key, appliance: ApplianceId([1; 8]), slot: &slot, bad_reader, now };
        let mut card = Card::new(kind, Place::Bin);
        let result = card.write(&image, &work, None, ObjectId::from_parts(2, 2), &writer);
        (card, result)
    }

    #[test]
    fn a_good_card_is_written_as_a_real_one_and_every_bad_kind_is_refused() {
        let (card, result) = written(Kind::Good, false);
        let written_card = result.unwrap_or_else(|f| panic!("{f:?}"));
        assert!(Image::of(1).is_on(&card.bytes()) && !Image::of(2).is_on(&card.bytes()));
        assert_eq!(passport_on(&card.bytes()), written_card.passport);
        assert!(matches!(card.look(), Finding::Card { passport: Some(_), in_use: true, .. }));
        card.spoil();
        assert!(!Image::of(1).is_on(&card.bytes()));
        assert_eq!(card.look(), Finding::Card { passport: None, in_use: false, note: None, cid: None });
        for kind in [Kind::Small, Kind::Locked, Kind::Flips, Kind::Fails, Kind::Fake, Kind::Drops] {
            assert!(written(kind, false).1.is_err(), "{kind:?}");
        }
        assert!(written(Kind::Good, true).1.is_err(), "a bad reader");
    }
}
