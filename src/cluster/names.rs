//! Shared names: one copy of each text that objects repeat.
//!
//! A cluster repeats few node, zone, port and namespace names very often; the store replaces
//! each by the copy kept here. Invariant: sharing never changes what a value compares equal to.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Endpoint, EndpointPort, EndpointSlice, Object, ObjectName};

/// Below this many names it is not worth to look for unused ones.
const MIN_SWEEP_SIZE: usize = 1024;

/// The pool of shared names.
#[derive(Debug, Default)]
pub struct Names {
    pool: HashSet<Arc<str>>,
    sweep_at: usize,
}

impl Names {
    /// Shares the names within an object.
    pub fn share_in(&mut self, object: &mut Object) {
        match object {
            Object::Service(service) => {
                let ports = service.ports.iter_mut().map(|port| &mut port.name);
                let own = service.scheduling.as_mut();
                for name in ports.chain(own.and_then(|own| own.scheduler.as_mut())) {
                    self.share(name);
                }
            }
            Object::EndpointSlice(slice) => self.share_in_slice(slice),
            Object::Endpoints(slices) => {
                for slice in slices {
                    self.share_in_slice(slice);
                }
            }
            Object::Node(_) | Object::ServiceCidr(_) => {}
        }
    }

    /// Shares both parts of an object's name.
    pub fn share_in_name(&mut self, name: &mut ObjectName) {
        self.share(&mut name.namespace);
        self.share(&mut name.name);
    }

    fn share_in_slice(&mut self, slice: &mut EndpointSlice) {
        self.share_in_name(&mut slice.service);
        for EndpointPort { name, .. } in &mut slice.ports {
            self.share(name);
        }
        for Endpoint { node, hints, .. } in &mut slice.endpoints {
            let hints = hints.iter_mut().flat_map(|of| of.zones.iter_mut().chain(&mut of.nodes));
            for name in node.iter_mut().chain(hints) {
                self.share(name);
            }
        }
    }

    fn share(&mut self, name: &mut Arc<str>) {
        match self.pool.get(name) {
            Some(known) => *name = known.clone(),
            None => {
                self.sweep_if_grown();
                self.pool.insert(name.clone());
            }
        }
    }

    /// Drops names that only the pool still holds, each time it has doubled: amortised no cost.
    fn sweep_if_grown(&mut self) {
        if self.pool.len() >= self.sweep_at.max(MIN_SWEEP_SIZE) {
            self.pool.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = 2 * self.pool.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_become_one_copy() {
        let mut names = Names::default();
        let mut first = ObjectName::new("default", "web");
        let mut second = ObjectName::new("default", "web");
        names.share_in_name(&mut first);
        names.share_in_name(&mut second);
        assert!(Arc::ptr_eq(&first.namespace, &second.namespace));
        assert!(Arc::ptr_eq(&first.name, &second.name));
    }

    #[test]
    fn names_that_are_gone_do_not_pile_up() {
        let mut names = Names::default();
        let mut kept = Arc::<str>::from("kept");
        names.share(&mut kept);
        for number in 0..10 * MIN_SWEEP_SIZE {
            names.share(&mut number.to_string().into());
        }
        assert!(names.pool.len() <= MIN_SWEEP_SIZE, "{} names", names.pool.len());
        assert!(names.pool.contains("kept"));
    }
}
