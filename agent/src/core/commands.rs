//! The reflexes of `cmd`: identify, eject, retry, release, restart, logs; what an appliance of this kind cannot do is
//! answered, not ignored. A repeated id gets the same answer and is done once.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

use cardshop_protocol::ids::{ObjectId, SlotId};
use cardshop_protocol::message::{Action, Command, CommandReply, VERSION};
use cardshop_protocol::time::Timestamp;

use super::event::{Effect, Message};
use super::shop::Shop;
use super::slot::Slot;

/// How long a LED strobes. **Source:** [`Action::Identify`].
const IDENTIFY_FOR: Duration = Duration::from_secs(10);
/// Answers remembered for repeated ids: more than a person sends before the first is answered.
const REMEMBERED: usize = 64;

/// Longest level of the log, characters: some modules with their own.
const MAX_LEVEL: usize = 200;

/// What became of a command, for people; or why nothing did.
pub(super) type Said = Result<&'static str, Cow<'static, str>>;

/// Answers given.
#[derive(Debug, Default)]
pub(super) struct Commands {
    given: VecDeque<CommandReply>,
}

impl Commands {
    fn given(&self, id: ObjectId) -> Option<&CommandReply> {
        self.given.iter().find(|reply| reply.id == id)
    }
    fn remember(&mut self, reply: CommandReply) {
        if self.given.len() == REMEMBERED {
            self.given.pop_front();
        }
        self.given.push_back(reply);
    }
}

impl Shop {
    pub(super) fn command(
        &mut self,
        now: Timestamp,
        command: Command,
        received: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let id = command.id;
        if let Some(reply) = self.commands.given(id) {
            effects.push(Effect::Publish(Message::Reply(reply.clone())));
            return;
        }
        let late = now.since(received) > Duration::from_secs(u64::from(command.deadline_s));
        if command.action == Action::Logs && !late {
            effects.push(Effect::ReplyLogs(id));
            return;
        }
        if command.action == Action::Support && !late {
            effects.push(Effect::SendSupport(id));
        }
        let result = if late {
            Err("too late: the deadline has passed".into())
        } else {
            self.act(now, &command.action, effects)
        };
        let (ok, text) = match result {
            Ok(text) => (true, text.to_owned()),
            Err(text) => (false, text.into_owned()),
        };
        let reply = CommandReply { v: VERSION, id, ok, text };
        self.commands.remember(reply.clone());
        effects.push(Effect::Publish(Message::Reply(reply)));
    }

    pub(super) fn act(&mut self, now: Timestamp, action: &Action, effects: &mut Vec<Effect>) -> Said {
        match action {
            Action::Identify { slot } => {
                self.slot(slot)?.identify_until = Some(now + IDENTIFY_FOR);
                Ok("the light of the slot strobes")
            }
            Action::Eject { slot } => Ok(self.slot(slot)?.eject(effects)?),
            Action::Retry { slot } => Ok(self.slot(slot)?.retry(effects)?),
            Action::Release { slot } => Ok(self.slot(slot)?.release()?),
            Action::Reboot => self.ask_reboot(),
            Action::Update => {
                effects.push(Effect::Update);
                Ok("the update is looked at")
            }
            Action::Logs => Err("answered by the keeper of the log".into()),
            Action::Support => Ok("it is on its way"),
            Action::LogLevel { level } if level.len() > MAX_LEVEL => {
                Err("that is too long for a level".into())
            }
            Action::LogLevel { level } => {
                effects.push(Effect::LogLevel(level.clone()));
                Ok("the log says as much, until the next start")
            }
        }
    }

    fn slot(&mut self, slot: &SlotId) -> Result<&mut Slot, Cow<'static, str>> {
        self.slots.get_mut(slot).ok_or("there is no such slot".into())
    }
}
