//! What a connection meets, by where it comes from: kube-proxy's tables of policies, masquerade, reject and drop.

use kpx::model::{Detector, Frontend, Masquerade, NoBackends, Policy, TrafficSource};

use super::{backend, cluster_ip, facts, load_balancer_local};

fn met(f: &Frontend, source: TrafficSource, detector: &Detector) -> (Vec<String>, bool) {
    let t = f.treatment(source, detector);
    (t.backends.iter().map(|(addr, _)| addr.to_string()).collect(), t.masquerade)
}

const BOTH: [&str; 2] = ["10.244.1.5:8080", "10.244.2.9:8080"];
const HERE: [&str; 1] = ["10.244.1.5:8080"];

#[test]
fn cluster_ip_masquerades_all_but_pods() {
    let (f, pods) = (cluster_ip(), facts().detector);
    for (source, masquerade) in
        [(TrafficSource::Pod, false), (TrafficSource::Node, true), (TrafficSource::Outside, true)]
    {
        assert_eq!(met(&f, source, &pods), (BOTH.map(str::to_owned).to_vec(), masquerade), "{source:?}");
    }
}

#[test]
fn without_a_detector_cluster_ip_keeps_every_client() {
    let f = cluster_ip();
    for source in TrafficSource::ALL {
        assert!(!f.treatment(source, &Detector::None).masquerade, "{source:?}");
    }
}

#[test]
fn masquerade_all_includes_pods() {
    let f = Frontend { masquerade: Masquerade::Always, ..cluster_ip() };
    assert!(f.treatment(TrafficSource::Pod, &facts().detector).masquerade);
}

#[test]
fn local_policy_short_circuits_pods_and_the_node() {
    let (f, pods) = (load_balancer_local(), facts().detector);
    assert_eq!(met(&f, TrafficSource::Outside, &pods), (HERE.map(str::to_owned).to_vec(), false));
    assert_eq!(met(&f, TrafficSource::Pod, &pods), (BOTH.map(str::to_owned).to_vec(), false));
    assert_eq!(met(&f, TrafficSource::Node, &pods), (BOTH.map(str::to_owned).to_vec(), true));
    // Nothing tells a pod from the outside.
    assert_eq!(met(&f, TrafficSource::Pod, &Detector::None), (HERE.map(str::to_owned).to_vec(), false));
}

#[test]
fn local_policy_without_local_backends_drops_outside_traffic_only() {
    let f = Frontend { local: Vec::new(), no_backends: Some(NoBackends::Drop), ..load_balancer_local() };
    let pods = facts().detector;
    let outside = f.treatment(TrafficSource::Outside, &pods);
    assert_eq!((outside.no_backends, outside.backends.len()), (Some(NoBackends::Drop), 0));
    assert!(outside.sources.is_empty() && outside.affinity.is_none() && !outside.masquerade);
    assert_eq!(f.treatment(TrafficSource::Node, &pods).backends.len(), 2);
}

#[test]
fn internal_policy_local_has_no_short_circuit() {
    let f = Frontend {
        internal_policy: Policy::Local,
        cluster: Vec::new(),
        no_backends: Some(NoBackends::Drop),
        ..cluster_ip()
    };
    for source in TrafficSource::ALL {
        assert_eq!(f.treatment(source, &facts().detector).no_backends, Some(NoBackends::Drop), "{source:?}");
    }
}

#[test]
fn equal_shares_are_one_whatever_the_numbers() {
    let share = |weights: [u16; 2]| {
        let mut f = cluster_ip();
        for (b, weight) in f.cluster.iter_mut().zip(weights) {
            b.weight = weight;
        }
        f.treatment(TrafficSource::Pod, &facts().detector).backends
    };
    assert_eq!(share([1, 1]), share([3, 3]));
    assert_ne!(share([1, 1]), share([1, 2]));

    let mut twice = cluster_ip();
    twice.cluster.push(backend("10.244.2.9:8080", false));
    assert_eq!(twice.treatment(TrafficSource::Pod, &facts().detector).backends, share([1, 2]));
}

#[test]
fn source_ranges_are_compared_by_what_they_cover() {
    let sources = |nets: &[&str]| {
        let mut f = load_balancer_local();
        f.sources = nets.iter().map(|net| net.parse().expect("a network in a test")).collect();
        f.treatment(TrafficSource::Outside, &facts().detector).sources
    };
    assert_eq!(sources(&["10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16"]), sources(&["10.0.0.0/8"]));
    assert_eq!(sources(&["10.0.0.0/8", "0.0.0.0/0"]), sources(&[]));
    assert_ne!(sources(&["10.0.0.0/8"]), sources(&["10.0.0.0/9"]));
}
