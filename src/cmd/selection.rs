//! Which frontends a command speaks of: `-n` and `--service`.

use crate::model::{Frontend, ServiceName, ServiceTable};
use crate::ui::Failure;

/// Options that select frontends.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Selection {
    /// Only Services of this namespace
    #[arg(short, long, value_name = "NS")]
    pub(super) namespace: Option<String>,
    /// Only this Service
    #[arg(long, value_name = "NS/NAME", value_parser = service_name, conflicts_with = "namespace")]
    pub(super) service: Option<ServiceName>,
}

impl Selection {
    /// Whether everything is selected.
    pub(super) const fn is_all(&self) -> bool {
        self.namespace.is_none() && self.service.is_none()
    }

    /// Whether a frontend is selected. One without a name is selected only when everything is.
    pub(super) fn keeps(&self, frontend: &Frontend) -> bool {
        self.is_all()
            || frontend.service.as_ref().is_some_and(|service| {
                self.namespace.as_ref().is_none_or(|ns| *ns == service.namespace)
                    && self.service.as_ref().is_none_or(|wanted| wanted == service)
            })
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

fn service_name(text: &str) -> Result<ServiceName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(ServiceName { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err("expected NAMESPACE/NAME, such as kube-system/kube-dns".to_owned()),
    }
}
