//! `--net`, `--publish`, `--net-rate` and what belongs to them: from words to what the network step
//! does, and to what changes in the configuration.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches};
use linux::clone::Child;
use network::attach::Attachment;
use network::bridge::Raised;
use network::by_default;
use network::files::{self, Hosts, Resolver};
use network::mode::{Mode, Namespace};
use network::publish::Publication;
use network::store::Store;
use network::traffic::Rates;
use oci_spec::runtime::{Capability, LinuxNamespaceBuilder, LinuxNamespaceType, Spec};

use super::arguments::{text_of, value};
use super::target::Target;
use crate::container::state::StateRoot;
use crate::error::{Error, Result};
use crate::plan::{Mount, Plan, Source};
use crate::spec::mount_options;
use crate::steps;
use crate::steps::network::{Connected, Namespaces, Wanted};

/// The arguments.
pub(super) fn arguments() -> Vec<Arg> {
    let list = |name, placeholder, help| value(name, placeholder, help).action(ArgAction::Append);
    let all = vec![
        list("net", "MODE", NET_HELP),
        list("publish", "[IP:]HOST:PORT", "Lead a port of the host into the container").short('p'),
        value("net-rate", "in=RATE,out=RATE", "How fast its network may be: in=100mbit,out=50mbit"),
        list("dns", "ADDRESS", "Name server, instead of the host's"),
        list("add-host", "NAME:ADDRESS", "One more line for /etc/hosts"),
    ];
    all.into_iter().map(|arg| arg.help_heading("Network")).collect()
}

const NET_HELP: &str = "none, host, bridge, NETWORK[:ip=…], container:ID, ns:PATH, pasta, \
                        slirp4netns [what MINIRUN_NET says; else bridge for root, pasta for others]";

/// What the command line says about the network; nothing when it says nothing.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) wanted: Wanted,
    servers: Vec<IpAddr>,
    extra_hosts: Vec<String>,
    host_name: String,
    /// Nobody asked for it, so what this host cannot do is no error.
    is_default: bool,
    /// What was done before the container was made.
    raised: Raised,
}

