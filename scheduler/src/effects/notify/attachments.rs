//! What goes along with a letter. The one place where attachments are made: a letter of `CardsWritten` takes the slip of its
//! order from here.

use lettre::message::SinglePart;

use crate::Scheduler;
use crate::core::notify::message::Message;

impl Scheduler {
    /// The attachments of a letter, in their order.
    pub(super) fn attachments(&self, _message: &Message) -> Vec<SinglePart> {
        Vec::new()
    }
}
