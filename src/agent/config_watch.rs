//! Watches for a new config.json or groups.json, which `commit` and `hook` rename into place without a signal to the
//! agent.
//!
//! Cancel safety: [`ConfigWatch::changed`] waits only for the inotify stream and a timer. What was read from the
//! stream, and the time of the next attempt, are stored in `self` before the next await.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchMask};

use crate::log_messages::log;
use crate::paths::Paths;
use crate::systemd::log_throttle::LogThrottle;

/// How soon a missing directory is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Room for dozens of events.
const EVENT_BUFFER_BYTES: usize = 4096;

/// A file that was replaced or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Changed {
    Config,
    Groups,
}

/// A watch of the directory that holds the two files.
pub struct ConfigWatch {
    directory: PathBuf,
    files: [(OsString, Changed); 2],
    stream: Option<EventStream<[u8; EVENT_BUFFER_BYTES]>>,
    noted: BTreeSet<Changed>,
    next_try: Instant,
    throttle: LogThrottle<io::ErrorKind>,
}

impl ConfigWatch {
    /// Watches from now on; read the files after this call. A missing directory is tried again each second, and both
    /// files count as changed once it exists. Call it inside a tokio runtime.
    pub fn new(paths: &Paths) -> Self {
        let name = |path: &Path| path.file_name().map(OsStr::to_owned).unwrap_or_default();
        let files = [(name(&paths.config), Changed::Config), (name(&paths.groups), Changed::Groups)];
        let mut watch = Self {
            directory: paths.run.clone(),
            files,
            stream: None,
            noted: BTreeSet::new(),
            next_try: Instant::now() + RETRY_INTERVAL,
            throttle: LogThrottle::default(),
        };
        watch.open();
        watch
    }

    /// Waits until one of the files is replaced or removed. Several changes of one file may be reported as one.
    pub async fn changed(&mut self) -> Changed {
        loop {
            if let Some(changed) = self.noted.pop_first() {
                return changed;
            }
            let next_try = self.stream.is_none().then_some(self.next_try);
            tokio::select! {
                biased;
                event = next(&mut self.stream) => self.note(event),
                () = sleep_until(next_try) => {
                    self.next_try = Instant::now() + RETRY_INTERVAL;
                    if self.open() {
                        self.noted = BTreeSet::from([Changed::Config, Changed::Groups]);
                    }
                }
            }
        }
    }

    fn note(&mut self, event: Option<io::Result<EventOwned>>) {
        let over = match event {
            Some(Ok(event)) => {
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    self.noted.extend(self.files.iter().map(|(_, changed)| *changed));
                }
                let name = event.name.unwrap_or_default();
                self.noted.extend(self.files.iter().filter(|(file, _)| *file == name).map(|(_, changed)| *changed));
                event.mask.intersects(EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED)
            }
            Some(Err(error)) => {
                if let Some(times) = self.throttle.say(error.kind()) {
                    let directory = self.directory.display();
                    log!(WATCH_FAILED, %error, %directory, times);
                }
                true
            }
            None => true,
        };
        if over {
            self.stream = None;
            self.next_try = Instant::now();
            self.noted.extend(self.files.iter().map(|(_, changed)| *changed));
        }
    }

    fn open(&mut self) -> bool {
        let mask = WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let opened = Inotify::init().and_then(|inotify| {
            inotify.watches().add(&self.directory, mask)?;
            inotify.into_event_stream([0; EVENT_BUFFER_BYTES])
        });
        match opened {
            Ok(stream) => self.stream = Some(stream),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                log!(DIRECTORY_MISSING, directory = %self.directory.display());
            }
            Err(error) => {
                if let Some(times) = self.throttle.say(error.kind()) {
                    let directory = self.directory.display();
                    log!(DIRECTORY_NOT_WATCHED, %error, %directory, times);
                }
            }
        }
        self.stream.is_some()
    }
}

/// The next event. Waits while there is no stream.
async fn next(stream: &mut Option<EventStream<[u8; EVENT_BUFFER_BYTES]>>) -> Option<io::Result<EventOwned>> {
    match stream {
        Some(stream) => stream.next().await,
        None => pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use vipa_core::model::config::Config;

    use super::*;
    use crate::fs::json_file;

    fn paths(run: &Path) -> Paths {
        Paths {
            run: run.to_owned(),
            config: run.join("config.json"),
            groups: run.join("groups.json"),
            ..Paths::system()
        }
    }

    async fn next(watch: &mut ConfigWatch) -> Changed {
        tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.expect("a change is noticed")
    }

    /// Waits until both files were reported, and nothing more is.
    async fn both(watch: &mut ConfigWatch) {
        let mut seen = BTreeSet::new();
        while seen.len() < 2 {
            seen.insert(next(watch).await);
        }
        while tokio::time::timeout(Duration::from_millis(50), watch.changed()).await.is_ok() {}
    }

    async fn assert_quiet(watch: &mut ConfigWatch) {
        let changed = tokio::time::timeout(Duration::from_millis(100), watch.changed()).await;
        assert!(changed.is_err(), "{changed:?}");
    }

    #[tokio::test]
    async fn a_file_that_is_renamed_into_place_or_removed_is_noticed() {
        let directory = tempfile::tempdir().expect("a directory");
        let paths = paths(directory.path());
        let mut watch = ConfigWatch::new(&paths);
        assert_quiet(&mut watch).await;
        json_file::write(&paths.config, 0o644, &Config::default()).expect("written");
        assert_eq!(next(&mut watch).await, Changed::Config);
        json_file::write(&paths.groups, 0o644, &Config::default()).expect("written");
        assert_eq!(next(&mut watch).await, Changed::Groups);
        json_file::write(&directory.path().join("other.json"), 0o644, &Config::default()).expect("written");
        assert_quiet(&mut watch).await;
        fs::remove_file(&paths.groups).expect("removed");
        assert_eq!(next(&mut watch).await, Changed::Groups);
        for _ in 0..200 {
            json_file::write(&paths.config, 0o644, &Config::default()).expect("written");
        }
        assert_eq!(next(&mut watch).await, Changed::Config);
    }

    #[tokio::test]
    async fn a_change_is_not_lost_when_the_wait_for_it_is_dropped() {
        let directory = tempfile::tempdir().expect("a directory");
        let paths = paths(directory.path());
        let mut watch = ConfigWatch::new(&paths);
        json_file::write(&paths.config, 0o644, &Config::default()).expect("written");
        json_file::write(&paths.groups, 0o644, &Config::default()).expect("written");
        let mut seen = BTreeSet::new();
        let deadline = Instant::now() + Duration::from_secs(5);
        while seen.len() < 2 {
            assert!(Instant::now() < deadline, "only {seen:?}");
            tokio::select! {
                biased;
                changed = watch.changed() => { seen.insert(changed); }
                () = tokio::task::yield_now() => {}
            }
        }
    }

    #[tokio::test]
    async fn a_directory_that_is_made_late_or_anew_is_taken_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let paths = paths(&directory.path().join("run"));
        let mut watch = ConfigWatch::new(&paths);
        assert_quiet(&mut watch).await;
        for _ in 0..2 {
            fs::create_dir(&paths.run).expect("made");
            both(&mut watch).await;
            json_file::write(&paths.config, 0o644, &Config::default()).expect("written");
            assert_eq!(next(&mut watch).await, Changed::Config);
            fs::remove_dir_all(&paths.run).expect("removed");
            both(&mut watch).await;
        }
    }
}
