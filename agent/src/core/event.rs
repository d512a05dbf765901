//! What happens to the shop and what it wants done: plain data between [`super::Shop`] and its owner.

use cardshop_card::FailureNote;
use cardshop_protocol::api::CardRecord;
use cardshop_protocol::ids::{ImageId, LeaseId, ObjectId, OrderId, SlotId, TaskId};
use cardshop_protocol::message::{
    Action, Alert, Command, CommandReply, Desired, Event as NumberedFact, Fault, Lease, Progress, Remedy,
    Reported, SlotState, Verify, Wipe,
};
use cardshop_protocol::time::Timestamp;

use super::book::{Book, Moved};
use super::history::Record;

/// Something happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// In a slot.
    Slot {
        /// Which.
        slot: SlotId,
        /// What.
        event: SlotEvent,
    },
    /// A reader that takes cards is plugged into a port.
    Reader {
        /// Which port: [`super::ports::Port::key`].
        key: String,
        /// What it calls itself.
        reader: String,
    },
    /// Somebody pressed the button at a slot.
    Pressed(SlotId),
    /// A person at the appliance wants something.
    Wish(Wish),
    /// The scheduler says what should be done.
    Desired(Box<Desired>),
    /// It said something that cannot be read; for people.
    UnreadableDesired(String),
    /// The scheduler has stored all facts up to this number.
    Acked(u64),
    /// The broker is there, subscriptions are made: everything retained is published again.
    Connected,
    /// The broker is gone.
    Disconnected,
    /// A reflex.
    Command {
        /// What.
        command: Command,
        /// When it came in.
        received: Timestamp,
    },
    /// An image's index is here and good; its chunks are arriving or here.
    ImageReady {
        /// Which.
        image: ImageId,
        /// Bytes of it that travel.
        total: u64,
    },
    /// More of an image is here.
    ImageProgress {
        /// Which.
        image: ImageId,
        /// Bytes of it that are here.
        fetched: u64,
    },
    /// An image cannot be had, or is not what its index says.
    ImageRefused {
        /// Which.
        image: ImageId,
        /// Why.
        fault: Fault,
    },
    /// Something keeps an image from arriving, or no longer does. It goes on by itself when that is over.
    ImageTrouble {
        /// Which.
        image: ImageId,
        /// What.
        trouble: Trouble,
        /// One line for people; `None` = it is over.
        text: Option<String>,
    },
    /// Time has passed.
    Tick,
    /// The agent is to end: writes are stopped, nothing is begun.
    Stop,
}

/// What a person at the appliance itself wants; what became of it comes back as [`Effect::Tell`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// What could also be sent as a command.
    Act(Action),
    /// A slot is to take no cards, or to go on.
    Hold {
        /// Which.
        slot: SlotId,
        /// Whether.
        hold: bool,
    },
    /// The appliance is to take work, or none.
    Switch {
        /// Whether.
        on: bool,
    },
    /// A slot is to be called something, or nothing any more; its light strobes.
    Name {
        /// Which.
        slot: SlotId,
        /// What.
        name: Option<String>,
    },
    /// A slot whose reader is not plugged in is to be forgotten.
    Remove {
        /// Which.
        slot: SlotId,
    },
    /// The reader of a slot is where another slot came up: that place is to be the slot.
    Move(Moved),
    /// All names are to be forgotten, and all slots whose reader is not plugged in.
    ResetNames,
    /// All slots are to be named, one after the other; or no longer.
    NameAll {
        /// Whether.
        on: bool,
    },
}

/// What keeps an image from arriving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// There is no room for it beside the images that open orders need.
    CacheFull,
    /// The cache's disk has errors.
    CacheFailing,
    /// No warehouse is reached.
    WarehousesAway,
}

impl Trouble {
    /// Its stable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::CacheFull => "cache_full",
            Self::CacheFailing => "cache_failing",
            Self::WarehousesAway => "warehouses_away",
        }
    }
}

/// Something happened in a slot.
#[derive(Debug, Clone)]
pub enum SlotEvent {
    /// The reader is not plugged in.
    ReaderGone,
    /// The reader is there, without a card.
    CardGone,
    /// A card is there that was not there before.
    CardHere {
        /// Bytes.
        size: u64,
    },
    /// A look at the card has ended.
    Probed {
        /// Of [`Effect::Probe`]; another number is of a card that is gone.
        visit: u64,
        /// What was seen.
        finding: Finding,
    },
    /// A write goes on.
    Progress {
        /// Of [`Effect::Write`].
        job: u64,
        /// How far.
        progress: Progress,
    },
    /// A write waits for bytes of its image, or goes on again.
    Stalled {
        /// Of [`Effect::Write`].
        job: u64,
        /// True when it waits.
        stalled: bool,
    },
    /// A write's thread has ended: the one event every [`Effect::Write`] is followed by.
    Ended {
        /// Of [`Effect::Write`].
        job: u64,
        /// The record of a verified card, or why there is none.
        result: Result<Box<CardRecord>, Failure>,
    },
}

