//! KubeProxyConfiguration documents: kube-proxy's `/configz` and its ConfigMap.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::config::{ConfigError, Source, Text};
use super::settings::{SETTINGS, Words};

/// A KubeProxyConfiguration with its keys in lower case: `/configz` answered in Go's names (`ClusterCIDR`) up to 1.30 or
/// so and in the API's (`clusterCIDR`) since.
pub(super) struct Document {
    fields: Value,
    gates: BTreeMap<String, bool>,
}

impl Document {
    /// The answer of `/configz`: the configuration under its group's name.
    pub(super) fn configz(text: Text<'_>) -> Result<Self, ConfigError> {
        let value = parse(text, "JSON of /configz")?;
        match value.get("kubeproxy.config.k8s.io") {
            Some(config @ Value::Object(_)) => Ok(Self::of(config)),
            _ => Err(ConfigError::NoConfiguration { place: text.place.to_owned() }),
        }
    }

    /// A ConfigMap, a list of them, or the configuration file itself, in JSON or YAML. The data key is `config.conf` with
    /// kubeadm and `config` on EKS, so it is looked for by content.
    pub(super) fn config_map(text: Text<'_>) -> Result<Self, ConfigError> {
        let value = parse(text, "ConfigMap or KubeProxyConfiguration")?;
        let kind = |v: &Value| v.get("kind").and_then(Value::as_str).map(str::to_owned);
        if kind(&value).as_deref() == Some("KubeProxyConfiguration") {
            return Ok(Self::of(&value));
        }
        let single = [value.clone()];
        let maps = value.get("items").and_then(Value::as_array).map_or(&single[..], Vec::as_slice);
        let files = maps.iter().filter_map(|map| map.get("data")?.as_object()).flat_map(Map::values);
        for file in files.filter_map(Value::as_str) {
            if !file.contains("KubeProxyConfiguration") {
                continue;
            }
            let inner = parse(Text { bytes: file.as_bytes(), place: text.place }, "KubeProxyConfiguration")?;
            if kind(&inner).as_deref() == Some("KubeProxyConfiguration") {
                return Ok(Self::of(&inner));
            }
        }
        Err(ConfigError::NoConfiguration { place: text.place.to_owned() })
    }

    fn of(config: &Value) -> Self {
        let gates = ["featureGates", "FeatureGates"]
            .iter()
            .find_map(|key| config.get(key)?.as_object())
            .map(|gates| gates.iter().filter_map(|(k, v)| Some((k.clone(), v.as_bool()?))).collect())
            .unwrap_or_default();
        Self { fields: lower_case(config), gates }
    }

    /// The settings it has. A setting that is there and null is known to be empty.
    pub(super) fn words(self, source: &Source) -> Words {
        let mut words = Words::default();
        for (setting, _) in SETTINGS {
            let mut at = Some(&self.fields);
            for key in setting.split('.') {
                at = at.and_then(|v| v.get(key.to_lowercase()));
            }
            if let Some(value) = at {
                words.set(setting, word(value), source.clone());
            }
        }
        words.gates = Some((self.gates, source.clone()));
        words
    }
}

fn parse(text: Text<'_>, what: &'static str) -> Result<Value, ConfigError> {
    let utf8 = String::from_utf8_lossy(text.bytes);
    serde_saphyr::from_str(&utf8).map_err(|e| ConfigError::Syntax {
        place: text.place.to_owned(),
        what,
        source: Box::new(e),
    })
}

fn lower_case(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(map.iter().map(|(k, v)| (k.to_lowercase(), lower_case(v))).collect()),
        other => other.clone(),
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(word).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
