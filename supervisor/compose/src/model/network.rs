//! Networks, and how a service is attached to them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Serialize;

use super::port::read_ip;
use super::unset;
use crate::field::{Field, Fields};
use crate::findings::Findings;

/// An entry of the top-level `networks`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Network {
    /// Its name on the host; `PROJECT_KEY` unless given.
    pub name: String,
    /// It exists already, and is not removed.
    #[serde(skip_serializing_if = "unset")]
    pub external: bool,
    /// How it is made.
    #[serde(skip_serializing_if = "unset")]
    pub driver: Driver,
    /// Largest packet (`driver_opts: com.docker.network.driver.mtu`).
    #[serde(skip_serializing_if = "unset", rename = "driver_opts", serialize_with = "mtu_option")]
    pub mtu: Option<u16>,
    /// Without a way out of the host.
    #[serde(skip_serializing_if = "unset")]
    pub internal: bool,
    /// IPv4; on unless said otherwise.
    #[serde(skip_serializing_if = "unset")]
    pub enable_ipv4: Option<bool>,
    /// IPv6; off unless said otherwise, or a subnet is IPv6.
    #[serde(skip_serializing_if = "unset")]
    pub enable_ipv6: Option<bool>,
    /// Address ranges; empty is a free one.
    #[serde(skip_serializing_if = "unset")]
    pub ipam: Ipam,
    /// Labels.
    #[serde(skip_serializing_if = "unset")]
    pub labels: BTreeMap<String, String>,
    /// Extensions of other tools.
    #[serde(flatten)]
    pub extensions: BTreeMap<String, serde_json::Value>,
}

/// `driver` of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge on the host.
    #[default]
    Bridge,
    /// The network of the host.
    Host,
    /// None at all.
    None,
}

/// `ipam` of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Ipam {
    /// Ranges, one for IPv4 and one for IPv6.
    pub config: Vec<IpamPool>,
}

/// One range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IpamPool {
    /// All addresses of the network.
    pub subnet: IpNet,
    /// Those given to containers; inside the subnet.
    #[serde(skip_serializing_if = "unset")]
    pub ip_range: Option<IpNet>,
    /// The address of the host; inside the subnet.
    #[serde(skip_serializing_if = "unset")]
    pub gateway: Option<IpAddr>,
    /// Addresses never given to containers, by what they are for.
    #[serde(skip_serializing_if = "unset")]
    pub aux_addresses: BTreeMap<String, IpAddr>,
}

/// How a service is attached to a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Attachment {
    /// More names it is found by.
    #[serde(skip_serializing_if = "unset")]
    pub aliases: Vec<String>,
    /// A fixed address; for one replica.
    #[serde(skip_serializing_if = "unset")]
    pub ipv4_address: Option<Ipv4Addr>,
    /// A fixed address; for one replica.
    #[serde(skip_serializing_if = "unset")]
    pub ipv6_address: Option<Ipv6Addr>,
    /// Networks are attached from the highest to the lowest.
    #[serde(skip_serializing_if = "unset")]
    pub priority: i32,
    /// The default route goes through the network with the highest.
    #[serde(skip_serializing_if = "unset")]
    pub gw_priority: i32,
}

const MTU: &str = "com.docker.network.driver.mtu";

fn mtu_option<S: serde::Serializer>(mtu: &Option<u16>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(mtu.iter().map(|mtu| (MTU, mtu.to_string())))
}

impl Network {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings, default_name: String) -> Self {
        let mut f = Fields::open(field, cx);
        let external = f.get("external", cx, Field::boolean).unwrap_or(false);
        let name = f.get("name", cx, Field::name);
        let made = f.map_keys(&[
            "driver",
            "driver_opts",
            "ipam",
            "internal",
            "enable_ipv4",
            "enable_ipv6",
        ]);
        if let (true, Some(key)) = (external, made) {
            let message = format!("`{key}` cannot be set for a network that exists already");
            field.error(cx, message, "remove it, or remove `external`");
        }
        let network = Self {
            name: name.unwrap_or(default_name),
            external,
            driver: f.get("driver", cx, read_driver).unwrap_or_default(),
            mtu: f.get("driver_opts", cx, read_options),
            internal: f.get("internal", cx, Field::boolean).unwrap_or(false),
            enable_ipv4: f.get("enable_ipv4", cx, Field::boolean),
            enable_ipv6: f.get("enable_ipv6", cx, Field::boolean),
            ipam: f.list("ipam", cx, read_ipam),
            labels: f.list("labels", cx, Field::pairs),
            extensions: f.extensions(),
        };
        f.close(cx);
        network
    }
}

