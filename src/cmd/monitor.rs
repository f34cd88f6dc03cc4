//! `kpx monitor`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use serde_json::json;

use super::Context;
use super::migrate::{duration, stop_flag};
use super::names::Names;
use super::selection::Selection;
use crate::capture::cgroup;
use crate::dataplane::{Cause, Dataplane, Event, EventKind, Filter, Listener, RENEWAL, Why};
use crate::inspect::entry::Frontends;
use crate::model::{Frontend, Protocol};
use crate::ui::{Cell, Exit, Failure, Format, Stream, Tone, count};

const EXAMPLES: &str = "\
Examples:
  What is refused or dropped on this node, and why?
    $ sudo kpx monitor --event refused,dropped

  Which backends does a pod get, as one JSON object a line?
    $ sudo kpx monitor --pod-cgroup kubepods.slice/kubepods-pod1b2c.slice --event translated -o json

  One connection of a hundred to one Service, until a minute is over
    $ sudo kpx monitor --service shop/cart --sample 100 --duration 1m

  Every client of a Service without a backend, whoever turns it away
    $ sudo kpx monitor --reason no_backend

An event is a connection, a flow or a refusal, not a packet. The programs select: what is not asked for costs next to nothing. Packets
have no cgroup: with --pod-cgroup there are events of sockets only. One kpx monitor listens at a time.";

/// Arguments of `kpx monitor`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Only events of these kinds
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    event: Vec<EventKind>,
    /// Only for these reasons: what kpx counts (inspect, metrics), or why there is no backend
    #[arg(
        long,
        value_name = "REASON",
        value_delimiter = ',',
        hide_possible_values = true,
        value_parser = PossibleValuesParser::new(Why::all().map(Why::name)).map(|name| why(&name))
    )]
    reason: Vec<Why>,
    #[command(flatten)]
    selection: Selection,
    /// Only sockets of processes in this cgroup or below: a directory, or a path below the cgroup2 root
    #[arg(long, value_name = "PATH")]
    pod_cgroup: Option<PathBuf>,
    /// Only one event of so many, at random
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    sample: u32,
    /// End after so many events
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    /// End after this time
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
}

fn why(name: &str) -> Why {
    Why::all().find(|why| why.name() == name).expect("the names are the possible values")
}

/// Columns that are as wide as what they mostly hold; the last one takes what comes.
const COLUMNS: [(&str, usize); 5] = [("TIME", 8), ("EVENT", 11), ("SERVICE", 20), ("TO", 20), ("CLIENT", 0)];
const WIDE: [(&str, usize); 10] = [
    ("TIME", 15),
    ("EVENT", 11),
    ("REASON", 16),
    ("PROTO", 5),
    ("CLIENT", 21),
    ("DESTINATION", 21),
    ("TO", 21),
    ("PID", 8),
    ("DEVICE", 6),
    ("SERVICE", 0),
];

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    if context.globals.from.is_some() {
        return Err(Failure::new("a snapshot has no events").hint("run it on the node itself, without --from"));
    }
    if !matches!(context.globals.output, Format::Table | Format::Wide | Format::Json) {
        return Err(Failure::usage("kpx monitor prints tables (-o table, -o wide) and JSON lines (-o json)"));
    }
    let stop = stop_flag()?;
    let begun = Instant::now();
    let mut services = Services::read(context, &args.selection)?;
    let paths = context.globals.places().kpx;
    let mut listener = Listener::start(&paths, filter(context, args, &services)?)?;
    let stream = Stream::new(if context.globals.output == Format::Wide { &WIDE } else { &COLUMNS });
    context.ui.say_stream_headings(&stream)?;
    let mut renewed = Instant::now();
    let (mut shown, mut lost) = (0, 0);
    let is_over = |shown: usize| {
        stop.load(Ordering::Relaxed)
            || args.count.is_some_and(|count| shown >= count)
            || args.duration.is_some_and(|duration| begun.elapsed() >= duration)
    };
    while !is_over(shown) && !context.ui.is_closed() {
        if renewed.elapsed() >= RENEWAL {
            renewed = Instant::now();
            listener.renew()?;
            lost = tell_lost(context, &listener, lost)?;
            // Services that come get numbers of their own.
            if services.wanted.is_some() && services.refresh(context)? {
                listener.set_services(services.wanted.clone().unwrap_or_default())?;
            }
        }
        if let Some(event) = listener.next_event() {
            shown += 1;
            if event.service.is_some_and(|id| services.name(id).is_none()) {
                services.refresh(context)?;
            }
            print(context, &stream, &event, &services)?;
            continue;
        }
        let left = args.duration.map_or(RENEWAL, |duration| duration.saturating_sub(begun.elapsed()));
        listener.wait(left.min(RENEWAL))?;
    }
    lost = tell_lost(context, &listener, lost)?;
    let lost = if lost == 0 { "none".to_owned() } else { lost.to_string() };
    let (shown, seconds) = (count(shown, "event"), begun.elapsed().as_secs_f64());
    context.ui.note(&format!("{shown}, {lost} lost, in {seconds:.1} s"));
    Ok(Exit::Fine)
}

/// Tells of events that were lost since the last time; how many there are in all.
fn tell_lost(context: &mut Context, listener: &Listener, before: u64) -> Result<u64, Failure> {
    let total = listener.lost()?;
    let lost = total.saturating_sub(before);
    if lost > 0 {
        context.ui.event(&json!({
            "apiVersion": "kpx.dev/v1", "kind": "MonitorLoss", "lost": lost, "lost_total": total,
        }))?;
        context
            .ui
            .note(&format!("{lost} events lost: more came than were read; see --sample and agent --map-size events=N"));
    }
    Ok(total)
}

