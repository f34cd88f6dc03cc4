//! An API server: lists and watches over objects that a test changes, and everything that can go wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::mpsc;

type Body = BoxBody<Bytes, Infallible>;
type Watcher = mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>;

/// Path, kind and API version of what is served.
type Kind = (&'static str, &'static str, &'static str);

const KINDS: [Kind; 6] = [
    ("/api/v1/services", "Service", "v1"),
    ("/apis/discovery.k8s.io/v1/endpointslices", "EndpointSlice", "discovery.k8s.io/v1"),
    ("/api/v1/nodes", "Node", "v1"),
    ("/apis/networking.k8s.io/v1/servicecidrs", "ServiceCIDR", "networking.k8s.io/v1"),
    ("/apis/apps/v1/daemonsets", "DaemonSet", "apps/v1"),
    ("/api/v1/pods", "Pod", "v1"),
];

#[derive(Default)]
struct State {
    version: u64,
    /// By kind and `namespace/name`.
    objects: BTreeMap<(&'static str, String), Value>,
    /// Version, kind, event.
    history: Vec<(u64, &'static str, Value)>,
    /// Watches may begin no earlier.
    oldest: u64,
    watchers: Vec<(&'static str, Watcher)>,
    /// Kinds that are answered with this status.
    refused: BTreeMap<&'static str, u16>,
    /// Verb and path of each request.
    requests: BTreeSet<(&'static str, &'static str)>,
    /// Paths that are not served.
    strangers: Vec<String>,
    lists: usize,
    /// Before so many patches somebody else changes the object.
    disturbances: usize,
    /// What happens once so many patches were done.
    after: Option<(usize, Box<dyn FnOnce() + Send>)>,
}

/// The server. Its thread ends with the process.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Api {
    /// Starts it in the network namespace of this thread.
    pub(crate) fn start() -> Self {
        Self::serve(Arc::default())
    }

    /// The same server in the network namespace of this thread, too.
    pub(crate) fn here(&self) -> Self {
        Self::serve(Arc::clone(&self.state))
    }

    fn serve(state: Arc<Mutex<State>>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("an address is free");
        listener.set_nonblocking(true).expect("it can be");
        let api = Self { address: listener.local_addr().expect("it is bound"), state };
        let state = Arc::clone(&api.state);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    let state = Arc::clone(&state);
                    tokio::spawn(async move {
                        let service = service_fn(move |request: Request<Incoming>| {
                            let state = Arc::clone(&state);
                            async move {
                                let (head, body) = request.into_parts();
                                let body =
                                    body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                                let answer = answer(&head, &body, &mut state.lock().expect("no test panics in here"));
                                Ok::<_, Infallible>(answer)
                            }
                        });
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
            });
        });
        api
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics in here")
    }

    /// A kubeconfig that names this server.
    pub(crate) fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters:\n- name: test\n  cluster:\n    server: http://{}\n\
             users:\n- name: test\n  user: {{}}\n\
             contexts:\n- name: test\n  context:\n    cluster: test\n    user: test\n",
            self.address
        )
    }

    /// Adds or changes an object, as given but for its version.
    pub(crate) fn put(&self, object: Value) {
        let kind = KINDS.iter().find(|(_, kind, _)| object["kind"] == *kind).expect("a kind that is served").1;
        self.state().put(kind, object);
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, kind: &'static str, name: &str) {
        self.state().delete(kind, name);
    }

    /// Deletes an object so that no watch can tell it: all watches break off first, those that go on from before are told
    /// 410. One step, or an open watch would bring the event before it is cut.
    pub(crate) fn delete_unseen(&self, kind: &'static str, name: &str) {
        let mut state = self.state();
        state.watchers.clear();
        state.delete(kind, name);
        state.oldest = state.next();
        state.history.clear();
    }

    /// Sends an event that no change is behind.
    pub(crate) fn tell(&self, kind: &'static str, event: &str, object: Value) {
        self.state().send(kind, &json!({ "type": event, "object": object }));
    }

    /// An object as it is now.
    pub(crate) fn get(&self, kind: &'static str, name: &str) -> Value {
        self.state().objects[&(kind, name.to_owned())].clone()
    }

    /// Breaks all watches off in the middle.
    pub(crate) fn cut(&self) {
        self.state().watchers.clear();
    }

    /// Answers requests for a kind with an error status; 0: as usual.
    pub(crate) fn refuse(&self, kind: &'static str, status: u16) {
        let mut state = self.state();
        if status == 0 {
            state.refused.remove(kind);
        } else {
            state.refused.insert(kind, status);
        }
    }

    /// The same for all kinds, and no watch goes on.
    pub(crate) fn refuse_all(&self, status: u16) {
        for (_, kind, _) in &KINDS {
            self.refuse(kind, status);
        }
        self.cut();
    }

    /// Lets somebody else change an object right before each of so many patches.
    pub(crate) fn disturb(&self, times: usize) {
        self.state().disturbances = times;
    }

    /// Does something once so many patches more were done.
    pub(crate) fn after_patches(&self, patches: usize, then: impl FnOnce() + Send + 'static) {
        self.state().after = Some((patches, Box::new(then)));
    }

    /// Verb and path of all requests so far.
    pub(crate) fn requests(&self) -> BTreeSet<(&'static str, &'static str)> {
        self.state().requests.clone()
    }

    /// Paths that were asked for and are not served.
    pub(crate) fn strangers(&self) -> Vec<String> {
        self.state().strangers.clone()
    }

    /// How many lists were asked for.
    pub(crate) fn lists(&self) -> usize {
        self.state().lists
    }
}

