//! Which host this is.

use serde::{Deserialize, Serialize};

use super::error::CaptureError;
use super::item::Item;

/// The content of `host.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Host name, as `uname -n` has it.
    pub host_name: String,
    /// Kernel release, as `uname -r` has it.
    pub kernel_release: String,
    /// Kernel version, as `uname -v` has it.
    pub kernel_version: String,
    /// Machine, as `uname -m` has it.
    pub machine: String,
    /// `/proc/sys/kernel/random/boot_id`: differs after each boot.
    pub boot_id: String,
}

impl Host {
    /// This host.
    pub fn read() -> Result<Self, CaptureError> {
        const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
        let boot_id = fs_err::read_to_string(BOOT_ID).map_err(|source| CaptureError::Kernel {
            item: Item::Host,
            place: BOOT_ID,
            source,
        })?;
        let uname = rustix::system::uname();
        let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
        Ok(Self {
            host_name: text(uname.nodename()),
            kernel_release: text(uname.release()),
            kernel_version: text(uname.version()),
            machine: text(uname.machine()),
            boot_id: boot_id.trim().to_owned(),
        })
    }
}

/// The host name as kubelet and kube-proxy make the Node's name of it.
pub(super) fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().trim().to_lowercase()
}
