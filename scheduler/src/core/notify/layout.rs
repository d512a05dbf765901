//! A letter's text as HTML: paragraphs, lists and links, everything else as it is. Texts are written once, as people write
//! them; both parts of a letter say the same.
//!
//! ```text
//! blank line      next paragraph        - at the begin of each line   a list
//! a line break    a line break          http://…, https://…           a link; alone in its paragraph a button
//! ```

use std::fmt::Write;

/// The HTML part of a letter in `language`.
pub(crate) fn html(language: &str, subject: &str, body: &str, footer: &str) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"{}\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{}</title></head>\n\
         <body style=\"font-family:sans-serif;line-height:1.5;color:#1c2126;background:#fff;max-width:40em;\
         margin:0 auto;padding:1em\">\n",
        escape(language),
        escape(subject)
    );
    blocks(body, &mut page);
    page.push_str(
        "<div style=\"color:#5a636d;font-size:.85em;border-top:1px solid #d5dae0;margin-top:2em\">\n",
    );
    blocks(footer, &mut page);
    page.push_str("</div>\n</body></html>\n");
    page
}

fn blocks(text: &str, page: &mut String) {
    let mut block: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim_end).chain([""]) {
        if !line.is_empty() {
            block.push(line);
        } else if !block.is_empty() {
            add_block(&block, page);
            block.clear();
        }
    }
}

fn add_block(lines: &[&str], page: &mut String) {
    if lines.iter().all(|line| line.starts_with("- ")) {
        page.push_str("<ul>\n");
        for line in lines {
            let _ = writeln!(page, "<li>{}</li>", inline(&line[2..]));
        }
        page.push_str("</ul>\n");
        return;
    }
    if let [only] = lines
        && is_address(only)
    {
        let address = escape(only);
        let _ = writeln!(
            page,
            "<p><a href=\"{address}\" style=\"display:inline-block;padding:.5em 1em;background:#1f6feb;\
             color:#fff;text-decoration:none;border-radius:.3em;word-break:break-all\">{address}</a></p>"
        );
        return;
    }
    let lines: Vec<_> = lines.iter().map(|line| inline(line)).collect();
    let _ = writeln!(page, "<p>{}</p>", lines.join("<br>\n"));
}

fn is_address(word: &str) -> bool {
    (word.starts_with("https://") || word.starts_with("http://")) && !word.contains(char::is_whitespace)
}

/// A line with its addresses as links. What ends a sentence is not part of one.
fn inline(line: &str) -> String {
    let words = line.split(' ').map(|word| {
        let end = word.trim_end_matches(['.', ',', ')', ';', ':', '!', '?']);
        if is_address(end) {
            let address = escape(end);
            format!("<a href=\"{address}\">{address}</a>{}", escape(&word[end.len()..]))
        } else {
            escape(word)
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_lists_and_links_become_html_and_nothing_else_does() {
        let body = "Hello <Ada>,\nsee https://x.org/a?b=1&c=2.\n\n- one\n- two & more\n\nhttps://x.org/go\n";
        let page = html("en", "A \"quote\"", body, "bye");
        for part in [
            "<html lang=\"en\">",
            "<title>A &quot;quote&quot;</title>",
            "<p>Hello &lt;Ada&gt;,<br>\nsee <a href=\"https://x.org/a?b=1&amp;c=2\">https://x.org/a?b=1&amp;c=2</a>.</p>",
            "<ul>\n<li>one</li>\n<li>two &amp; more</li>\n</ul>",
            "border-radius:.3em;word-break:break-all\">https://x.org/go</a></p>",
            "<p>bye</p>",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        let evil = html("en", "", "javascript:alert(1) \"><script>x</script> http://a\"onclick=b", "");
        assert!(!evil.contains("<script>") && !evil.contains("\"onclick"), "{evil}");
    }
}
