//! Hosts made of network namespaces, and faults for them.
