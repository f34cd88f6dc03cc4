//! Traffic through a lab's Services: starts the clients, tells them what phase it is, and gathers what they saw.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{Command, Event, Expect, Orders, Tallies};
use super::report::{self, TrafficReport};
use super::{Lab, LabError, Names, Place, netns};
use crate::capture::command;

/// How much traffic, and of what kind.
#[derive(Clone, Debug)]
pub struct TrafficOptions {
    /// Flows that are opened at the start and stay until the end.
    pub flows: u32,
    /// Time between two records of a flow.
    pub interval: Duration,
    /// Flows opened per second while traffic runs.
    pub timed_per_second: u32,
    /// How long each of these lives.
    pub timed: Duration,
    /// Short TCP connections per second.
    pub connects_per_second: u32,
    /// Exchanges per second that go round all frontends, also those that must not answer.
    pub rounds_per_second: u32,
}

impl Default for TrafficOptions {
    fn default() -> Self {
        Self {
            flows: 120,
            interval: Duration::from_millis(20),
            timed_per_second: 12,
            timed: Duration::from_secs(3),
            connects_per_second: 60,
            rounds_per_second: 0,
        }
    }
}

/// Clients send a fifth as often as servers push.
const KEEP: u32 = 5;
/// Shares of the places in all traffic, of ten.
const SHARES: [(Place, u32); 3] = [(Place::Node, 4), (Place::Pod, 4), (Place::Outside, 2)];
/// How long the clients may take to open their flows, and to end them.
const PATIENCE: Duration = Duration::from_secs(20);

struct Client {
    child: Child,
    orders: ChildStdin,
}

/// Running traffic. Dropping it ends the clients.
pub struct Traffic {
    clients: Vec<Client>,
    events: Receiver<(Place, Option<Event>)>,
    names: Names,
    /// Segments that the lab's namespaces had sent again, at the start of each phase.
    sent_again: Vec<u64>,
}

impl Traffic {
    /// Starts the clients and waits until the first flows are open.
    pub fn start(lab: &mut Lab, options: &TrafficOptions) -> Result<Self, LabError> {
        let (sender, events) = channel();
        let names = lab.names().clone();
        let mut traffic = Self { clients: Vec::new(), events, sent_again: vec![sent_again(&names)?], names };
        for (place, share) in SHARES {
            let targets = lab.targets(place);
            // Whoever goes round asks those as well that must not answer.
            if targets.iter().any(|t| t.expect == Expect::Answer || options.rounds_per_second > 0) {
                traffic.start_client(lab, place, share, options, sender.clone())?;
            }
        }
        drop(sender);
        let mut waiting = traffic.clients.len();
        let deadline = Instant::now() + PATIENCE;
        while waiting > 0 {
            if let (_, Event::Ready { .. }) = traffic.next(deadline)? {
                waiting -= 1;
            }
        }
        Ok(traffic)
    }

