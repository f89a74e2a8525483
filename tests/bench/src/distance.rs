//! A network's round trip between a client and the simulator: a relay on loopback that holds back every byte for half of
//! it, in each direction. It needs no module of the kernel, and what it adds is measured on the same clock.

use std::hint;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How much one read takes, in bytes.
const CHUNK: usize = 64 << 10;

/// Timers of the kernel fire about that late; the rest of the wait is spent looking at the clock.
const TIMER: Duration = Duration::from_micros(150);

/// Listens on `from` for as long as the process lives, and passes every connection on to `to`, with that round trip.
///
/// # Errors
/// The address cannot be bound.
pub fn open(from: SocketAddr, to: SocketAddr, round_trip: Duration) -> io::Result<()> {
    let listener = TcpListener::bind(from)?;
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A connection that cannot be passed on is closed: the client sees that, and the measurement with it.
            let _ = relay(client, to, round_trip);
        }
    });
    Ok(())
}

fn relay(client: TcpStream, to: SocketAddr, round_trip: Duration) -> io::Result<()> {
    // The kernel has answered the client's SYN at once: what the handshake should have taken is made up for here.
    let connected = Instant::now() + round_trip;
    let server = TcpStream::connect(to)?;
    for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        from.set_nodelay(true)?;
        let (chunks, held_back) = mpsc::channel::<(Instant, Vec<u8>)>();
        thread::spawn(move || receive(from, &chunks, connected, round_trip / 2));
        thread::spawn(move || deliver(&held_back, to));
    }
    Ok(())
}

/// Takes in what comes, with the time at which it is to arrive.
fn receive(mut from: TcpStream, chunks: &mpsc::Sender<(Instant, Vec<u8>)>, connected: Instant, way: Duration) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let arrives = Instant::now().max(connected) + way;
        if chunks.send((arrives, buffer[..count].to_vec())).is_err() {
            return;
        }
    }
}

/// Lets it arrive, and the end of the stream after it.
fn deliver(held_back: &mpsc::Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    for (arrives, bytes) in held_back {
        wait_until(arrives);
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Waits to within microseconds.
pub fn wait_until(moment: Instant) {
    let left = moment.saturating_duration_since(Instant::now());
    if left > TIMER {
        thread::sleep(left - TIMER);
    }
    // Not by yielding: on a busy machine the processor comes back only after the time slices of all others.
    while Instant::now() < moment {
        hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_and_its_answer_take_a_round_trip() {
        let server = TcpListener::bind("127.0.0.1:0").expect("bound");
        let to = server.local_addr().expect("an address");
        thread::spawn(move || {
            let (mut stream, _) = server.accept().expect("a client");
            let mut word = [0; 4];
            while stream.read_exact(&mut word).is_ok() {
                stream.write_all(&word).expect("answered");
            }
        });
        // A port that was free a moment ago.
        let from = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("an address");
        let round_trip = Duration::from_millis(20);
        open(from, to, round_trip).expect("a relay");
        let mut client = TcpStream::connect(from).expect("connected");
        let mut times = Vec::new();
        for _ in 0..3 {
            let began = Instant::now();
            client.write_all(b"ping").expect("sent");
            let mut word = [0; 4];
            client.read_exact(&mut word).expect("answered");
            assert_eq!(&word, b"ping");
            times.push(began.elapsed());
        }
        // The first one waits for the handshake that it should have had.
        assert!(times[0] >= round_trip * 2, "{times:?}");
        assert!(times[1..].iter().all(|time| *time >= round_trip), "{times:?}");
        assert!(times.iter().all(|time| *time < round_trip * 2 + Duration::from_secs(2)), "{times:?}");
    }
}
