//! The Kubernetes API: LIST answers as the server gives them, and connections for those who watch.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::Request;
use kube::core::params::{GetParams, ListParams};
use kube::{Client, Config};

use super::{Captured, Item};
use crate::error::Hinted;

/// How long one answer may take, connection and retries included.
const LIMIT: Duration = Duration::from_mins(1);
const CONNECT: Duration = Duration::from_secs(5);

/// Why the API gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The kubeconfig is unusable.
    #[error("cannot use kubeconfig {}", .path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KubeconfigError,
    },
    /// The service account of this pod is unusable.
    #[error("cannot use the service account of this pod")]
    InCluster {
        /// Why.
        source: InClusterError,
    },
    /// Nothing names a cluster.
    #[error("no cluster is known")]
    NoCluster,
    /// The runtime did not start.
    #[error("cannot start a runtime")]
    Runtime {
        /// Why.
        source: std::io::Error,
    },
    /// The server cannot be reached, or refuses.
    #[error("GET {path} of {server}")]
    Request {
        /// URL of the server.
        server: String,
        /// What was asked for.
        path: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// It takes too long.
    #[error("{server} did not answer within {} s", LIMIT.as_secs())]
    TooSlow {
        /// URL of the server.
        server: String,
    },
}

impl Hinted for ApiError {
    fn hints(&self) -> Vec<String> {
        const OFFLINE: &str = "without a cluster, give the objects: kubectl get svc,endpointslices,nodes -A -o json > \
                               all.json, then --services-from all.json";
        match self {
            Self::Request { source, .. } if matches!(&**source, kube::Error::Api(s) if s.code == 403) => {
                vec!["the user needs get and list on services, nodes and endpointslices.discovery.k8s.io".to_owned()]
            }
            Self::Runtime { .. } => Vec::new(),
            Self::NoCluster => vec!["give --kubeconfig FILE, or run it in a pod with a service account".to_owned()],
            _ => vec![OFFLINE.to_owned()],
        }
    }
}

/// Path of an item in the API, and the name of one object instead of a list.
const fn resource(item: Item) -> Option<(&'static str, Option<&'static str>)> {
    match item {
        Item::Services => Some(("/api/v1/services", None)),
        Item::EndpointSlices => Some(("/apis/discovery.k8s.io/v1/endpointslices", None)),
        Item::Nodes => Some(("/api/v1/nodes", None)),
        Item::ProxyConfigMap => Some(("/api/v1/namespaces/kube-system/configmaps", Some("kube-proxy"))),
        _ => None,
    }
}

/// What is asked for, for messages.
pub(super) fn source(item: Item) -> Option<String> {
    resource(item).map(|(path, name)| name.map_or_else(|| format!("GET {path}"), |name| format!("GET {path}/{name}")))
}

/// Asks the API server that the options, the pod's service account or the user's kubeconfig name; `None` for an item
/// that the API does not have.
pub(super) fn read(item: Item, kubeconfig: Option<&Path>, context: Option<&str>) -> Option<Result<Captured, ApiError>> {
    let (path, name) = resource(item)?;
    let Some(credentials) = Credentials::find(kubeconfig, context) else {
        let reason = "no cluster is known: give --kubeconfig FILE or --services-from FILE";
        return Some(Ok(Captured::Absent { reason: reason.to_owned() }));
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return Some(Err(ApiError::Runtime { source })),
    };
    Some(runtime.block_on(get(credentials, context, path, name)))
}

enum Credentials {
    /// kubeconfig files, merged as kubectl does: the first to set a value wins.
    Files(Vec<PathBuf>),
    Pod,
}

impl Credentials {
    fn find(kubeconfig: Option<&Path>, context: Option<&str>) -> Option<Self> {
        if let Some(given) = kubeconfig.filter(|path| !path.as_os_str().is_empty()) {
            let files = std::env::split_paths(given).filter(|p| !p.as_os_str().is_empty()).collect();
            return Some(Self::Files(files));
        }
        if context.is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
            return Some(Self::Pod);
        }
        let default = PathBuf::from(std::env::var_os("HOME")?).join(".kube/config");
        default.is_file().then(|| Self::Files(vec![default]))
    }

    async fn config(self, context: Option<&str>) -> Result<Config, ApiError> {
        let mut config = match self {
            Self::Pod => Config::incluster().map_err(|source| ApiError::InCluster { source })?,
            Self::Files(files) => {
                let mut merged = Kubeconfig::default();
                let mut last = PathBuf::new();
                for path in files {
                    let failed = |source| ApiError::Kubeconfig { path: path.clone(), source };
                    let next = Kubeconfig::read_from(&path).map_err(failed)?;
                    merged = merged.merge(next).map_err(failed)?;
                    last = path;
                }
                let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
                Config::from_custom_kubeconfig(merged, &options)
                    .await
                    .map_err(|source| ApiError::Kubeconfig { path: last, source })?
            }
        };
        config.connect_timeout = Some(CONNECT);
        config.default_retry = false;
        // Without certificates of the cluster's own the client reads the system's, and fails where there are none; for what
        // is not verified, none are needed.
        let verified = config.cluster_url.scheme_str() == Some("https") && !config.accept_invalid_certs;
        if !verified && config.root_cert.is_none() {
            config.root_cert = Some(Vec::new());
        }
        Ok(config)
    }
}

/// A client for the API server that the options, the pod's service account or the user's kubeconfig name, and its URL.
/// Nothing is asked yet.
pub async fn connect(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<(Client, String), ApiError> {
    let credentials = Credentials::find(kubeconfig, context).ok_or(ApiError::NoCluster)?;
    let config = credentials.config(context).await?;
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let client = Client::try_from(config).map_err(|source| ApiError::Request {
        server: server.clone(),
        path: "/".to_owned(),
        source: Box::new(source),
    })?;
    Ok((client, server))
}

async fn get(
    credentials: Credentials,
    context: Option<&str>,
    path: &str,
    name: Option<&str>,
) -> Result<Captured, ApiError> {
    let mut config = credentials.config(context).await?;
    config.read_timeout = Some(LIMIT);
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let failed = |source| ApiError::Request { server: server.clone(), path: path.to_owned(), source: Box::new(source) };
    let client = Client::try_from(config).map_err(failed)?;
    let request = match name {
        Some(name) => Request::new(path).get(name, &GetParams::default()),
        None => Request::new(path).list(&ListParams::default()),
    };
    let request = request.map_err(|e| failed(kube::Error::BuildRequest(e)))?;
    match tokio::time::timeout(LIMIT, client.request_text(request)).await {
        Err(_) => Err(ApiError::TooSlow { server }),
        Ok(Ok(text)) => Ok(Captured::Present { bytes: text.into_bytes(), place: format!("{server}{path}") }),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 && name.is_some() => {
            Ok(Captured::Absent { reason: format!("{server} has no {path}/{}", name.unwrap_or_default()) })
        }
        Ok(Err(source)) => Err(failed(source)),
    }
}
