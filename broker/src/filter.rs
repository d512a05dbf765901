//! What a topic and a topic filter may look like, and which topics a filter matches. Pure; who may use them is
//! [`crate::rights`]'s. **Source:** MQTT 3.1.1 and 5.0, §4.7.

/// Most levels of a topic or filter. Our deepest topic, a slot's state, has seven.
pub(crate) const MAX_LEVELS: usize = 8;
/// Longest topic or filter, bytes. Our longest is below 100.
pub(crate) const MAX_TOPIC_SIZE: usize = 256;

/// Why a topic or filter is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadTopic {
    #[error("a topic has a wildcard, is empty or has a NUL")]
    NotATopic,
    #[error("a filter's wildcard does not fill its level, or # is not last")]
    NotAFilter,
    #[error("more than {MAX_LEVELS} levels or {MAX_TOPIC_SIZE} bytes")]
    TooDeep,
    #[error("shared subscriptions are not supported")]
    Shared,
    #[error("names beginning with $ are the broker's own")]
    Reserved,
}

fn check_shape(text: &str) -> Result<(), BadTopic> {
    if text.starts_with('$') {
        return Err(BadTopic::Reserved);
    }
    if text.len() > MAX_TOPIC_SIZE || text.split('/').count() > MAX_LEVELS {
        return Err(BadTopic::TooDeep);
    }
    Ok(())
}

/// Accepts a topic to publish to.
pub(crate) fn check_topic(topic: &str) -> Result<(), BadTopic> {
    if topic.is_empty() || topic.contains(['+', '#', '\0']) {
        return Err(BadTopic::NotATopic);
    }
    check_shape(topic)
}

/// Accepts a filter to subscribe to.
pub(crate) fn check_filter(filter: &str) -> Result<(), BadTopic> {
    if filter.starts_with("$share/") {
        return Err(BadTopic::Shared);
    }
    if filter.is_empty() || filter.contains('\0') {
        return Err(BadTopic::NotAFilter);
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let wild = level.contains(['+', '#']);
        if wild && (level.len() > 1 || (level == "#" && levels.peek().is_some())) {
            return Err(BadTopic::NotAFilter);
        }
    }
    check_shape(filter)
}

/// True when the filter has a wildcard.
pub(crate) fn is_wild(filter: &str) -> bool {
    filter.contains(['+', '#'])
}

/// True when `filter` matches `topic`; both were accepted above.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    let mut topic = topic.split('/');
    for level in filter.split('/') {
        match (level, topic.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    topic.next().is_none()
}

/// True when `filter` can match `root` or anything below it; `root` has no wildcard.
pub(crate) fn reaches(filter: &str, root: &str) -> bool {
    let mut filter = filter.split('/');
    for level in root.split('/') {
        match filter.next() {
            Some("#") => return true,
            Some("+") => {}
            Some(wanted) if wanted == level => {}
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_matches_as_the_standard_says() {
        for (filter, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/#", "ab", false),
            ("#", "a/b", true),
            ("+", "a", true),
            ("+", "a/b", false),
            ("+/+", "/a", true),
            ("/+", "/a", true),
            ("+", "/a", false),
            ("a/+/c", "a//c", true),
            ("a/+", "a", false),
            ("a/+/#", "a/b", true),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} on {topic}");
        }
    }

    #[test]
    fn a_filter_reaches_the_trees_it_can_match_in() {
        for (filter, root, expected) in [
            ("#", "c/1/a", true),
            ("c/#", "c/1/a", true),
            ("c/1/+/x", "c/1/a", true),
            ("c/1/a/x/+", "c/1/a", true),
            ("c/1/b/#", "c/1/a", false),
            ("+/+/+", "c/1/a", true),
            ("c/1", "c/1/a", false),
        ] {
            assert_eq!(reaches(filter, root), expected, "{filter} into {root}");
        }
    }

    #[test]
    fn malformed_topics_and_filters_are_refused_with_their_reason() {
        assert_eq!(check_topic("a/b"), Ok(()));
        for topic in ["", "a/+", "#", "a\0b"] {
            assert_eq!(check_topic(topic), Err(BadTopic::NotATopic), "{topic:?}");
        }
        assert_eq!(check_topic("a/b/c/d/e/f/g/h"), Ok(()));
        assert_eq!(check_topic("a/b/c/d/e/f/g/h/i"), Err(BadTopic::TooDeep));
        assert_eq!(check_topic(&"a".repeat(257)), Err(BadTopic::TooDeep));
        assert_eq!(check_topic("$SYS/x"), Err(BadTopic::Reserved));
        for filter in ["a", "+", "#", "a/+/b", "a/#", "/"] {
            assert_eq!(check_filter(filter), Ok(()), "{filter}");
        }
        for filter in ["", "a#", "a/#/b", "a+/b", "++", "##"] {
            assert_eq!(check_filter(filter), Err(BadTopic::NotAFilter), "{filter}");
        }
        assert_eq!(check_filter("$share/g/a"), Err(BadTopic::Shared));
        assert_eq!(check_filter("$SYS/#"), Err(BadTopic::Reserved));
    }
}
