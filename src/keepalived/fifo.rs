//! The read end of the FIFO that keepalived writes its VRRP transitions to.
//!
//! keepalived opens the FIFO `O_RDWR|O_NONBLOCK` and drops a line when the pipe is full (`notify_fifo_open` and
//! `notify_fifo` in keepalived). How the kernel treats a read end (fs/pipe.c: `pipe_poll`, `fifo_open`, `pipe_read`):
//! - read() returns 0 while no writer has it open, and `EAGAIN` while a writer has it open and has written nothing.
//! - poll reports HUP once a writer that this read end has seen is gone, and nothing before the first writer. So only
//!   reading shows whether there is a writer.
//! - If a writer closes and opens again, poll reports HUP while read() returns `EAGAIN`, or nothing if the writer is
//!   back before poll looks. So [`FifoEvent::Hup`] is a hint that may be missing.
//! - A small write goes into the last page, or else into a free one. A pipe is full when all its pages are used, and
//!   then it holds less than its capacity.
//!
//! tokio takes HUP as final and would report the read end as ready for ever. So each HUP leads to a new read end,
//! opened before the old one is closed, because a pipe that no process has open loses its content.
//!
//! Cancel safety: [`Fifo::next`] waits only for readiness and timers, and keeps the deadline and pending events in
//! `self`. There is no await between a read and the return of its result, so nothing is lost when it is dropped.

use std::collections::VecDeque;
use std::fs::File;
use std::future::pending;
use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::net::unix::pipe::Receiver;

use crate::log_messages::log;

/// The size that the pipe is enlarged to: the default of /proc/sys/fs/pipe-max-size, the most for an ordinary user.
const WANTED_CAPACITY_BYTES: usize = 1 << 20;

/// The unit of a pipe's capacity. On machines with larger pages the estimate of a full pipe errs on the side of "full".
const PAGE_BYTES: u64 = 4096;

/// A line of keepalived is not longer, because a line of its configuration, and so a name in it, ends at 1,024 bytes.
const MAX_LINE_BYTES: u64 = 1024;

/// How much one read takes: the default capacity of a pipe.
const READ_BYTES: usize = 64 << 10;

/// The first and the longest interval of looking for a writer. A reload of keepalived leaves the FIFO without a writer
/// for 0.2 to 0.6 ms.
const MIN_WRITER_POLL: Duration = Duration::from_millis(1);
const MAX_WRITER_POLL: Duration = Duration::from_millis(100);

/// An event on the FIFO.
#[derive(Debug)]
pub enum FifoEvent {
    /// A pipe was opened: the first one, or a replacement. Its content may be old.
    Backlog {
        /// The content at the moment of opening: whole lines, unless keepalived wrote half of one.
        bytes: Vec<u8>,
        /// Whether the pipe may have been full, so that newer lines may have been dropped. Never false if one was.
        was_full: bool,
    },
    /// The pipe was full when it was read: lines after its content may have been dropped.
    Full,
    /// The content of the full pipe has been read.
    Drained,
    /// New bytes, in order. A line may continue in the next event.
    Bytes(Vec<u8>),
    /// The last writer closed the FIFO, and may have opened it again: keepalived reloads, restarts or ends.
    Hup,
    /// No writer has the FIFO open. Reported once, until [`FifoEvent::WriterBack`].
    WriterGone { why: WriterGoneReason },
    /// A writer has the FIFO open. Reported for the first writer too.
    WriterBack,
}

/// Why there is no writer.
#[derive(Debug, thiserror::Error)]
pub enum WriterGoneReason {
    #[error("no process has the FIFO open for writing: keepalived is down, or runs without the transition hook")]
    NoWriter,
    /// There is no FIFO to open. Opening is retried for ever.
    #[error("cannot open the FIFO {path}: {source}; `vyos-aws-vipa commit` and the start of keepalived create it")]
    NoFifo { path: PathBuf, source: io::Error },
}

