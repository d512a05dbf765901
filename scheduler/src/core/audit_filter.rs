//! Which lines of the audit somebody wants to see.

use cardshop_protocol::time::Timestamp;

use super::documents::Audit;

/// What a line has to have; what is `None` any line has.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Login name.
    pub who: Option<String>,
    /// What was done, or how that begins: `order.`.
    pub action: Option<String>,
    /// Id of the object.
    pub object: Option<String>,
    /// Not before this.
    pub from: Option<Timestamp>,
    /// Before this.
    pub to: Option<Timestamp>,
}

impl AuditFilter {
    /// True for a line that is wanted.
    pub(crate) fn wants(&self, line: &Audit) -> bool {
        self.who.as_ref().is_none_or(|who| *who == line.who)
            && self.action.as_ref().is_none_or(|action| line.action.starts_with(action.as_str()))
            && self.object.as_ref().is_none_or(|object| *object == line.object)
            && self.from.is_none_or(|from| line.at >= from)
            && self.to.is_none_or(|to| line.at < to)
    }
}

#[cfg(test)]
mod tests {
    use cardshop_protocol::ids::ObjectId;

    use super::*;

    #[test]
    fn a_line_is_wanted_when_it_has_all_that_is_asked_for() {
        let at = |ms| Timestamp::from_ms(ms);
        let line = Audit {
            id: ObjectId::from_parts(1, 1),
            at: at(50),
            who: "ada".into(),
            address: String::new(),
            action: "order.cancel".into(),
            object: "x".into(),
        };
        let some = |text: &str| Some(text.to_owned());
        for (filter, wanted) in [
            (AuditFilter::default(), true),
            (AuditFilter { who: some("ada"), action: some("order."), ..Default::default() }, true),
            (AuditFilter { who: some("ad"), ..Default::default() }, false),
            (AuditFilter { action: some("cancel"), ..Default::default() }, false),
            (
                AuditFilter { object: some("x"), from: Some(at(50)), to: Some(at(51)), ..Default::default() },
                true,
            ),
            (AuditFilter { to: Some(at(50)), ..Default::default() }, false),
            (AuditFilter { from: Some(at(51)), ..Default::default() }, false),
        ] {
            assert_eq!(filter.wants(&line), wanted, "{filter:?}");
        }
    }
}
