//! Escaping of external text for output: one rule for the terminal, for JSON and for the journal.
//!
//! Non-printable characters are escaped: control characters (C0, DEL and C1, which a terminal interprets), marks of the
//! writing direction, and characters without width or glyph. So no name and no message can move the cursor, reverse a
//! line, hide a part of it, or look like a line of its own.

use std::borrow::Cow;
use std::fmt::Write;

/// The text as one line.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_plain, |c, to| to.extend(c.escape_debug()))
}

/// The text as lines: line ends are kept.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n' || is_plain(c), |c, to| to.extend(c.escape_debug()))
}

/// The same for a JSON text, which stays JSON of the same value: only strings in it can contain other characters than
/// plain ones.
pub fn json(text: &str) -> Cow<'_, str> {
    escaped(
        text,
        |c| c == '\n' || is_plain(c),
        |c, to| {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(to, "\\u{unit:04x}");
            }
        },
    )
}

fn is_plain(c: char) -> bool {
    matches!(c, '\'' | '"' | '\\') || c.escape_debug().len() == 1
}

fn escaped(text: &str, stays: impl Fn(char) -> bool, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if text.chars().all(&stays) {
        return Cow::Borrowed(text);
    }
    let mut printable = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if stays(c) {
            printable.push(c);
        } else {
            escape(c, &mut printable);
        }
    }
    Cow::Owned(printable)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn nothing_moves_the_cursor() {
        for (text, expected) in [
            ("a$(b);'c'\"d\\ü漢", "a$(b);'c'\"d\\ü漢"),
            ("a\u{1b}[2Jb\r\nc\u{7}\u{9b}\u{7f}", "a\\u{1b}[2Jb\\r\\nc\\u{7}\\u{9b}\\u{7f}"),
            (
                "\u{202e}x\u{200b}\u{feff}\u{2066}\u{61c}\u{2028}",
                "\\u{202e}x\\u{200b}\\u{feff}\\u{2066}\\u{61c}\\u{2028}",
            ),
        ] {
            assert_eq!(line(text), expected);
        }
        assert_eq!(lines("a\nb\u{9b}\n"), "a\nb\\u{9b}\n");
    }

    #[test]
    fn json_stays_the_same_value_and_holds_nothing_that_does_not_print() {
        let value = Value::String("a\u{9b}\u{7f}\u{202e}\u{e0041}\u{1}\n\\\"ü漢".to_owned());
        let text = serde_json::to_string_pretty(&[&value]).expect("JSON");
        let printable = json(&text);
        assert!(printable.chars().all(|c| c == '\n' || is_plain(c)), "{printable:?}");
        assert_eq!(serde_json::from_str::<Value>(&printable).expect("JSON"), Value::Array(vec![value]));
    }
}