/// The read end of the FIFO.
#[derive(Debug)]
pub struct Fifo {
    path: PathBuf,
    pipe: Option<Pipe>,
    writer: Option<bool>,
    events: VecDeque<FifoEvent>,
    buffer: Vec<u8>,
    next_look: Instant,
    look_pause: Duration,
    times_full: u64,
    /// The pipe was found full and has not been drained yet.
    full: bool,
}

/// One open pipe.
#[derive(Debug)]
struct Pipe {
    end: Receiver,
    inode: (u64, u64),
    full_at: u64,
}

impl Fifo {
    /// A reader of the FIFO at `path`, which may not exist yet. [`Fifo::next`] opens it, and must be called inside a
    /// tokio runtime.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            pipe: None,
            writer: None,
            events: VecDeque::new(),
            buffer: vec![0; READ_BYTES],
            next_look: Instant::now(),
            look_pause: MIN_WRITER_POLL,
            times_full: 0,
            full: false,
        }
    }

    /// How often the pipe was found full, so that lines may have been lost.
    pub fn times_full(&self) -> u64 {
        self.times_full
    }

    /// The next event. The first events are [`FifoEvent::Backlog`], if the FIFO exists, and then whether there is a
    /// writer.
    pub async fn next(&mut self) -> FifoEvent {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let next_look = (self.writer != Some(true)).then_some(self.next_look);
            let look = async {
                match next_look {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            let Some(pipe) = &mut self.pipe else {
                look.await;
                self.reopen();
                continue;
            };
            let ready = tokio::select! {
                biased;
                ready = pipe.end.ready(Interest::READABLE) => ready,
                () = look => {
                    self.look();
                    continue;
                }
            };
            let closed = match ready {
                Ok(ready) => ready.is_read_closed(),
                Err(error) => {
                    self.cannot_read(error);
                    continue;
                }
            };
            let mut found = None;
            // `WouldBlock` makes tokio wait for readiness. HUP stays set for ever.
            let drained = pipe.end.try_io(|| match found.insert(read(&pipe.end, &mut self.buffer, pipe.full_at)) {
                ReadResult::Bytes { .. } => Ok(()),
                _ => Err(io::ErrorKind::WouldBlock.into()),
            });
            match found {
                Some(_) if closed && drained.is_err() => {
                    self.events.push_back(FifoEvent::Hup);
                    self.reopen();
                }
                Some(found) => self.found(found),
                None => {}
            }
        }
    }

    /// Turns the result of a read into events.
    fn found(&mut self, found: ReadResult) {
        match found {
            ReadResult::Bytes { count, full, rest } => {
                self.a_writer();
                if full && !self.full {
                    self.full = true;
                    self.times_full += 1;
                    self.events.push_back(FifoEvent::Full);
                }
                self.events.push_back(FifoEvent::Bytes(self.buffer[..count].to_vec()));
                if !rest {
                    self.drained();
                }
            }
            ReadResult::Nothing => {
                self.drained();
                self.a_writer();
            }
            ReadResult::NoWriter => {
                self.drained();
                self.no_writer(WriterGoneReason::NoWriter);
            }
            ReadResult::Failed(error) => self.cannot_read(error),
        }
    }

    fn drained(&mut self) {
        if mem::take(&mut self.full) {
            self.events.push_back(FifoEvent::Drained);
        }
    }

    fn cannot_read(&mut self, source: io::Error) {
        self.pipe = None;
        self.drained();
        self.no_writer(WriterGoneReason::NoFifo { path: self.path.clone(), source });
    }

    fn a_writer(&mut self) {
        if self.writer != Some(true) {
            self.writer = Some(true);
            self.events.push_back(FifoEvent::WriterBack);
        }
        self.look_pause = MIN_WRITER_POLL;
    }

    fn no_writer(&mut self, why: WriterGoneReason) {
        self.next_look = Instant::now() + self.look_pause;
        self.look_pause = (self.look_pause * 2).min(MAX_WRITER_POLL);
        if self.writer != Some(false) {
            self.writer = Some(false);
            self.events.push_back(FifoEvent::WriterGone { why });
        }
    }

    /// Without a writer: checks whether one has come, and whether there is another FIFO at the path now.
    fn look(&mut self) {
        let here = std::fs::symlink_metadata(&self.path).ok().map(|m| (m.dev(), m.ino()));
        if self.pipe.as_ref().is_some_and(|pipe| Some(pipe.inode) == here) { self.ask() } else { self.reopen() }
    }

    /// Reads without being ready.
    fn ask(&mut self) {
        if let Some(pipe) = &mut self.pipe {
            let found = read(&pipe.end, &mut self.buffer, pipe.full_at);
            self.found(found);
        }
    }

    /// Opens the path, and closes the old read end only afterwards.
    fn reopen(&mut self) {
        let opened = open(&self.path).and_then(|(file, inode)| {
            if self.pipe.as_ref().is_some_and(|old| old.inode == inode) {
                return Ok((Pipe::new(file, inode)?, None));
            }
            let backlog = backlog(&file)?;
            enlarge(&file);
            Ok((Pipe::new(file, inode)?, Some(backlog)))
        });
        match opened {
            Ok((pipe, backlog)) => {
                self.drain_the_old_one(pipe.inode);
                self.pipe = Some(pipe);
                if let Some((bytes, was_full)) = backlog {
                    self.times_full += u64::from(was_full);
                    self.events.push_back(FifoEvent::Backlog { bytes, was_full });
                }
                self.ask();
            }
            Err(error) => self.cannot_read(error),
        }
    }

    /// Reads what is left in a pipe that is being replaced.
    fn drain_the_old_one(&mut self, new: (u64, u64)) {
        while let Some(pipe) = self.pipe.as_mut().filter(|old| old.inode != new) {
            let found = read(&pipe.end, &mut self.buffer, pipe.full_at);
            let ReadResult::Bytes { .. } = found else { return };
            self.found(found);
        }
    }
}

