//! The registry: every feature, by area. The hundreds of their numbers: 1 sockets, 2 maps, 3 packets, 4 the kernel, 5 the migration,
//! 6 the node, 7 the cluster.

mod cluster;
mod kernel;
mod maps;
mod migration;
mod node;
mod packets;
mod sockets;

use super::feature::Feature;

/// Every feature, in the order of the report.
pub fn all() -> impl Iterator<Item = &'static Feature> {
    [
        &sockets::FEATURES[..],
        &maps::FEATURES[..],
        &packets::FEATURES[..],
        &kernel::FEATURES[..],
        &migration::FEATURES[..],
        &node::FEATURES[..],
        &cluster::FEATURES[..],
    ]
    .into_iter()
    .flatten()
}

/// The feature with this identifier or name, in any case.
pub fn find(word: &str) -> Option<&'static Feature> {
    all().find(|feature| feature.id.eq_ignore_ascii_case(word) || feature.name.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::all;

    #[test]
    fn identifiers_and_names_are_unique_and_belong_to_their_area() {
        let mut seen = BTreeSet::new();
        for feature in all() {
            assert!(seen.insert(feature.id) && seen.insert(feature.name), "{feature:?} is there twice");
            let number: u32 =
                feature.id.strip_prefix("KPX-P").and_then(|n| n.parse().ok()).expect("KPX-P and a number");
            assert_eq!(number / 100, feature.area as u32 + 1, "{feature:?}");
        }
    }

    #[test]
    fn every_feature_says_why_and_what_to_do() {
        for feature in all() {
            assert!(!feature.title.ends_with('.') && feature.title.len() <= 60, "{feature:?}: {}", feature.title);
            for text in [feature.why, feature.remedy, feature.without] {
                assert!(text.ends_with('.') && text.len() > 15, "{feature:?}: {text}");
            }
            assert!(feature.kpx.is_some() || feature.cilium.is_some(), "{feature:?} is needed by nobody");
        }
    }
}
