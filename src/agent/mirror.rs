//! The objects of one kind as the API server last gave them.
//!
//! A list counts only when it is complete, and an object is gone only when a DELETE says so or a complete list lacks it.
//! An object that cannot be read leaves its last readable state in place.

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::DeserializeGuard;

/// Namespace and name of an object; the namespace of a cluster-wide one is empty.
pub(super) type Name = (String, String);

/// One thing that a watch tells.
#[derive(Clone, Debug)]
pub(super) enum Change<K> {
    /// A list begins.
    Begin,
    /// An object of the list.
    Listed(Box<DeserializeGuard<K>>),
    /// The list is complete.
    Complete,
    /// An object was added or changed.
    Applied(Box<DeserializeGuard<K>>),
    /// An object was deleted; this is its last state.
    Deleted(Box<DeserializeGuard<K>>),
}

impl<K> Change<K> {
    /// Whether it is a change of one object, not a piece of a list.
    pub(super) const fn is_news(&self) -> bool {
        matches!(self, Self::Applied(_) | Self::Deleted(_))
    }
}

/// An object that is otherwise than before.
#[derive(Debug)]
pub(super) struct Touched<K> {
    /// Which.
    pub(super) name: Name,
    /// What it was.
    pub(super) before: Option<K>,
}

/// An object that cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Unreadable {
    /// Its metadata, which can be.
    pub(super) metadata: ObjectMeta,
    /// What is wrong with the rest.
    pub(super) reason: String,
}

/// The objects of one kind.
#[derive(Debug)]
pub(super) struct Mirror<K> {
    objects: HashMap<Name, K>,
    unreadable: HashMap<Name, Unreadable>,
    listing: Option<HashMap<Name, DeserializeGuard<K>>>,
    complete: bool,
}

impl<K> Default for Mirror<K> {
    fn default() -> Self {
        Self { objects: HashMap::new(), unreadable: HashMap::new(), listing: None, complete: false }
    }
}

