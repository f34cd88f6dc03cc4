//! API objects from bytes: LIST answers, `kubectl get -o json` lists, single objects.

use std::fmt;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::lean::Lean;

/// The objects that decide what a node does with Services.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Services, as read; which of them kube-proxy looks at is decided later.
    pub services: Vec<Service>,
    /// EndpointSlices, as read.
    pub slices: Vec<EndpointSlice>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Which kinds were listed at all, be it with no item.
    pub listed: Listed,
}

/// Kinds of which a list was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Services.
    pub services: bool,
    /// EndpointSlices.
    pub slices: bool,
    /// Nodes.
    pub nodes: bool,
}

/// Which object of a document is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    /// Kind.
    pub kind: String,
    /// Namespace, empty for a Node.
    pub namespace: String,
    /// Name, empty if it has none.
    pub name: String,
    /// Position in the list, from 0.
    pub index: usize,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name, index } = self;
        match (namespace.as_str(), name.as_str()) {
            (_, "") => write!(f, "{kind} without a name (items[{index}])"),
            ("", name) => write!(f, "{kind} {name} (items[{index}])"),
            (namespace, name) => write!(f, "{kind} {namespace}/{name} (items[{index}])"),
        }
    }
}

/// Why bytes are no usable list of objects.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// Not JSON.
    #[error("{place} is no JSON")]
    Json {
        /// File or command line.
        place: String,
        /// The parser's reason, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// One object has a field of another type than the API gives it.
    #[error("{place}: {object}: {}{reason}", .field.as_ref().map(|f| format!("field {f}: ")).unwrap_or_default())]
    Field {
        /// File or command line.
        place: String,
        /// The object.
        object: Box<ObjectRef>,
        /// JSON path inside the object; `None` if the object as a whole is at fault, as by its apiVersion.
        field: Option<String>,
        /// What is wrong with it.
        reason: String,
    },
    /// JSON of another kind than a list of Services, EndpointSlices or Nodes.
    #[error("{place} holds a {kind}, not a list of Services, EndpointSlices or Nodes")]
    Kind {
        /// File or command line.
        place: String,
        /// The kind found.
        kind: String,
    },
    /// The API server's refusal, saved as if it were an answer.
    #[error("{place} holds an error of the API server, {code}: {message}")]
    Refused {
        /// File or command line.
        place: String,
        /// HTTP status code.
        code: i64,
        /// The API server's words.
        message: String,
    },
    /// A page of a LIST that goes on.
    #[error("{place} is one page of a longer list: metadata.continue is set")]
    Page {
        /// File or command line.
        place: String,
    },
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: HeadMeta,
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

#[derive(Default, Deserialize)]
struct HeadMeta {
    #[serde(default, rename = "continue")]
    more: Option<String>,
}

#[derive(Deserialize)]
struct List<T> {
    items: Option<Vec<Lean<T>>>,
}

/// An item of a mixed list.
enum Item {
    Service(Box<Service>),
    Slice(Box<EndpointSlice>),
    Node(Box<Node>),
    Other,
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
        match kind {
            "Service" => serde_json::from_value(value).map(Box::new).map(Self::Service),
            "EndpointSlice" => serde_json::from_value(value).map(Box::new).map(Self::Slice),
            "Node" => serde_json::from_value(value).map(Box::new).map(Self::Node),
            _ => Ok(Self::Other),
        }
        .map_err(serde::de::Error::custom)
    }
}

