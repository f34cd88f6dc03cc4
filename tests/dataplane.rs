//! Tests of dataplane.