fn name(meta: &ObjectMeta) -> Name {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// Whether the second state is an earlier one of the same object. Versions are compared only where both are numbers, as
/// those of etcd are (KEP-5504 makes that a promise).
fn is_earlier(known: &ObjectMeta, other: &ObjectMeta) -> bool {
    let number = |meta: &ObjectMeta| meta.resource_version.as_deref()?.parse::<u64>().ok();
    known.uid == other.uid && number(other).zip(number(known)).is_some_and(|(other, known)| other < known)
}

impl<K: Resource> Mirror<K> {
    /// Whether every object was seen at least once.
    pub(super) const fn is_complete(&self) -> bool {
        self.complete
    }

    /// The object of this name, in its last readable state.
    pub(super) fn get(&self, name: &Name) -> Option<&K> {
        self.objects.get(name)
    }

    /// All objects, in their last readable states.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Name, &K)> {
        self.objects.iter()
    }

    /// How many objects there are.
    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// The objects that cannot be read now.
    pub(super) fn unreadable(&self) -> impl Iterator<Item = (&Name, &Unreadable)> {
        self.unreadable.iter()
    }

    /// Whether the object cannot be read and never could.
    pub(super) fn is_unknown(&self, name: &Name) -> bool {
        self.unreadable.contains_key(name) && !self.objects.contains_key(name)
    }

    /// Takes one change in; `touched` gets the objects that are otherwise than before.
    pub(super) fn apply(&mut self, change: Change<K>, mut touched: impl FnMut(Touched<K>)) {
        match change {
            Change::Begin => self.listing = Some(HashMap::new()),
            Change::Listed(object) => {
                let name = name(object.meta());
                self.listing.get_or_insert_default().insert(name, *object);
            }
            Change::Complete => {
                let listed = self.listing.take().unwrap_or_default();
                let gone: Vec<Name> = self.known().filter(|name| !listed.contains_key(*name)).cloned().collect();
                for name in gone {
                    self.remove(name, &mut touched);
                }
                for (name, object) in listed {
                    self.put(name, object, &mut touched);
                }
                self.complete = true;
            }
            Change::Applied(object) => self.put(name(object.meta()), *object, &mut touched),
            Change::Deleted(object) => {
                let name = name(object.meta());
                let same = |meta: &ObjectMeta| meta.uid == object.meta().uid && !is_earlier(meta, object.meta());
                if self.objects.get(&name).is_none_or(|known| same(known.meta())) {
                    self.remove(name, &mut touched);
                }
            }
        }
    }

    fn known(&self) -> impl Iterator<Item = &Name> {
        self.objects.keys().chain(self.unreadable.keys().filter(|name| !self.objects.contains_key(*name)))
    }

    fn put(&mut self, name: Name, object: DeserializeGuard<K>, touched: &mut impl FnMut(Touched<K>)) {
        let known = self.objects.get(&name);
        if known.is_some_and(|known| is_earlier(known.meta(), object.meta())) {
            return;
        }
        match object.0 {
            Ok(object) => {
                let readable_again = self.unreadable.remove(&name).is_some();
                let same = |known: &K| {
                    known.meta().uid == object.meta().uid
                        && known.meta().resource_version == object.meta().resource_version
                        && known.meta().resource_version.is_some()
                };
                if known.is_some_and(same) && !readable_again {
                    return;
                }
                let before = self.objects.insert(name.clone(), object);
                touched(Touched { name, before });
            }
            Err(invalid) => {
                let unreadable = Unreadable { metadata: invalid.metadata, reason: invalid.error };
                self.unreadable.insert(name, unreadable);
            }
        }
    }

    fn remove(&mut self, name: Name, touched: &mut impl FnMut(Touched<K>)) {
        let unreadable = self.unreadable.remove(&name).is_some();
        let before = self.objects.remove(&name);
        if before.is_some() || unreadable {
            touched(Touched { name, before });
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    use super::*;

    fn service(name: &str, version: u64, port: serde_json::Value) -> Box<DeserializeGuard<Service>> {
        let object = json!({
            "metadata": { "namespace": "ns", "name": name, "uid": "u", "resourceVersion": version.to_string() },
            "spec": { "ports": [{ "port": port }] },
        });
        Box::new(serde_json::from_value(object).expect("metadata can be read"))
    }

    fn touched(mirror: &mut Mirror<Service>, change: Change<Service>) -> Vec<String> {
        let mut names = Vec::new();
        mirror.apply(change, |touched| names.push(touched.name.1));
        names.sort();
        names
    }

    fn listed(mirror: &mut Mirror<Service>, names: &[&str]) -> Vec<String> {
        assert!(touched(mirror, Change::Begin).is_empty());
        for name in names {
            assert!(touched(mirror, Change::Listed(service(name, 5, json!(80)))).is_empty());
        }
        touched(mirror, Change::Complete)
    }

    #[test]
    fn a_list_counts_when_it_is_complete() {
        let mut mirror = Mirror::default();
        assert_eq!(listed(&mut mirror, &["a", "b"]), ["a", "b"]);
        assert!(mirror.is_complete());
        // A list that breaks off is none.
        touched(&mut mirror, Change::Begin);
        touched(&mut mirror, Change::Listed(service("c", 6, json!(80))));
        assert_eq!(mirror.len(), 2);
        assert_eq!(
            listed(&mut mirror, &["a"]),
            ["b"],
            "what a complete list lacks is gone, what it repeats is the same"
        );
        assert!(listed(&mut mirror, &[]) == ["a"] && mirror.len() == 0);
    }

    #[test]
    fn late_and_repeated_changes_are_none() {
        let mut mirror = Mirror::default();
        listed(&mut mirror, &["a"]);
        assert_eq!(touched(&mut mirror, Change::Applied(service("a", 7, json!(81)))), ["a"]);
        assert!(touched(&mut mirror, Change::Applied(service("a", 7, json!(81)))).is_empty(), "repeated");
        assert!(touched(&mut mirror, Change::Applied(service("a", 6, json!(80)))).is_empty(), "late");
        assert!(touched(&mut mirror, Change::Deleted(service("a", 6, json!(80)))).is_empty(), "late");
        assert_eq!(touched(&mut mirror, Change::Deleted(service("a", 8, json!(81)))), ["a"]);
        assert!(touched(&mut mirror, Change::Deleted(service("a", 8, json!(81)))).is_empty());
    }

    #[test]
    fn what_cannot_be_read_stays_as_it_was() {
        let mut mirror = Mirror::default();
        listed(&mut mirror, &["a"]);
        assert!(touched(&mut mirror, Change::Applied(service("a", 9, json!("eighty")))).is_empty());
        assert!(touched(&mut mirror, Change::Applied(service("b", 9, json!("eighty")))).is_empty());
        let name = |name: &str| ("ns".to_owned(), name.to_owned());
        assert!(mirror.get(&name("a")).is_some() && !mirror.is_unknown(&name("a")) && mirror.is_unknown(&name("b")));
        assert_eq!(mirror.unreadable().count(), 2);
        assert_eq!(touched(&mut mirror, Change::Applied(service("a", 10, json!(82)))), ["a"]);
        assert_eq!(touched(&mut mirror, Change::Deleted(service("b", 11, json!("eighty")))), ["b"]);
        assert_eq!(mirror.unreadable().count(), 0);
    }
}
