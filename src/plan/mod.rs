//! The smallest ordered list of changes that brings the mirror to the desired tables.

pub mod step;