impl Objects {
    /// Adds the objects of one document. `place` names it in errors.
    pub fn add(&mut self, bytes: &[u8], place: &str) -> Result<(), ObjectsError> {
        let head: Head = serde_json::from_slice(bytes).map_err(|e| diagnose(bytes, place, e))?;
        if head.kind.ends_with("List") && head.metadata.more.is_some_and(|token| !token.is_empty()) {
            return Err(ObjectsError::Page { place: place.to_owned() });
        }
        match head.kind.as_str() {
            "ServiceList" => {
                self.listed.services = true;
                self.services.append(&mut items(bytes, place)?);
            }
            "EndpointSliceList" => {
                self.listed.slices = true;
                self.slices.append(&mut items(bytes, place)?);
            }
            "NodeList" => {
                self.listed.nodes = true;
                self.nodes.append(&mut items(bytes, place)?);
            }
            // A mixed list does not say which kinds were asked for: those that appear, and the three that belong together.
            "List" => {
                for item in items::<Item>(bytes, place)? {
                    self.push(item);
                }
            }
            "Service" | "EndpointSlice" | "Node" => {
                let item = serde_json::from_slice(bytes).map_err(|e| diagnose(bytes, place, e))?;
                self.push(item);
            }
            "Status" => {
                return Err(ObjectsError::Refused { place: place.to_owned(), code: head.code, message: head.message });
            }
            other => {
                let kind = if other.is_empty() { "JSON value without a kind" } else { other };
                return Err(ObjectsError::Kind { place: place.to_owned(), kind: kind.to_owned() });
            }
        }
        Ok(())
    }

    /// The Node object of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.metadata.name.as_deref() == Some(name))
    }

    fn push(&mut self, item: Item) {
        match item {
            Item::Service(service) => {
                self.listed.services = true;
                self.services.push(*service);
            }
            Item::Slice(slice) => {
                self.listed.slices = true;
                self.slices.push(*slice);
            }
            Item::Node(node) => {
                self.listed.nodes = true;
                self.nodes.push(*node);
            }
            Item::Other => {}
        }
    }
}

fn items<T: DeserializeOwned>(bytes: &[u8], place: &str) -> Result<Vec<T>, ObjectsError> {
    let list: List<T> = serde_json::from_slice(bytes).map_err(|e| diagnose(bytes, place, e))?;
    Ok(list.items.into_iter().flatten().map(|Lean(item)| item).collect())
}

/// Finds the object and field behind a parse error. Reads the document again, slowly: errors are rare and want a name.
fn diagnose(bytes: &[u8], place: &str, error: serde_json::Error) -> ObjectsError {
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else {
        return ObjectsError::Json { place: place.to_owned(), source: error };
    };
    let list_kind = document.get("kind").and_then(Value::as_str).unwrap_or_default();
    let single = [document.clone()];
    let items = document.get("items").and_then(Value::as_array).map_or(&single[..], Vec::as_slice);
    for (index, item) in items.iter().enumerate() {
        let kind = item
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or_else(|| list_kind.strip_suffix("List").unwrap_or(list_kind));
        let fault = match kind {
            "Service" => fault::<Service>(item),
            "EndpointSlice" => fault::<EndpointSlice>(item),
            "Node" => fault::<Node>(item),
            _ => None,
        };
        if let Some((field, reason)) = fault {
            let meta =
                |key: &str| item.pointer(&format!("/metadata/{key}")).and_then(Value::as_str).unwrap_or_default();
            let object = Box::new(ObjectRef {
                kind: kind.to_owned(),
                namespace: meta("namespace").to_owned(),
                name: meta("name").to_owned(),
                index,
            });
            return ObjectsError::Field { place: place.to_owned(), object, field, reason };
        }
    }
    ObjectsError::Json { place: place.to_owned(), source: error }
}

fn fault<T: DeserializeOwned>(item: &Value) -> Option<(Option<String>, String)> {
    let error = serde_path_to_error::deserialize::<_, T>(item.clone()).err()?;
    let path = error.path();
    Some((path.iter().next().map(|_| path.to_string()), error.inner().to_string()))
}

/// `namespace/name` of an object, for messages and keys.
pub(super) fn names(meta: &ObjectMeta) -> (&str, &str) {
    (meta.namespace.as_deref().unwrap_or("default"), meta.name.as_deref().unwrap_or_default())
}