fn filter(context: &Context, args: &Args, services: &Services) -> Result<Filter, Failure> {
    Ok(Filter {
        kinds: args.event.iter().copied().collect(),
        reasons: args.reason.iter().copied().collect(),
        services: services.wanted.clone(),
        address: args.selection.address,
        port: args.selection.port,
        cgroup: args.pod_cgroup.as_deref().map(|path| cgroup_id(context, path)).transpose()?,
        sample: args.sample,
    })
}

/// The id of a cgroup: its inode number.
fn cgroup_id(context: &Context, path: &Path) -> Result<u64, Failure> {
    let path = if path.is_absolute() { path.to_owned() } else { context.globals.cgroup()?.join(path) };
    cgroup::check(&path)?;
    let found = fs_err::metadata(&path).map_err(|error| Failure::new(error.to_string()))?;
    Ok(found.ino())
}

/// The Services that the maps know by number, and which of them are wanted.
struct Services {
    selection: Selection,
    names: Names,
    frontends: Frontends,
    wanted: Option<BTreeSet<u32>>,
}

impl Services {
    fn read(context: &mut Context, selection: &Selection) -> Result<Self, Failure> {
        let names = Names::read(context);
        let frontends = Dataplane::expect(&context.globals.places().kpx)?.frontends()?;
        let mut found = Self { selection: selection.clone(), names, frontends, wanted: None };
        found.select();
        if found.wanted.as_ref().is_some_and(BTreeSet::is_empty) {
            selection.found(0, "kpx's maps")?;
            context.ui.warn("no Service of this namespace is served yet");
        }
        Ok(found)
    }

    /// Looks again, but not all the time; whether it did.
    fn refresh(&mut self, context: &mut Context) -> Result<bool, Failure> {
        let again = self.names.refresh(context);
        if again {
            self.frontends = Dataplane::expect(&context.globals.places().kpx)?.frontends()?;
            self.select();
        }
        Ok(again)
    }

    fn select(&mut self) {
        if self.selection.namespace.is_none() && self.selection.service.is_none() {
            return;
        }
        let keeps = |id: &u32| self.selection.keeps_name(self.name(*id).and_then(|known| known.service.as_ref()));
        self.wanted = Some(self.frontends.keys().copied().filter(keeps).collect());
    }

    fn name(&self, id: u32) -> Option<&Frontend> {
        self.names.of(self.frontends.get(&id)?)
    }
}

/// What to say in the place of a backend.
fn reason(event: &Event) -> &'static str {
    event.cause.map_or(event.reason.name(), Cause::name)
}

fn print(context: &mut Context, stream: &Stream, event: &Event, services: &Services) -> Result<(), Failure> {
    let at = jiff::Timestamp::now().checked_sub(event.age).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let known = event.service.and_then(|id| services.name(id));
    let protocol = Protocol::from_number(event.protocol).map(|protocol| protocol.to_string());
    let endpoint = |at: SocketAddr| at.to_string();
    let client = match (event.client, event.client_port) {
        (Some(ip), Some(port)) => SocketAddr::new(ip, port).to_string(),
        (Some(ip), None) => ip.to_string(),
        (None, Some(port)) => format!("*:{port}"),
        (None, None) => String::new(),
    };
    if context.globals.output == Format::Json {
        return context.ui.event(&json!({
            "apiVersion": "kpx.dev/v1",
            "kind": "MonitorEvent",
            "time": at.to_string(),
            "event": event.kind().name(),
            "reason": event.reason.name(),
            "cause": event.cause.map(Cause::name),
            "protocol": protocol.unwrap_or_else(|| event.protocol.to_string()),
            "client": event.client.map(|ip| ip.to_string()),
            "client_port": event.client_port,
            "destination": endpoint(event.destination),
            "to": event.to.map(endpoint),
            "service": known.and_then(|known| known.service.as_ref()).map(ToString::to_string),
            "port_name": known.and_then(|known| known.port_name.as_ref()),
            "pid": event.pid,
            "cgroup_id": event.cgroup,
            "device_index": event.device,
        }));
    }
    let tone = match event.kind() {
        EventKind::Refused | EventKind::Dropped => Tone::Bad,
        EventKind::Left => Tone::Warning,
        _ => Tone::Plain,
    };
    let name = known.map_or_else(|| endpoint(event.destination), Frontend::display_name);
    let to = event.to.map_or_else(|| reason(event).to_owned(), endpoint);
    let local = at.to_zoned_datetime(jiff::tz::TimeZone::system());
    let kind = Cell::toned(event.kind().name(), tone);
    let number = |n: Option<u32>| Cell::from(n.map_or_else(String::new, |n| n.to_string()));
    let cells: Vec<Cell> = if context.globals.output == Format::Wide {
        vec![
            local.strftime("%H:%M:%S.%6f").to_string().into(),
            kind,
            reason(event).into(),
            protocol.unwrap_or_else(|| event.protocol.to_string()).into(),
            client.into(),
            endpoint(event.destination).into(),
            event.to.map_or_else(String::new, endpoint).into(),
            number(event.pid),
            number(event.device),
            name.into(),
        ]
    } else {
        // Without its port, which few look for, lines fit a terminal of 80.
        let client = event.client.map_or(client, |ip| ip.to_string());
        vec![local.strftime("%H:%M:%S").to_string().into(), kind, name.into(), to.into(), client.into()]
    };
    context.ui.say_stream_row(stream, &cells)
}
