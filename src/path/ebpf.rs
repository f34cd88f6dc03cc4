//! The way through kpx's maps, by the lookup that the programs run.

use super::{Around, End, Packet, Path, Step, Way};
use crate::dataplane::{Asked, Attachment, Dataplane, DataplaneError, Fate, Mode};
use crate::model::TrafficSource;

/// Follows a packet through what is pinned and attached.
pub fn walk(dataplane: &Dataplane, packet: &Packet, around: &Around) -> Result<Path, DataplaneError> {
    let hook = match packet.origin {
        TrafficSource::Node => "socket",
        TrafficSource::Outside | TrafficSource::Pod => "tc",
    };
    let asked = Asked {
        destination: packet.destination,
        protocol: packet.protocol,
        origin: packet.origin,
        client: packet.source,
    };
    let mut path = Path::default();
    path.notes.extend(unseen(dataplane, packet.origin)?);
    for answer in dataplane.ask(&asked)? {
        let mut steps: Vec<Step> = answer
            .entries
            .into_iter()
            .map(|entry| Step {
                hook,
                at: format!("{} {}", entry.map, entry.key),
                does: entry.value,
                text: String::new(),
            })
            .collect();
        let nodes = packet.origin == TrafficSource::Node;
        let (end, does) = match answer.fate {
            Fate::Backend { to, masquerade } => (
                End::Backend { to, nodes_source: nodes || masquerade && around.is_local(to.ip()) != Some(true) },
                format!("to {to}"),
            ),
            Fate::Refused => (End::Refused, "refuse: no usable endpoint".to_owned()),
            Fate::Dropped(why) => (End::Dropped, format!("drop: {why}")),
            Fate::NotService => (End::Untouched, "no Service".to_owned()),
            Fate::Deferred => {
                path.notes
                    .insert("whoever sees the packet decides by the client's address; --from-ip tells it".to_owned());
                (End::Untouched, "left to whoever sees the packet".to_owned())
            }
        };
        let compared = steps.len();
        // Where there is a backend, its entry says so.
        if !matches!(answer.fate, Fate::Backend { .. }) {
            steps.push(Step { hook, at: "lookup".to_owned(), does, text: String::new() });
        }
        path.ways.push(Way { probability: answer.probability, steps, compared, end });
    }
    Ok(path)
}

/// Why no program sees such a packet, if none does.
fn unseen(dataplane: &Dataplane, origin: TrafficSource) -> Result<Option<String>, DataplaneError> {
    let sockets = origin == TrafficSource::Node;
    let attached =
        if sockets { dataplane.attachment()? != Attachment::Detached } else { !dataplane.devices()?.is_empty() };
    Ok(match dataplane.mode()? {
        _ if !attached && sockets => Some("no hook of sockets is attached: this is what the maps would say".to_owned()),
        _ if !attached => Some("no device has the packet path: this is what the maps would say".to_owned()),
        Mode::Active => None,
        mode => Some(format!("the mode is {}: new connections are left alone", format!("{mode:?}").to_lowercase())),
    })
}
