//! `--net`, `--publish`, `--net-rate` and what belongs to them: from words to what the network step
//! does, and to what changes in the configuration.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches};
use network::files::{self, Hosts, Resolver};
use network::mode::{Mode, Namespace};
use network::traffic::Rates;
use oci_spec::runtime::{Capability, LinuxNamespaceBuilder, LinuxNamespaceType, Spec};

use super::{text_of, value};
use crate::container::state::StateRoot;
use crate::error::{Error, Result};
use crate::plan::{Mount, Plan, Source};
use crate::spec::mount_options;
use crate::steps::network::{Connected, Wanted};

/// The arguments.
pub(super) fn arguments() -> Vec<Arg> {
    let list = |name, placeholder, help| value(name, placeholder, help).action(ArgAction::Append);
    let all = vec![
        list("net", "MODE", "none, host, bridge, NETWORK[:ip=…], container:ID, ns:PATH, pasta"),
        list("publish", "[IP:]HOST:PORT", "Lead a port of the host into the container").short('p'),
        value("net-rate", "in=RATE,out=RATE", "How fast its network may be: in=100mbit,out=50mbit"),
        list("dns", "ADDRESS", "Name server, instead of the host's"),
        list("add-host", "NAME:ADDRESS", "One more line for /etc/hosts"),
    ];
    all.into_iter().map(|arg| arg.help_heading("Network")).collect()
}

/// What the command line says about the network; nothing when it says nothing.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) wanted: Wanted,
    servers: Vec<IpAddr>,
    extra_hosts: Vec<String>,
    host_name: String,
}

impl Network {
    pub(super) fn of(matches: &ArgMatches) -> Result<Option<Self>> {
        let words = |name: &str| -> Vec<String> {
            matches.get_many(name).map(|words| words.cloned().collect()).unwrap_or_default()
        };
        let (modes, ports) = (words("net"), words("publish"));
        let rate = text_of(matches, "net-rate");
        if modes.is_empty() && ports.is_empty() && rate.is_none() {
            return match words("dns").first().or(words("add-host").first()) {
                None => Ok(None),
                Some(_) => Err(Error::Config("--dns and --add-host need a --net".into())),
            };
        }
        let mode = match modes.is_empty() && linux::credentials::effective_user() != 0 {
            true => Mode::default_for_others(),
            false => Mode::parse(&modes),
        };
        let mode = mode.map_err(told)?;
        let mut publications = Vec::new();
        for text in &ports {
            publications.extend(network::publish::parse(text).map_err(told)?);
        }
        if !publications.is_empty() {
            mode.check_publishing().map_err(told)?;
        }
        let rates = rate.map(Rates::parse).transpose().map_err(told)?;
        if rates.is_some() && !matches!(mode, Mode::Networks(_)) {
            return Err(Error::Config("--net-rate needs a bridge network".into()));
        }
        let wanted = Wanted { mode, publications, rates, guarded: false };
        let servers = words("dns").iter().map(|text| server(text)).collect::<Result<_>>()?;
        let extra_hosts = words("add-host");
        Ok(Some(Self { wanted, servers, extra_hosts, host_name: String::new() }))
    }

    /// Whether a published port is not known before it is open.
    pub(super) fn chooses_ports(&self) -> bool {
        let ports = &self.wanted.publications;
        ports.iter().any(|one| !matches!(one.host, network::publish::HostPort::Exactly(_)))
    }

    /// Changes the configuration: the network namespace.
    pub(super) fn shape(&mut self, config: &mut Spec, root: &StateRoot, id: &str) -> Result<()> {
        let path = match self.wanted.mode.namespace() {
            Namespace::New => Some(None),
            Namespace::Host => None,
            Namespace::At(path) => Some(Some(path)),
            Namespace::OfContainer(other) => Some(Some(namespace_of(root, &other)?)),
        };
        set_namespace(config, path)?;
        let name = config.hostname().clone();
        self.host_name = name.filter(|name| files::is_host_name(name)).unwrap_or_else(|| id.into());
        self.wanted.guarded = config
            .process()
            .as_ref()
            .and_then(|process| process.capabilities().as_ref())
            .and_then(|sets| sets.bounding().as_ref())
            .is_some_and(|set| set.contains(&Capability::NetAdmin));
        Ok(())
    }

