//! Wrapping of help texts, equal to Python's `textwrap.fill(text, width=64, subsequent_indent='\t\t\t')`.

use std::iter::repeat_n;

/// The maximum length of a line, [`INDENT`] included, in characters.
const WIDTH: usize = 64;
/// The prefix of every line but the first.
const INDENT: &str = "\t\t\t";
const TAB_WIDTH: usize = 8;

pub(crate) fn wrap(text: &str) -> String {
    let mut chunks: Vec<Vec<char>> = chunks(&spaces(text));
    chunks.reverse();
    let is_all_space = |chunk: &[char]| chunk.iter().all(|c| c.is_whitespace());
    let mut lines: Vec<String> = Vec::new();
    while !chunks.is_empty() {
        let (indent, width) = if lines.is_empty() { ("", WIDTH) } else { (INDENT, WIDTH - INDENT.len()) };
        if !lines.is_empty() {
            chunks.pop_if(|chunk| is_all_space(chunk));
        }
        let mut line: Vec<Vec<char>> = Vec::new();
        let mut length = 0;
        while let Some(chunk) = chunks.pop_if(|chunk| length + chunk.len() <= width) {
            length += chunk.len();
            line.push(chunk);
        }
        if let Some(chunk) = chunks.last_mut().filter(|chunk| chunk.len() > width) {
            let rest = chunk.split_off(break_position(chunk, width - length));
            line.push(std::mem::replace(chunk, rest));
        }
        line.pop_if(|chunk| is_all_space(chunk));
        if !line.is_empty() {
            lines.push(indent.chars().chain(line.into_iter().flatten()).collect());
        }
    }
    lines.join("\n")
}

/// The break position in a word longer than a line: after the last hyphen that fits and follows another character.
fn break_position(chunk: &[char], room: usize) -> usize {
    match chunk[..room].iter().rposition(|c| *c == '-') {
        Some(hyphen) if chunk[..hyphen].iter().any(|c| *c != '-') => hyphen + 1,
        _ => room,
    }
}

/// Expands tabs to the next tab stop and replaces other white space by single spaces.
fn spaces(text: &str) -> Vec<char> {
    let mut out = Vec::new();
    let mut column = 0;
    for c in text.chars() {
        let width = if c == '\t' { TAB_WIDTH - column % TAB_WIDTH } else { 1 };
        let is_break = matches!(c, '\n' | '\r');
        column = if is_break { 0 } else { column + width };
        out.extend(repeat_n(if is_space(c) { ' ' } else { c }, width));
    }
    out
}

/// `_whitespace` of textwrap: ASCII white space.
fn is_space(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Python's `\w`.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// `letter` of textwrap, `[^\d\W]`.
fn is_letter(c: char) -> bool {
    is_word(c) && !c.is_ascii_digit()
}

/// `word_punct` of textwrap.
fn is_word_or_punctuation(c: char) -> bool {
    is_word(c) || matches!(c, '!' | '"' | '\'' | '&' | '.' | ',' | '?')
}

/// Splits the text at every position at which a line may end: `wordsep_re` of textwrap.
fn chunks(text: &[char]) -> Vec<Vec<char>> {
    let mut chunks = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let end = end_of_chunk(text, start);
        chunks.push(text[start..end].to_vec());
        start = end;
    }
    chunks
}

