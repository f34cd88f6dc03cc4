//! `kpx agent`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Context, migrate::duration};
use crate::agent::{self, Attach, Defaults, Devices, MapSize, Options, Xdp};
use crate::dataplane::{Dsr, MAGLEV_SIZE, MAGLEV_SIZES, Paths};
use crate::inspect::kube::{ConfigError, ConfigSources, KubeError, ProxyConfig, Text};
use crate::model::BackendSelection;
use crate::ui::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  Serve this node's Services, as kube-proxy was configured to
    $ kpx agent -v --proxy-config /var/lib/kube-proxy/config.conf

  From outside the cluster, with other ports than a kube-proxy that still runs
    $ kpx agent -v --kubeconfig admin.conf --node-name node-a \\
        --health-address 0.0.0.0:11256 --metrics-address 127.0.0.1:11249

  Let the nodes of backends answer clients outside themselves, for Services that ask for it
    $ kpx agent -v --dsr annotated

  Leave some devices alone, and let drivers forward where they can
    $ kpx agent -v --devices '!docker*,!virbr*' --xdp auto

What is served goes on when the agent ends, and the next agent takes it up as it is. While a migration is open in
--state-dir, the agent keeps the maps true and attached what is attached, and leaves all else to kpx migrate.";

/// Arguments of `kpx agent`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// kube-proxy's configuration: a KubeProxyConfiguration, or the folder where its ConfigMap is mounted
    #[arg(long, value_name = "FILE|DIR")]
    proxy_config: Option<PathBuf>,
    /// Where to answer /healthz and /livez
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:10256")]
    health_address: SocketAddr,
    /// Where to answer /metrics and /proxyMode
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:10249")]
    metrics_address: SocketAddr,
    /// What to serve by: the node's and the pods' sockets, packets on network devices. Packets are those of clients outside,
    /// of pods whose sockets are not in --cgroup, and of SCTP
    #[arg(long, value_name = "PATH,…", value_delimiter = ',', default_value = "sockets,packets")]
    paths: Vec<ServeBy>,
    /// Network devices to serve packets on, by names with * and ?, after ! those not meant [default: all but lo and those
    /// that carry no packets of clients, such as dummy]
    #[arg(long, value_name = "NAME,…", default_value = "", hide_default_value = true)]
    devices: Devices,
    /// Let network drivers forward packets of flows that are known, to backends on other nodes. Such packets meet no filter
    #[arg(long, value_name = "MODE", default_value = "off")]
    xdp: Xdp,
    /// Devices for --xdp, by names as for --devices [default: hardware]
    #[arg(long, value_name = "NAME,…", default_value = "", hide_default_value = true)]
    xdp_devices: Devices,
    /// For which Services backends on other nodes answer clients outside directly
    ///
    /// Direct server return, where externalTrafficPolicy is Cluster. All agents of the cluster get the same; then each node
    /// that may answer gets the label kpx.dev/dsr=true. The network must let answers go another way than requests, and pass IP
    /// in IP between nodes.
    #[arg(long, value_name = "SERVICES", default_value = "off")]
    dsr: DirectReturn,
    /// How a backend is chosen for Services that do not say
    ///
    /// Those with the annotation kpx.dev/backend-selection do. All agents of the cluster get the same.
    #[arg(long, value_name = "HOW", default_value = "random")]
    backend_selection: Choice,
    /// Slots of a Maglev table, 4 bytes each: a hundred times as many as the largest Service has backends. All agents of the
    /// cluster get the same
    #[arg(long, value_name = "SLOTS", default_value_t = MAGLEV_SIZE, value_parser = maglev_size, hide_short_help = true)]
    maglev_size: u32,
    /// Where the node's sysctls are, if /proc/sys cannot be written
    #[arg(long, value_name = "DIR", default_value = "/proc/sys")]
    proc_sys: PathBuf,
    /// How often to look after what is attached, and repair it
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    interval: Duration,
    /// Size of a map instead of the computed one, counted when maps are made: frontends, backends, slots, sources, addresses,
    /// networks, clients, affinity, conntrack, fragments, direct, yields or events
    #[arg(long, value_name = "NAME=N", hide_short_help = true)]
    map_size: Vec<MapSize>,
}

