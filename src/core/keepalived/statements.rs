//! Splits keepalived.conf into statements like keepalived does (`read_line`, `decomment` and `alloc_strvec_r` in
//! lib/parser.c, the same in 2.2.7 and 2.2.8).
//!
//! For keepalived a line may hold several statements: each `{` and `}` outside double quotes is a statement of its own.
//! Single quotes have no meaning. A quoted word ends at its closing quote, and the word before it ends at its opening
//! quote.

/// keepalived reads at most this many bytes of a line at a time, and treats the rest as another line.
const MAX_LINE_BYTES: usize = 1023;

/// White space within a line.
const WHITE: [u8; 5] = [b' ', b'\t', b'\r', 0x0b, 0x0c];

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The number of its line, from 1.
    pub line: usize,
    /// Whether it is the first one of its line.
    pub is_first: bool,
    /// Its words, without their quotes; at least one.
    pub words: Vec<String>,
}

impl Statement {
    /// Whether it is an opening brace.
    pub fn opens(&self) -> bool {
        self.words[0] == "{"
    }

    /// Whether it is a closing brace.
    pub fn closes(&self) -> bool {
        self.words[0] == "}"
    }
}

/// Splits a text into its statements. Bytes that are not UTF-8 become replacement characters.
pub fn statements(text: &[u8]) -> Vec<Statement> {
    let mut all = Vec::new();
    for (number, line) in text.split(|b| *b == b'\n').enumerate() {
        for piece in line.chunks(MAX_LINE_BYTES) {
            let mut is_first = true;
            let bare = without_comment(piece);
            let mut rest = bare.as_slice();
            loop {
                rest = for_this_router(rest);
                if rest.is_empty() || (!is_first && is_a_line_of_its_own(rest)) {
                    break;
                }
                let statement;
                (statement, rest) = cut(rest);
                let words = words(statement);
                if !words.is_empty() {
                    all.push(Statement { line: number + 1, is_first, words });
                }
                is_first = false;
            }
        }
    }
    all
}

/// A line without its comment and the white space around it. `#` and `!` in quotes or after a backslash do not begin a
/// comment; a backslash at the end of the line is kept even if it ends the comment.
fn without_comment(line: &[u8]) -> Vec<u8> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = &line[blanks(line)..];
    let mut bare = Vec::with_capacity(line.len());
    let (mut quoted, mut comment, mut continued) = (false, false, false);
    let mut bytes = line.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let kept: &[u8] = match byte {
            b'\\' => match bytes.next() {
                None => {
                    continued = true;
                    &[]
                }
                Some(next @ (b'#' | b'!')) if !quoted => &[next],
                Some(next) => &[b'\\', next],
            },
            b'#' | b'!' if !quoted => {
                comment = true;
                &[]
            }
            b'"' if !comment => {
                quoted = !quoted;
                &[byte]
            }
            _ => &[byte],
        };
        if !comment {
            bare.extend_from_slice(kept);
        }
    }
    while bare.last().is_some_and(|b| matches!(b, b' ' | b'\t')) {
        bare.pop();
    }
    if continued {
        bare.push(b'\\');
    }
    bare
}

/// The first statement of a line, and the rest of the line.
fn cut(line: &[u8]) -> (&[u8], &[u8]) {
    let at = if matches!(line[0], b'{' | b'}') { Some(0) } else { brace(line) };
    let (statement, rest) = line.split_at(match at {
        Some(0) => 1,
        Some(at) => at,
        None => line.len(),
    });
    (statement, &rest[blanks(rest)..])
}

/// The first brace that is not between double quotes. After an unclosed quote there is none.
fn brace(line: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + line[from..].iter().position(|b| matches!(b, b'{' | b'}' | b'"'))?;
        if line[at] != b'"' {
            return Some(at);
        }
        from = at + 1 + line[at + 1..].iter().position(|b| *b == b'"')? + 1;
    }
}

/// After `@id` the rest of the line applies only if keepalived was started with this `--config-id`, which VyOS never
/// does; after `@^id` it applies in all other cases.
fn for_this_router(line: &[u8]) -> &[u8] {
    if line.first() != Some(&b'@') {
        return line;
    }
    let end = line.iter().position(|b| matches!(b, b' ' | b'\t'));
    match end {
        Some(end) if line.get(1) == Some(&b'^') => &line[end + blanks(&line[end..])..],
        _ => &[],
    }
}