impl Pipe {
    fn new(file: File, inode: (u64, u64)) -> io::Result<Self> {
        let full_at = full_at(&file)?;
        Ok(Self { end: Receiver::from_file(file)?, inode, full_at })
    }
}

/// The result of a read.
enum ReadResult {
    /// This many bytes at the beginning of the buffer; whether the pipe was full before, and whether it holds more.
    Bytes {
        count: usize,
        full: bool,
        rest: bool,
    },
    /// A writer, and nothing to read.
    Nothing,
    NoWriter,
    /// The pipe cannot be read.
    Failed(io::Error),
}

/// Reads once.
fn read(file: impl AsFd, buffer: &mut [u8], full_at: u64) -> ReadResult {
    let waiting = match rustix::io::ioctl_fionread(&file) {
        Ok(waiting) => waiting,
        Err(error) => return ReadResult::Failed(error.into()),
    };
    loop {
        return match rustix::io::read(&file, &mut *buffer) {
            Ok(0) => ReadResult::NoWriter,
            Ok(count) => ReadResult::Bytes { count, full: waiting >= full_at, rest: waiting > count as u64 },
            Err(Errno::AGAIN) => ReadResult::Nothing,
            Err(Errno::INTR) => continue,
            Err(error) => ReadResult::Failed(error.into()),
        };
    }
}

/// Opens the FIFO for reading, and nothing but a FIFO. Its inode distinguishes it from a later FIFO at that path.
fn open(path: &Path) -> io::Result<(File, (u64, u64))> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.file_type().is_fifo() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a FIFO"));
    }
    Ok((file, (metadata.dev(), metadata.ino())))
}