fn end_of_chunk(text: &[char], start: usize) -> usize {
    let run = |from: usize, is: fn(char) -> bool| text[from..].iter().take_while(|c| is(**c)).count();
    let is = |at: usize, is: fn(char) -> bool| text.get(at).is_some_and(|c| is(*c));
    let is_before = |at: usize, back: usize, is: fn(char) -> bool| at.checked_sub(back).is_some_and(|i| is(text[i]));
    if is_space(text[start]) {
        return start + run(start, is_space);
    }
    // The length of a dash (two or more hyphens between two words).
    let dash = |at: usize| {
        let hyphens = run(at, |c| c == '-');
        (hyphens >= 2 && is_before(at, 1, is_word_or_punctuation) && is(at + hyphens, is_word)).then_some(hyphens)
    };
    if let Some(hyphens) = dash(start) {
        return start + hyphens;
    }
    let after_letters = |end| {
        is_before(end, 1, is_letter)
            && (is_before(end, 2, is_letter) || (is_before(end, 2, |c| c == '-') && is_before(end, 3, is_letter)))
    };
    let before_letters = |end| {
        is(end + 1, is_letter) && (is(end + 2, is_letter) || (is(end + 2, |c| c == '-') && is(end + 3, is_letter)))
    };
    let end_of_word = |end| {
        if is(end, |c| c == '-') && after_letters(end) && before_letters(end) {
            return Some(end + 1);
        }
        (is(end, is_space) || dash(end).is_some()).then_some(end)
    };
    (start + 1..text.len()).find_map(end_of_word).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected texts are output of Python 3.11.
    #[test]
    fn texts_are_wrapped_as_by_python() {
        for (text, wrapped) in [
            ("short", "short"),
            (
                "Radar settings of this site, with a help text that is long enough to have to be folded by the generator",
                "Radar settings of this site, with a help text that is long\n\t\t\tenough to have to be folded by the generator",
            ),
            (&format!("{} b", "a".repeat(64)), &format!("{}\n\t\t\tb", "a".repeat(64))),
            (&"a".repeat(65), &format!("{}\n\t\t\ta", "a".repeat(64))),
            (
                "\n  Leading white space and\n  a line break stay as blanks  in the first line, and later ones are folded",
                "   Leading white space and   a line break stay as blanks  in the\n\t\t\tfirst line, and later ones are folded",
            ),
            (
                "Words with hyphens break there: a very-long-hyphenated-word-that-goes-on-and-on-until-the-line-is-over, ok",
                "Words with hyphens break there: a very-long-hyphenated-word-\n\t\t\tthat-goes-on-and-on-until-the-line-is-over, ok",
            ),
            (
                "Numbers like 10-20 do not, and neither do options --like-this or -x at the end of the line -y --zed",
                "Numbers like 10-20 do not, and neither do options --like-this or\n\t\t\t-x at the end of the line -y --zed",
            ),
            (
                "An em-dash--like this one--breaks on both of its sides, and hyphens--- do too, when it comes to the end--of a line",
                "An em-dash--like this one--breaks on both of its sides, and\n\t\t\thyphens--- do too, when it comes to the end--of a line",
            ),
            (
                &format!("{}-{}", "x".repeat(50), "y".repeat(80)),
                &format!("{}-{}\n\t\t\t{}\n\t\t\tyyyyyy", "x".repeat(50), "y".repeat(13), "y".repeat(61)),
            ),
            (
                "tab\tstops\tare\teight\tapart and so on until the line has to be folded at some tab\tstop there",
                "tab     stops   are     eight   apart and so on until the line\n\t\t\thas to be folded at some tab     stop there",
            ),
            (
                "T-mobile and e-mail and x-band a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p-q-r-s-t-u-v-w-x-y-z-aa-bb-cc",
                "T-mobile and e-mail and x-band a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p-\n\t\t\tq-r-s-t-u-v-w-x-y-z-aa-bb-cc",
            ),
            (&"-".repeat(70), &format!("{}\n\t\t\t------", "-".repeat(64))),
            (
                &format!("{} {}", "ü".repeat(40), "ß".repeat(40)),
                &format!("{}\n\t\t\t{}", "ü".repeat(40), "ß".repeat(40)),
            ),
            (
                "trailing blanks after exactly sixty-four characters, which go: abcd    next",
                "trailing blanks after exactly sixty-four characters, which go:\n\t\t\tabcd    next",
            ),
        ] {
            assert_eq!(wrap(text), wrapped, "{text:?}");
        }
    }
}
