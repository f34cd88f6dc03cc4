//! What a command speaks of: `-n`, `--service`, `--address` and `--port`; and how much of it: `--limit` and `--offset`.

use std::net::IpAddr;

use crate::model::{Frontend, ServiceName, ServiceTable};
use crate::ui::Failure;

/// Options that select frontends, and whatever belongs to them.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Selection {
    /// Only Services of this namespace
    #[arg(short, long, value_name = "NS")]
    pub(super) namespace: Option<String>,
    /// Only this Service
    #[arg(long, value_name = "NS/NAME", value_parser = service_name, conflicts_with = "namespace")]
    pub(super) service: Option<ServiceName>,
    /// Only where this address is a frontend, a backend or a client
    #[arg(long, value_name = "IP")]
    pub(super) address: Option<IpAddr>,
    /// Only where this is the port of a frontend, a backend or a client (with --address: its port)
    #[arg(long, value_name = "PORT")]
    pub(super) port: Option<u16>,
}

impl Selection {
    /// Whether everything is selected.
    pub(super) const fn is_all(&self) -> bool {
        self.namespace.is_none() && self.service.is_none() && self.address.is_none() && self.port.is_none()
    }

    /// Whether what belongs to a Service is selected. What has no name is selected only where no name is asked for.
    pub(super) fn keeps_name(&self, service: Option<&ServiceName>) -> bool {
        let namespace = |wanted: &String| service.is_some_and(|service| *wanted == service.namespace);
        self.namespace.as_ref().is_none_or(namespace)
            && self.service.as_ref().is_none_or(|wanted| service == Some(wanted))
    }

    /// Whether one of these endpoints is the one asked for; one without a port has any.
    pub(super) fn keeps_one_of(&self, mut endpoints: impl Iterator<Item = (IpAddr, Option<u16>)>) -> bool {
        if self.address.is_none() && self.port.is_none() {
            return true;
        }
        endpoints.any(|(ip, port)| {
            self.address.is_none_or(|wanted| wanted == ip)
                && self.port.is_none_or(|wanted| port.is_none_or(|port| port == wanted))
        })
    }

    /// Whether a frontend is selected.
    pub(super) fn keeps(&self, frontend: &Frontend) -> bool {
        let backends = frontend.cluster.iter().chain(&frontend.local).map(|backend| (backend.ip, Some(backend.port)));
        self.keeps_name(frontend.service.as_ref())
            && self.keeps_one_of([(frontend.key.ip, Some(frontend.key.port))].into_iter().chain(backends))
    }

    /// The selected part of a table.
    pub(super) fn of(&self, table: ServiceTable) -> ServiceTable {
        if self.is_all() { table } else { table.filter(|frontend| self.keeps(frontend)) }
    }

    /// A Service that was asked for by name and is nowhere is a mistake, not an empty answer.
    pub(super) fn found(&self, frontends: usize, place: &str) -> Result<(), Failure> {
        match &self.service {
            Some(service) if frontends == 0 => {
                Err(Failure::new(format!("no frontend of Service {service} in {place}"))
                    .hint(format!("list what is there: kpx inspect services -n {}", service.namespace)))
            }
            _ => Ok(()),
        }
    }
}

/// Which part of a long list is shown.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct Page {
    /// Show so many at most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Leave out so many at the beginning
    #[arg(long, value_name = "N", default_value_t, hide_default_value = true)]
    offset: usize,
}

impl Page {
    /// How many are shown at most.
    pub(super) fn limit(self) -> usize {
        self.limit.unwrap_or(usize::MAX)
    }

    /// The part of a list that is shown.
    pub(super) fn of<T>(self, all: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
        all.into_iter().skip(self.offset).take(self.limit())
    }

    /// What to say in front of the number of all, and behind it: nothing where all are shown.
    pub(super) fn words(self, total: usize) -> (String, String) {
        let end = self.offset.saturating_add(self.limit()).min(total);
        let first = match (self.offset, end) {
            (0, end) if end == total => String::new(),
            (0, end) => format!("the first {end} of "),
            (offset, end) if offset >= end => "none of ".to_owned(),
            (offset, end) => format!("{} to {end} of ", offset + 1),
        };
        let next = if end < total && end > self.offset { format!("; next: --offset {end}") } else { String::new() };
        (first, next)
    }
}

/// Reads `namespace/name`.
pub(super) fn service_name(text: &str) -> Result<ServiceName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(ServiceName { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err("expected NAMESPACE/NAME, such as kube-system/kube-dns".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::Page;

    #[test]
    fn pages_follow_each_other() {
        let page = |offset, limit| {
            let page = Page { limit, offset };
            (page.of(0..5).collect::<Vec<_>>(), page.words(5))
        };
        let words = |first: &str, next: &str| (first.to_owned(), next.to_owned());
        assert_eq!(page(0, None), (vec![0, 1, 2, 3, 4], words("", "")));
        assert_eq!(page(0, Some(2)), (vec![0, 1], words("the first 2 of ", "; next: --offset 2")));
        assert_eq!(page(2, Some(2)), (vec![2, 3], words("3 to 4 of ", "; next: --offset 4")));
        assert_eq!(page(4, Some(2)), (vec![4], words("5 to 5 of ", "")));
        assert_eq!(page(9, Some(2)), (vec![], words("none of ", "")));
    }
}
