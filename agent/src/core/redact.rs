//! Takes out of a text what nobody else may read, before it leaves the appliance for whoever helps. Pure. Three nets, because
//! any one of them has holes:
//!
//! - what is known to be secret here (the key, tokens, passwords of settings), wherever it stands;
//! - what stands behind a word such as `token` or `password`, and before the `@` of an address;
//! - every unbroken run of [`LONG`] letters and digits. Ids are such runs, too, so four characters stay, and a digest by which
//!   two of them can be told to be the same.

/// Characters of a run that may be a secret: half of an order's id, three quarters of a random word of 80 bits.
pub const LONG: usize = 16;
/// Words behind which a secret stands.
const TELLING: [&str; 6] = ["token", "password", "secret", "psk", "authorization", "bearer"];
/// What stands in place of a secret.
const HIDDEN: &str = "(hidden)";

/// The text without secrets; `known` are those of this appliance.
pub fn redact(text: &str, known: &[String]) -> String {
    let mut text = text.to_owned();
    // The longest first: one may be part of another.
    let mut known: Vec<&String> = known.iter().filter(|secret| secret.len() >= 4).collect();
    known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    for secret in known {
        text = text.replace(secret.as_str(), HIDDEN);
    }
    text.lines().map(|line| shorten_runs(&hide_named(line)) + "\n").collect()
}

/// Hides the rest of a line behind a telling word with a sign of "is" after it, and what stands before `@` in an address.
fn hide_named(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let behind = TELLING.iter().filter_map(|word| {
        let at = lower.find(word)? + word.len();
        let rest = &line[at..];
        let sign = rest.find(|c: char| !matches!(c, '"' | '\'' | ' ' | '_' | '-'))?;
        let is = matches!(rest[sign..].chars().next(), Some('=' | ':')) || word == &"bearer";
        is.then_some(at)
    });
    let line = match behind.min() {
        Some(at) => format!("{} {HIDDEN}", &line[..at]),
        None => line.to_owned(),
    };
    let mut out = String::new();
    let mut rest = line.as_str();
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(['/', ' ', '"']).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(sign) => {
                out.push_str(HIDDEN);
                &after[sign..]
            }
            None => after,
        };
    }
    out + rest
}

/// Shortens every run that is long enough to be a secret.
fn shorten_runs(line: &str) -> String {
    let mut out = String::new();
    let mut run = String::new();
    for c in line.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() || "_-+/=.".contains(c) {
            run.push(c);
            continue;
        }
        push_run(&mut out, &run);
        run.clear();
        if c != '\n' {
            out.push(c);
        }
    }
    out
}

/// Letters with digits, with capitals in the middle, or capitals alone: what no word of a log is.
fn is_no_word(piece: &str) -> bool {
    let count = |is: fn(&u8) -> bool| piece.bytes().filter(is).count();
    let (digits, capitals) = (count(u8::is_ascii_digit), count(u8::is_ascii_uppercase));
    let letters = capitals + count(u8::is_ascii_lowercase);
    letters > 0 && (digits > 0 || capitals > 1)
}

fn push_run(out: &mut String, run: &str) {
    // Paths, versions and names are made of short pieces; a secret is one.
    for piece in run.split_inclusive(['/', '.', '=']) {
        let (piece, sign) = match piece.char_indices().last() {
            Some((at, '/' | '.' | '=')) => piece.split_at(at),
            _ => (piece, ""),
        };
        if piece.len() >= LONG && is_no_word(piece) {
            let digest = blake3::hash(piece.as_bytes()).to_hex();
            out.push_str(&format!("{}…#{}", &piece[..4], &digest[..8]));
        } else {
            out.push_str(piece);
        }
        out.push_str(sign);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_named_or_long_is_hidden_and_the_rest_stays() {
        let known = ["hunter2".to_owned()];
        let text = "proxy http://me:pa55@proxy.example:3128/x says hunter2\n\
            token = \"csj1.abc123.0123456789abcdefghjkmnpqrs.0000000000000000\"\n\
            Authorization: Bearer eyJh.eyJz.c2ln\n\
            order 01kbq2v8z0000000000000000a in slot s01 of usb1-4.2, version 1.4.2\n";
        let shown = redact(text, &known);
        for secret in ["hunter2", "pa55", "csj1", "eyJz", "0123456789abcdef", "v8z000"] {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
        for kept in ["proxy.example:3128", "order 01kb…#", "slot s01 of usb1-4.2, version 1.4.2"] {
            assert!(shown.contains(kept), "{kept}: {shown}");
        }
        let again = redact("01kbq2v8z0000000000000000a", &[]);
        assert!(shown.contains(again.trim()), "the same id is known again");
    }

    #[test]
    fn no_random_secret_of_eighty_bits_comes_through_in_any_spelling() {
        let mut bytes = blake3::Hasher::new().update(b"secrets").finalize_xof();
        for _ in 0..500 {
            let mut secret = [0; 16];
            bytes.fill(&mut secret);
            let spellings = [
                data_encoding::HEXLOWER.encode(&secret),
                data_encoding::BASE64URL_NOPAD.encode(&secret),
                data_encoding::BASE32_NOPAD.encode(&secret),
            ];
            for text in spellings {
                let shown = redact(&format!("a line with {text} in it"), &[]);
                assert!(!shown.contains(&text[4..]), "{shown}");
            }
        }
    }
}
