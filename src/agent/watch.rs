//! Watches the API server: every object of each kind, again and again from where the last answer ended.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::cluster::Event;
use super::mirror::Change;
use super::status::Shared;
use super::work::Task;
use crate::error::with_causes;

/// Watches all kinds until nobody listens any more.
///
/// Of the Nodes only this one, unless all are wanted.
pub(super) async fn watch(client: Client, node: &str, all_nodes: bool, tasks: Sender<Task>, shared: Arc<Shared>) {
    let all = watcher::Config::default;
    let nodes = if all_nodes { all() } else { all().fields(&format!("metadata.name={node}")) };
    let watch = Watch { tasks, shared };
    tokio::join!(
        watch.kind::<Service>(&client, all(), Event::Service, whole, Must::BeServed),
        watch.kind::<EndpointSlice>(&client, all(), Event::Slice, whole, Must::BeServed),
        watch.kind::<Node>(&client, nodes, Event::Node, without_images, Must::BeServed),
        watch.kind::<ServiceCIDR>(&client, all(), Event::Cidr, whole, Must::MayLack),
    );
}

/// Whether there is no going on without a kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Must {
    BeServed,
    /// ServiceCIDRs came with Kubernetes 1.33, and what they tell is worth having, no more.
    MayLack,
}

struct Watch {
    tasks: Sender<Task>,
    shared: Arc<Shared>,
}

impl Watch {
    async fn kind<K>(
        &self,
        client: &Client,
        config: watcher::Config,
        event: fn(Change<K>) -> Event,
        shorten: fn(&mut K),
        must: Must,
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let kind = K::kind(&());
        let slim = |object| slim(object, shorten);
        loop {
            let api = Api::<DeserializeGuard<K>>::all(client.clone());
            let mut stream = std::pin::pin!(watcher(api, config.clone()).default_backoff());
            while let Some(item) = stream.next().await {
                let change = match item {
                    Ok(watcher::Event::Init) => {
                        // Nothing was asked yet.
                        if self.send(event(Change::Begin)) {
                            continue;
                        }
                        return;
                    }
                    Ok(watcher::Event::InitApply(object)) => Change::Listed(slim(object)),
                    Ok(watcher::Event::InitDone) => Change::Complete,
                    Ok(watcher::Event::Apply(object)) => Change::Applied(slim(object)),
                    Ok(watcher::Event::Delete(object)) => Change::Deleted(slim(object)),
                    Err(error) if must == Must::MayLack && is_refused(&error) => {
                        tracing::info!("{kind}s are not watched: {}", with_causes(&error));
                        // Nothing is as complete as a list of none.
                        let _ = self.send(event(Change::Begin)) && self.send(event(Change::Complete));
                        return;
                    }
                    Err(error) => {
                        self.shared.trouble(&kind, Some(with_causes(&error)));
                        if is_garbled(&error) {
                            // What the event said is lost: only a new list tells.
                            break;
                        }
                        continue;
                    }
                };
                self.shared.trouble(&kind, None);
                if !self.send(event(change)) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Whether somebody listens still.
    fn send(&self, event: Event) -> bool {
        self.tasks.send(Task::Event(event, Instant::now())).is_ok()
    }
}

/// Whether the server has no such kind, or does not let us see it.
fn is_refused(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if matches!(status.code, 403 | 404))
}

/// Whether the server sent something that is no event.
const fn is_garbled(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchFailed(kube::Error::SerdeError(_)))
}

/// As it is.
const fn whole<K>(_: &mut K) {}

/// Most of a Node is the list of the images that it has.
fn without_images(node: &mut Node) {
    if let Some(status) = &mut node.status {
        status.images = None;
    }
}

/// Without what nobody here reads and most of the memory would be for.
fn slim<K: Resource>(mut object: DeserializeGuard<K>, shorten: fn(&mut K)) -> Box<DeserializeGuard<K>> {
    if let Ok(object) = &mut object.0 {
        shorten(object);
    }
    let meta: &mut ObjectMeta = object.meta_mut();
    meta.managed_fields = None;
    meta.owner_references = None;
    Box::new(object)
}
