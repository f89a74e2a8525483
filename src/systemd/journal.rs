//! Sends log lines to systemd's journal, each field as a field, or to standard error with the time.

use std::env;
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::os::fd::AsFd;

use tracing::field::{Field, Visit, display};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber, Value};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use vipa_core::printable;

/// Installs the logger for the whole process: this package's lines of level INFO and above, and warnings of libraries (the
/// SDK's INFO lines contain access keys). Without a journal the lines go to standard error. A second call has no
/// effect.
pub fn start() {
    let levels =
        Targets::new().with_default(LevelFilter::WARN).with_target(env!("CARGO_CRATE_NAME"), LevelFilter::INFO);
    let registry = tracing_subscriber::registry().with(levels);
    let stream = env::var("JOURNAL_STREAM").ok();
    let journal = is_journal(stream.as_deref(), io::stderr()).then(tracing_journald::layer).and_then(Result::ok);
    // A second call fails, which is ignored.
    let _ = match journal {
        Some(journal) => registry.with(Readable(journal)).try_init(),
        None => registry
            .with(tracing_subscriber::fmt::layer().with_writer(|| Lines(io::stderr())).with_target(false))
            .try_init(),
    };
}

/// Whether this descriptor is the connection to the journal that systemd opened: `JOURNAL_STREAM` has its device and
/// inode (systemd.exec(5)).
fn is_journal(stream: Option<&str>, descriptor: impl AsFd) -> bool {
    let named = stream.and_then(|s| {
        let (device, inode) = s.split_once(':')?;
        Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?))
    });
    let ours = rustix::fs::fstat(descriptor).ok().map(|s| (s.st_dev, s.st_ino));
    named.is_some() && named == ours
}