/// The number of bytes from which a pipe may be full: every page is used, and all but the first, which may have been
/// read in part, hold at least a page less the line that did not fit.
fn full_at(file: &File) -> io::Result<u64> {
    let capacity = rustix::pipe::fcntl_getpipe_size(file)? as u64;
    Ok(((capacity / PAGE_BYTES).saturating_sub(1) * (PAGE_BYTES - MAX_LINE_BYTES)).max(1))
}

/// Reads what the pipe holds now, no more: what comes later is new.
fn backlog(file: &File) -> io::Result<(Vec<u8>, bool)> {
    let waiting = rustix::io::ioctl_fionread(file)?;
    let was_full = waiting >= full_at(file)?;
    let mut bytes = vec![0; usize::try_from(waiting).unwrap_or(usize::MAX).min(64 << 20)];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::io::read(file, &mut bytes[filled..]) {
            Ok(0) | Err(Errno::AGAIN) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(filled);
    Ok((bytes, was_full))
}

/// Makes the pipe as large as the system permits. The backlog must have been read before: once the pipe is enlarged, it no
/// longer shows that it was full.
fn enlarge(file: &File) {
    let Ok(before) = rustix::pipe::fcntl_getpipe_size(file) else { return };
    let mut wanted = WANTED_CAPACITY_BYTES;
    while wanted > before {
        match rustix::pipe::fcntl_setpipe_size(file, wanted) {
            Ok(bytes) => return log!(FIFO_ENLARGED, bytes),
            // EPERM: over /proc/sys/fs/pipe-max-size or pipe-user-pages-soft (pipe(7)).
            Err(Errno::PERM | Errno::NOMEM | Errno::BUSY) => wanted /= 2,
            Err(error) => return log!(FIFO_NOT_ENLARGED, %error, bytes = before),
        }
    }
    if before < WANTED_CAPACITY_BYTES {
        log!(FIFO_LIMIT_REACHED, bytes = before);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;
    use crate::netlink::namespace::{inside, ip};
    use crate::netlink::processor;

    const TEST_TIMEOUT: Duration = Duration::from_secs(5);

    fn make(path: &Path) {
        rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::RUSR | Mode::WUSR).expect("a FIFO");
    }

    fn directory() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify.fifo");
        (directory, path)
    }

    /// As keepalived opens it.
    fn writer(path: &Path) -> File {
        rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).expect("open").into()
    }

    /// Writes lines until one is dropped, as keepalived would, and returns how many were written.
    fn fill(mut to: &File, line: &[u8]) -> usize {
        (0..).take_while(|_| to.write(line).is_ok()).count()
    }

    async fn next(fifo: &mut Fifo) -> FifoEvent {
        tokio::time::timeout(TEST_TIMEOUT, fifo.next()).await.expect("an event in time")
    }

    /// Reads this many bytes, and ignores other events.
    async fn bytes(fifo: &mut Fifo, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            if let FifoEvent::Bytes(bytes) = next(fifo).await {
                all.extend(bytes);
            }
        }
        all
    }

    macro_rules! assert_next {
        ($fifo:expr, $pattern:pat $(if $guard:expr)?) => {
            let event = next($fifo).await;
            assert!(matches!(&event, $pattern $(if $guard)?), "{event:?} is not {}", stringify!($pattern $(if $guard)?));
        };
    }

    #[tokio::test]
    async fn what_waited_comes_first_and_then_what_is_written() {
        let (_directory, path) = directory();
        make(&path);
        let mut keepalived = writer(&path);
        keepalived.write_all(b"old 1\nold 2\n").expect("written");
        let mut fifo = Fifo::new(&path);
        assert_next!(&mut fifo, FifoEvent::Backlog { bytes, was_full: false } if bytes == b"old 1\nold 2\n");
        assert_next!(&mut fifo, FifoEvent::WriterBack);
        for line in ["new 1\n", "new 2\n", "half", " a line\n"] {
            keepalived.write_all(line.as_bytes()).expect("written");
            assert_next!(&mut fifo, FifoEvent::Bytes(bytes) if bytes == line.as_bytes());
        }
        assert_eq!(fifo.times_full(), 0);
        let capacity = rustix::pipe::fcntl_getpipe_size(&keepalived).expect("known");
        assert_eq!(capacity, WANTED_CAPACITY_BYTES, "an ordinary user may have that much");
    }

    #[tokio::test]
    async fn an_event_is_not_lost_when_the_wait_for_it_is_dropped() {
        let (_directory, path) = directory();
        make(&path);
        let mut keepalived = writer(&path);
        let mut fifo = Fifo::new(&path);
        let mut all = Vec::new();
        let deadline = Instant::now() + TEST_TIMEOUT;
        for round in 0..200 {
            keepalived.write_all(format!("{round}\n").as_bytes()).expect("written");
            tokio::select! {
                biased;
                event = fifo.next() => {
                    if let FifoEvent::Bytes(bytes) | FifoEvent::Backlog { bytes, .. } = event {
                        all.extend(bytes);
                    }
                }
                () = tokio::task::yield_now() => {}
            }
        }
        let expected: Vec<u8> = (0..200).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        while all.len() < expected.len() && Instant::now() < deadline {
            // The FIFO may not have been opened before.
            if let FifoEvent::Bytes(bytes) | FifoEvent::Backlog { bytes, .. } = next(&mut fifo).await {
                all.extend(bytes);
            }
        }
        assert_eq!(String::from_utf8_lossy(&all), String::from_utf8_lossy(&expected));
    }

    #[tokio::test]
    async fn a_full_pipe_is_distinguished_from_one_with_room_whatever_the_lines_are_like() {
        for length in [20, 37, 255, 300, 1000] {
            let (_directory, path) = directory();
            make(&path);
            let keepalived = writer(&path);
            let line = vec![b'x'; length];
            let lines = fill(&keepalived, &line);
            let mut fifo = Fifo::new(&path);
            assert_next!(&mut fifo, FifoEvent::Backlog { bytes, was_full: true } if bytes.len() == lines * length);
            assert_eq!(fifo.times_full(), 1, "lines of {length} bytes");
            drop(fifo);

            // Half of the new capacity.
            for _ in 0..(1 << 20) / length / 2 {
                (&keepalived).write_all(&line).expect("room");
            }
            let mut fifo = Fifo::new(&path);
            assert_next!(&mut fifo, FifoEvent::Backlog { was_full: false, .. });
        }
    }

    #[tokio::test]
    async fn a_pipe_that_was_read_in_part_is_still_taken_for_full() {
        let (_directory, path) = directory();
        make(&path);
        let keepalived = writer(&path);
        fill(&keepalived, &[b'x'; 300]);
        let mut head = [0; 3800];
        rustix::io::read(&keepalived, &mut head).expect("read");
        assert_eq!(fill(&keepalived, &[b'x'; 300]), 0, "its page is still taken");
        assert_next!(&mut Fifo::new(&path), FifoEvent::Backlog { was_full: true, .. });
    }

    #[tokio::test]
    async fn a_pipe_that_fills_up_without_a_reader_is_reported_once() {
        let (_directory, path) = directory();
        make(&path);
        let keepalived = writer(&path);
        let mut fifo = Fifo::new(&path);
        assert_next!(&mut fifo, FifoEvent::Backlog { .. });
        assert_next!(&mut fifo, FifoEvent::WriterBack);
        let line = b"INSTANCE \"vyos-aws\" MASTER 200\n";
        for round in 1..=2 {
            let lines = fill(&keepalived, line);
            assert!(lines * line.len() > 900_000, "{lines} lines fit in the enlarged pipe");
            assert_next!(&mut fifo, FifoEvent::Full);
            let all = bytes(&mut fifo, lines * line.len()).await;
            assert!(all.chunks(line.len()).all(|l| l == line), "no line is split or lost");
            assert_next!(&mut fifo, FifoEvent::Drained);
            assert_eq!(fifo.times_full(), round);
        }
        (&keepalived).write_all(line).expect("room again");
        assert_next!(&mut fifo, FifoEvent::Bytes(bytes) if bytes == line);
    }

    #[tokio::test]
    async fn a_full_pipe_is_drained_after_any_number_of_whole_reads() {
        let (_directory, path) = directory();
        make(&path);
        let keepalived = writer(&path);
        let mut fifo = Fifo::new(&path);
        assert_next!(&mut fifo, FifoEvent::Backlog { .. });
        assert_next!(&mut fifo, FifoEvent::WriterBack);
        // Whole pages, so that the pipe holds a multiple of what one read takes.
        let count = fill(&keepalived, &[b'x'; PAGE_BYTES as usize]) * PAGE_BYTES as usize;
        assert_eq!(count % READ_BYTES, 0);
        assert_next!(&mut fifo, FifoEvent::Full);
        bytes(&mut fifo, count).await;
        assert_next!(&mut fifo, FifoEvent::Drained);
    }

    #[tokio::test]
    async fn a_reload_with_a_gap_of_half_a_millisecond_loses_nothing() {
        let (_directory, path) = directory();
        make(&path);
        let mut keepalived = writer(&path);
        let mut fifo = Fifo::new(&path);
        // A pipe that no process has open loses its content.
        assert_next!(&mut fifo, FifoEvent::Backlog { .. });
        let mut expected = Vec::new();
        let (mut all, mut hups) = (Vec::new(), 0);
        let reloads = 100;
        let there = path.clone();
        let reloading = std::thread::spawn(move || {
            for round in 0..reloads {
                keepalived.write_all(format!("before {round}\n").as_bytes()).expect("written");
                drop(keepalived);
                std::thread::sleep(Duration::from_micros(200 + 4 * round));
                keepalived = writer(&there);
                keepalived.write_all(format!("after {round}\n").as_bytes()).expect("written");
            }
            keepalived
        });
        for round in 0..reloads {
            expected.extend(format!("before {round}\nafter {round}\n").into_bytes());
        }
        while all.len() < expected.len() {
            match next(&mut fifo).await {
                FifoEvent::Bytes(bytes) | FifoEvent::Backlog { bytes, .. } => all.extend(bytes),
                FifoEvent::Hup => hups += 1,
                _ => {}
            }
        }
        assert_eq!(String::from_utf8_lossy(&all), String::from_utf8_lossy(&expected));
        assert!(hups > 0 && hups <= reloads, "{hups} times HUP in {reloads} reloads");
        let mut keepalived = reloading.join().expect("no panic");
        keepalived.write_all(b"last\n").expect("written");
        assert_eq!(bytes(&mut fifo, 5).await, b"last\n");
    }

    #[tokio::test]
    async fn a_writer_that_goes_and_comes_back_is_reported() {
        let (_directory, path) = directory();
        make(&path);
        let mut fifo = Fifo::new(&path);
        assert_next!(&mut fifo, FifoEvent::Backlog { bytes, was_full: false } if bytes.is_empty());
        assert_next!(&mut fifo, FifoEvent::WriterGone { why: WriterGoneReason::NoWriter });
        // Before the first writer poll reports nothing, and only reading shows the writer.
        let mut keepalived = writer(&path);
        assert_next!(&mut fifo, FifoEvent::WriterBack);
        keepalived.write_all(b"STOP\n").expect("written");
        drop(keepalived);
        assert_next!(&mut fifo, FifoEvent::Bytes(bytes) if bytes == b"STOP\n");
        assert_next!(&mut fifo, FifoEvent::Hup);
        assert_next!(&mut fifo, FifoEvent::WriterGone { why: WriterGoneReason::NoWriter });
        keepalived = writer(&path);
        assert_next!(&mut fifo, FifoEvent::WriterBack);
        keepalived.write_all(b"MASTER\n").expect("written");
        assert_next!(&mut fifo, FifoEvent::Bytes(bytes) if bytes == b"MASTER\n");
    }

    #[tokio::test]
    async fn what_an_ended_writer_left_is_read() {
        let (_directory, path) = directory();
        make(&path);
        let mut fifo = Fifo::new(&path);
        assert_next!(&mut fifo, FifoEvent::Backlog { .. });
        assert_next!(&mut fifo, FifoEvent::WriterGone { .. });
        writer(&path).write_all(&[b'x'; 60_000]).expect("written");
        assert_eq!(bytes(&mut fifo, 60_000).await, [b'x'; 60_000]);
        assert_next!(&mut fifo, FifoEvent::Hup);
        assert_next!(&mut fifo, FifoEvent::WriterGone { .. });
    }

    #[tokio::test]
    async fn neither_hup_nor_a_missing_writer_nor_a_missing_fifo_costs_processor_time() {
        let (_directory, path) = directory();
        let mut fifo = Fifo::new(&path);
        // A loop that spins takes hundreds of milliseconds in every window of 2 s; the cold caches of a busy machine take
        // tens in some.
        let (window, most) = (Duration::from_secs(2), Duration::from_millis(20));
        for state in ["no FIFO", "no writer yet", "the writer gone"] {
            match state {
                "no FIFO" => {}
                "no writer yet" => make(&path),
                _ => {
                    let keepalived = writer(&path);
                    while !matches!(next(&mut fifo).await, FifoEvent::WriterBack) {}
                    drop(keepalived);
                    assert_next!(&mut fifo, FifoEvent::Hup);
                }
            }
            let mut events = 0;
            let mut costs = Vec::new();
            while costs.len() < 3 && costs.last().is_none_or(|cost| *cost >= most) {
                let before = processor::time();
                let end = tokio::time::Instant::now() + window;
                while tokio::time::timeout_at(end, fifo.next()).await.is_ok() {
                    events += 1;
                }
                costs.push(processor::time() - before);
            }
            assert!(events <= 2, "{events} events with {state}");
            assert!(costs.last().is_some_and(|cost| *cost < most), "with {state}, in 2 s each: {costs:?}");
        }
    }

    #[tokio::test]
    async fn a_fifo_that_is_made_late_or_anew_is_taken_up() {
        let (_directory, path) = directory();
        let mut fifo = Fifo::new(&path);
        assert_next!(&mut fifo, FifoEvent::WriterGone { why: WriterGoneReason::NoFifo { .. } });
        fs::write(&path, "no FIFO").expect("written");
        assert!(tokio::time::timeout(Duration::from_millis(300), fifo.next()).await.is_err(), "a file is no FIFO");
        fs::remove_file(&path).expect("removed");
        make(&path);
        let mut keepalived = writer(&path);
        keepalived.write_all(b"one\n").expect("written");
        let mut waited = Vec::new();
        while waited != b"one\n" {
            if let FifoEvent::Backlog { bytes, .. } | FifoEvent::Bytes(bytes) = next(&mut fifo).await {
                waited.extend(bytes);
            }
        }
        // A keepalived that made the FIFO itself unlinks it at a reload and makes another one.
        keepalived.write_all(b"two\n").expect("written");
        fs::remove_file(&path).expect("removed");
        make(&path);
        let mut reloaded = writer(&path);
        reloaded.write_all(b"three\n").expect("written");
        drop(keepalived);
        let mut all = Vec::new();
        while all.len() < 10 {
            if let FifoEvent::Backlog { bytes, .. } | FifoEvent::Bytes(bytes) = next(&mut fifo).await {
                all.extend(bytes);
            }
        }
        assert_eq!(String::from_utf8_lossy(&all), "two\nthree\n");
        reloaded.write_all(b"four\n").expect("written");
        assert_eq!(bytes(&mut fifo, 5).await, b"four\n");
    }

    #[tokio::test]
    async fn a_flood_comes_through_whole_and_in_order() {
        let (_directory, path) = directory();
        make(&path);
        let mut fifo = Fifo::new(&path);
        let keepalived = writer(&path);
        let total = 8 << 20;
        let flood = std::thread::spawn(move || {
            let mut sent = 0;
            while sent < total {
                let piece: Vec<u8> = (sent..(sent + 100_000).min(total)).map(|n| (n % 251) as u8).collect();
                match (&keepalived).write(&piece) {
                    Ok(count) => sent += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
            keepalived
        });
        let mut read = 0;
        while read < total {
            if let FifoEvent::Bytes(bytes) | FifoEvent::Backlog { bytes, .. } = next(&mut fifo).await {
                assert!(bytes.iter().enumerate().all(|(n, b)| *b == ((read + n) % 251) as u8), "after {read} bytes");
                read += bytes.len();
            }
        }
        assert_eq!(read, total);
        flood.join().expect("no panic");
    }

    #[tokio::test]
    async fn keepalived_is_read_through_a_reload_and_to_its_end() {
        let test = "keepalived::fifo::tests::keepalived_is_read_through_a_reload_and_to_its_end";
        if !inside(test, &["-Urnm", "-pf", "--mount-proc"]) {
            return;
        }
        assert!(Command::new("mount").args(["-t", "tmpfs", "none", "/run"]).status().expect("mount(8)").success());
        ip("link add eth0 type veth peer name eth1");
        ip("address add 10.99.0.1/24 dev eth0");
        ip("link set eth0 up");
        ip("link set eth1 up");
        let path = Path::new("/run/notify.fifo");
        make(path);
        let configuration = "
            global_defs {
                vrrp_notify_fifo /run/notify.fifo
            }
            vrrp_instance vyos-aws {
                interface eth0
                virtual_router_id 11
                priority 200
                advert_int 1
                virtual_ipaddress {
                    10.99.0.100/24
                }
            }
        ";
        fs::write("/run/keepalived.conf", configuration).expect("written");
        let mut fifo = Fifo::new(path);
        assert_next!(&mut fifo, FifoEvent::Backlog { .. });
        assert_next!(&mut fifo, FifoEvent::WriterGone { why: WriterGoneReason::NoWriter });
        let mut keepalived = Command::new("keepalived")
            .args([
                "--dont-fork",
                "--log-console",
                "--use-file",
                "/run/keepalived.conf",
                "--pid",
                "/run/keepalived.pid",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("keepalived");
        let (mut text, mut hups, mut reloaded, mut ended) = (String::new(), 0, false, false);
        let signal = |signal| {
            let pid = Pid::from_raw(keepalived.id().try_into().expect("an id")).expect("not 0");
            kill_process(pid, signal).expect("signalled");
        };
        loop {
            // After the reload there is nothing more to come.
            let patience = Duration::from_secs(if reloaded && !ended { 5 } else { 20 });
            match tokio::time::timeout(patience, fifo.next()).await {
                Err(_) if reloaded && !ended => {
                    ended = true;
                    signal(Signal::TERM);
                }
                Err(_) => panic!("{hups} times HUP, and {text:?}"),
                Ok(FifoEvent::Bytes(bytes)) => text += std::str::from_utf8(&bytes).expect("UTF-8"),
                Ok(FifoEvent::Hup) => hups += 1,
                Ok(FifoEvent::WriterGone { .. }) if ended => break,
                Ok(_) => {}
            }
            if !reloaded && text.contains("MASTER") {
                reloaded = true;
                signal(Signal::HUP);
            }
        }
        keepalived.wait().expect("waited");
        assert_eq!(
            text,
            "INSTANCE \"vyos-aws\" BACKUP 200\nINSTANCE \"vyos-aws\" MASTER 200\nINSTANCE \"vyos-aws\" STOP 200\n"
        );
        assert!((1..=2).contains(&hups), "{hups} times HUP: that of the reload may be missed, that of the end may not");
    }
}
