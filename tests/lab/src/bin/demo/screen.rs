//! The output of the demonstration.

use std::fmt;
use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use lab::{Lab, Router};

/// Begins a part.
pub fn heading(text: &str) {
    println!("\n{text}\n{}", "=".repeat(text.chars().count()));
}

/// A command as it is typed in operational mode.
pub fn operational(router: &Router, command: &str) {
    println!("\nvyos@router-{}:~$ {command}", router.number);
}

/// A command as it is typed in configuration mode.
pub fn configuration(router: &Router, command: &str) {
    println!("vyos@router-{}# {command}", router.number);
}

/// Waits until the condition holds, with a dot a second.
///
/// # Panics
/// If it does not within the time.
pub fn wait(lab: &Lab, what: &str, within: Duration, mut holds: impl FnMut(&Lab) -> bool) {
    let began = Instant::now();
    let mut dots = 0;
    let say = |text: fmt::Arguments<'_>| {
        print!("{text}");
        // Standard output may be closed.
        let _ = stdout().flush();
    };
    say(format_args!("* {what} "));
    lab.wait(what, within, |lab| {
        if began.elapsed().as_secs() > dots {
            dots += 1;
            say(format_args!("."));
        }
        holds(lab)
    });
    println!(" {:.1} s", began.elapsed().as_secs_f64());
}

/// Events in the order of their times, in milliseconds from the first one.
pub fn timeline(events: &[(Timestamp, String)]) {
    let mut events: Vec<_> = events.iter().collect();
    events.sort_by_key(|(at, _)| *at);
    println!();
    for (at, what) in &events {
        println!("  {:>9} ms  {what}", milliseconds(events[0].0, *at));
    }
    println!();
}

/// From one time to a later one, in milliseconds.
pub fn milliseconds(earlier: Timestamp, later: Timestamp) -> String {
    format!("{:.1}", later.duration_since(earlier).as_secs_f64() * 1000.0)
}
