//! Words of a rule as iptables-save writes them and iptables-restore reads them: separated by one space, quoted with `"`,
//! a backslash inside quotes taking the next byte as it is.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// One word of a rule, as written: quotes and backslashes included.
///
/// An empty word is what stands between two spaces (iptables-save prints two after `--nfacct-name`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Word<'a>(&'a [u8]);

impl<'a> Word<'a> {
    /// The bytes as written.
    pub const fn raw(self) -> &'a [u8] {
        self.0
    }

    /// The bytes that the word means: without quotes and backslashes. Borrowed unless a backslash must go.
    pub fn bytes(self) -> Cow<'a, [u8]> {
        match self.plain() {
            Some(bytes) => Cow::Borrowed(bytes),
            None => Cow::Owned(unquote(self.0)),
        }
    }

    /// The text that the word means; bytes that are not UTF-8 become U+FFFD.
    pub fn text(self) -> Cow<'a, str> {
        match self.bytes() {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// The meaning where it is a part of the input, which is all that kube-proxy writes.
    pub(super) fn plain(self) -> Option<&'a [u8]> {
        match self.0 {
            [b'"', inner @ .., b'"'] => memchr2(b'"', b'\\', inner).is_none().then_some(inner),
            raw => (!raw.contains(&b'"')).then_some(raw),
        }
    }
}

impl std::fmt::Debug for Word<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.0))
    }
}

fn unquote(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut quoted = false;
    let mut bytes = raw.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => out.extend(bytes.next()),
            _ => out.push(byte),
        }
    }
    out
}

/// Writes `text` as iptables-save does: bare if it consists of letters, digits, `_` and `-` alone, else quoted.
pub fn quote(text: &[u8], out: &mut Vec<u8>) {
    let bare = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if !text.is_empty() && text.iter().all(bare) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\' | b'\'') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// The words of a rule.
#[derive(Clone, Debug)]
pub struct Words<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Words<'a> {
    /// The words of what follows a chain's name in a rule.
    pub const fn new(body: &'a [u8]) -> Self {
        Self { rest: if body.is_empty() { None } else { Some(body) } }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        let rest = self.rest?;
        let end = word_end(rest);
        let (word, tail) = rest.split_at(end);
        self.rest = tail.get(1..);
        Some(Word(word))
    }
}

/// Length of the word at the start of `text`; an open quote runs to the end.
fn word_end(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b' ' => return at,
            b'"' => match closing_quote(&text[at + 1..]) {
                Some(length) => at += length + 2,
                None => return text.len(),
            },
            _ => at += 1,
        }
    }
    text.len()
}

/// Offset of the quote that ends the quoted text at the start of `text`.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// Offset of a quote that nothing closes.
pub(super) fn unclosed_quote(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(open) = memchr(b'"', &text[at..]) {
        let open = at + open;
        let Some(length) = closing_quote(&text[open + 1..]) else { return Some(open) };
        at = open + length + 2;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meanings(body: &str) -> Vec<String> {
        Words::new(body.as_bytes()).map(|w| w.text().into_owned()).collect()
    }

    #[test]
    fn quotes_and_backslashes() {
        assert_eq!(meanings(r#"-m comment --comment "a b" -j X"#), ["-m", "comment", "--comment", "a b", "-j", "X"]);
        assert_eq!(meanings(r#""dnat name: \"cbr0\" id: \"abc\"""#), [r#"dnat name: "cbr0" id: "abc""#]);
        assert_eq!(meanings(r#"a\b "c\\" "" x"y z"w"#), ["a\\b", "c\\", "", "xy zw"]);
        assert_eq!(meanings("--nfacct-name  name"), ["--nfacct-name", "", "name"]);
        assert!(meanings("").is_empty());
    }

    #[test]
    fn a_word_without_a_backslash_is_borrowed() {
        let word = Words::new(br#""ns/svc:http cluster IP""#).next().expect("a word");
        assert!(matches!(word.bytes(), Cow::Borrowed(b"ns/svc:http cluster IP")));
    }

    #[test]
    fn quoting_is_undone_by_reading() {
        for text in ["svconly", "ns/svc:p80", "it's", r#"a "b" \ c"#, "", " ", "-j"] {
            let mut out = Vec::new();
            quote(text.as_bytes(), &mut out);
            assert_eq!(meanings(&String::from_utf8(out).expect("UTF-8")), [text]);
        }
    }

    #[test]
    fn an_open_quote_is_found() {
        assert_eq!(unclosed_quote(br#"-m "a" "b"#), Some(7));
        assert_eq!(unclosed_quote(br#""a\""#), Some(0));
        assert_eq!(unclosed_quote(br#""a\"" x"#), None);
        assert_eq!(unclosed_quote(b"plain"), None);
    }
}
