//! There and back, and every command on the way.

use super::rig::Rig;
use crate::support::privileged;

#[test]
fn a_node_goes_to_ebpf_and_comes_back_as_it_was() {
    if !privileged() {
        return;
    }
    let rig = Rig::up("mig-life");
    let before = rig.fingerprint();
    let run = rig.kpx(&["migrate", "apply", "--yes"]);
    eprintln!("{}\n{}", run.stdout, run.stderr);
    run.exits(0);
    let run = rig.kpx(&["migrate", "status"]);
    eprintln!("{}\n{}", run.stdout, run.stderr);
    let run = rig.kpx(&["migrate", "verify"]);
    eprintln!("{}\n{}", run.stdout, run.stderr);
    let run = rig.kpx(&["migrate", "rollback"]);
    eprintln!("{}\n{}", run.stdout, run.stderr);
    let run = rig.kpx(&["migrate", "list"]);
    eprintln!("{}\n{}", run.stdout, run.stderr);
    assert_eq!(rig.fingerprint(), before);
}