/// Whether keepalived reads the text after a brace as an `include`, a `~SEQ` or a `~LST`, together with the rest of the
/// line, including braces.
fn is_a_line_of_its_own(rest: &[u8]) -> bool {
    let is_include = rest.strip_prefix(b"include").is_some_and(|rest| blanks(rest) > 0);
    is_include || rest.starts_with(b"~SEQ") || rest.starts_with(b"~LST")
}

fn words(statement: &[u8]) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = statement;
    loop {
        rest = &rest[rest.iter().take_while(|b| WHITE.contains(b)).count()..];
        let word;
        (word, rest) = match rest {
            [] => return words,
            [b'"', quoted @ ..] => match quoted.iter().position(|b| *b == b'"') {
                Some(end) => (&quoted[..end], &quoted[end + 1..]),
                None => return words,
            },
            _ => rest.split_at(rest.iter().position(|b| WHITE.contains(b) || *b == b'"').unwrap_or(rest.len())),
        };
        words.push(String::from_utf8_lossy(word).into_owned());
    }
}

fn blanks(text: &[u8]) -> usize {
    text.iter().take_while(|b| matches!(b, b' ' | b'\t')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_up(text: &str) -> Vec<Vec<String>> {
        statements(text.as_bytes()).into_iter().map(|statement| statement.words).collect()
    }

    #[test]
    fn a_line_is_cut_as_keepalived_cuts_it() {
        for (line, expected) in [
            ("", &[][..]),
            ("  # x {", &[]),
            ("a b\t c ! d", &[&["a", "b", "c"][..]]),
            ("vrrp_instance a { # x {", &[&["vrrp_instance", "a"], &["{"]]),
            ("vrrp_instance x{y {", &[&["vrrp_instance", "x"], &["{"], &["y"], &["{"]]),
            ("vrrp_instance x}y {", &[&["vrrp_instance", "x"], &["}"], &["y"], &["{"]]),
            ("vrrp_instance web' {", &[&["vrrp_instance", "web'"], &["{"]]),
            ("vrrp_instance 'we b' {", &[&["vrrp_instance", "'we", "b'"], &["{"]]),
            // The unclosed quote hides the brace, and ends the statement.
            ("vrrp_instance web\" {", &[&["vrrp_instance", "web"]]),
            ("auth_pass \"a{b}#!\tc\" # d", &[&["auth_pass", "a{b}#!\tc"]]),
            ("auth_pass \"a\"b\"", &[&["auth_pass", "a", "b"]]),
            ("auth_pass \"{\"", &[&["auth_pass", "{"]]),
            ("a \\# b \\! c \\x", &[&["a", "#", "b", "!", "c", "\\x"]]),
            ("a # b \\", &[&["a\\"]]),
            ("a { b c } d", &[&["a"], &["{"], &["b", "c"], &["}"], &["d"]]),
            ("@x interface eth0", &[]),
            ("@^x interface eth0", &[&["interface", "eth0"]]),
            ("vrrp_instance {@x {", &[&["vrrp_instance"], &["{"]]),
            ("vrrp_instance {@^x {", &[&["vrrp_instance"], &["{"], &["{"]]),
            ("vrrp_instance {~SEQ {", &[&["vrrp_instance"], &["{"]]),
            ("vrrp_instance {include {", &[&["vrrp_instance"], &["{"]]),
            ("vrrp_instance {includes {", &[&["vrrp_instance"], &["{"], &["includes"], &["{"]]),
            ("a\r", &[&["a"]]),
        ] {
            assert_eq!(cut_up(line), expected, "{line:?}");
        }
    }

    #[test]
    fn what_exceeds_a_read_is_another_line() {
        let line = format!("{}b {{", "a".repeat(MAX_LINE_BYTES));
        assert_eq!(cut_up(&line), [vec!["a".repeat(MAX_LINE_BYTES)], vec!["b".to_owned()], vec!["{".to_owned()]]);
        assert_eq!(statements(line.as_bytes()).iter().map(|s| s.is_first).collect::<Vec<_>>(), [true, true, false]);
    }
}
