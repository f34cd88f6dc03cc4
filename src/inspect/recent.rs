//! xt_recent: which client each of kube-proxy's endpoint chains remembers (`net/netfilter/xt_recent.c`, recent_seq_show).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::inspect::iptables::chain_hash;
use crate::model::{Frontend, ServiceTable};

/// A client in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The list: the name of an endpoint's chain.
    pub list: String,
    /// The client.
    pub client: IpAddr,
    /// Seconds since its last new connection; `None` where the kernel's clock is not known.
    pub idle_seconds: Option<u64>,
}

/// All lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// Clients, by list.
    pub clients: Vec<Remembered>,
    /// Clients that a list holds before it forgets the oldest (`ip_list_tot`); `None` where that is not known.
    pub limit: Option<usize>,
}

impl Recent {
    /// Reads the text of [`crate::capture::Item::Recent`]; lines that are none are passed over.
    pub fn parse(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let mut recent = Self::default();
        let mut clock = None;
        for line in text.lines() {
            if let Some(heading) = line.strip_prefix('#') {
                let number = |key: &str| {
                    let mut words = heading.split_ascii_whitespace().skip_while(|word| *word != key);
                    words.nth(1)?.parse::<u64>().ok()
                };
                clock = number("jiffies").zip(number("hz").filter(|hz| *hz > 0));
                recent.limit = number("limit").and_then(|n| usize::try_from(n).ok());
            } else {
                recent.clients.extend(client(line, clock));
            }
        }
        recent
    }

    /// How many clients each list has.
    pub fn by_list(&self) -> BTreeMap<&str, usize> {
        let mut lists = BTreeMap::new();
        for client in &self.clients {
            *lists.entry(client.list.as_str()).or_default() += 1;
        }
        lists
    }
}

/// `KUBE-SEP-H src=10.0.0.3 ttl: 64 last_seen: 4295239672 oldest_pkt: 1 4295239672`.
fn client(line: &str, clock: Option<(u64, u64)>) -> Option<Remembered> {
    let (list, rest) = line.split_once(" src=")?;
    let client = rest.split(' ').next()?.parse().ok()?;
    let seen = rest.split_once("last_seen: ")?.1.split(' ').next()?.parse::<u64>().ok()?;
    let idle_seconds = clock.map(|(now, hz)| now.saturating_sub(seen) / hz);
    Some(Remembered { list: list.to_owned(), client, idle_seconds })
}

/// Whose list a name is: the frontend with affinity, and the backend.
pub fn owners(table: &ServiceTable) -> BTreeMap<String, (&Frontend, SocketAddr)> {
    let mut owners = BTreeMap::new();
    for frontend in table.frontends().iter().filter(|f| f.affinity.is_some() && f.service.is_some()) {
        let name = frontend.display_name();
        for backend in frontend.cluster.iter().chain(&frontend.local) {
            let address = backend.addr();
            let text = address.to_string();
            let hash = chain_hash(&[name.as_bytes(), frontend.key.protocol.lower().as_bytes(), text.as_bytes()]);
            let list = format!("KUBE-SEP-{}", String::from_utf8_lossy(&hash));
            owners.entry(list).or_insert((frontend, address));
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_read_with_the_time_since() {
        let text = b"# jiffies 4296745746 hz 250 limit 100\n\
                     KUBE-SEP-A src=10.0.0.3 ttl: 64 last_seen: 4296743246 oldest_pkt: 1 4296743246\n\
                     KUBE-SEP-A src=2001:0db8:0000:0000:0000:0000:0000:0001 ttl: 64 last_seen: 4296745746 oldest_pkt: 1\n\
                     KUBE-SEP-B src=nobody\n\xff\n";
        let recent = Recent::parse(text);
        assert_eq!((recent.limit, recent.by_list()), (Some(100), BTreeMap::from([("KUBE-SEP-A", 2)])));
        assert_eq!(recent.clients[0].idle_seconds, Some(10));
        assert_eq!(recent.clients[1].client, "2001:db8::1".parse::<IpAddr>().expect("an address"));
        let without = Recent::parse(b"#\nKUBE-SEP-A src=10.0.0.3 ttl: 64 last_seen: 1 oldest_pkt: 1 1\n");
        assert_eq!((without.limit, without.clients[0].idle_seconds), (None, None));
    }
}
