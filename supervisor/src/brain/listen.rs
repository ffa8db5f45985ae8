//! The ports of the host that lead to services: found, opened, kept, told, and given up.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use linux::inet;

use super::engine::Brain;
use crate::model::{Publish, Stack};
use crate::plane::protocol::Order;

impl Brain {
    /// Opens what is published, and writes into the stack which free ports were taken. A port that
    /// somebody has is the user's to know, before anything runs.
    pub(crate) fn listen(&mut self, stack: &mut Stack) -> Result<()> {
        self.keep_found(stack);
        let mut new: Vec<(String, OwnedFd)> = Vec::new();
        // Those that must have a certain port come first, lest it is given away as a free one.
        let (free, certain): (Vec<_>, Vec<_>) = stack
            .services
            .values_mut()
            .flat_map(|spec| &mut spec.publish)
            .partition(|publish| publish.is_open());
        for publish in certain.into_iter().chain(free) {
            let key = |publish: &Publish| format!("listen/{}", publish.door());
            let known = |key: &String| new.iter().any(|(name, _)| name == key);
            if publish.is_open() {
                let opened = find(publish)?;
                new.push((key(publish), opened));
            } else if self.keeper.get(&key(publish)).is_none() && !known(&key(publish)) {
                let door = publish.door();
                let opened = door.open().with_context(|| format!("cannot listen at {door}"))?;
                new.push((key(publish), opened));
            }
        }
        for (key, listener) in new {
            self.keeper.put(&key, listener);
        }
        Ok(())
    }

    /// What has got a free port keeps it as long as it asks for the same.
    fn keep_found(&self, stack: &mut Stack) {
        for (name, spec) in &mut stack.services {
            let Some(before) = self.stack.services.get(name) else { continue };
            let mut found: Vec<&Publish> = before.publish.iter().collect();
            for publish in spec.publish.iter_mut().filter(|publish| publish.is_open()) {
                // Each is given once: a service may ask for two free ports in the same words.
                if let Some(place) = found.iter().position(|old| old.asks_like(publish)) {
                    publish.host = found.swap_remove(place).host;
                }
            }
        }
    }

    /// After a start: what the keeper does not have any more is bound anew.
    pub(crate) fn listen_again(&mut self) {
        let mut stack = self.stack.clone();
        if let Err(error) = self.listen(&mut stack) {
            eprintln!("minisup brain: {error:#}");
        }
    }

    pub(super) fn offer_listeners(&mut self) {
        for (service, spec) in self.stack.services.clone() {
            for publish in spec.publish {
                let door = publish.door();
                if self.link.listeners.contains(&door) {
                    continue;
                }
                if let Some(socket) = self.keeper.get(&format!("listen/{door}")) {
                    let order = Order::Listener { service: service.clone(), publish };
                    self.link.tell(&order, Some(&socket));
                    self.link.listeners.insert(door);
                }
            }
        }
    }

    /// Gives up the ports that are not published any more, and has changed ones told anew.
    pub(crate) fn close_unpublished(&mut self) {
        let wanted: Vec<String> = self
            .stack
            .services
            .values()
            .flat_map(|spec| &spec.publish)
            .map(|publish| format!("listen/{}", publish.door()))
            .collect();
        for name in self.keeper.names("listen/") {
            if !wanted.contains(&name) {
                self.keeper.release(&name);
                if let Ok(door) = name.trim_start_matches("listen/").parse() {
                    self.link.tell(&Order::Close { door }, None);
                }
            }
        }
        self.link.listeners.clear();
        self.publish();
    }
}

/// Opens the first free port of those that will do, and notes which it is.
fn find(publish: &mut Publish) -> Result<OwnedFd> {
    let (first, last) = publish.among.unwrap_or_default();
    let mut door = publish.door();
    for port in first..=last {
        door.at.set_port(port);
        match door.open() {
            Ok(opened) => {
                publish.host = inet::local_address(&opened).context("which port it is")?;
                return Ok(opened);
            }
            Err(_) if port < last => {}
            Err(error) => {
                let text = format!("cannot listen at {}", publish.outside());
                return Err(error).context(text);
            }
        }
    }
    bail!("cannot listen at {}: the range is empty", publish.outside());
}
