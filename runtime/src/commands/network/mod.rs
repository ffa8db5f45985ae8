//! `minirun network`: make, show and remove networks; faults and statistics of their containers.

mod fault;
mod stats;

use std::net::IpAddr;

use clap::{Arg, ArgAction, ArgMatches, Command};
use ipnet::IpNet;
use network::collect::Collected;
use network::definition::{Network, Wish};
use network::store::Store;
use network::traffic::relay;
use network::{networks, publish};

use super::answer::{print, print_json};
use super::arguments::{flag, text_of, value};
use super::verb::{Global, Verb};
use crate::error::{Error, Result};

pub(super) const VERB: Verb = Verb {
    name: "network",
    about: "Make, show and remove networks",
    arguments,
    run,
    enters_containers: false,
    failure_status: 1,
};

fn arguments(command: Command) -> Command {
    let name = || Arg::new("name").value_name("NAME").required(true).help("The network's name");
    let list = |name, placeholder, help| value(name, placeholder, help).action(ArgAction::Append);
    command
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("create")
                .about("Make a network; its bridge is made when the first container comes")
                .arg(name())
                .arg(list("subnet", "CIDR", "Its addresses, once per family [a free /20]"))
                .arg(list("gateway", "ADDRESS", "The host's address in it [the first]"))
                .arg(list("ip-range", "CIDR", "Where addresses are taken from [everywhere]"))
                .arg(list("reserve", "ADDRESS", "An address that is never given"))
                .arg(flag("ipv6", "With IPv6, in a unique local subnet if none is named"))
                .arg(flag("internal", "Nothing leaves it"))
                .arg(value("mtu", "BYTES", "The largest packet")),
        )
        .subcommand(Command::new("ls").about("List the networks"))
        .subcommand(Command::new("inspect").about("Show a network and its containers").arg(name()))
        .subcommand(Command::new("rm").about("Remove a network that no container uses").arg(name()))
        .subcommand(
            Command::new("prune")
                .about("Remove all networks that no container uses, and leftovers"),
        )
        .subcommand(fault::command())
        .subcommand(stats::command())
        .subcommand(
            // What the process of published ports runs; see network::publish.
            Command::new("forward").hide(true).arg(Arg::new("order").required(true)),
        )
        .subcommand(
            // What the process of a bad network runs; see network::traffic::relay.
            Command::new("relay").hide(true).arg(Arg::new("order").required(true)),
        )
}

fn run(global: &Global, matches: &ArgMatches) -> Result<i32> {
    let (name, matches) =
        matches.subcommand().ok_or_else(|| Error::Config("no command was given".into()))?;
    let order = || text_of(matches, "order").unwrap_or_default();
    match name {
        "forward" => return publish::serve_inherited(order()).map(|()| 0).map_err(told),
        "relay" => return relay::serve_inherited(order()).map(|()| 0).map_err(told),
        _ => {}
    }
    let store = Store::open_default().map_err(told)?;
    let wanted = || text_of(matches, "name").unwrap_or_default();
    match name {
        "create" => {
            let made = networks::create(&store, &wish(matches)?).map_err(told)?;
            print(&format!("{}\n", made.name))?;
        }
        "inspect" => print_json(&networks::inspect(&store, wanted()).map_err(told)?)?,
        "rm" => drop(networks::remove(&store, wanted()).map_err(told)?),
        "fault" => fault::run(global, matches, &store)?,
        "stats" => stats::run(global, matches, &store)?,
        "prune" => print(&removed(&networks::prune(&store).map_err(told)?))?,
        _ => {
            network::collect::collect(&store).map_err(told)?;
            print(&table(&store)?)?;
        }
    }
    Ok(0)
}

fn table(store: &Store) -> Result<String> {
    let mut text = format!("{:<16} {:<12} {:>10}  SUBNETS\n", "NAME", "BRIDGE", "CONTAINERS");
    for network in store.networks().map_err(told)? {
        let count = store.leases(&network.name).map_err(told)?.len();
        let subnets: Vec<String> = network.subnets().map(|net| net.to_string()).collect();
        let internal = if network.internal { " (internal)" } else { "" };
        let Network { name, .. } = &network;
        let line = format!("{name:<16} {:<12} {count:>10}  ", network.bridge());
        text.push_str(&format!("{line}{}{internal}\n", subnets.join(" ")));
    }
    Ok(text)
}

fn removed(collected: &Collected) -> String {
    let networks = collected.networks.iter().map(|name| format!("network {name}\n"));
    let interfaces = collected.interfaces.iter().map(|name| format!("interface {name}\n"));
    let addresses = collected.addresses.iter().map(|address| format!("address {address}\n"));
    networks.chain(interfaces).chain(addresses).collect()
}

fn wish(matches: &ArgMatches) -> Result<Wish> {
    Ok(Wish {
        name: text_of(matches, "name").unwrap_or_default().to_owned(),
        subnets: all::<IpNet>(matches, "subnet")?,
        gateways: all::<IpAddr>(matches, "gateway")?,
        ranges: all::<IpNet>(matches, "ip-range")?,
        reserved: all::<IpAddr>(matches, "reserve")?,
        ipv6: matches.get_flag("ipv6"),
        internal: matches.get_flag("internal"),
        mtu: text_of(matches, "mtu").map(|text| read(text, "mtu")).transpose()?,
    })
}

fn all<T: std::str::FromStr>(matches: &ArgMatches, name: &str) -> Result<Vec<T>>
where
    T::Err: std::fmt::Display,
{
    let texts = matches.get_many::<String>(name).into_iter().flatten();
    texts.map(|text| read(text, name)).collect()
}

fn read<T: std::str::FromStr>(text: &str, name: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| Error::Config(format!("--{name} {text}: {error}")))
}

fn told(error: network::Error) -> Error {
    Error::Config(network::in_one_line(&error))
}
