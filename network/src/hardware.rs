//! Hardware (MAC) addresses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HardwareAddress([u8; 6]);

impl HardwareAddress {
    /// An address of these bytes.
    pub fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// The address that goes with an IPv4 address: locally administered (second-lowest bit of the
    /// first byte), then the four bytes.
    ///
    /// An IPv4 address that is given again later then comes with the same hardware address, so that
    /// no neighbour's cache is wrong about it.
    pub fn for_ipv4(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x0a, 0x6d, a, b, c, d])
    }
}

impl fmt::Display for HardwareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Why a text is no hardware address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HardwareAddressError {
    /// Not six pairs of hexadecimal digits.
    #[error("not six bytes in hexadecimal, like 02:00:00:00:00:01")]
    Form,
    /// A group address: the lowest bit of its first byte is set.
    #[error("a group (multicast) address; the first byte must be even")]
    Group,
    /// All bytes are zero.
    #[error("all zero")]
    Zero,
}

impl FromStr for HardwareAddress {
    type Err = HardwareAddressError;

    fn from_str(text: &str) -> Result<Self, HardwareAddressError> {
        let parts = text.split([':', '-']).map(|part| match part.len() {
            2 if part.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                u8::from_str_radix(part, 16).map_err(|_| HardwareAddressError::Form)
            }
            _ => Err(HardwareAddressError::Form),
        });
        let bytes: Vec<u8> = parts.collect::<Result<_, _>>()?;
        let bytes: [u8; 6] = bytes.try_into().map_err(|_| HardwareAddressError::Form)?;
        match bytes {
            [0, 0, 0, 0, 0, 0] => Err(HardwareAddressError::Zero),
            [first, ..] if first & 1 == 1 => Err(HardwareAddressError::Group),
            _ => Ok(Self(bytes)),
        }
    }
}

impl serde::Serialize for HardwareAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for HardwareAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_written() {
        let address: HardwareAddress = "02:00:5E:10:00:ff".parse().unwrap();
        assert_eq!(address.to_string(), "02:00:5e:10:00:ff");
        for (text, error) in [
            ("", HardwareAddressError::Form),
            ("02:00:5e:10:00", HardwareAddressError::Form),
            ("02:00:5e:10:00:+1", HardwareAddressError::Form),
            ("01:00:5e:10:00:01", HardwareAddressError::Group),
            ("00:00:00:00:00:00", HardwareAddressError::Zero),
        ] {
            assert_eq!(text.parse::<HardwareAddress>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn an_address_follows_from_ipv4_and_is_no_vendors() {
        let address = HardwareAddress::for_ipv4(Ipv4Addr::new(10, 88, 0, 5));
        assert_eq!(address.to_string(), "0a:6d:0a:58:00:05");
        assert_eq!(address.bytes()[0] & 0b11, 0b10);
    }
}
