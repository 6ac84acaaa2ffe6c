//! Reconcilers on kube-runtime.
