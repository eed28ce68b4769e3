//! Names of segments.
//!
//! Every name is `/gannet-<instance uuid>-<suffix>`, so that a process can find, and remove, its own
//! segments and no others.
//!
//! Invariants: a [`SegmentName`] is made only by the [`Segments`] of its instance; it starts with one slash,
//! holds no other, and is at most 250 bytes long.

use std::fmt;

use crate::error::ShmError;

/// The longest name of a segment, slash included; the system allows 255.
pub(crate) const NAME_BYTES_MAX: usize = 250;

/// The 16 bytes that tell one installation of a leaf from every other.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Instance([u8; 16]);

impl Instance {
    /// The instance of these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Instance {
        Instance(bytes)
    }

    /// Reads a uuid in its usual form, `123e4567-e89b-42d3-a456-426614174000`, in either case.
    pub fn parse(text: &str) -> Result<Instance, ShmError> {
        let refuse = || ShmError::Instance { text: text.chars().take(64).collect() };
        if text.len() != 36 {
            return Err(refuse());
        }
        let mut bytes = [0u8; 16];
        let mut digit_count = 0;
        for (at, character) in text.bytes().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if character != b'-' {
                    return Err(refuse());
                }
                continue;
            }
            let digit = match character {
                b'0'..=b'9' => character - b'0',
                b'a'..=b'f' => character - b'a' + 10,
                b'A'..=b'F' => character - b'A' + 10,
                _ => return Err(refuse()),
            };
            // 36 places without 4 dashes are 32 digits, two per byte.
            bytes[digit_count / 2] = bytes[digit_count / 2] << 4 | digit;
            digit_count += 1;
        }
        Ok(Instance(bytes))
    }

    /// The bytes of this instance.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of one segment, as the system knows it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentName(String);

impl SegmentName {
    /// The name with its leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The segments of one instance: makes their names and knows them again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    instance: Instance,
    prefix: String,
}

impl Segments {
    /// The segments of `instance`.
    pub fn new(instance: Instance) -> Segments {
        Segments { instance, prefix: format!("/gannet-{instance}-") }
    }

    /// Whose segments these are.
    pub fn instance(&self) -> Instance {
        self.instance
    }

    /// What every name starts with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The name with this suffix: letters, digits, `-`, `_` and `.`, at least one.
    pub fn name(&self, suffix: &str) -> Result<SegmentName, ShmError> {
        let name = format!("{}{suffix}", self.prefix);
        if name.len() > NAME_BYTES_MAX {
            let name_bytes = name.len();
            return Err(ShmError::NameTooLong { name, name_bytes, limit_bytes: NAME_BYTES_MAX });
        }
        let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
        if suffix.is_empty() || !suffix.bytes().all(fits) {
            return Err(ShmError::NameCharacters { name: name.escape_debug().to_string() });
        }
        Ok(SegmentName(name))
    }

    /// Reads a whole name that was stored somewhere; a name of another instance is refused.
    pub fn parse(&self, name: &str) -> Result<SegmentName, ShmError> {
        match name.strip_prefix(&self.prefix) {
            Some(suffix) => self.name(suffix),
            None => Err(ShmError::NameForeign {
                name: name.chars().take(NAME_BYTES_MAX).collect::<String>().escape_debug().to_string(),
                prefix: self.prefix.clone(),
            }),
        }
    }

    /// The name of the catalogue, the segment that says what the others hold.
    pub fn catalogue(&self) -> SegmentName {
        SegmentName(format!("{}catalogue", self.prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "0123abcd-89ef-4242-8000-00000000000f";

    #[test]
    fn instances_are_read_and_written() {
        let instance = Instance::parse(UUID).unwrap();
        assert_eq!(instance.to_string(), UUID);
        assert_eq!(Instance::parse(&UUID.to_uppercase()).unwrap(), instance);
        assert_eq!(Instance::from_bytes(instance.to_bytes()), instance);
        assert_eq!(instance.to_bytes()[..4], [0x01, 0x23, 0xab, 0xcd]);
        for wrong in
            ["", "0123abcd", "0123abcd-89ef-4242-8000-00000000000g", "0123abcd+89ef-4242-8000-00000000000f"]
        {
            let error = Instance::parse(wrong).unwrap_err().to_string();
            assert_eq!(error, format!("instance `{wrong}` is not a uuid"));
        }
        // 36 bytes, but not 36 characters.
        assert!(Instance::parse(&"é".repeat(18)).is_err());
    }

    #[test]
    fn names_hold_few_characters_and_are_short() {
        let segments = Segments::new(Instance::parse(UUID).unwrap());
        let check = |suffix: &str, error: &str| match segments.name(suffix) {
            Ok(name) => {
                assert_eq!(error, "", "{suffix}");
                assert_eq!(name.as_str(), format!("/gannet-{UUID}-{suffix}"));
                assert_eq!(segments.parse(name.as_str()).unwrap(), name);
            }
            Err(found) => assert_eq!(found.to_string(), error),
        };
        let characters = |shown: &str| {
            format!(
                "segment name `/gannet-{UUID}-{shown}` must end in letters, digits, `-`, `_` or `.` after its prefix"
            )
        };
        check("blocks-7.A_z", "");
        check("", &characters(""));
        check("../x", &characters("../x"));
        check("a b", &characters("a b"));
        check("a\0", &characters("a\\0"));
        check("é", &characters("é"));
        let fits = NAME_BYTES_MAX - segments.prefix().len();
        check(&"a".repeat(fits), "");
        let long = "a".repeat(fits + 1);
        check(&long, &format!("segment name `/gannet-{UUID}-{long}` has 251 bytes, the limit is 250"));
    }

    #[test]
    fn a_name_of_another_instance_is_refused() {
        let segments = Segments::new(Instance::parse(UUID).unwrap());
        for foreign in ["/etc", "", "/gannet-0123abcd-89ef-4242-8000-00000000000e-catalogue"] {
            assert_eq!(
                segments.parse(foreign).unwrap_err().to_string(),
                format!("segment name `{foreign}` does not start with `/gannet-{UUID}-`")
            );
        }
    }
}
