//! Parser for the lines that keepalived writes to its notify FIFO (`vrrp_notify_fifo`).
//!
//! A line is `INSTANCE "<group>" <STATE> <priority>` and a line feed (`notify_instance_fifo` in keepalived's
//! vrrp_notify.c); sync groups write `GROUP "<name>" …`. A name may contain anything except white space. A line that
//! names no known state is ignored.

use crate::model::ids::GroupName;
use crate::model::vrrp::{NotifyEvent, NotifyState};

/// The longest line, in bytes. keepalived's own lines are far shorter.
const MAX_LINE_BYTES: usize = 4096;

/// The beginning of a line. Names have no white space, so it appears nowhere else in a line.
const BEGINNING: &[u8] = b"INSTANCE \"";

/// Assembles lines from the bytes of a pipe, in whatever pieces they are read.
#[derive(Debug, Default)]
pub struct Splitter {
    /// The beginning of a line whose end has not been read yet; of a long line, the last part of it.
    partial: Vec<u8>,
}

impl Splitter {
    /// Adds the bytes that were read, and returns the events of the lines that are now complete, in order.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<NotifyEvent> {
        let mut lines = Vec::new();
        let mut pieces = bytes.split(|b| *b == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            self.partial.extend_from_slice(piece);
            let excess = self.partial.len().saturating_sub(MAX_LINE_BYTES);
            self.partial.drain(..excess);
            // The last piece has no line feed at its end.
            if pieces.peek().is_some() {
                lines.extend(parse(&self.partial));
                self.partial.clear();
            }
        }
        lines
    }
}

/// The event of a line without its line feed, if it names a state. Another writer may leave a line in the pipe without
/// its end, and keepalived's next line then continues it: everything before the last beginning of a line is ignored.
pub fn parse(line: &[u8]) -> Option<NotifyEvent> {
    let beginning = line.windows(BEGINNING.len()).rposition(|window| window == BEGINNING)?;
    let rest = std::str::from_utf8(&line[beginning + BEGINNING.len()..]).ok()?;
    // A name may contain a quote followed by anything except white space: the last quote before a space ends it.
    let (group, rest) = rest.rsplit_once("\" ")?;
    let state = match rest.split(' ').next()? {
        "MASTER" => NotifyState::Master,
        "MASTER_RX_LOWER_PRI" => NotifyState::MasterRxLowerPri,
        "BACKUP" => NotifyState::Backup,
        "FAULT" => NotifyState::Fault,
        "STOP" => NotifyState::Stop,
        "DELETED" => NotifyState::Deleted,
        _ => return None,
    };
    Some(NotifyEvent { group: GroupName::try_from(group).ok()?, state })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(group: &str, state: NotifyState) -> NotifyEvent {
        NotifyEvent { group: GroupName::try_from(group).expect("a group name"), state }
    }

    #[test]
    fn lines_that_name_a_state_and_lines_that_name_none() {
        for (text, expected) in [
            ("INSTANCE \"a\" MASTER 200", Some(line("a", NotifyState::Master))),
            ("INSTANCE \"a\" MASTER_RX_LOWER_PRI 200", Some(line("a", NotifyState::MasterRxLowerPri))),
            ("INSTANCE \"odd$(n)ame;\\@~\" BACKUP 100", Some(line("odd$(n)ame;\\@~", NotifyState::Backup))),
            ("INSTANCE \"a\" FAULT 0", Some(line("a", NotifyState::Fault))),
            ("INSTANCE \"a\" STOP 0", Some(line("a", NotifyState::Stop))),
            ("INSTANCE \"a\" DELETED 0", Some(line("a", NotifyState::Deleted))),
            ("INSTANCE \"a\" MASTER", Some(line("a", NotifyState::Master))),
            ("INSTANCE \"a\" MASTER_PRIORITY 150", None),
            ("INSTANCE \"a\" BACKUP_PRIORITY 150", None),
            ("INSTANCE \"a\" SOMETHING_NEW 1", None),
            ("GROUP \"sg\" MASTER 200", None),
            ("INSTANCE \"a b\" MASTER 200", None),
            ("INSTANCE \"\" MASTER 200", None),
            ("INSTANCE a MASTER 200", None),
            ("INSTANCE \"a\"", None),
            ("", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(parse(b"INSTANCE \"\xff\" MASTER 1"), None);
    }

    #[test]
    fn a_line_of_any_length_costs_no_other_line() {
        let mut splitter = Splitter::default();
        let mut bytes = vec![b'x'; 3 * MAX_LINE_BYTES];
        bytes.extend_from_slice(b"\nINSTANCE \"a\" MASTER 1\n");
        bytes.extend_from_slice(&[b'\xff'; 3 * MAX_LINE_BYTES]);
        bytes.extend_from_slice(b"INSTANCE \"a\" BACKUP 1\nINSTANCE \"b\" MASINSTANCE \"b\" FAULT 1\n");
        let lines: Vec<NotifyEvent> = bytes.chunks(1000).flat_map(|chunk| splitter.push(chunk)).collect();
        let expected = [("a", NotifyState::Master), ("a", NotifyState::Backup), ("b", NotifyState::Fault)];
        assert_eq!(lines, expected.map(|(group, state)| line(group, state)));
    }

    proptest! {
        #[test]
        fn however_a_pipe_cuts_them_the_lines_are_the_same(
            bytes in proptest::collection::vec(
                prop_oneof![
                    Just(b"INSTANCE \"a\" MASTER 1\n".to_vec()),
                    Just(b"INSTANCE \"b;$(x)\" BACKUP 1\n".to_vec()),
                    Just(b"\n".to_vec()),
                    proptest::collection::vec(any::<u8>(), 0..40),
                ],
                0..20,
            ),
            cut in 1_usize..64,
        ) {
            let bytes = bytes.concat();
            let whole = Splitter::default().push(&bytes);
            let mut splitter = Splitter::default();
            let cut: Vec<NotifyEvent> = bytes.chunks(cut).flat_map(|chunk| splitter.push(chunk)).collect();
            prop_assert_eq!(whole, cut);
        }
    }
}
