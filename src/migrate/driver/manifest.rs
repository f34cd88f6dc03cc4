//! A kube-proxy of a static pod: its manifest leaves the folder that the kubelet watches, and comes back as it was.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{Gid, Mode, Uid};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::DriverError;
use crate::migrate::journal::sync_dir;
use crate::migrate::store::{StoreError, write_durably};

/// A static pod that runs kube-proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticPod {
    /// Its manifest.
    pub manifest: PathBuf,
}

/// The manifest as it was; its bytes are in a file beside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Before {
    mode: u32,
    uid: u32,
    gid: u32,
}

/// Where the bytes of the manifest are kept.
fn kept(dir: &Path) -> PathBuf {
    dir.join("kube-proxy.manifest")
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

impl StaticPod {
    fn folder(&self) -> &Path {
        self.manifest.parent().unwrap_or(Path::new("/"))
    }

    /// Keeps the manifest as it is; `None` where it is not there.
    pub(super) fn before(&self, dir: &Path) -> Result<Option<Before>, DriverError> {
        let about = match fs::symlink_metadata(&self.manifest) {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &self.manifest)(error).into()),
        };
        if !about.is_file() {
            return Err(DriverError::NotAFile { path: self.manifest.clone() });
        }
        let bytes = fs::read(&self.manifest).map_err(failed("read", &self.manifest))?;
        write_durably(&kept(dir), &bytes)?;
        Ok(Some(Before { mode: about.mode() & 0o7777, uid: about.uid(), gid: about.gid() }))
    }

    /// Takes the manifest away.
    pub(super) fn stop(&self) -> Result<(), DriverError> {
        match fs::remove_file(&self.manifest) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &self.manifest)(error).into());
            }
            _ => {}
        }
        Ok(sync_dir(self.folder()).map_err(failed("write", self.folder()))?)
    }

    /// Puts the manifest back, unless another one is there.
    pub(super) fn start(&self, dir: &Path, before: &Before) -> Result<(), DriverError> {
        if self.manifest.exists() {
            return Ok(());
        }
        let bytes = fs::read(kept(dir)).map_err(failed("read", &kept(dir)))?;
        // The kubelet does not read files that begin with a dot.
        let aside = self.folder().join(".kpx-kube-proxy");
        write_durably(&aside, &bytes)?;
        let owner = rustix::fs::chown(&aside, Some(Uid::from_raw(before.uid)), Some(Gid::from_raw(before.gid)));
        owner.map_err(|error| failed("write", &aside)(error.into()))?;
        let mode = rustix::fs::chmod(&aside, Mode::from_raw_mode(before.mode));
        mode.map_err(|error| failed("write", &aside)(error.into()))?;
        fs::rename(&aside, &self.manifest).map_err(failed("create", &self.manifest))?;
        Ok(sync_dir(self.folder()).map_err(failed("write", self.folder()))?)
    }

    /// Takes away what is kept once kube-proxy is back.
    pub(super) fn forget(dir: &Path) -> Result<(), DriverError> {
        match fs::remove_file(kept(dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &kept(dir))(error).into()),
            _ => Ok(()),
        }
    }

    /// Why the kubelet would start it.
    pub(super) fn comes_back(&self) -> Result<Option<String>, DriverError> {
        Ok(find_in(self.folder())?.map(|manifest| format!("{} is there", manifest.display())))
    }
}

/// The manifest in a folder of static pods that runs kube-proxy.
pub(super) fn find_in(folder: &Path) -> Result<Option<PathBuf>, DriverError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", folder)(error).into()),
    };
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed("read", folder))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        // What cannot be read is no file, or gone.
        if !hidden && fs::read(&path).is_ok_and(|bytes| runs_kube_proxy(&bytes)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found.into_iter().next())
}

/// Whether a manifest is of a pod with a container that runs kube-proxy.
fn runs_kube_proxy(bytes: &[u8]) -> bool {
    let Ok(pod) = serde_saphyr::from_slice::<Value>(bytes) else { return false };
    let is_it = |word: &Value| {
        let word = word.as_str().unwrap_or_default();
        word.split_ascii_whitespace().any(|word| word.rsplit('/').next() == Some("kube-proxy"))
    };
    let words = |value: &Value| value.as_array().is_some_and(|words| words.iter().any(is_it));
    let of = |container: &Value| {
        let image = container["image"].as_str().unwrap_or_default();
        // A reference without its digest, tag and registry.
        let image = image.split('@').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        words(&container["command"]) || words(&container["args"]) || image.split(':').next() == Some("kube-proxy")
    };
    pod["kind"] == "Pod" && pod["spec"]["containers"].as_array().is_some_and(|all| all.iter().any(of))
}

/// The folder of static pods by the kubelet's flags and its configuration; `None` where they name none.
pub(super) fn folder(flags: &[String]) -> Option<PathBuf> {
    let flag = |name: &str| flags.iter().rev().find_map(|flag| flag.strip_prefix(name)?.strip_prefix('='));
    if let Some(folder) = flag("--pod-manifest-path") {
        return Some(folder.into());
    }
    let config: Value = serde_saphyr::from_slice(&fs::read(flag("--config")?).ok()?).ok()?;
    config["staticPodPath"].as_str().filter(|path| !path.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_that_only_names_kube_proxy_is_not_its() {
        let pod = |container: &str| format!("apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - {container}\n");
        for container in [
            "command: [/usr/local/bin/kube-proxy, --config=/x]",
            "command: [/bin/sh, -c, exec kube-proxy --v=2 1>>/var/log/kube-proxy.log 2>&1]",
            "image: registry.k8s.io/kube-proxy:v1.36.2",
            "image: example.org:5000/a/kube-proxy@sha256:00",
        ] {
            assert!(runs_kube_proxy(pod(container).as_bytes()), "{container}");
        }
        for other in [pod("command: [kube-apiserver, --x=system:kube-proxy]"), "kind: [".to_owned(), String::new()] {
            assert!(!runs_kube_proxy(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn the_kubelet_says_where_its_manifests_are() {
        let folder_of = |flags: &[String]| folder(flags).map(|folder| folder.display().to_string());
        let config = tempfile::NamedTempFile::new().unwrap();
        fs::write(config.path(), "kind: KubeletConfiguration\nstaticPodPath: /etc/pods\n").unwrap();
        let by_config = format!("--config={}", config.path().display());
        assert_eq!(folder_of(std::slice::from_ref(&by_config)).as_deref(), Some("/etc/pods"));
        assert_eq!(folder_of(&[by_config, "--pod-manifest-path=/p".to_owned()]).as_deref(), Some("/p"));
        assert_eq!(folder_of(&["--config=/nonexistent".to_owned()]), None);
    }
}
