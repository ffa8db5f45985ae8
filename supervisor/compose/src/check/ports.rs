//! One port of the host is published once.

use std::collections::BTreeMap;

use crate::findings::Findings;
use crate::load::complain;
use crate::model::{NetworkMode, Project, PublishedPort};

pub(super) fn check(project: &mut Project, cx: &mut Findings) {
    for (name, service) in &mut project.services {
        if let Some(mode) = &service.network_mode
            && !service.ports.is_empty()
        {
            let path = format!("services.{name}.ports");
            match mode {
                NetworkMode::Host => {
                    let remedy = "remove `ports`, or `network_mode`";
                    complain(
                        cx,
                        &path,
                        "nothing is published for a service in the host's network",
                        remedy,
                    );
                }
                NetworkMode::None => {
                    complain(
                        cx,
                        &path,
                        "a service without a network has no ports",
                        "remove `ports`, or `network_mode`",
                    );
                }
                NetworkMode::Service(other) => {
                    let message = format!("the network belongs to `{other}`");
                    complain(cx, &path, message, format!("publish the ports in `{other}`"));
                }
            }
        }
    }
    // By published port, so that a file of many ports is not compared pair by pair.
    let mut taken: BTreeMap<u16, Vec<(&str, usize, &PublishedPort)>> = BTreeMap::new();
    for (name, service) in &project.services {
        for (index, port) in service.ports.iter().enumerate() {
            let Some(range) = port.published.filter(|range| range.first == range.last) else {
                continue;
            };
            let others = taken.entry(range.first).or_default();
            if let Some((other, at, _)) = others.iter().find(|(_, _, other)| other.collides(port)) {
                let path = format!("services.{name}.ports[{index}]");
                let message = format!(
                    "port {} of the host is already published by services.{other}.ports[{at}]",
                    range.first
                );
                complain(cx, &path, message, "publish another port, or on another address");
            }
            others.push((name, index, port));
        }
    }
}