    /// Mounts the files over the image's. They are made together with the container's state, so the
    /// configuration, whose sources must exist, cannot name them.
    pub(super) fn mount_files(&self, plan: &mut Plan, root: &StateRoot) {
        if !self.has_files() {
            return;
        }
        let options = ["rbind", "rprivate", "nosuid", "nodev", "noexec"].map(String::from);
        for name in FILES {
            plan.mounts.push(Mount {
                destination: Path::new("/etc").join(name),
                source: Source::Bind(root.path().join(&plan.id).join(name), true),
                owners: None,
                options: mount_options::parse(&options),
            });
        }
    }

    /// The files as they are known before the container has addresses.
    pub(super) fn files(&self) -> Result<Vec<(&'static str, String)>> {
        if !self.has_files() {
            return Ok(Vec::new());
        }
        let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let behind = std::fs::read_to_string("/run/systemd/resolve/resolv.conf").ok();
        let wanted = Resolver { servers: self.servers.clone(), ..Resolver::default() };
        let resolver = files::resolv_conf(&host, behind.as_deref(), &wanted);
        let hosts = self.hosts(&Connected::default())?;
        let name = files::hostname(&self.host_name);
        Ok(vec![("hosts", hosts), ("resolv.conf", resolver), ("hostname", name)])
    }

    /// Writes the container's addresses into its hosts file, which it sees already: in place,
    /// because a new file under the old name would not be the one that is mounted.
    pub(super) fn complete(&self, home: &Path, connected: &Connected) -> Result<()> {
        if !self.has_files() {
            return Ok(());
        }
        let file = home.join("hosts");
        std::fs::write(&file, self.hosts(connected)?)
            .map_err(Error::file(format!("write {}", file.display())))
    }

    fn hosts(&self, connected: &Connected) -> Result<String> {
        let gateway = connected.attachment.endpoints.iter().flat_map(|e| &e.gateways).next();
        // Before there is a gateway, only the form is checked.
        let gateway = gateway.copied().or(Some(IpAddr::from([127, 0, 0, 1])));
        let others = self.extra_hosts.iter().map(|text| files::parse_extra_host(text, gateway));
        let others = others.collect::<network::Result<Vec<_>>>().map_err(told)?;
        let addresses = connected.attachment.addresses();
        Ok(files::hosts(&Hosts {
            name: &self.host_name,
            aliases: &[],
            addresses: &addresses,
            others: &others,
        }))
    }

    /// A container in somebody else's namespace uses that one's files; one without a network has
    /// nobody to name.
    fn has_files(&self) -> bool {
        matches!(self.wanted.mode, Mode::Networks(_) | Mode::Rootless(_))
    }
}

const FILES: [&str; 3] = ["hosts", "resolv.conf", "hostname"];

fn told(error: network::Error) -> Error {
    Error::Config(network::in_one_line(&error))
}

fn server(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| Error::Config(format!("--dns {text}: is no IP address")))
}

fn namespace_of(root: &StateRoot, id: &str) -> Result<PathBuf> {
    let state = root.home(id)?.load()?;
    let init = state.and_then(|state| state.init).filter(|init| init.open().is_some());
    match init {
        Some(init) => Ok(format!("/proc/{}/ns/net", init.pid).into()),
        None => Err(Error::WrongState(format!("--net container:{id}: it does not run"))),
    }
}

/// `None` shares the host's namespace, a path joins one, no path makes one.
fn set_namespace(config: &mut Spec, wanted: Option<Option<PathBuf>>) -> Result<()> {
    let mut linux = config.linux().clone().unwrap_or_default();
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Network);
    if let Some(path) = wanted {
        let builder = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network);
        let builder = match path {
            Some(path) => builder.path(path),
            None => builder,
        };
        let built = builder.build().map_err(|error| Error::Config(error.to_string()))?;
        namespaces.push(built);
    }
    linux.set_namespaces(Some(namespaces));
    config.set_linux(Some(linux));
    Ok(())
}
