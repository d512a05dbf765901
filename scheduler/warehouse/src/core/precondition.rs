//! Decides conditional requests against the one strong entity tag a representation has. There is no
//! `Last-Modified`, so a date never matches. Pure; called by the download handler.
//! **Source:** RFC 9110 §8.8.3, §13.1 and §13.2.2.

/// What the conditions of a request ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answer; the `Range` header counts when `range` is true.
    Go {
        /// False when `If-Range` names another representation.
        range: bool,
    },
    /// 304: the client has it already.
    NotModified,
    /// 412: `If-Match` names others only.
    Failed,
}

/// The conditional headers of a request, as they came.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Conditions<'a> {
    /// `If-Match`.
    pub if_match: Option<&'a str>,
    /// `If-None-Match`.
    pub if_none_match: Option<&'a str>,
    /// `If-Range`.
    pub if_range: Option<&'a str>,
}

/// Decides for a representation with this entity tag (with its quotes).
pub(crate) fn decide(conditions: Conditions<'_>, etag: &str) -> Verdict {
    // An entity tag holds no quote and ours no comma: splitting a list at commas may tear somebody else's
    // tag apart, but can neither make nor hide ours.
    let names = |list: &str, weak_too: bool| {
        list.split(',').map(str::trim).any(|tag| {
            tag == "*" || tag == etag || (weak_too && tag.strip_prefix("W/").is_some_and(|t| t == etag))
        })
    };
    if conditions.if_match.is_some_and(|list| !names(list, false)) {
        return Verdict::Failed;
    }
    if conditions.if_none_match.is_some_and(|list| names(list, true)) {
        return Verdict::NotModified;
    }
    Verdict::Go { range: conditions.if_range.is_none_or(|tag| tag.trim() == etag) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(set: impl FnOnce(&mut Conditions<'static>)) -> Verdict {
        let mut conditions = Conditions::default();
        set(&mut conditions);
        decide(conditions, "\"id\"")
    }

    #[test]
    fn a_range_counts_only_for_the_same_representation_by_strong_comparison() {
        assert_eq!(verdict(|_| ()), Verdict::Go { range: true });
        assert_eq!(verdict(|c| c.if_range = Some("\"id\"")), Verdict::Go { range: true });
        for other in ["\"other\"", "W/\"id\"", "id", "Mon, 23 Nov 2026 02:45:00 GMT", "*"] {
            assert_eq!(verdict(|c| c.if_range = Some(other)), Verdict::Go { range: false }, "{other}");
        }
    }

    #[test]
    fn who_has_it_gets_304_and_who_wants_another_gets_412() {
        for list in ["\"id\"", "W/\"id\"", "\"a,b\", \"id\"", "*"] {
            assert_eq!(verdict(|c| c.if_none_match = Some(list)), Verdict::NotModified, "{list}");
        }
        assert_eq!(verdict(|c| c.if_none_match = Some("\"a\", \"b\"")), Verdict::Go { range: true });
        assert_eq!(verdict(|c| c.if_match = Some("\"id\"")), Verdict::Go { range: true });
        assert_eq!(verdict(|c| c.if_match = Some("*")), Verdict::Go { range: true });
        for list in ["W/\"id\"", "\"other\""] {
            assert_eq!(verdict(|c| c.if_match = Some(list)), Verdict::Failed, "{list}");
        }
    }
}
