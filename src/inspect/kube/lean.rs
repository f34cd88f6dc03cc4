//! API objects without `metadata.managedFields`, which nobody here asks for: it is up to half of a list, and a tree of its own in
//! each object.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::CowStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, IntoDeserializer as _, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

const LEFT_OUT: &str = "managedFields";

/// An object, read without them.
pub(super) struct Lean<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lean<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(Object { inner: deserializer, depth: Depth::Object }).map(Self)
    }
}

/// Where in an object.
#[derive(Clone, Copy)]
enum Depth {
    /// At its own fields.
    Object,
    /// At those of its metadata.
    Metadata,
}

/// A deserializer, or a visitor or map that belongs to one.
struct Object<T> {
    inner: T,
    depth: Depth,
}

impl<T> Object<T> {
    fn with<U>(&self, inner: U) -> Object<U> {
        Object { inner, depth: self.depth }
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Object<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(Object { inner: visitor, depth: self.depth })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_option(Object { inner: visitor, depth: self.depth })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Object<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let map = self.with(map);
        self.inner.visit_map(Fields { map, at_metadata: false })
    }
}

/// The fields of an object, or of its metadata.
struct Fields<A> {
    map: Object<A>,
    /// Whether the value to come is the object's metadata.
    at_metadata: bool,
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fields<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(Key(key)) = self.map.inner.next_key()? {
            if matches!(self.map.depth, Depth::Metadata) && key == LEFT_OUT {
                self.map.inner.next_value::<IgnoredAny>()?;
                continue;
            }
            self.at_metadata = matches!(self.map.depth, Depth::Object) && key == "metadata";
            let key: CowStrDeserializer<'_, A::Error> = key.into_deserializer();
            return seed.deserialize(key).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        if self.at_metadata {
            self.map.inner.next_value_seed(Object { inner: seed, depth: Depth::Metadata })
        } else {
            self.map.inner.next_value_seed(seed)
        }
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Object<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    use super::Lean;

    #[test]
    fn all_is_read_but_who_set_it() {
        let whole = json!({
            "kind": "Service", "apiVersion": "v1",
            "metadata": {
                "name": "web\n", "namespace": "default", "labels": {"managedFields": "a label"}, "annotations": null,
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}], "generation": 3
            },
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}], "selector": {"metadata": "managedFields"}},
            "status": {"loadBalancer": {}}
        });
        let mut expected: Service = serde_json::from_value(whole.clone()).expect("a Service");
        assert!(expected.metadata.managed_fields.take().is_some());
        let Lean::<Service>(read) = serde_json::from_slice(whole.to_string().as_bytes()).expect("a Service");
        assert_eq!(read, expected);
        for wrong in [json!({"metadata": 3}), json!({"metadata": {"name": []}}), json!({"kind": "Node"}), json!([])] {
            let whole = serde_json::from_value::<Service>(wrong.clone()).expect_err("no Service").to_string();
            let lean = serde_json::from_value::<Lean<Service>>(wrong).err().expect("no Service").to_string();
            assert_eq!(lean, whole);
        }
    }
}
