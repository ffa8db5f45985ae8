//! Routing rules, ip-rule(8).

use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Batch, CREATE, Connection, Result};

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
        let message = RouteNetlinkMessage::NewRule(message(rule));
        self.push("RTM_NEWRULE", shown(rule), CREATE, message)
    }

    /// Removes the rule.
    pub fn delete_rule(&mut self, rule: MarkRule) -> &mut Self {
        let message = RouteNetlinkMessage::DelRule(message(rule));
        self.push("RTM_DELRULE", shown(rule), 0, message)
    }
}

impl Connection {
    /// Whether the rule is there.
    pub fn has_rule(&mut self, rule: MarkRule) -> Result<bool> {
        let mut request = RuleMessage::default();
        request.header.family = family(rule);
        let found = self.dump("RTM_GETRULE", RouteNetlinkMessage::GetRule(request), |answer| {
            let RouteNetlinkMessage::NewRule(message) = answer else { return None };
            let mark = message.attributes.contains(&RuleAttribute::FwMark(rule.mark));
            let place = message.attributes.contains(&RuleAttribute::Priority(rule.priority));
            (mark && place && message.header.table == rule.table).then_some(())
        })?;
        Ok(!found.is_empty())
    }
}

fn family(rule: MarkRule) -> AddressFamily {
    if rule.ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

fn message(rule: MarkRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule);
    message.header.table = rule.table;
    message.header.action = RuleAction::ToTable;
    message.attributes.push(RuleAttribute::Priority(rule.priority));
    message.attributes.push(RuleAttribute::FwMark(rule.mark));
    message
}

fn shown(rule: MarkRule) -> String {
    let MarkRule { mark, table, priority, ipv6 } = rule;
    format!("fwmark {mark:#x} lookup {table} priority {priority} ipv6={ipv6}")
}
