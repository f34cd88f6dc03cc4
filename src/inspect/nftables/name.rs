//! Names of kube-proxy's chains and affinity sets, which say whose they are (Kubernetes 1.29 to 1.36, `pkg/proxy/nftables`).
//!
//! `service-2QRHZV4L-default/kubernetes/tcp/https`: kind, hash of the rest, namespace, Service, protocol, port name (empty for an
//! unnamed port). An endpoint's has `__ADDRESS/PORT` behind it, with `.` for the `:` of IPv6.

use std::net::{IpAddr, Ipv6Addr};

use sha2::{Digest as _, Sha256};

use crate::model::{Protocol, ServiceName};

/// What a chain of one Service port does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainKind {
    /// Chooses among the endpoints of the cluster.
    Service,
    /// Chooses among the endpoints of this node.
    Local,
    /// Takes traffic from outside.
    External,
    /// Lets only some sources in.
    Firewall,
    /// Sends to one endpoint.
    Endpoint,
    /// Set of the clients bound to one endpoint.
    Affinity,
}

impl ChainKind {
    const ALL: [Self; 6] = [Self::Service, Self::Local, Self::External, Self::Firewall, Self::Endpoint, Self::Affinity];

    /// The first word of the name.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Local => "local",
            Self::External => "external",
            Self::Firewall => "firewall",
            Self::Endpoint => "endpoint",
            Self::Affinity => "affinity",
        }
    }
}

/// A name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainName<'a> {
    /// The first word.
    pub kind: ChainKind,
    /// Hash and everything behind it: what the chains of one Service port share, apart from those of its endpoints.
    pub rest: &'a str,
    /// The Service.
    pub service: ServiceName,
    /// Protocol.
    pub protocol: Protocol,
    /// Name of the Service port; empty for an unnamed one.
    pub port_name: &'a str,
    /// Address and port, in the name of an endpoint.
    pub endpoint: Option<(IpAddr, u16)>,
}

/// Why a name is not one that kube-proxy gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It does not have the parts.
    #[error("not a name that kube-proxy gives")]
    Shape,
    /// The hash is not that of the rest.
    #[error("the hash in the name is not that of the Service port")]
    Hash,
}

impl<'a> ChainName<'a> {
    /// Takes a name apart and checks its hash.
    pub fn parse(name: &'a str) -> Result<Self, NameError> {
        let (kind, rest) = ChainKind::ALL
            .into_iter()
            .find_map(|kind| Some((kind, name.strip_prefix(kind.word())?.strip_prefix('-')?)))
            .ok_or(NameError::Shape)?;
        let (hash, base) = rest.split_once('-').ok_or(NameError::Shape)?;
        let (base_name, endpoint) = match kind {
            ChainKind::Endpoint | ChainKind::Affinity => {
                let (service, endpoint) = base.rsplit_once("__").ok_or(NameError::Shape)?;
                (service, Some(parse_endpoint(endpoint).ok_or(NameError::Shape)?))
            }
            _ => (base, None),
        };
        let mut parts = base_name.splitn(4, '/');
        let mut part = || parts.next().ok_or(NameError::Shape);
        let (namespace, service, protocol, port_name) = (part()?, part()?, part()?, part()?);
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|known| known.lower() == protocol)
            .ok_or(NameError::Shape)?;
        if namespace.is_empty() || service.is_empty() || port_name.contains('/') {
            return Err(NameError::Shape);
        }
        if hash != base_hash(base) {
            return Err(NameError::Hash);
        }
        let service = ServiceName { namespace: namespace.to_owned(), name: service.to_owned() };
        Ok(Self { kind, rest, service, protocol, port_name, endpoint })
    }

    /// Name of the chain of another kind for the same Service port.
    pub fn of_kind(&self, kind: ChainKind) -> String {
        format!("{}-{}", kind.word(), self.rest)
    }
}

/// The first 8 characters of the base32 (RFC 4648) of the SHA-256 of what follows it in the name.
fn base_hash(base: &str) -> String {
    let digest = Sha256::digest(base);
    base32::encode(base32::Alphabet::Rfc4648 { padding: false }, &digest[..5])
}

fn parse_endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = text.rsplit_once('/')?;
    let ip = match ip.parse::<IpAddr>() {
        Ok(ip) => ip,
        Err(_) => ip.replace('.', ":").parse::<Ipv6Addr>().ok()?.into(),
    };
    Some((ip, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_running_clusters() {
        let name = ChainName::parse("service-2QRHZV4L-default/kubernetes/tcp/https").expect("a good name");
        assert_eq!((name.kind, name.service.to_string().as_str()), (ChainKind::Service, "default/kubernetes"));
        assert_eq!((name.protocol, name.port_name), (Protocol::Tcp, "https"));
        assert_eq!(base_hash("ns1/svc1/tcp/p80"), "ULMVA6XW");
        let name = ChainName::parse("endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80").expect("a good name");
        assert_eq!(name.endpoint, Some(("10.180.0.1".parse().expect("an address"), 80)));
        assert_eq!(name.of_kind(ChainKind::Affinity), "affinity-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80");
    }

    #[test]
    fn an_unnamed_port_and_ipv6() {
        let base = "shop/web/tcp/";
        let text = format!("external-{}-{base}", base_hash(base));
        assert_eq!(ChainName::parse(&text).expect("a good name").port_name, "");
        let base = "shop/web/tcp/__fd00.10.244..5/8080";
        let text = format!("endpoint-{}-{base}", base_hash(base));
        let (ip, port) = ChainName::parse(&text).expect("a good name").endpoint.expect("an endpoint");
        assert_eq!((ip.to_string().as_str(), port), ("fd00:10:244::5", 8080));
    }

    #[test]
    fn what_is_no_name() {
        assert_eq!(ChainName::parse("service-2QRHZV4M-default/kubernetes/tcp/https"), Err(NameError::Hash));
        for name in [
            "",
            "services",
            "service-",
            "service-ABC",
            "local-X-a/b/tcp",
            "endpoint-X-a/b/tcp/p",
            "mark-for-masquerade",
        ] {
            assert_eq!(ChainName::parse(name), Err(NameError::Shape), "{name}");
        }
    }
}
