//! Names: a service has slots, a slot has instances one after another.
//!
//! ```text
//! web          a service          what the user wrote
//! web.2        a slot             the identity: "the second web", lives as long as it is wanted
//! web.2.7      an instance        one container, the seventh that held the slot; never reused
//! ```
//!
//! An instance's name is also the name of its container, so what is found running after a crash
//! says by itself where it belongs.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name of a service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceName(Arc<str>);

/// What a container was made from: a hash of the service's whole resolved specification, without
/// the number of replicas. Two instances of one revision are interchangeable.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(Arc<str>);

/// One of a service's replicas, counted from 1: the identity that outlives its containers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SlotId {
    /// The service.
    pub service: ServiceName,
    /// Counted from 1.
    pub index: u32,
}

/// One container in the life of a slot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct InstanceId {
    /// The slot it holds.
    pub slot: SlotId,
    /// Counted from 1 within the slot, never reused.
    pub serial: u64,
}

/// A text that is not the name of a slot or an instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameError(String);

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not SERVICE.SLOT or SERVICE.SLOT.SERIAL", self.0)
    }
}

impl std::error::Error for NameError {}

impl ServiceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The slot of this service with that index.
    pub fn slot(&self, index: u32) -> SlotId {
        SlotId { service: self.clone(), index }
    }
}

impl Revision {
    /// The hash as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SlotId {
    /// The instance of this slot with that serial number.
    pub fn instance(&self, serial: u64) -> InstanceId {
        InstanceId { slot: self.clone(), serial }
    }
}

impl From<&str> for ServiceName {
    fn from(name: &str) -> ServiceName {
        ServiceName(name.into())
    }
}

impl From<&str> for Revision {
    fn from(hash: &str) -> Revision {
        Revision(hash.into())
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service, self.index)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.serial)
    }
}

impl FromStr for SlotId {
    type Err = NameError;

    /// Splits at the last dot: service names may contain dots, numbers may not.
    fn from_str(text: &str) -> Result<SlotId, NameError> {
        let (service, index) = split_number(text)?;
        let index = u32::try_from(index).map_err(|_| NameError(text.into()))?;
        Ok(SlotId { service: service.into(), index })
    }
}

impl FromStr for InstanceId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<InstanceId, NameError> {
        let (slot, serial) = split_number(text)?;
        let slot = slot.parse().map_err(|_| NameError(text.into()))?;
        Ok(InstanceId { slot, serial })
    }
}

/// `a.b.7` → (`a.b`, 7). Only the canonical spelling counts, so that a name has one text.
fn split_number(text: &str) -> Result<(&str, u64), NameError> {
    let refuse = || NameError(text.into());
    let (head, digits) = text.rsplit_once('.').ok_or_else(refuse)?;
    let number: u64 = digits.parse().map_err(|_| refuse())?;
    if head.is_empty() || number == 0 || number.to_string() != digits {
        return Err(refuse());
    }
    Ok((head, number))
}

impl From<SlotId> for String {
    fn from(id: SlotId) -> String {
        id.to_string()
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for SlotId {
    type Error = NameError;
    fn try_from(text: String) -> Result<SlotId, NameError> {
        text.parse()
    }
}

impl TryFrom<String> for InstanceId {
    type Error = NameError;
    fn try_from(text: String) -> Result<InstanceId, NameError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_their_text_form() {
        let id = ServiceName::from("my.web").slot(12).instance(3);
        assert_eq!(id.to_string(), "my.web.12.3");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn only_the_canonical_text_is_a_name() {
        for bad in ["", "web", ".1.1", "web.0.1", "web.1.0", "web.01.1", "web.1.+1", "web.1.x"] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad}");
        }
    }
}