fn read_driver(field: &Field<'_>, cx: &mut Findings) -> Option<Driver> {
    let text = field.text(cx)?;
    match text.as_str() {
        "bridge" | "default" => Some(Driver::Bridge),
        "host" => Some(Driver::Host),
        "none" | "null" => Some(Driver::None),
        "overlay" => {
            let remedy = "write `bridge`; several hosts need Swarm or Kubernetes";
            field.error(cx, "`overlay` connects hosts, and there is one", remedy);
            None
        }
        other => {
            let remedy = "write `bridge`, `host` or `none`";
            field.error(cx, format!("the network driver `{other}` is not supported"), remedy);
            None
        }
    }
}

fn read_options(field: &Field<'_>, cx: &mut Findings) -> Option<u16> {
    let mut mtu = None;
    for (name, option) in field.named(cx) {
        if name == MTU {
            mtu = option.number(cx, 576, u16::MAX);
        } else {
            option.warn(
                cx,
                "has no effect: the only option is the MTU",
                format!("remove it; known is `{MTU}`"),
            );
        }
    }
    mtu
}

fn read_ipam(field: &Field<'_>, cx: &mut Findings) -> Ipam {
    let mut f = Fields::open(field, cx);
    if let Some(driver) = f.take("driver", cx)
        && let Some(text) = driver.text(cx)
        && text != "default"
    {
        driver.error(
            cx,
            format!("the address driver `{text}` is not supported"),
            "write `default`, or remove it",
        );
    }
    let pools = |field: &Field<'_>, cx: &mut Findings| {
        field.items(cx).iter().filter_map(|item| read_pool(item, cx)).collect()
    };
    let ipam = Ipam { config: f.list("config", cx, pools) };
    f.close(cx);
    ipam
}

const SUBNET: &str = "a subnet, as in `10.5.0.0/16` or `fd00::/64`";

fn read_pool(field: &Field<'_>, cx: &mut Findings) -> Option<IpamPool> {
    let mut f = Fields::open(field, cx);
    let net =
        |x: &Field<'_>, cx: &mut Findings| x.parsed(cx, SUBNET, |text| text.parse::<IpNet>().ok());
    let subnet = f.get("subnet", cx, net);
    let range_field = f.take("ip_range", cx);
    let ip_range = range_field.as_ref().and_then(|x| net(x, cx));
    let gateway_field = f.take("gateway", cx);
    let gateway = gateway_field.as_ref().and_then(|x| read_ip(x, cx));
    let mut aux_addresses = BTreeMap::new();
    if let Some(aux) = f.take("aux_addresses", cx) {
        for (name, field) in aux.named(cx) {
            let Some(address) = read_ip(&field, cx) else { continue };
            if subnet.is_some_and(|subnet| !subnet.contains(&address)) {
                field.error(
                    cx,
                    format!("{address} is not in the subnet"),
                    "write an address of the subnet",
                );
            }
            aux_addresses.insert(name.to_owned(), address);
        }
    }
    f.close(cx);
    let Some(subnet) = subnet else {
        if field.node.get("subnet").is_none() {
            field.error(cx, "`subnet` is missing", format!("write {SUBNET}"));
        }
        return None;
    };
    if subnet.trunc() != subnet {
        let remedy = format!("write `subnet: {}`", subnet.trunc());
        field.error(cx, format!("{subnet} has bits set behind its prefix"), remedy);
    }
    if let (Some(field), Some(range)) = (range_field, ip_range)
        && !subnet.contains(&range)
    {
        field.error(
            cx,
            format!("{range} is not in the subnet {subnet}"),
            "write a part of the subnet",
        );
    }
    if let (Some(field), Some(gateway)) = (gateway_field, gateway)
        && !subnet.contains(&gateway)
    {
        field.error(
            cx,
            format!("{gateway} is not in the subnet {subnet}"),
            "write an address of the subnet",
        );
    }
    Some(IpamPool { subnet, ip_range, gateway, aux_addresses })
}

impl Attachment {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Self {
        let mut f = Fields::open(field, cx);
        let v4 = |x: &Field<'_>, cx: &mut Findings| {
            x.parsed(cx, "an IPv4 address, as in `10.5.0.9`", |text| text.parse().ok())
        };
        let v6 = |x: &Field<'_>, cx: &mut Findings| {
            x.parsed(cx, "an IPv6 address, as in `fd00::9`", |text| text.parse().ok())
        };
        let attachment = Self {
            aliases: f.list("aliases", cx, Field::unique),
            ipv4_address: f.get("ipv4_address", cx, v4),
            ipv6_address: f.get("ipv6_address", cx, v6),
            priority: f.get("priority", cx, |x, cx| x.number(cx, i32::MIN, i32::MAX)).unwrap_or(0),
            gw_priority: f
                .get("gw_priority", cx, |x, cx| x.number(cx, i32::MIN, i32::MAX))
                .unwrap_or(0),
        };
        f.close(cx);
        attachment
    }
}
