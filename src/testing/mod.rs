//! A kernel in memory and builders of objects, for tests only.
//!
//! Compiled behind the feature `testing`, which adds this module and changes nothing else.

pub mod fake_kernel;
pub mod fields;
pub mod log;
pub mod node;
pub mod objects;
pub mod operation;
pub mod parts;
pub mod port;
pub mod random;
mod restore;
pub mod tls;
