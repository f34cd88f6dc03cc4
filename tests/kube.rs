//! Tests of kube.
