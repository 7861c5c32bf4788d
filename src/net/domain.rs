//! DNS names as a policy has them: exact ones, and wildcards for what is below a domain.

use std::fmt;

/// The longest name without its root, in characters (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;
/// Marks a length byte, see `struct name_key` of `bpf/contract.h`.
const LENGTH_MARK: u8 = 0x80;

/// A name in lower case, `deb.vendor.example`, or all names below one, `*.mirror.example`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName {
    /// Without the asterisk and the last dot.
    domain: String,
    wildcard: bool,
}

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainError {
    /// It has letters beyond ASCII; the same name in ASCII, if there is one.
    NotAscii(Option<String>),
    /// It has one label alone.
    SingleLabel,
    /// A label is empty or too long, or has other characters than letters, digits, `-` and `_`.
    BadLabel(String),
    /// It is too long.
    TooLong,
    /// An asterisk stands elsewhere than alone in front.
    BadWildcard,
    /// Anybody can have a name below it.
    PublicSuffix,
}

impl DomainName {
    /// Reads a name in any case. A dot at its end makes no difference.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<DomainName, DomainError> {
        if !text.is_ascii() {
            return Err(DomainError::NotAscii(to_ascii(text)));
        }
        let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let (domain, wildcard) = match lower.strip_prefix("*.") {
            Some(domain) => (domain, true),
            None => (lower.as_str(), false),
        };
        if domain.contains('*') {
            return Err(DomainError::BadWildcard);
        }
        if domain.len() > LONGEST_NAME {
            return Err(DomainError::TooLong);
        }
        if let Some(label) = domain.split('.').find(|label| !is_label(label)) {
            return Err(DomainError::BadLabel(label.to_owned()));
        }
        if !domain.contains('.') {
            return Err(if wildcard { DomainError::PublicSuffix } else { DomainError::SingleLabel });
        }
        if wildcard && is_public_suffix(domain) {
            return Err(DomainError::PublicSuffix);
        }
        Ok(DomainName { domain: domain.to_owned(), wildcard })
    }

    /// Reads what [`DomainName`] printed. It is not asked whether a policy may have it.
    pub fn from_printed(text: &str) -> DomainName {
        match text.strip_prefix("*.") {
            Some(domain) => DomainName { domain: domain.to_owned(), wildcard: true },
            None => DomainName { domain: text.to_owned(), wildcard: false },
        }
    }

    /// Whether it stands for what is below its domain.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The name, or of a wildcard the domain.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Whether every question that this name is for is one that the other is for, too.
    pub fn is_within(&self, other: &DomainName) -> bool {
        if self == other {
            return true;
        }
        let is_below =
            self.domain.strip_suffix(other.domain.as_str()).is_some_and(|front| front.ends_with('.'));
        other.wildcard && (is_below || (self.wildcard && self.domain == other.domain))
    }

    /// The domain as a key of `name_patterns`: on the wire, without its root, the last byte first, with marks in
    /// the length bytes.
    pub fn to_key(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(self.domain.len() + 1);
        for label in self.domain.split('.') {
            // at most 63
            wire.push(label.len() as u8 | LENGTH_MARK);
            wire.extend_from_slice(label.as_bytes());
        }
        wire.reverse();
        wire
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wildcard {
            out.write_str("*.")?;
        }
        out.write_str(&self.domain)
    }
}

fn is_label(label: &str) -> bool {
    (1..=LONGEST_LABEL).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Whether anybody can have a name below a domain.
fn is_public_suffix(domain: &str) -> bool {
    psl::suffix(domain.as_bytes())
        .is_some_and(|suffix| suffix.is_known() && suffix.as_bytes().len() == domain.len())
}

/// The name with A-labels.
fn to_ascii(text: &str) -> Option<String> {
    let (front, domain) = match text.strip_prefix("*.") {
        Some(domain) => ("*.", domain),
        None => ("", text),
    };
    let ascii = idna::domain_to_ascii(domain).ok().filter(|ascii| !ascii.is_empty())?;
    Some(format!("{front}{ascii}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    #[test]
    fn a_name_is_read_in_any_case_and_printed_in_lower_case() {
        for (text, printed) in [
            ("deb.vendor.example", "deb.vendor.example"),
            ("DEB.Vendor.EXAMPLE.", "deb.vendor.example"),
            ("*.Mirror.example", "*.mirror.example"),
            ("_http._tcp.deb.vendor.example", "_http._tcp.deb.vendor.example"),
            ("co.uk", "co.uk"),
        ] {
            assert_eq!(name(text).to_string(), printed);
            assert_eq!(DomainName::from_printed(printed), name(text));
        }
    }

    #[test]
    fn what_is_no_name_is_refused_for_its_reason() {
        let long = format!("{}.example", "a".repeat(64));
        let longer = vec!["abcdefg"; 33].join(".");
        for (text, why) in [
            ("mailhost", DomainError::SingleLabel),
            ("a..example", DomainError::BadLabel(String::new())),
            ("a b.example", DomainError::BadLabel("a b".to_owned())),
            (&long, DomainError::BadLabel("a".repeat(64))),
            (&longer, DomainError::TooLong),
            ("a.*.example", DomainError::BadWildcard),
            ("*a.b.example", DomainError::BadWildcard),
            ("*.example", DomainError::PublicSuffix),
            ("*.co.uk", DomainError::PublicSuffix),
            ("*.github.io", DomainError::PublicSuffix),
            ("b\u{fc}cher.example", DomainError::NotAscii(Some("xn--bcher-kva.example".to_owned()))),
            ("*.b\u{fc}cher.example", DomainError::NotAscii(Some("*.xn--bcher-kva.example".to_owned()))),
        ] {
            assert_eq!(DomainName::parse(text), Err(why), "{text}");
        }
    }

    #[test]
    fn a_wildcard_has_what_is_below_its_domain_and_not_the_domain() {
        let wild = name("*.mirror.example");
        for (text, within) in [
            ("a.mirror.example", true),
            ("a.b.mirror.example", true),
            ("*.b.mirror.example", true),
            ("*.mirror.example", true),
            ("mirror.example", false),
            ("amirror.example", false),
            ("mirror.example.org", false),
        ] {
            assert_eq!(name(text).is_within(&wild), within, "{text}");
        }
        assert!(!wild.is_within(&name("a.mirror.example")));
    }

    #[test]
    fn a_key_begins_with_the_keys_of_the_domains_around_it() {
        let outer = name("mirror.example").to_key();
        assert_eq!(outer, b"elpmaxe\x87rorrim\x86");
        assert!(name("a.mirror.example").to_key().starts_with(&outer));
        assert!(!name("amirror.example").to_key().starts_with(&outer));
    }
}
