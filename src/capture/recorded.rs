//! Playing a snapshot back.
//!
//! Besides what `kpx snapshot` writes, this reads recordings made by hand: `iptables-save.txt` is of whichever variant
//! kube-proxy used (its heading tells), `iptables-legacy-save.txt` or `iptables-nft-save.txt` of the other one; the log
//! and the metrics may carry the variant in their names (`kube-proxy-iptables-nft.log`).

use std::path::{Path, PathBuf};

use super::error::CaptureError;
use super::item::{IPVS_PARTS, Item, Variant, plain_save_file};
use super::manifest::Manifest;
use super::store::{Found, Store};
use super::{Captured, proxy};
use crate::model::Family;

/// A snapshot, opened.
#[derive(Debug)]
pub struct Recorded {
    path: PathBuf,
    store: Store,
    manifest: Option<Manifest>,
}

impl Recorded {
    pub(super) fn open(path: &Path) -> Result<Self, CaptureError> {
        let store = Store::open(path)?;
        let manifest = Manifest::read(&store)?;
        Ok(Self { path: path.to_owned(), store, manifest })
    }

    /// Where the snapshot is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `capture.json`, if kpx made the snapshot.
    pub const fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    pub(super) fn read(&self, item: Item) -> Result<Captured, CaptureError> {
        let found = match item {
            Item::IptablesSave(family, variant) => self.rules(family, variant)?,
            Item::ProxyLog | Item::Metrics => match self.first(item.files())? {
                None => self.first_with_variant(item.files())?,
                found => found,
            },
            Item::Ipvs => match self.first(item.files())? {
                None => self.joined(&IPVS_PARTS)?,
                found => found,
            },
            _ => match item.api_kind() {
                Some(kind) => return self.objects(item, kind),
                None => self.first(item.files())?,
            },
        };
        Ok(self.captured(item, found))
    }

    /// Name of the Node object, as far as the snapshot knows it.
    pub(super) fn node_name(&self) -> Option<String> {
        if let Some(manifest) = &self.manifest {
            return Some(manifest.node.clone());
        }
        let bytes = |item| match self.read(item) {
            Ok(Captured::Present { bytes, .. }) => Some(bytes),
            // A damaged file is reported when somebody needs its content.
            _ => None,
        };
        bytes(Item::ProxyLog)
            .and_then(|log| proxy::node_name_in_log(&log))
            .or_else(|| bytes(Item::Configz).and_then(|configz| proxy::node_name_in_configz(&configz)))
    }

    fn captured(&self, item: Item, found: Option<Found>) -> Captured {
        if let Some(Found { bytes, place }) = found {
            return Captured::Present { bytes, place };
        }
        let reason = self.manifest.as_ref().and_then(|m| m.why_absent(item.name()));
        Captured::Absent { reason: reason.unwrap_or("not in the snapshot").to_owned() }
    }

    /// Several files as one, up to the first that is missing: where there are no services, nobody asks for servers.
    fn joined(&self, names: &[&str]) -> Result<Option<Found>, CaptureError> {
        let mut joined: Option<Found> = None;
        for name in names {
            let Some(found) = self.store.read(name)? else { break };
            match &mut joined {
                Some(joined) => joined.bytes.extend(found.bytes),
                None => joined = Some(found),
            }
        }
        Ok(joined)
    }

    fn first(&self, names: &[&str]) -> Result<Option<Found>, CaptureError> {
        for name in names {
            if let Some(found) = self.store.read(name)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// `kube-proxy.log` as `kube-proxy-iptables-nft.log`.
    fn first_with_variant(&self, names: &[&str]) -> Result<Option<Found>, CaptureError> {
        let Some(variant) = self.heading(Family::V4)? else { return Ok(None) };
        for name in names {
            let Some((stem, extension)) = name.rsplit_once('.') else { continue };
            if let Some(found) = self.store.read(&format!("{stem}-iptables-{variant}.{extension}"))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn rules(&self, family: Family, variant: Variant) -> Result<Option<Found>, CaptureError> {
        if self.plain_variant(family)? == variant
            && let Some(found) = self.store.read(plain_save_file(family))?
        {
            return Ok(Some(found));
        }
        self.first(Item::IptablesSave(family, variant).files())
    }

    /// The variant whose rules have the plain name: that of the heading; of the other family's heading, where this family
    /// has no rules; the one whose long name is not taken; else nft.
    fn plain_variant(&self, family: Family) -> Result<Variant, CaptureError> {
        let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
        for family in [family, other] {
            if let Some(variant) = self.heading(family)? {
                return Ok(variant);
            }
        }
        let nft_is_elsewhere = self.first(Item::IptablesSave(family, Variant::Nft).files())?.is_some();
        Ok(if nft_is_elsewhere { Variant::Legacy } else { Variant::Nft })
    }

    fn heading(&self, family: Family) -> Result<Option<Variant>, CaptureError> {
        Ok(self.store.start(plain_save_file(family))?.and_then(|start| Variant::by_heading(&start)))
    }

    fn objects(&self, item: Item, kind: &str) -> Result<Captured, CaptureError> {
        let Some(found) = self.first(item.files())? else { return Ok(self.captured(item, None)) };
        Ok(super::objects::of_kind(found, kind))
    }
}
