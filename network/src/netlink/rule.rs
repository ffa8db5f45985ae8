//! Routing rules, ip-rule(8).

use netlink_bindings::rt_rule::{
    FibRuleAttrs, FibRuleHdr, FrAct, OpDelruleDo, OpGetruleDump, OpNewruleDo, PushFibRuleAttrs,
};

use super::address::family_of_version;
use super::{Batch, CREATE, Connection, Result, Verb};

/// "Packets with this mark are routed by that table."
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkRule {
    /// The mark of the packet.
    pub mark: u32,
    /// The routing table.
    pub table: u8,
    /// The place among the rules; lower is asked first.
    pub priority: u32,
    /// IPv6 instead of IPv4.
    pub ipv6: bool,
}

impl Batch {
    /// Adds the rule; `EEXIST` when it is there.
    pub fn add_rule(&mut self, rule: MarkRule) -> &mut Self {
        self.push(Verb::NEW_RULE, shown(rule), CREATE, |bytes| {
            conditions(OpNewruleDo::encode_request(bytes, &header(rule)), rule);
        })
    }

    /// Removes the rule.
    pub fn delete_rule(&mut self, rule: MarkRule) -> &mut Self {
        self.push(Verb::DEL_RULE, shown(rule), 0, |bytes| {
            conditions(OpDelruleDo::encode_request(bytes, &header(rule)), rule);
        })
    }
}

impl Connection {
    /// Whether the rule is there.
    pub fn has_rule(&mut self, rule: MarkRule) -> Result<bool> {
        let mut request = FibRuleHdr::new();
        request.family = family_of_version(rule.ipv6);
        let ask = |bytes: &mut Vec<u8>| {
            OpGetruleDump::encode_request(bytes, &request);
        };
        let found = self.dump(Verb::GET_RULE, ask, |answer| {
            let (header, attributes) = OpNewruleDo::decode_request(answer);
            let (mut mark, mut place) = (false, false);
            for attribute in attributes.flatten() {
                match attribute {
                    FibRuleAttrs::Fwmark(value) => mark = value == rule.mark,
                    FibRuleAttrs::Priority(value) => place = value == rule.priority,
                    _ => {}
                }
            }
            (mark && place && header.table == rule.table).then_some(())
        })?;
        Ok(!found.is_empty())
    }
}

fn header(rule: MarkRule) -> FibRuleHdr {
    let mut header = FibRuleHdr::new();
    header.family = family_of_version(rule.ipv6);
    header.table = rule.table;
    header.action = FrAct::ToTbl as u8;
    header
}

fn conditions(attributes: PushFibRuleAttrs<&mut Vec<u8>>, rule: MarkRule) {
    attributes.push_priority(rule.priority).push_fwmark(rule.mark);
}

fn shown(rule: MarkRule) -> String {
    let MarkRule { mark, table, priority, ipv6 } = rule;
    format!("fwmark {mark:#x} lookup {table} priority {priority} ipv6={ipv6}")
}