impl State {
    fn next(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn put(&mut self, kind: &'static str, mut object: Value) {
        let version = self.next();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let name = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (name("namespace"), name("name"));
        let name = if namespace.is_empty() { name } else { format!("{namespace}/{name}") };
        let known = self.objects.insert((kind, name), object.clone()).is_some();
        self.tell(kind, if known { "MODIFIED" } else { "ADDED" }, object);
    }

    fn delete(&mut self, kind: &'static str, name: &str) {
        let mut object = self.objects.remove(&(kind, name.to_owned())).expect("it is there");
        let version = self.next();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        self.tell(kind, "DELETED", object);
    }

    fn tell(&mut self, kind: &'static str, event: &str, object: Value) {
        let event = json!({ "type": event, "object": object });
        self.history.push((self.version, kind, event.clone()));
        self.send(kind, &event);
    }

    fn send(&mut self, kind: &'static str, event: &Value) {
        self.watchers.retain(|(of, watcher)| *of != kind || watcher.send(Ok(line(event))).is_ok());
    }
}

fn line(event: &Value) -> Frame<Bytes> {
    Frame::data(Bytes::from(format!("{event}\n")))
}

fn whole(status: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())).boxed());
    *response.status_mut() = status.try_into().expect("a status");
    response
}

fn failure(code: u16, reason: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason, "reason": reason, "code": code })
}

/// The kind that a path is of, and the object that it names, as `namespace/name` where it has a namespace.
fn route(path: &str) -> Option<(Kind, Option<String>)> {
    let at = |path: &str| KINDS.into_iter().find(|(known, _, _)| path == *known);
    if let Some(kind) = at(path) {
        return Some((kind, None));
    }
    if let Some((start, rest)) = path.split_once("/namespaces/") {
        let mut words = rest.split('/');
        let (namespace, plural, name) = (words.next()?, words.next()?, words.next());
        return Some((at(&format!("{start}/{plural}"))?, name.map(|name| format!("{namespace}/{name}"))));
    }
    let (collection, name) = path.rsplit_once('/')?;
    Some((at(collection)?, Some(name.to_owned())))
}

impl State {
    /// An object, read or patched: a patch of another version than the object has is refused.
    fn one(&mut self, kind: &'static str, name: String, patch: Option<&[u8]>) -> Response<Body> {
        let Some(mut object) = self.objects.get(&(kind, name)).cloned() else {
            return whole(404, &failure(404, "NotFound"));
        };
        let Some(patch) = patch else { return whole(200, &object) };
        if self.disturbances > 0 {
            self.disturbances -= 1;
            object["metadata"]["annotations"]["example.org/changed"] = json!(self.disturbances.to_string());
            self.put(kind, object.clone());
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        }
        let patch: Value = serde_json::from_slice(patch).expect("a patch is JSON");
        let of = &patch["metadata"]["resourceVersion"];
        if !of.is_null() && *of != object["metadata"]["resourceVersion"] {
            return whole(409, &failure(409, "Conflict"));
        }
        json_patch::merge(&mut object, &patch);
        self.put(kind, object.clone());
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if let Some((left, then)) = self.after.take() {
            match left {
                0 | 1 => then(),
                left => self.after = Some((left - 1, then)),
            }
        }
        whole(200, &object)
    }
}

