//! The loop: waits, paces, calls the stages in order, reports.

pub mod engine;
pub mod pace;
pub mod report;
pub mod status;