/// Why a card could not be looked at or written, and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub fault: Fault,
    /// What follows.
    pub remedy: Remedy,
    /// What the card itself now says of its failures, where it keeps that.
    pub note: Option<Box<FailureNote>>,
}

impl Failure {
    /// A failure without an offset.
    pub fn new(code: &str, text: impl Into<String>, remedy: Remedy) -> Self {
        Self { fault: Fault { code: code.into(), text: text.into(), offset: None }, remedy, note: None }
    }
}

/// What a look at a card saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A card that can be written.
    Card {
        /// Its passport, if it has one.
        passport: Option<PassportFacts>,
        /// True when it shows a partition table or file system, and more than one fresh from the factory does.
        in_use: bool,
        /// Where it has failed before.
        note: Option<FailureNote>,
        /// Its identification register, hex, where the reader shows it.
        cid: Option<String>,
    },
    /// Its write-protect switch is on.
    Locked,
    /// It could not be looked at.
    Failed(Failure),
}

/// What of a card's passport decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassportFacts {
    /// The card's own identity.
    pub uid: ObjectId,
    /// Its order.
    pub order: OrderId,
    /// Its copy of that order.
    pub copy: u32,
}

/// One copy to be written: what a writer needs of its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Under which lease.
    pub lease: LeaseId,
    /// Which order.
    pub order: OrderId,
    /// What people call the order.
    pub order_name: String,
    /// Which copy, from 1.
    pub copy: u32,
    /// Copies of the whole order.
    pub total: u32,
    /// Which image.
    pub image: ImageId,
    /// How to clear the card.
    pub wipe: Wipe,
    /// How much to read back.
    pub verify: Verify,
}

impl Work {
    /// Copy `copy` of a lease.
    pub fn of(lease: &Lease, copy: u32) -> Self {
        Self {
            lease: lease.lease,
            order: lease.order,
            order_name: lease.order_name.clone(),
            copy,
            total: lease.total,
            image: lease.image,
            wipe: lease.wipe,
            verify: lease.verify,
        }
    }

    /// Its task.
    pub fn task(&self) -> TaskId {
        TaskId::write(self.order, self.copy)
    }
}

/// Something is to be done. Effects are carried out in the order they are given.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Keep a record; a fact is on the disk before the next effect is carried out.
    Append(Record),
    /// A slot has a new state.
    Show(SlotId, Box<SlotState>),
    /// Tell the broker, if it is there.
    Publish(Message),
    /// Look at the card in a slot.
    Probe {
        /// Where.
        slot: SlotId,
        /// Comes back in [`SlotEvent::Probed`].
        visit: u64,
    },
    /// Write and verify a card.
    Write {
        /// Where.
        slot: SlotId,
        /// Comes back in every event of this write.
        job: u64,
        /// Bytes the card had when it was probed.
        card_size: u64,
        /// What.
        work: Box<Work>,
        /// Set when it is written again in place: what the card said of earlier failures. Does it fail again, it is
        /// to bear a note.
        again: Option<Option<FailureNote>>,
    },
    /// Stop a write; [`SlotEvent::Ended`] still follows.
    Stop {
        /// Where.
        slot: SlotId,
        /// Which.
        job: u64,
    },
    /// Get an image; or, when it is being fetched already, get the rest of it from other warehouses.
    Fetch {
        /// Which.
        image: ImageId,
        /// Where from, tried in order.
        warehouses: Vec<String>,
    },
    /// No lease needs this image any more.
    Abandon(ImageId),
    /// Answer a command with the newest log lines.
    ReplyLogs(ObjectId),
    /// The slots, their names or holds have changed: keep them, and tell the broker.
    KeepBook(Box<Book>),
    /// There is no such slot any more.
    Forget(SlotId),
    /// A line for the person at the appliance.
    Tell(String),
    /// Restart the machine.
    Reboot,
    /// Send the file for whoever helps, which this command asked for.
    SendSupport(ObjectId),
    /// Log this much.
    LogLevel(String),
    /// Somebody wants an update now: the one on a card, or the scheduler's once more.
    Update,
}

/// What goes to the broker beside slot states.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// How far a write is; may be lost.
    Progress(SlotId, Progress),
    /// A numbered fact.
    Fact(Box<NumberedFact>),
    /// What of the desired state is applied.
    Reported(Box<Reported>),
    /// Answer of a command.
    Reply(CommandReply),
    /// An alert is raised, or cleared.
    Alert {
        /// Its code.
        code: String,
        /// `None` = cleared.
        alert: Option<Alert>,
    },
}
