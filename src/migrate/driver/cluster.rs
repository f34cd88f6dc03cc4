//! The API server, as far as drivers change objects there: one object at a time, by a patch of the version that was read.

use std::time::Duration;

use kube::Client;
use kube::core::Request;
use kube::core::params::{GetParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::capture::{ApiError, Node};
use crate::error::Hinted;

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(15);
/// How often a patch is computed anew when somebody else was faster.
const TRIES: usize = 8;

/// Why the API server did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// It cannot be named or reached.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// There is no runtime for asking it.
    #[error("cannot start a runtime")]
    Runtime(#[source] std::io::Error),
    /// It refuses, or is away.
    #[error("{verb} {path} of {server}")]
    Request {
        /// `GET` or `PATCH`.
        verb: &'static str,
        /// Of what.
        path: String,
        /// URL of the server.
        server: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// It takes too long.
    #[error("{server} did not answer {verb} {path} within {} s", LIMIT.as_secs())]
    TooSlow {
        /// `GET` or `PATCH`.
        verb: &'static str,
        /// Of what.
        path: String,
        /// URL of the server.
        server: String,
    },
    /// Others change the object all the time.
    #[error("{path} was changed by somebody else each of {TRIES} times")]
    Restless {
        /// The object.
        path: String,
    },
}

impl Hinted for ClusterError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Api(source) => source.hints(),
            Self::Request { source, .. } if matches!(&**source, kube::Error::Api(s) if s.code == 403 || s.code == 401) =>
            {
                vec![
                    "the user needs the ClusterRole of deploy/kpx-migrate.yaml".to_owned(),
                    "or give a kubeconfig of one who may: --kubeconfig FILE".to_owned(),
                ]
            }
            Self::Request { .. } | Self::TooSlow { .. } => {
                vec!["the API server has to answer for this; nothing else was changed meanwhile".to_owned()]
            }
            Self::Runtime(_) | Self::Restless { .. } => Vec::new(),
        }
    }
}

/// A connection to the API server.
pub(super) struct Cluster {
    runtime: Runtime,
    client: Client,
    server: String,
}

impl Cluster {
    /// The API server that the options of the command line name. Nothing is asked yet.
    pub(super) fn of(node: &Node) -> Result<Self, ClusterError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClusterError::Runtime)?;
        let (client, server) = runtime.block_on(node.connect())?;
        Ok(Self { runtime, client, server })
    }

    /// One object; `None` if there is none.
    pub(super) fn get(&self, collection: &str, name: &str) -> Result<Option<Value>, ClusterError> {
        let request = Request::new(collection).get(name, &GetParams::default());
        match self.ask("GET", &format!("{collection}/{name}"), request) {
            Err(ClusterError::Request { source, .. }) if matches!(&*source, kube::Error::Api(s) if s.code == 404) => {
                Ok(None)
            }
            answer => answer.map(Some),
        }
    }

    /// The objects of a collection that parameters choose.
    pub(super) fn list(&self, collection: &str, chosen: &ListParams) -> Result<Vec<Value>, ClusterError> {
        let request = Request::new(collection).list(chosen);
        let mut list = self.ask("GET", collection, request)?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }

    /// Changes one object by the merge patch that `change` makes of it as it is now; whether there was anything to change. Where
    /// somebody else was faster, the patch is made anew.
    pub(super) fn patch(
        &self,
        collection: &str,
        name: &str,
        change: impl Fn(&Value) -> Option<Value>,
    ) -> Result<bool, ClusterError> {
        let path = format!("{collection}/{name}");
        let params = PatchParams { field_manager: Some("kpx".to_owned()), ..PatchParams::default() };
        for _ in 0..TRIES {
            let Some(object) = self.get(collection, name)? else { return Ok(false) };
            let Some(mut patch) = change(&object) else { return Ok(false) };
            patch["metadata"]["resourceVersion"] = object["metadata"]["resourceVersion"].clone();
            let request = Request::new(collection).patch(name, &params, &Patch::Merge(patch));
            match self.ask("PATCH", &path, request) {
                Ok(_) => return Ok(true),
                Err(ClusterError::Request { source, .. }) if is_conflict(&source) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ClusterError::Restless { path })
    }

    fn ask(
        &self,
        verb: &'static str,
        path: &str,
        request: Result<hyper::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Value, ClusterError> {
        let (path, server) = (path.to_owned(), self.server.clone());
        let failed = |source| ClusterError::Request {
            verb,
            path: path.clone(),
            server: server.clone(),
            source: Box::new(source),
        };
        let request = request.map_err(|error| failed(kube::Error::BuildRequest(error)))?;
        let answer =
            self.runtime.block_on(async { tokio::time::timeout(LIMIT, self.client.request::<Value>(request)).await });
        match answer {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(ClusterError::TooSlow { verb, path, server }),
        }
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// A merge patch of an object's labels or annotations: one of them set, or taken away.
pub(super) fn meta(kind: &str, key: &str, value: Option<&str>) -> Value {
    json!({ "metadata": { kind: { key: value } } })
}
