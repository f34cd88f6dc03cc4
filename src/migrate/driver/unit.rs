//! A kube-proxy that systemd runs: its unit is kept from being started, then stopped, and gets back what it had.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::DriverError;
use crate::capture::command;

/// A unit of systemd that runs kube-proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name, such as `kube-proxy.service`.
    pub unit: String,
    /// What keeps it from being started.
    pub bar: Bar,
}

/// What keeps a unit from being started, at boot too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bar {
    /// It is masked: nothing starts it.
    Mask,
    /// It is disabled: systemd masks no unit whose file is in /etc/systemd/system.
    Disable,
    /// It is not enabled: no boot starts it.
    None,
}

/// What systemd says of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shown(BTreeMap<String, String>);

/// Where units of the operator's own are.
const OPERATORS: &str = "/etc/systemd/system/";

impl Shown {
    fn of(unit: &str) -> Result<Self, DriverError> {
        let properties = "--property=LoadState,ActiveState,UnitFileState,FragmentPath,MainPID";
        let text = command::output("systemctl", ["show", properties, "--", unit], None)?;
        Ok(Self::parse(&String::from_utf8_lossy(&text)))
    }

    fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.into(), v.trim().into())).collect())
    }

    fn get(&self, property: &str) -> &str {
        self.0.get(property).map_or("", String::as_str)
    }

    fn main_pid(&self) -> Option<u32> {
        self.get("MainPID").parse().ok().filter(|pid| *pid != 0)
    }

    fn is_running(&self) -> bool {
        !matches!(self.get("ActiveState"), "inactive" | "failed" | "")
    }

    /// What keeps the unit from being started; `Err` names what nothing does.
    fn bar(&self) -> Result<Bar, String> {
        let file = self.get("FragmentPath");
        match self.get("UnitFileState") {
            "disabled" | "masked" | "masked-runtime" => Ok(Bar::None),
            state @ ("generated" | "transient" | "") => {
                let state = if state.is_empty() { "without a file" } else { state };
                Err(format!("it is {state}: once stopped it could not be started again"))
            }
            "enabled" if file.starts_with(OPERATORS) => Ok(Bar::Disable),
            state if file.starts_with(OPERATORS) => {
                Err(format!("it is {state} and its file is in {OPERATORS}: nothing keeps others from starting it"))
            }
            _ => Ok(Bar::Mask),
        }
    }
}

fn systemctl(words: &[&str]) -> Result<(), DriverError> {
    command::output("systemctl", words, None)?;
    Ok(())
}

impl Unit {
    /// The unit of a process, if it is what systemd runs there. `Err` says why it cannot be taken away and brought back.
    pub(super) fn of_process(unit: &str, pid: u32) -> Result<Option<Result<Self, String>>, DriverError> {
        let shown = Shown::of(unit)?;
        // What a session or a daemon has started is in the daemon's cgroup, and not its.
        Ok((shown.main_pid() == Some(pid)).then(|| Self::with(unit, &shown)))
    }

    /// A unit by its name.
    pub(super) fn named(unit: &str) -> Result<Result<Self, String>, DriverError> {
        let shown = Shown::of(unit)?;
        if shown.get("LoadState") != "loaded" {
            return Ok(Err(format!("systemd has no unit {unit}")));
        }
        Ok(Self::with(unit, &shown))
    }

    fn with(unit: &str, shown: &Shown) -> Result<Self, String> {
        Ok(Self { unit: unit.to_owned(), bar: shown.bar()? })
    }

    /// The bar first: what is stopped is not started again in between.
    pub(super) fn stop(&self) -> Result<(), DriverError> {
        match self.bar {
            Bar::Mask => systemctl(&["mask", "--", &self.unit])?,
            Bar::Disable => systemctl(&["disable", "--", &self.unit])?,
            Bar::None => {}
        }
        systemctl(&["stop", "--", &self.unit])
    }

    pub(super) fn start(&self) -> Result<(), DriverError> {
        match self.bar {
            Bar::Mask => systemctl(&["unmask", "--", &self.unit])?,
            Bar::Disable => systemctl(&["enable", "--", &self.unit])?,
            Bar::None => {}
        }
        systemctl(&["start", "--", &self.unit])
    }

    /// Why systemd runs it, or would.
    pub(super) fn comes_back(&self) -> Result<Option<String>, DriverError> {
        let shown = Shown::of(&self.unit)?;
        let state = shown.get("UnitFileState");
        if shown.is_running() {
            return Ok(Some(format!("unit {} is {}", self.unit, shown.get("ActiveState"))));
        }
        let barred = match self.bar {
            Bar::Mask => state == "masked",
            Bar::Disable | Bar::None => matches!(state, "disabled" | "masked"),
        };
        Ok((!barred).then(|| format!("unit {} is {state}: a boot would start it", self.unit)))
    }

    pub(super) fn describe_stop(&self) -> String {
        let unit = &self.unit;
        match self.bar {
            Bar::Mask => format!("systemctl mask {unit}, systemctl stop {unit}"),
            Bar::Disable => format!("systemctl disable {unit}, systemctl stop {unit}"),
            Bar::None => format!("systemctl stop {unit} (no boot starts it)"),
        }
    }

    pub(super) fn describe_start(&self) -> String {
        let unit = &self.unit;
        match self.bar {
            Bar::Mask => format!("systemctl unmask {unit}, systemctl start {unit}"),
            Bar::Disable => format!("systemctl enable {unit}, systemctl start {unit}"),
            Bar::None => format!("systemctl start {unit}"),
        }
    }
}

/// The unit that a process's cgroup names.
pub(super) fn in_cgroup(cgroup: &str) -> Option<&str> {
    cgroup
        .rsplit('/')
        .find(|part| part.strip_suffix(".service").is_some_and(|name| !name.is_empty()) && !part.starts_with("user@"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(state: &str, file: &str) -> Result<Bar, String> {
        Shown::parse(&format!("UnitFileState={state}\nFragmentPath={file}\nMainPID=0\n")).bar()
    }

    #[test]
    fn a_unit_is_kept_away_as_its_file_allows() {
        let (vendors, own) = ("/usr/lib/systemd/system/kube-proxy.service", "/etc/systemd/system/kube-proxy.service");
        assert_eq!(bar("enabled", vendors), Ok(Bar::Mask));
        assert_eq!(bar("static", vendors), Ok(Bar::Mask));
        assert_eq!(bar("enabled", own), Ok(Bar::Disable));
        assert_eq!(bar("disabled", own), Ok(Bar::None));
        assert!(bar("static", own).is_err() && bar("transient", "/run/x").is_err() && bar("", "").is_err());
    }

    #[test]
    fn only_a_service_is_a_unit() {
        assert_eq!(in_cgroup("/system.slice/kube-proxy.service"), Some("kube-proxy.service"));
        assert_eq!(in_cgroup("/system.slice/kube-proxy.service/proxy"), Some("kube-proxy.service"));
        assert_eq!(in_cgroup("/user.slice/user-0.slice/user@0.service"), None);
        assert_eq!(in_cgroup("/user.slice/user-0.slice/session-1.scope"), None);
        assert_eq!(in_cgroup("/"), None);
    }
}
