//! What goes along with a letter. The one place where attachments are made: a letter of `CardsWritten` takes the slip of its
//! order from here, in the letter's language.

use lettre::message::header::{ContentTransferEncoding, ContentType};
use lettre::message::{Attachment, Body, SinglePart};

use crate::core::notify::Notice;
use crate::core::notify::message::Message;
use crate::core::order::Order;
use crate::core::views::OrderView;
use crate::{Scheduler, SchedulerError};

/// Name of the slip's file.
const SLIP: &str = "slip.pdf";

impl Scheduler {
    /// The attachments of a letter written in `language`, in their order.
    pub(super) fn attachments(
        &self,
        message: &Message,
        language: &str,
    ) -> Result<Vec<SinglePart>, SchedulerError> {
        let (Notice::CardsWritten, Some(order)) = (message.notice, message.order) else {
            return Ok(Vec::new());
        };
        let Some(order) = self.inner.store.get::<Order>(&order.to_string())? else { return Ok(Vec::new()) };
        let order = OrderView::new(&order.value, self.now());
        // The letter is for operators, who may see what is on the cards.
        match self.slip_of(&order, true, language.parse().ok()) {
            Ok(slip) => Ok(pdf(SLIP, slip.bytes).into_iter().collect()),
            Err(error) => {
                // The slip is on the order's page too: its letter does not wait for it.
                tracing::error!(order = %order.id, %error, "a letter goes without its slip");
                Ok(Vec::new())
            }
        }
    }
}

/// In base64, whatever the bytes are: nothing on the way takes them for lines.
fn pdf(name: &str, bytes: Vec<u8>) -> Option<SinglePart> {
    let body = Body::new_with_encoding(bytes, ContentTransferEncoding::Base64).ok()?;
    let kind = ContentType::parse("application/pdf").ok()?;
    Some(Attachment::new(name.to_owned()).body(body, kind))
}

#[cfg(test)]
mod tests {
    use crate::core::notify::texts;
    use crate::papers::Language;

    #[test]
    fn papers_are_written_in_every_language_of_letters() {
        for texts in texts::ALL {
            assert_eq!(texts.language.parse::<Language>().unwrap().tag(), texts.language);
        }
    }
}