/// A way to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ServeBy {
    /// Hooks at sockets: connections are made to backends, and nothing is left to do per packet
    Sockets,
    /// Programs on network devices
    Packets,
}

/// Which Services are answered directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DirectReturn {
    /// None
    Off,
    /// Those with the annotation kpx.dev/forwarding-mode: dsr
    Annotated,
    /// All but those with the annotation kpx.dev/forwarding-mode: snat
    All,
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Choice {
    /// By chance
    Random,
    /// By a hash of the connection, the same on every node
    Maglev,
}

/// The number is no size of a Maglev table.
#[derive(Debug, thiserror::Error)]
#[error("give one of {}", MAGLEV_SIZES.map(|size| size.to_string()).join(", "))]
struct NoMaglevSize;

fn maglev_size(text: &str) -> Result<u32, NoMaglevSize> {
    text.parse().ok().filter(|size| MAGLEV_SIZES.contains(size)).ok_or(NoMaglevSize)
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    let globals = &context.globals;
    if globals.from.is_some() || globals.services_from.is_some() {
        return Err(Failure::usage("the agent serves a live node: leave out --from and --services-from"));
    }
    let packets = args.paths.contains(&ServeBy::Packets);
    if args.dsr != DirectReturn::Off && !packets {
        return Err(Failure::usage("--dsr needs the packet path: --paths sockets,packets"));
    }
    let config = config(args, &globals.kube_proxy_flag)?;
    let node_name = match (&globals.node_name, &config.hostname_override.value) {
        (Some(name), _) => name.to_lowercase(),
        (None, Some(name)) => name.clone(),
        (None, None) => context.node()?.node_name().to_lowercase(),
    };
    agent::run(Options {
        paths: Paths { pins: globals.bpffs.clone(), cgroup: globals.cgroup()? },
        state_dir: globals.state_dir.clone(),
        node_name,
        config,
        sizes: args.map_size.clone(),
        attach: Attach {
            sockets: args.paths.contains(&ServeBy::Sockets),
            packets,
            devices: args.devices.clone(),
            xdp: args.xdp,
            xdp_devices: args.xdp_devices.clone(),
        },
        defaults: Defaults {
            selection: match args.backend_selection {
                Choice::Random => BackendSelection::Random,
                Choice::Maglev => BackendSelection::Maglev,
            },
            maglev_size: args.maglev_size,
            dsr: match args.dsr {
                DirectReturn::Off => Dsr::Off,
                DirectReturn::Annotated => Dsr::Asked,
                DirectReturn::All => Dsr::All,
            },
        },
        proc_sys: args.proc_sys.clone(),
        interval: args.interval,
        health: args.health_address,
        metrics: args.metrics_address,
        kubeconfig: globals.kubeconfig.clone(),
        context: globals.context.clone(),
    })?;
    Ok(Exit::Fine)
}

fn config(args: &Args, flags: &[(String, String)]) -> Result<ProxyConfig, Failure> {
    let file = match &args.proxy_config {
        Some(path) if path.is_dir() => mounted(path).map_err(ConfigFile)?,
        Some(path) => Some((fs_err::read(path).map_err(ConfigFile)?, path.display().to_string())),
        None => None,
    };
    let config_map = file.as_ref().map(|(bytes, place)| Text { bytes, place });
    let (config, notices) = ProxyConfig::read(&ConfigSources { config_map, flags, ..ConfigSources::default() })
        .map_err(|error: ConfigError| KubeError::from(error))?;
    for notice in &notices {
        tracing::warn!("{notice}");
    }
    Ok(config)
}

/// The configuration among the keys of a mounted ConfigMap, if it has one: `config.conf` with kubeadm, `config` on EKS.
fn mounted(folder: &Path) -> std::io::Result<Option<(Vec<u8>, String)>> {
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        if !path.is_file() {
            continue;
        }
        let bytes = fs_err::read(&path)?;
        if memchr::memmem::find(&bytes, b"KubeProxyConfiguration").is_some() {
            return Ok(Some((bytes, path.display().to_string())));
        }
    }
    Ok(None)
}

/// The configuration cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read kube-proxy's configuration")]
struct ConfigFile(#[source] std::io::Error);

impl crate::error::Hinted for ConfigFile {}