    fn start_client(
        &mut self,
        lab: &mut Lab,
        place: Place,
        share: u32,
        options: &TrafficOptions,
        events: Sender<(Place, Option<Event>)>,
    ) -> Result<(), LabError> {
        let (netns, cgroup) = match place {
            Place::Node => (lab.names().node(), Some(lab.clients())),
            Place::Pod => (lab.names().client(), Some(lab.clients())),
            Place::Outside => (lab.names().outside(), None),
        };
        let mut args = vec!["--netns".to_owned(), netns, "lab".to_owned(), "client".to_owned()];
        if let Some(cgroup) = cgroup {
            args.extend(["--join".to_owned(), cgroup.to_string_lossy().into_owned()]);
        }
        let mut child = command::start(&lab.kpx().to_string_lossy(), &args)?;
        lab.adopt("client", child.id())?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (orders, output) = pipes.expect("a started program has pipes to its input and output");
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let event = line.ok().and_then(|line| serde_json::from_str(&line).ok());
                let last = matches!(event, None | Some(Event::Done(_)));
                // Nobody listens any more if the traffic was given up.
                if events.send((place, event)).is_err() || last {
                    return;
                }
            }
            let _ = events.send((place, None));
        });
        let keep = options.interval * KEEP;
        let part = |total: u32| (total * share).div_ceil(10);
        let line = Orders {
            place: place.to_string(),
            interval_us: options.interval.as_micros() as u64,
            keep_us: keep.as_micros() as u64,
            long: part(options.flows),
            timed_per_second: part(options.timed_per_second),
            timed_ms: options.timed.as_millis() as u64,
            connects_per_second: part(options.connects_per_second),
            rounds_per_second: rounds(lab, place, options.rounds_per_second),
            session_base: u64::from(child.id() & 0x00ff_ffff) << 32,
            targets: lab.targets(place).to_vec(),
        };
        self.clients.push(Client { child, orders });
        let client = self.clients.last_mut().expect("it was just put there");
        say(&mut client.orders, &line)
    }

    /// What happens from now on belongs to this phase.
    pub fn phase(&mut self, name: &str) -> Result<(), LabError> {
        for client in &mut self.clients {
            say(&mut client.orders, &Command::Phase { name: name.to_owned() })?;
        }
        self.sent_again.push(sent_again(&self.names)?);
        Ok(())
    }

    /// Ends every flow in good order, compares both ends' accounts, and reports.
    pub fn stop(mut self) -> Result<TrafficReport, LabError> {
        for client in &mut self.clients {
            say(&mut client.orders, &Command::Stop)?;
        }
        let mut tallies: Vec<(Place, Tallies)> = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while tallies.len() < self.clients.len() {
            if let (place, Event::Done(tally)) = self.next(deadline)? {
                tallies.push((place, tally));
            }
        }
        self.sent_again.push(sent_again(&self.names)?);
        let mut report = report::merge(tallies.into_iter().map(|(_, tally)| tally));
        for (phase, readings) in report.phases.iter_mut().zip(self.sent_again.windows(2)) {
            phase.retransmissions = readings[1].saturating_sub(readings[0]);
        }
        Ok(report)
    }

    /// The next thing a client says.
    fn next(&self, deadline: Instant) -> Result<(Place, Event), LabError> {
        let ended =
            |place: Place, message: &str| LabError::Helper { role: "client", message: format!("{place}: {message}") };
        match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((place, Some(Event::Failed { message }))) => Err(ended(place, &message)),
            Ok((place, Some(event))) => Ok((place, event)),
            Ok((place, None)) => Err(ended(place, "it said nothing more")),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                Err(LabError::Helper { role: "client", message: "no answer in time".to_owned() })
            }
        }
    }
}

/// The part of a place in rounds of all frontends: by how many it has, so that all places come round at the same time.
fn rounds(lab: &Lab, place: Place, total: u32) -> u32 {
    let all: usize = Place::ALL.into_iter().map(|place| lab.targets(place).len()).sum();
    let part = u64::from(total) * lab.targets(place).len() as u64;
    part.div_ceil(all.max(1) as u64) as u32
}

/// TCP segments that all namespaces of a lab have sent again so far.
fn sent_again(names: &Names) -> Result<u64, LabError> {
    let read = || Ok(fs_err::read_to_string("/proc/thread-self/net/snmp")?);
    let mut sum = 0;
    for name in names.namespaces() {
        sum += retransmitted(&netns::inside(&name, read)?).unwrap_or_default();
    }
    Ok(sum)
}

/// `RetransSegs` of `/proc/net/snmp`: a line of names, then one of numbers.
fn retransmitted(snmp: &str) -> Option<u64> {
    let mut tcp = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let at = tcp.next()?.split(' ').position(|name| name == "RetransSegs")?;
    tcp.next()?.split(' ').nth(at)?.parse().ok()
}

impl Drop for Traffic {
    fn drop(&mut self) {
        for client in &mut self.clients {
            // One that has ended by itself needs neither.
            let _ = client.child.kill();
            let _ = client.child.wait();
        }
    }
}

fn say(to: &mut ChildStdin, what: &impl serde::Serialize) -> Result<(), LabError> {
    let mut line = serde_json::to_vec(what).map_err(io::Error::from)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retransmissions_are_found_by_their_name() {
        let snmp = "Ip: A\nIp: 1\nTcp: RtoMin InSegs RetransSegs OutRsts\nTcp: 200 7 42 3\nUdp: A\nUdp: 1\n";
        assert_eq!(retransmitted(snmp), Some(42));
        assert_eq!(retransmitted("Tcp: RtoMin\nTcp: 200\n"), None);
    }
}
