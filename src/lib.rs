//! Kubernetes node service proxy on IPVS.
