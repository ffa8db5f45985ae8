//! The wire format of D-Bus, as far as talking to systemd takes it.
//!
//! A message is a header, padded to eight bytes, and a body. Numbers are little-endian here and
//! aligned to their own size, counted from the start of the message; strings have a length before
//! and a zero behind them; structures and the entries of a header are aligned to eight.
//!
//! See: D-Bus Specification, "Marshaling" and "Message Protocol".

/// The kinds of messages.
pub(super) const CALL: u8 = 1;
pub(super) const RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

/// The first 16 bytes say how long the rest is.
pub(super) const PROLOGUE: usize = 16;

/// No message that systemd sends to us comes near this; the specification allows 128 MiB.
const LONGEST: usize = 1 << 20;

/// The value of a unit's property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Bool(bool),
    U64(u64),
    Text(String),
    Bytes(Vec<u8>),
    U32s(Vec<u32>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::U64(_) => "t",
            Self::Text(_) => "s",
            Self::Bytes(_) => "ay",
            Self::U32s(_) => "au",
        }
    }
}

/// Properties of a unit, in the order in which they are sent.
pub(super) type Properties = Vec<(&'static str, Value)>;

/// Something being written. Offsets are from the start of a header or of a body, both of which
/// start at a multiple of eight, so that alignment inside is alignment in the message.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, size: usize) {
        self.0.resize(self.0.len().next_multiple_of(size), 0);
    }

    pub(super) fn number(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn text(&mut self, value: &str) {
        self.number(length(value.len()));
        self.0.extend(value.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, value: &str) {
        self.0.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
        self.0.extend(value.as_bytes());
        self.0.push(0);
    }

    /// An array: its length in bytes, which is known afterwards, padding, elements.
    pub(super) fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.number(0);
        let length_at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        elements(self);
        let bytes = length(self.0.len() - start).to_le_bytes();
        self.0[length_at..length_at + 4].copy_from_slice(&bytes);
    }

    fn value(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Bool(value) => self.number(u32::from(*value)),
            Value::U64(value) => {
                self.align(8);
                self.0.extend(value.to_le_bytes());
            }
            Value::Text(value) => self.text(value),
            Value::Bytes(values) => self.array(1, |w| w.0.extend(values)),
            Value::U32s(values) => {
                self.array(4, |w| values.iter().for_each(|value| w.number(*value)));
            }
        }
    }

    /// `a(sv)`.
    pub(super) fn properties(&mut self, properties: &Properties) {
        self.array(8, |w| {
            for (name, value) in properties {
                w.align(8);
                w.text(name);
                w.value(value);
            }
        });
    }
}

/// Lengths fit: what is sent is a few hundred bytes.
fn length(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Where a call goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) destination: &'static str,
    pub(super) path: &'static str,
    pub(super) interface: &'static str,
}

/// A method call as bytes.
pub(super) fn call(
    serial: u32,
    target: Target,
    member: &str,
    signature: &str,
    body: impl FnOnce(&mut Writer),
) -> Vec<u8> {
    let mut content = Writer::default();
    body(&mut content);
    let mut header = Writer::default();
    header.0.extend([b'l', CALL, 0, 1]);
    header.number(length(content.0.len()));
    header.number(serial);
    let text = |w: &mut Writer, code: u8, kind: &str, value: &str| {
        w.align(8);
        w.0.push(code);
        w.signature(kind);
        w.text(value);
    };
    header.array(8, |w| {
        text(w, 1, "o", target.path);
        text(w, 2, "s", target.interface);
        text(w, 3, "s", member);
        text(w, 6, "s", target.destination);
        if !signature.is_empty() {
            w.align(8);
            w.0.push(8);
            w.signature("g");
            w.signature(signature);
        }
    });
    header.align(8);
    header.0.extend(content.0);
    header.0
}

/// A message that came in, with the text arguments of its body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Incoming {
    pub(super) kind: u8,
    pub(super) reply_to: u32,
    pub(super) member: String,
    pub(super) error: String,
    /// The strings and paths of the body, in order; numbers among them are left out.
    pub(super) texts: Vec<String>,
}

/// How long the message is that starts with these 16 bytes; `None` when they are no message.
pub(super) fn full_length(prologue: &[u8; PROLOGUE]) -> Option<usize> {
    let body = word(prologue, 4)? as usize;
    let fields = word(prologue, 12)? as usize;
    let is_ours = prologue[0] == b'l' && prologue[3] == 1;
    let length = PROLOGUE.checked_add(fields)?.next_multiple_of(8).checked_add(body)?;
    (is_ours && length <= LONGEST).then_some(length)
}

