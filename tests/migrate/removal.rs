//! Removal of kube-proxy's rules and the way back, in namespaces, with recorded rules among those of others.
//!
//! The oracle is the text of iptables-save, taken apart here line by line.

#[path = "removal/crowd.rs"]
mod crowd;
#[path = "removal/ipvs.rs"]
mod ipvs;
#[path = "removal/modes.rs"]
mod modes;
#[path = "removal/render.rs"]
mod render;
#[path = "removal/rules.rs"]
mod rules;
#[path = "removal/scale.rs"]
mod scale;
#[path = "removal/text.rs"]
mod text;
