//! The keys that sign access tokens: which signs now, and what a rotation makes of them. A new key is published a moment
//! before it signs, so that services that read the list every few seconds know it before they meet its first token.
//!
//! ```text
//! made ─► published ─(NOTICE)─► signs ─► retired: verifies until all it signed has ended ─► forgotten
//!                                   └─ revoked: verifies nothing any more, and the new key signs at once
//! ```

use std::time::Duration;

use cardshop_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

/// How long a key is published before it signs: services poll every 2 s and may miss one answer or two.
pub(crate) const NOTICE: Duration = Duration::from_secs(10);
/// Keys that are kept: with each API key of five years behind one, the list stays short.
pub(crate) const MAX_KEYS: usize = 16;

/// One key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenKey {
    /// Its key id.
    pub(crate) kid: String,
    /// base64url.
    pub(crate) public: String,
    /// 32 bytes, hex; gone once it signs no more.
    pub(crate) secret: Option<String>,
    /// It signs from then on.
    pub(crate) from: Timestamp,
    /// It verifies until then.
    pub(crate) not_after: Option<Timestamp>,
    /// It verifies nothing.
    pub(crate) revoked: bool,
}

/// The key that signs at `now`.
pub(crate) fn signing(keys: &[TokenKey], now: Timestamp) -> Option<&TokenKey> {
    let able = || keys.iter().filter(|k| k.secret.is_some() && !k.revoked);
    let begun = able().filter(|k| k.from <= now).max_by_key(|k| k.from);
    // A clock that went back: better the first that will sign than none.
    begun.or_else(|| able().min_by_key(|k| k.from))
}

/// What becomes of `keys` when `fresh` is made at `now`: those that changed, and `fresh`. What the others signed has ended by
/// `longest`. With `revoke` nothing they signed counts any more. `None` when there are too many.
pub(crate) fn rotate(
    keys: &[TokenKey],
    mut fresh: TokenKey,
    now: Timestamp,
    longest: Timestamp,
    revoke: bool,
) -> Option<Vec<TokenKey>> {
    if !revoke && keys.len() >= MAX_KEYS {
        return None;
    }
    fresh.from = if revoke { now } else { now + NOTICE };
    let current = signing(keys, now).map(|k| k.kid.clone());
    let retired = keys.iter().map(|key| {
        let signs_until_then = !revoke && current.as_ref() == Some(&key.kid);
        TokenKey {
            secret: key.secret.clone().filter(|_| signs_until_then),
            not_after: Some(key.not_after.unwrap_or(longest)),
            revoked: key.revoked || revoke,
            ..key.clone()
        }
    });
    let mut changed: Vec<_> = retired.filter(|key| !keys.contains(key)).collect();
    changed.push(fresh);
    Some(changed)
}

/// True when nobody needs to hear of `key` any more.
pub(crate) fn is_over(key: &TokenKey, now: Timestamp) -> bool {
    key.not_after.is_some_and(|end| now > end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Timestamp {
        Timestamp::from_ms(1_790_000_000_000 + s * 1000)
    }

    fn key(kid: &str, from: u64) -> TokenKey {
        TokenKey {
            kid: kid.into(),
            public: kid.into(),
            secret: Some("x".into()),
            from: at(from),
            not_after: None,
            revoked: false,
        }
    }

    fn apply(keys: &mut Vec<TokenKey>, changed: Vec<TokenKey>) {
        for key in changed {
            keys.retain(|k| k.kid != key.kid);
            keys.push(key);
        }
    }

    fn signs(keys: &[TokenKey], now: Timestamp) -> &str {
        &signing(keys, now).unwrap().kid
    }

    #[test]
    fn a_new_key_is_published_before_it_signs_and_the_old_one_verifies_until_all_it_signed_has_ended() {
        let mut keys = vec![key("a", 0)];
        let changed = rotate(&keys, key("b", 0), at(100), at(9_000), false).unwrap();
        apply(&mut keys, changed);
        assert_eq!(signs(&keys, at(109)), "a");
        assert_eq!(signs(&keys, at(110)), "b");
        let changed = rotate(&keys, key("c", 0), at(200), at(8_000), false).unwrap();
        apply(&mut keys, changed);
        let a = keys.iter().find(|k| k.kid == "a").unwrap();
        assert_eq!((a.not_after, &a.secret, a.revoked), (Some(at(9_000)), &None, false));
        assert!(!is_over(a, at(9_000)) && is_over(a, at(9_001)));
        assert_eq!(signs(&keys, at(50)), "b", "a clock that went back");
        assert_eq!(signs(&keys, at(211)), "c");
    }

    #[test]
    fn revoking_ends_every_older_key_at_once_and_there_is_always_one_that_signs() {
        let mut keys: Vec<_> = (0..MAX_KEYS as u64).map(|n| key(&n.to_string(), n)).collect();
        assert!(rotate(&keys, key("x", 0), at(100), at(9_000), false).is_none(), "too many");
        let changed = rotate(&keys, key("new", 0), at(100), at(9_000), true).unwrap();
        apply(&mut keys, changed);
        assert_eq!(signs(&keys, at(100)), "new");
        assert!(keys.iter().all(|k| k.kid == "new" || (k.revoked && k.secret.is_none())));
    }
}
