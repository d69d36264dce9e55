//! Bytes that were captured on real kernels, for codec tests.
//!
//! Invariant: a file of captures says with each of them what produced it.

/// The bytes under a heading, `= name`, of a file of hexadecimal digits.
pub(crate) fn capture(file: &str, name: &str) -> Vec<u8> {
    let heading = format!("= {name}");
    let digits: String = file
        .lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with('='))
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert!(!digits.is_empty(), "no capture {name:?}");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}