/// Writes each event, which arrives in one piece, as one line of printable characters.
struct Lines<W>(W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = printable::line(text.strip_suffix('\n').unwrap_or(&text)).into_owned();
        self.0.write_all((line + "\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Appends the fields of an event to its message too, because journalctl(1) prints only the message.
///
/// `value_set_all` is hidden from tracing-core's documentation but stable: the macros of every tracing of that version
/// use it.
struct Readable<L>(L);

impl<S, L> Layer<S> for Readable<L>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    L: Layer<S>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.0.on_new_span(attributes, id, context);
    }

    fn on_record(&self, span: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.0.on_record(span, values, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut visitor = FieldVisitor::default();
        event.record(&mut visitor);
        let fields = event.metadata().fields();
        let line = display(visitor.line(event.metadata().level()));
        let texts: Vec<_> =
            visitor.fields.iter().map(|(field, text, _)| (field, display(printable::line(text)))).collect();
        let values: Vec<Option<&dyn Value>> = fields
            .iter()
            .map(|field| match field.name() {
                "message" => Some(&line as &dyn Value),
                _ => texts.iter().find(|(f, _)| **f == field).map(|(_, text)| text as &dyn Value),
            })
            .collect();
        let values = fields.value_set_all(&values);
        self.0.on_event(&Event::new(event.metadata(), &values), context);
    }
}

/// The message of an event, and its other fields: the value, and the value as it is printed in a line, text in quotes.
#[derive(Default)]
struct FieldVisitor {
    message: String,
    fields: Vec<(Field, String, String)>,
}

impl FieldVisitor {
    /// One printable line, with the level, which journalctl(1) shows as a colour at best.
    fn line(&self, level: &Level) -> String {
        let mut line = format!("{level} {}", self.message);
        for (field, _, shown) in &self.fields {
            // Writing to a String cannot fail.
            let _ = write!(line, " {field}={shown}");
        }
        printable::line(&line).into_owned()
    }
}

impl Visit for FieldVisitor {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            _ => self.fields.push((field.clone(), value.to_owned(), format!("{value:?}"))),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            _ => self.fields.push((field.clone(), text.clone(), text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn the_journal_is_recognised_by_its_descriptor() {
        let file = tempfile::tempfile().expect("a file");
        let metadata = file.metadata().expect("known");
        let here = format!("{}:{}", metadata.dev(), metadata.ino());
        assert!(is_journal(Some(&here), &file));
        for other in [None, Some(""), Some("1"), Some("1:2"), Some("a:b"), Some("-1:2")] {
            assert!(!is_journal(other, &file), "{other:?}");
        }
    }

    type Recorded = (String, Vec<String>);

    /// Records what the inner layer is given.
    struct Recorder(Arc<Mutex<Vec<Recorded>>>);

    impl<S: Subscriber> Layer<S> for Recorder {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut visitor = FieldVisitor::default();
            event.record(&mut visitor);
            let fields = visitor.fields.iter().map(|(field, text, _)| format!("{field}={text}")).collect();
            self.0.lock().expect("no panic").push((visitor.message, fields));
        }
    }

    #[test]
    fn a_line_of_the_journal_holds_the_message_and_every_field() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(Readable(Recorder(Arc::clone(&lines))));
        tracing::subscriber::with_default(subscriber, || {
            let address = std::net::Ipv4Addr::new(10, 99, 0, 100);
            tracing::event!(Level::WARN, %address, code = "Timeout", absent = None::<u8>, attempts = 3, "the claim failed");
            tracing::event!(Level::INFO, "the agent is ready");
            tracing::event!(Level::ERROR, reason = %"two\nlines\u{9b}\u{202e}", "bad");
        });
        let lines = lines.lock().expect("no panic");
        let (message, fields) = &lines[0];
        assert_eq!(message, "WARN the claim failed address=10.99.0.100 code=\"Timeout\" attempts=3");
        assert_eq!(fields, &["address=10.99.0.100", "code=Timeout", "attempts=3"]);
        assert_eq!(lines[1], ("INFO the agent is ready".to_owned(), vec![]));
        let shown = "two\\nlines\\u{9b}\\u{202e}";
        assert_eq!(lines[2], (format!("ERROR bad reason={shown}"), vec![format!("reason={shown}")]));
    }

    #[test]
    fn a_line_of_standard_error_is_one_that_prints() {
        let mut written = Vec::new();
        Lines(&mut written).write_all("WARN bad reason=two\nlines\u{9b}\u{7f}\u{202e}\n".as_bytes()).expect("written");
        assert_eq!(String::from_utf8_lossy(&written), "WARN bad reason=two\\nlines\\u{9b}\\u{7f}\\u{202e}\n");
    }

    /// A pattern for the journal's messages can be tried on the lines of standard error.
    #[test]
    fn a_message_of_the_journal_is_the_line_of_standard_error_without_the_time() {
        let (messages, shared) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let written = Arc::clone(&shared);
        let lines = tracing_subscriber::fmt::layer().with_writer(move || Lines(Shared(Arc::clone(&written))));
        let subscriber = tracing_subscriber::registry()
            .with(Readable(Recorder(Arc::clone(&messages))))
            .with(lines.with_target(false).with_ansi(false));
        tracing::subscriber::with_default(subscriber, || {
            let address = std::net::Ipv4Addr::new(10, 99, 0, 100);
            let addresses = [address];
            tracing::event!(Level::WARN, %address, ?addresses, code = "Time\"out", absent = None::<u8>, n = 3, "failed: why");
            tracing::event!(Level::INFO, "the agent is ready");
            tracing::event!(Level::ERROR, reason = %"two\nlines\u{202e}", text = "tab\t", "bad");
        });
        let written = String::from_utf8(shared.lock().expect("no panic").clone()).expect("text");
        let without_time = written.lines().map(|line| line.split_once(' ').expect("a time").1.trim_start());
        let messages = messages.lock().expect("no panic");
        let messages: Vec<&str> = messages.iter().map(|(message, _): &Recorded| message.as_str()).collect();
        assert_eq!(without_time.collect::<Vec<_>>(), messages);
    }

    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
