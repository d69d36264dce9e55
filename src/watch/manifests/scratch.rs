//! A folder of a test's own, which goes with it.

use std::fs;
use std::path::PathBuf;

/// The folder.
pub struct Scratch(pub PathBuf);

impl Scratch {
    /// An empty one; the name tells it from those of other tests.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("folder-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    /// Writes a file in it.
    pub fn write(&self, file: &str, content: &str) {
        fs::write(self.0.join(file), content).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}
