//! What an appliance's fact means: which order it concerns and what happens to it, or why it does not count. The
//! caller (`effects::events`) has looked up the lease as it was granted.

use cardshop_protocol::ids::{ApplianceId, LeaseId, OrderId};
use cardshop_protocol::message::Fact;

use super::documents::Grant;
use super::order::Input;

/// An appliance fetched a chunk from every warehouse, and again, and it never matched the index.
const WRONG_IMAGE: &str = "chunk_mismatch";

/// What follows from a fact.
#[derive(Debug)]
pub(crate) enum Meaning {
    /// An input to an order.
    Order(OrderId, Input),
    /// Only a line in the site's story.
    Story(&'static str, String),
    /// It claims what is not this appliance's to claim: a line in the story, and nothing else.
    Refused(String),
}

/// The lease a fact is about.
pub(crate) fn lease_of(fact: &Fact) -> Option<LeaseId> {
    match fact {
        Fact::Started { .. } => None,
        Fact::WriteStarted { lease, .. }
        | Fact::CardVerified { lease, .. }
        | Fact::WriteRepeated { lease, .. }
        | Fact::WriteFailed { lease, .. }
        | Fact::ImageRefused { lease, .. } => Some(*lease),
    }
}

/// What `fact`, told by `appliance`, means; `grant` is the lease it names, if there is one.
pub(crate) fn meaning(fact: &Fact, appliance: ApplianceId, grant: Option<&Grant>) -> Meaning {
    if let Fact::Started { boot } = fact {
        return Meaning::Story("appliance_started", format!("Appliance {appliance} started, boot {boot}."));
    }
    let Some(grant) = grant.filter(|g| g.appliance == appliance) else {
        return Meaning::Refused(format!(
            "Appliance {appliance} reported under a lease that is not its own."
        ));
    };
    match fact {
        Fact::Started { .. } => unreachable!("answered above"),
        Fact::WriteStarted { task, lease, slot, .. } => match task.copy {
            Some(copy) if task.order == grant.order && grant.copies.contains(copy) => Meaning::Order(
                task.order,
                Input::WriteStarted { copy, lease: *lease, appliance, slot: slot.clone() },
            ),
            _ => not_leased(appliance, &task.to_string()),
        },
        Fact::CardVerified { lease, record } => {
            let fits = record.order == grant.order
                && record.image == grant.image
                && record.appliance == appliance
                && record.lease == *lease;
            if !fits {
                return not_leased(appliance, &format!("card {}", record.uid));
            }
            Meaning::Order(
                record.order,
                Input::Verified {
                    // A copy outside the lease cannot count as that copy: it is a spare card.
                    copy: if grant.copies.contains(record.copy) { record.copy } else { 0 },
                    card: record.uid,
                    lease: *lease,
                    appliance,
                    slot: record.slot.clone(),
                },
            )
        }
        Fact::WriteFailed { task, slot, fault, .. } => match task.copy {
            Some(copy) if task.order == grant.order && grant.copies.contains(copy) => Meaning::Order(
                task.order,
                Input::WriteFailed { copy, appliance, slot: slot.clone(), reason: fault.text.clone() },
            ),
            _ => not_leased(appliance, &task.to_string()),
        },
        Fact::WriteRepeated { task, slot, fault, .. } => match task.copy {
            Some(copy) if task.order == grant.order && grant.copies.contains(copy) => Meaning::Order(
                task.order,
                Input::WriteRepeated { copy, appliance, slot: slot.clone(), reason: fault.text.clone() },
            ),
            _ => not_leased(appliance, &task.to_string()),
        },
        Fact::ImageRefused { fault, image, .. } if fault.code == WRONG_IMAGE && *image == grant.image => {
            Meaning::Order(grant.order, Input::ImageWrong { appliance, reason: fault.text.clone() })
        }
        Fact::ImageRefused { image, fault, .. } => Meaning::Story(
            "image_refused",
            format!("Appliance {appliance} cannot use image {image}: {}.", fault.text.trim_end_matches('.')),
        ),
    }
}

fn not_leased(appliance: ApplianceId, what: &str) -> Meaning {
    Meaning::Refused(format!("Appliance {appliance} reported {what}, which its lease does not cover."))
}

#[cfg(test)]
mod tests {
    use cardshop_protocol::ids::{ImageId, ObjectId, SlotId, TaskId};
    use cardshop_protocol::message::Copies;
    use cardshop_protocol::time::Timestamp;

    use super::*;

    const OURS: ApplianceId = ApplianceId([1; 8]);

    fn grant() -> Grant {
        Grant {
            id: ObjectId::from_parts(1, 1),
            appliance: OURS,
            order: ObjectId::from_parts(1, 2),
            image: ImageId([3; 32]),
            copies: Copies { first: 1, last: 4 },
            granted: Timestamp::from_ms(0),
        }
    }
    fn started(copy: u32) -> Fact {
        let slot = SlotId::numbered(1);
        Fact::WriteStarted { task: TaskId::write(grant().order, copy), lease: grant().id, slot, card_size: 1 }
    }

    #[test]
    fn a_fact_counts_only_under_the_appliances_own_lease() {
        assert!(matches!(meaning(&started(4), OURS, Some(&grant())), Meaning::Order(..)));
        assert!(matches!(meaning(&started(5), OURS, Some(&grant())), Meaning::Refused(_)));
        assert!(matches!(meaning(&started(4), ApplianceId([9; 8]), Some(&grant())), Meaning::Refused(_)));
        assert!(matches!(meaning(&started(4), OURS, None), Meaning::Refused(_)));
    }
}
