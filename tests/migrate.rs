//! Tests of migrate: a node that a real kube-proxy programmed, carried over and back, by the binary itself.

#[path = "migrate/blocked.rs"]
mod blocked;
#[path = "migrate/crash.rs"]
mod crash;
#[path = "migrate/drivers.rs"]
mod drivers;
#[path = "migrate/followed.rs"]
mod followed;
#[path = "migrate/ipvs.rs"]
mod ipvs;
#[path = "migrate/lifecycle.rs"]
mod lifecycle;
#[path = "migrate/reboot.rs"]
mod reboot;
#[path = "migrate/rehearse.rs"]
mod rehearse;
#[path = "migrate/removal.rs"]
mod removal;
#[path = "migrate/rig.rs"]
mod rig;
#[path = "migrate/stage.rs"]
mod stage;
#[path = "migrate/switch.rs"]
mod switch;
