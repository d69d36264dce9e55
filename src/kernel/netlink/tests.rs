//! Codec tests of the folder: both directions on bytes of real kernels, and no panic on any bytes.

use proptest::prelude::*;

use super::reply::{Meaning, replies};
use super::*;

/// `ip link add br0 type bridge` twice: the second answer, with short acknowledgements and reasons
/// on, has the refused header and no reason.
const EXISTS: &[u8] = &[
    0x24, 0, 0, 0, 2, 0, 0, 1, 7, 0, 0, 0, 1, 0, 0, 0, // nlmsghdr, NLM_F_CAPPED
    0xef, 0xff, 0xff, 0xff, // -EEXIST
    0x40, 0, 0, 0, 0x10, 0, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0, // the refused header: 64 bytes long
];

fn meaning(bytes: &[u8]) -> Result<Meaning<'_>, Error> {
    replies(bytes).next().expect("one message")?.meaning()
}

#[test]
fn builds_padded_and_nested_attributes() {
    let mut message = Message::new(0x20, ACKNOWLEDGE).with(&[1, 1, 0, 0]);
    message.nested(7, |nested| {
        nested.text(3, "rr");
        nested.attribute(4, &[9]);
    });
    let mut expected = vec![36, 0, 0, 0, 0x20, 0, 5, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0];
    // The nested attribute's length covers the padding of what it holds.
    expected.extend([20, 0, 7, 0x80, 7, 0, 3, 0, b'r', b'r', 0, 0, 5, 0, 4, 0, 9, 0, 0, 0]);
    expected[0] = expected.len() as u8;
    assert_eq!(message.sealed(3), expected);
}

#[test]
fn reads_back_what_it_builds() {
    let mut message = Message::new(0x20, 0);
    message.attribute(1, &7u32.to_ne_bytes());
    message.nested(2, |nested| nested.text(3, "name"));
    let attributes: Vec<_> =
        Attributes::of(message.body()).collect::<Result<_, _>>().expect("well formed");
    assert_eq!(attributes[0].to_u32(), Ok(7));
    assert_eq!(attributes[1].kind, 2);
    let name = attributes[1].nested().next().expect("one attribute").expect("well formed");
    assert_eq!(name.to_text(), Ok("name"));
    assert!(name.to_u32().is_err());
}

#[test]
fn an_attribute_that_ends_too_early_is_an_error_once() {
    let mut attributes = Attributes::of(&[8, 0, 1, 0, 1, 2]);
    assert!(attributes.next().is_some_and(|attribute| attribute.is_err()));
    assert!(attributes.next().is_none());
}

#[test]
fn reads_a_refusal_without_a_reason() {
    let Ok(Meaning::Refused(refusal)) = meaning(EXISTS) else { panic!("a refusal") };
    assert_eq!(refusal, Refusal::of(17));
    assert_eq!(Error::Refused(refusal).to_string(), "the kernel refused: File exists (EEXIST)");
}

#[test]
fn reads_the_reason_of_a_refusal() {
    let mut bytes = EXISTS.to_vec();
    bytes[7] = 3; // NLM_F_CAPPED | NLM_F_ACK_TLVS
    bytes.extend([9, 0, 1, 0, b't', b'a', b'k', b'e', 0, 0, 0, 0]);
    bytes[0] = bytes.len() as u8;
    let Ok(Meaning::Refused(refusal)) = meaning(&bytes) else { panic!("a refusal") };
    assert_eq!(refusal.to_string(), "File exists (EEXIST), take");
}

#[test]
fn keeps_the_request_that_is_sent_back_whole() {
    let mut bytes = EXISTS.to_vec();
    bytes[7] = 0;
    bytes[20] = 20; // the refused request: a header and four bytes
    bytes.extend([1, 2, 3, 4]);
    bytes[0] = bytes.len() as u8;
    let Ok(Meaning::Refused(refusal)) = meaning(&bytes) else { panic!("a refusal") };
    assert_eq!(refusal.request, [1, 2, 3, 4]);
}

#[test]
fn tells_outcomes_that_are_in_doubt() {
    assert!(Error::NoAnswer.is_ambiguous());
    assert!(Error::AnswersLost.is_ambiguous());
    assert!(!Error::NotSent.is_ambiguous());
    assert!(!Error::Refused(Refusal::of(17)).is_ambiguous());
    assert_eq!(Error::Refused(Refusal::of(4352)).to_string(), "the kernel refused: error 4352");
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for attribute in Attributes::of(&bytes).flatten() {
            let _ = (attribute.to_u32(), attribute.to_text(), attribute.nested().count());
        }
        for reply in replies(&bytes).flatten() {
            let _ = reply.meaning();
        }
    }

    #[test]
    fn no_damaged_refusal_makes_a_reader_panic(
        at in 0..EXISTS.len(), byte: u8, length in 0..=EXISTS.len(),
    ) {
        let mut bytes = EXISTS.to_vec();
        bytes[at] = byte;
        for reply in replies(&bytes[..length]).flatten() {
            let _ = reply.meaning();
        }
    }
}