fn answer(request: &hyper::http::request::Parts, body: &[u8], state: &mut State) -> Response<Body> {
    let Some(((path, kind, api), name)) = route(request.uri.path()) else {
        state.strangers.push(request.uri.path().to_owned());
        return whole(404, &failure(404, "NotFound"));
    };
    let query = request.uri.query().unwrap_or_default();
    let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let watch = parameter("watch") == Some("true");
    let patch = request.method == hyper::Method::PATCH;
    let verb = match (&name, watch) {
        (Some(_), _) if patch => "patch",
        (Some(_), _) => "get",
        (None, true) => "watch",
        (None, false) => "list",
    };
    state.requests.insert((verb, path));
    if let Some(code) = state.refused.get(kind) {
        return whole(*code, &failure(*code, "Refused"));
    }
    if let Some(name) = name {
        return state.one(kind, name, patch.then_some(body));
    }
    if !watch {
        state.lists += 1;
        let selector = |name: &str| parameter(name).map(|text| text.replace("%3D", "=").replace("%2F", "/"));
        let (fields, labels) = (selector("fieldSelector"), selector("labelSelector"));
        let chosen = |object: &Value| {
            let field = fields.as_deref().and_then(|text| text.split_once('=')).is_none_or(|(field, value)| {
                object.pointer(&format!("/{}", field.replace('.', "/"))).is_some_and(|found| *found == value)
            });
            let label = labels.as_deref().and_then(|text| text.split_once('='));
            field && label.is_none_or(|(label, value)| object["metadata"]["labels"][label] == value)
        };
        let of_kind = state.objects.iter().filter(|((of, _), object)| *of == kind && chosen(object));
        let items: Vec<&Value> = of_kind.map(|(_, object)| object).collect();
        let version = state.version.to_string();
        let list = json!({ "kind": format!("{kind}List"), "apiVersion": api, "metadata": { "resourceVersion": version }, "items": items });
        return whole(200, &list);
    }
    let since: u64 = parameter("resourceVersion").and_then(|version| version.parse().ok()).expect("a version");
    let (sender, receiver) = mpsc::unbounded_channel();
    if since < state.oldest {
        let gone = json!({ "type": "ERROR", "object": failure(410, "Expired") });
        sender.send(Ok(line(&gone))).expect("somebody listens");
    } else {
        let bookmark =
            json!({ "kind": kind, "apiVersion": api, "metadata": { "resourceVersion": state.version.to_string() } });
        for (_, _, event) in state.history.iter().filter(|(version, of, _)| *version > since && *of == kind) {
            sender.send(Ok(line(event))).expect("somebody listens");
        }
        sender.send(Ok(line(&json!({ "type": "BOOKMARK", "object": bookmark })))).expect("somebody listens");
        state.watchers.push((kind, sender));
    }
    Response::new(StreamBody::new(Receiver(receiver)).boxed())
}

/// The events of one watch, as a stream.
struct Receiver(mpsc::UnboundedReceiver<Result<Frame<Bytes>, Infallible>>);

impl futures_util::Stream for Receiver {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// A Service with one port.
pub(crate) fn service(name: &str, cluster_ip: &str, port: u16, protocol: &str) -> Value {
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": { "namespace": "ns", "name": name, "uid": format!("uid-{name}") },
        "spec": {
            "type": "ClusterIP", "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
            "ports": [{ "name": "p", "port": port, "protocol": protocol }],
        },
    })
}

/// An EndpointSlice of a Service; endpoints are `address` or `address@node`, all with one port.
pub(crate) fn slice(service: &str, name: &str, port: u16, protocol: &str, endpoints: &[&str]) -> Value {
    let endpoint = |text: &&str| {
        let (address, node) = text.split_once('@').unwrap_or((text, "elsewhere"));
        json!({ "addresses": [address], "nodeName": node, "conditions": { "ready": true, "serving": true, "terminating": false } })
    };
    json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "namespace": "ns", "name": name, "uid": format!("uid-{name}"),
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "p", "port": port, "protocol": protocol }],
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

/// The Node of the tests.
pub(crate) fn node() -> Value {
    json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": { "name": "node-a", "uid": "uid-node-a", "labels": { "topology.kubernetes.io/zone": "z1" } },
        "spec": {},
        "status": { "addresses": [{ "type": "InternalIP", "address": "10.2.0.1" }] },
    })
}