/// Reads a whole message. Anything malformed is `None`, and never a panic.
pub(super) fn parse(bytes: &[u8]) -> Option<Incoming> {
    let mut message = Incoming { kind: *bytes.get(1)?, ..Incoming::default() };
    let end = PROLOGUE + word(bytes, 12)? as usize;
    let mut reader = Reader { bytes: bytes.get(..end)?, at: PROLOGUE };
    let mut signature = String::new();
    while reader.at < end {
        reader.align(8);
        let code = reader.byte()?;
        let kind = reader.signature()?;
        match (code, kind.as_str()) {
            (3, "s") => message.member = reader.text()?,
            (4, "s") => message.error = reader.text()?,
            (5, "u") => message.reply_to = reader.number()?,
            (8, "g") => signature = reader.signature()?,
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.number()?),
            _ => return None,
        }
    }
    let mut reader = Reader { bytes, at: end.next_multiple_of(8) };
    for kind in signature.chars() {
        match kind {
            's' | 'o' => message.texts.push(reader.text()?),
            'u' => drop(reader.number()?),
            // What follows is of no interest to us.
            _ => break,
        }
    }
    Some(message)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(u32::from_le_bytes(bytes))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, size: usize) {
        self.at = self.at.next_multiple_of(size);
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        let value = word(self.bytes, self.at)?;
        self.at += 4;
        Some(value)
    }

    /// So many bytes of text, and the zero behind them.
    fn take(&mut self, length: usize) -> Option<String> {
        let end = self.at.checked_add(length)?;
        let text = std::str::from_utf8(self.bytes.get(self.at..end)?).ok()?.to_owned();
        self.at = end.checked_add(1)?;
        Some(text)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        self.take(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()?.into();
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = Target { destination: "a.b", path: "/p", interface: "i.f" };

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let bytes = call(7, TARGET, "Go", "su", |w| {
            w.text("hi");
            w.number(5);
        });
        assert_eq!(&bytes[..4], [b'l', 1, 0, 1]);
        assert_eq!(word(&bytes, 4), Some(12), "4 + 2 + 1, padded to 8, and 4");
        assert_eq!(word(&bytes, 8), Some(7));
        let length = full_length(bytes[..16].try_into().unwrap());
        assert_eq!(length, Some(bytes.len()));
        assert_eq!(&bytes[bytes.len() - 12..], b"\x02\0\0\0hi\0\0\x05\0\0\0");
        let message = parse(&bytes).unwrap();
        assert_eq!((message.kind, message.member.as_str()), (CALL, "Go"));
        assert_eq!(message.texts, ["hi"]);
    }

    #[test]
    fn properties_are_structures_aligned_to_eight() {
        let mut writer = Writer::default();
        writer.properties(&vec![
            ("A", Value::Bool(true)),
            ("B", Value::U64(1)),
            ("C", Value::U32s(vec![9])),
        ]);
        let [first, second, third] = [8..24, 24..48, 48..68].map(|part| &writer.0[part]);
        assert_eq!(first, b"\x01\0\0\0A\0\x01b\0\0\0\0\x01\0\0\0");
        assert_eq!(second, b"\x01\0\0\0B\0\x01t\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0");
        assert_eq!(third, b"\x01\0\0\0C\0\x02au\0\0\0\x04\0\0\0\x09\0\0\0");
        assert_eq!(word(&writer.0, 0), Some(u32::try_from(writer.0.len() - 8).unwrap()));
    }

    #[test]
    fn what_is_cut_or_mangled_is_no_message() {
        let bytes = call(1, TARGET, "Go", "s", |w| w.text("text"));
        for end in 0..bytes.len() - 1 {
            assert_eq!(parse(&bytes[..end]), None, "{end}");
        }
        for index in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut mangled = bytes.clone();
                mangled[index] = value;
                // Only that it does not panic: some bytes may be anything.
                let _ = parse(&mangled);
                let _ = full_length(mangled[..16].try_into().unwrap());
            }
        }
        let mut huge = [0; 16];
        huge[0] = b'l';
        huge[3] = 1;
        huge[4..8].fill(0xff);
        assert_eq!(full_length(&huge), None);
    }
}
