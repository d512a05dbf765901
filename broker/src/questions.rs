//! The broker's rules as questions, for simulations, which have no sockets: the same tables and the same matching that
//! sessions use.

use cardshop_protocol::token::Claims;

use crate::filter;
use crate::rights::{Grant, Principal, may_write, subscription};

/// True when somebody with these claims may publish to `topic`, retained or not.
pub fn may_publish(claims: &Claims, topic: &str, retained: bool) -> bool {
    filter::check_topic(topic).is_ok()
        && Principal::new(claims).is_some_and(|principal| may_write(&principal, topic, retained))
}

/// True when somebody with these claims may have everything that `filter` matches.
pub fn may_subscribe(claims: &Claims, filter: &str) -> bool {
    filter::check_filter(filter).is_ok()
        && Principal::new(claims).is_some_and(|principal| subscription(&principal, filter) == Grant::Whole)
}

/// True when `filter` matches `topic`.
pub fn matches(filter: &str, topic: &str) -> bool {
    filter::matches(filter, topic)
}
