//! What is complained of: a node, a Service, or an address.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::model::{Exposure, Frontend, Protocol, ServiceName};

/// What is complained of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// Services on this node as a whole.
    #[default]
    Node,
    /// One Service.
    Service(ServiceName),
    /// What answers at an address.
    Address {
        /// The address.
        ip: IpAddr,
        /// Its port; `None`: any.
        port: Option<u16>,
        /// The protocol; `None`: any.
        protocol: Option<Protocol>,
    },
}

/// The text is neither a Service nor an address.
#[derive(Debug, thiserror::Error)]
#[error("expected NAMESPACE/SERVICE or an address, such as shop/cart, 10.96.0.10 or 192.0.2.7:30080/TCP")]
pub struct NoTarget;

impl FromStr for Target {
    type Err = NoTarget;

    fn from_str(text: &str) -> Result<Self, NoTarget> {
        let (address, protocol) = match text.rsplit_once('/') {
            Some((address, word)) => {
                let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
                let protocol = all.into_iter().find(|p| p.lower().eq_ignore_ascii_case(word));
                (address, protocol)
            }
            None => (text, None),
        };
        let is_address = |ip, port| Self::Address { ip, port, protocol };
        let known = protocol.is_some() || !text.contains('/');
        if let Some(socket) = address.parse::<SocketAddr>().ok().filter(|_| known) {
            return Ok(is_address(socket.ip(), Some(socket.port())));
        }
        if let Some(ip) = address.parse::<IpAddr>().ok().filter(|_| known) {
            return Ok(is_address(ip, None));
        }
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::Service(ServiceName { namespace: namespace.to_owned(), name: name.to_owned() }))
            }
            _ => Err(NoTarget),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("all Services"),
            Self::Service(name) => write!(f, "Service {name}"),
            Self::Address { ip, port, protocol } => {
                match port {
                    Some(port) => SocketAddr::new(*ip, *port).fmt(f)?,
                    None => ip.fmt(f)?,
                }
                protocol.iter().try_for_each(|protocol| write!(f, "/{protocol}"))
            }
        }
    }
}

impl Target {
    /// Whether a frontend is meant; `is_local` tells whether an address is the node's.
    pub(super) fn means(&self, frontend: &Frontend, is_local: impl Fn(IpAddr) -> bool) -> bool {
        match self {
            Self::Node => true,
            Self::Service(name) => frontend.service.as_ref() == Some(name),
            Self::Address { ip, port, protocol } => {
                let node_port = frontend.key.exposure == Exposure::NodePort
                    && port.is_some()
                    && frontend.key.ip.is_ipv4() == ip.is_ipv4()
                    && is_local(*ip);
                (frontend.key.ip == *ip || node_port)
                    && port.is_none_or(|port| port == frontend.key.port)
                    && protocol.is_none_or(|protocol| protocol == frontend.key.protocol)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_or_an_address() {
        let read = |text: &str| text.parse::<Target>().map(|target| target.to_string()).ok();
        for (text, shown) in [
            ("shop/cart", "Service shop/cart"),
            ("shop/tcp", "Service shop/tcp"),
            ("10.96.0.10", "10.96.0.10"),
            ("10.96.0.10:53", "10.96.0.10:53"),
            ("10.96.0.10:53/udp", "10.96.0.10:53/UDP"),
            ("fd00::a", "fd00::a"),
            ("[fd00::a]:80/TCP", "[fd00::a]:80/TCP"),
        ] {
            assert_eq!(read(text).as_deref(), Some(shown), "{text}");
        }
        for text in ["cart", "shop/", "/cart", "a/b/c", "10.96.0.10:x", "", "10.0.0.1:80/x/y"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
