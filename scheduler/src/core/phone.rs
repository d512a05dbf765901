//! Telephone numbers in the international form. Decides by the rule of ITU-T E.164 alone: a plus, the code of a country or
//! network that is assigned, at most 15 digits. Whether a national number is given out is not known here: that needs tables
//! that change every month, and a call tells it too.

/// Most digits. **Source:** ITU-T E.164 §6.1.
const MAX_DIGITS: usize = 15;
/// Fewest digits: the shortest international numbers have seven.
const MIN_DIGITS: usize = 7;
/// Codes of one and two digits. **Source:** list of E.164 country codes assigned (ITU Operational Bulletin).
const SHORT_CODES: &str = "1 7 20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 \
    81 82 84 86 90 91 92 93 94 95 98";
/// Codes of three digits, as ranges. **Source:** as above.
const LONG_CODES: &[(u16, u16)] = &[
    (211, 213),
    (216, 216),
    (218, 218),
    (220, 258),
    (260, 269),
    (290, 291),
    (297, 299),
    (350, 359),
    (370, 383),
    (385, 387),
    (389, 389),
    (420, 421),
    (423, 423),
    (500, 509),
    (590, 599),
    (670, 670),
    (672, 683),
    (685, 692),
    (800, 800),
    (808, 808),
    (850, 850),
    (852, 853),
    (855, 856),
    (870, 870),
    (878, 878),
    (880, 883),
    (886, 886),
    (888, 888),
    (960, 968),
    (970, 977),
    (979, 979),
    (992, 996),
    (998, 998),
];

/// The number as `+22320212223`, from how people write it: with spaces, brackets, dots and hyphens, `00` for the plus.
///
/// # Errors
/// What is wrong, and what would be right.
pub(crate) fn e164(text: &str) -> Result<String, String> {
    let digits: String = text.trim().chars().filter(|c| !" .-()/\u{a0}".contains(*c)).collect();
    let digits = digits.strip_prefix('+').or_else(|| digits.strip_prefix("00"));
    let Some(digits) = digits.filter(|d| d.bytes().all(|b| b.is_ascii_digit())) else {
        return Err("must begin with + and the code of the country, as +223 20 21 22 23".into());
    };
    if !(MIN_DIGITS..=MAX_DIGITS).contains(&digits.len()) {
        return Err(format!("must have {MIN_DIGITS} to {MAX_DIGITS} digits with the code of the country"));
    }
    let short = SHORT_CODES.split_whitespace().any(|code| digits.starts_with(code));
    let long = digits.get(..3).and_then(|code| code.parse::<u16>().ok());
    if !short && !long.is_some_and(|code| LONG_CODES.iter().any(|(from, to)| (*from..=*to).contains(&code))) {
        return Err("begins with no code of a country: +33 is France, +223 is Mali".into());
    }
    Ok(format!("+{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_in_the_international_form_however_they_are_typed() {
        for (typed, kept) in [
            ("+223 20 21 22 23", "+22320212223"),
            ("0033 (1) 42-34.56.78", "+33142345678"),
            ("+1 202 555 0123", "+12025550123"),
            ("+882 16 12345", "+8821612345"),
        ] {
            assert_eq!(e164(typed).as_deref(), Ok(kept));
        }
        for wrong in [
            "",
            "020212223",
            "+",
            "+223",
            "+2232021222324252",
            "+999 1234567",
            "+33 1 42 x4",
            "+0123456789",
            "+２２３２０２１２２",
        ] {
            assert!(e164(wrong).is_err(), "{wrong}");
        }
    }
}