impl Network {
    pub(super) fn of(matches: &ArgMatches) -> Result<Option<Self>> {
        let words = |name: &str| -> Vec<String> {
            matches.get_many(name).map(|words| words.cloned().collect()).unwrap_or_default()
        };
        let (modes, ports) = (words("net"), words("publish"));
        let rate = text_of(matches, "net-rate");
        if modes.is_empty() && ports.is_empty() && rate.is_none() {
            return Ok(None);
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
        let network = Self::with(matches, mode, publications, rates)?;
        network.check_files()?;
        Ok(Some(network))
    }

    /// What a container gets when the command line says nothing: what `MINIRUN_NET` says, or else
    /// what [`prepare`](Self::prepare) finds possible. Nothing where the network is somebody else's
    /// business.
    pub(super) fn by_default(
        matches: &ArgMatches,
        target: &Target,
        config: &Spec,
    ) -> Result<Option<Self>> {
        if target.is_engines || !wants_network(config) {
            return match text_of(matches, "dns").or(text_of(matches, "add-host")) {
                None => Ok(None),
                Some(_) => Err(Error::Config("--dns and --add-host need a --net".into())),
            };
        }
        let named = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
        let mode = named.as_ref().map_or(Ok(Mode::None), |text| Mode::parse(&[text]));
        let mode = mode.map_err(|error| Error::Config(format!("{VARIABLE}: {}", told(error))))?;
        let mut network = Self::with(matches, mode, Vec::new(), None)?;
        network.is_default = named.is_none();
        if network.is_default {
            return Ok(Some(network));
        }
        network.check_files()?;
        // The configuration has a namespace with nothing in it already.
        Ok((network.wanted.mode != Mode::None).then_some(network))
    }

    fn with(
        matches: &ArgMatches,
        mode: Mode,
        publications: Vec<Publication>,
        rates: Option<Rates>,
    ) -> Result<Self> {
        let words = |name: &str| matches.get_many::<String>(name).into_iter().flatten();
        let servers = words("dns").map(|text| server(text)).collect::<Result<Vec<_>>>()?;
        let extra_hosts: Vec<String> = words("add-host").cloned().collect();
        let anywhere = Some(IpAddr::from([127, 0, 0, 1]));
        for text in &extra_hosts {
            files::parse_extra_host(text, anywhere).map_err(told)?;
        }
        Ok(Self {
            wanted: Wanted { mode, publications, rates, guarded: false },
            servers,
            extra_hosts,
            host_name: String::new(),
            is_default: false,
            raised: Raised::default(),
        })
    }

    fn check_files(&self) -> Result<()> {
        if !self.has_wishes() || self.has_files() {
            return Ok(());
        }
        let text = "--dns and --add-host need a network of the container's own";
        let mode = &self.wanted.mode;
        Err(Error::Config(format!("{text}, which --net {mode} does not give")))
    }

    /// Whether something was asked for that needs a network.
    pub(super) fn has_wishes(&self) -> bool {
        !self.servers.is_empty() || !self.extra_hosts.is_empty()
    }

    /// Whether a program in user space connects it.
    pub(super) fn needs_program(&self) -> bool {
        matches!(self.wanted.mode, Mode::Rootless(_))
    }

    /// Whether nobody asked for it.
    pub(super) fn is_default(&self) -> bool {
        self.is_default
    }

    /// Chooses the default and makes sure that this host can do it. After an error the container
    /// has no network.
    pub(super) fn prepare(&mut self) -> network::Result<()> {
        if linux::credentials::effective_user() != 0 {
            self.wanted.mode = Mode::default_for_others()?;
            return Ok(());
        }
        self.raised = by_default::prepare(&Store::open_default()?)?;
        self.wanted.mode = Mode::default_for_root();
        Ok(())
    }

    /// Connects the container. What a host lacks is told to `tell` instead of failing, when nobody
    /// asked for a network.
    pub(super) fn connect(
        &self,
        (id, home): (&str, &Path),
        child: &Child,
        namespaces: Option<Namespaces>,
        tell: impl FnOnce(&network::Error),
    ) -> network::Result<Connected> {
        match steps::network::connect(&self.wanted, id, child, namespaces, home) {
            Ok(mut connected) => {
                let Attachment { changes, warnings, .. } = &mut connected.attachment;
                changes.extend(self.raised.changes.iter().cloned());
                warnings.extend(self.raised.warnings.iter().cloned());
                Ok(connected)
            }
            Err(error) if self.is_default && error.is_for_lack_of_support() => {
                tell(&error);
                Ok(Connected::default())
            }
            Err(error) => Err(error),
        }
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
        if !self.is_default {
            set_namespace(config, path)?;
        }
        let name = config.hostname().clone();
        self.host_name = name.filter(|name| files::is_host_name(name)).unwrap_or_else(|| id.into());
        self.wanted.guarded = is_guarded(config);
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

/// Whether the container may administer its network.
pub(super) fn is_guarded(config: &Spec) -> bool {
    config
        .process()
        .as_ref()
        .and_then(|process| process.capabilities().as_ref())
        .and_then(|sets| sets.bounding().as_ref())
        .is_some_and(|set| set.contains(&Capability::NetAdmin))
}

/// Whether the configuration makes a network namespace and nothing in it says that somebody else
/// puts interfaces there.
fn wants_network(config: &Spec) -> bool {
    let linux = config.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_ref());
    let is_new = namespaces.into_iter().flatten().any(|namespace| {
        let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
        namespace.typ() == LinuxNamespaceType::Network && path.is_none()
    });
    let devices = linux.and_then(|linux| linux.net_devices().as_ref());
    let has_devices = devices.is_some_and(|devices| !devices.is_empty());
    let has_hooks = config.hooks().as_ref().is_some_and(|hooks| {
        let kinds = [hooks.prestart(), hooks.create_runtime(), hooks.create_container()];
        kinds.into_iter().flatten().any(|hooks| !hooks.is_empty())
    });
    is_new && !has_devices && !has_hooks
}

/// What `--net` is where nothing else says it.
const VARIABLE: &str = "MINIRUN_NET";
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
