//! `--net`: what people write, and what it means for a container's network namespace.

use std::path::PathBuf;

use crate::attach::Request;
use crate::definition::{DEFAULT_NETWORK, check_name};
use crate::error::{Error, Result};
use crate::rootless::Program;

/// How a container is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// A namespace of its own with nothing but loopback.
    None,
    /// The host's namespace: the host's interfaces, addresses and ports.
    Host,
    /// A namespace of its own, with a cable to each of these networks.
    Networks(Vec<Request>),
    /// The namespace of another container.
    Container(String),
    /// The namespace behind this file.
    Namespace(PathBuf),
    /// A namespace of its own, with a program in user space that speaks for it. For those who are
    /// not root.
    Rootless(Program),
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("nothing"),
            Self::Host => f.write_str("the host's network"),
            Self::Networks(requests) => {
                let names: Vec<&str> = requests.iter().map(|one| one.network.as_str()).collect();
                write!(f, "network {}", names.join(", "))
            }
            Self::Container(id) => write!(f, "the network of container {id}"),
            Self::Namespace(path) => write!(f, "the network namespace {}", path.display()),
            Self::Rootless(program) => write!(f, "the host through {}", program.name()),
        }
    }
}

/// Which network namespace a container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespace {
    /// A new one.
    New,
    /// The one that minirun is in.
    Host,
    /// That of this container's process.
    OfContainer(String),
    /// That behind this file.
    At(PathBuf),
}

impl Mode {
    /// Reads the values of all `--net` options. Only networks may come more than once.
    ///
    /// `none`, `host`, `container:ID`, `ns:PATH`, `pasta`, `slirp4netns`, or networks:
    /// `NAME[:ip=ADDRESS,ip6=ADDRESS,mac=ADDRESS,interface=NAME]`, where `bridge` is the network
    /// that is always there.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self> {
        match texts {
            [] => Ok(Self::default_for_root()),
            [one] => parse_one(one.as_ref()),
            several => {
                let mut requests = Vec::new();
                for text in several {
                    match parse_one(text.as_ref())? {
                        Self::Networks(more) => requests.extend(more),
                        _ => {
                            let why = "can only be the sole --net; networks may be combined";
                            return Err(Error::invalid("--net", text.as_ref(), why));
                        }
                    }
                }
                check_distinct(&requests)?;
                Ok(Self::Networks(requests))
            }
        }
    }

    /// What root gets who does not ask: the default network.
    pub fn default_for_root() -> Self {
        let request = Request { network: DEFAULT_NETWORK.into(), ..Request::default() };
        Self::Networks(vec![request])
    }

    /// What others get who do not ask: pasta, or else slirp4netns.
    pub fn default_for_others() -> Result<Self> {
        Program::find_any().map(Self::Rootless)
    }

    /// The namespace that the container is made in.
    pub fn namespace(&self) -> Namespace {
        match self {
            Self::None | Self::Networks(_) | Self::Rootless(_) => Namespace::New,
            Self::Host => Namespace::Host,
            Self::Container(id) => Namespace::OfContainer(id.clone()),
            Self::Namespace(path) => Namespace::At(path.clone()),
        }
    }

    /// Whether ports can be published in this mode; the error says what to do instead.
    pub fn check_publishing(&self) -> Result<()> {
        let needs = match self {
            Self::Networks(_) | Self::Rootless(Program::Pasta) => return Ok(()),
            Self::None => "a network: --net none has none",
            Self::Host => "nothing: with --net host the container's ports are the host's already",
            Self::Container(_) => "-p at the other container, which owns the namespace",
            Self::Namespace(_) => "whoever made that namespace to connect it",
            Self::Rootless(Program::Slirp4netns) => "pasta (Debian and Fedora: package passt)",
        };
        Err(Error::Unsupported { what: "publishing a port".into(), needs: needs.into() })
    }
}

fn parse_one(text: &str) -> Result<Mode> {
    let wrong = |why: &str| Error::invalid("--net", text, why);
    let (name, rest) = match text.split_once(':') {
        Some((name, rest)) => (name, Some(rest)),
        None => (text, None),
    };
    let mode = match (name, rest) {
        ("none", None) => Mode::None,
        ("host", None) => Mode::Host,
        ("pasta", None) => Mode::Rootless(Program::Pasta),
        ("slirp4netns", None) => Mode::Rootless(Program::Slirp4netns),
        ("none" | "host" | "pasta" | "slirp4netns", Some(_)) => {
            return Err(wrong("this mode takes no options"));
        }
        ("container", Some(id)) if !id.is_empty() => Mode::Container(id.to_owned()),
        ("ns", Some(path)) if path.starts_with('/') => Mode::Namespace(path.into()),
        ("container", _) => return Err(wrong("is container:ID")),
        ("ns", _) => return Err(wrong("is ns:PATH with an absolute path")),
        (name, options) => Mode::Networks(vec![request(text, name, options)?]),
    };
    Ok(mode)
}

fn request(text: &str, name: &str, options: Option<&str>) -> Result<Request> {
    let wrong = |why: String| Error::invalid("--net", text, why);
    check_name(name)?;
    let mut request = Request { network: name.to_owned(), ..Request::default() };
    for option in options.into_iter().flat_map(|options| options.split(',')) {
        let (key, value) =
            option.split_once('=').ok_or_else(|| wrong(format!("{option:?} is not KEY=VALUE")))?;
        match key {
            "ip" | "ip6" => {
                let address: std::net::IpAddr =
                    value.parse().map_err(|_| wrong(format!("{value:?} is no IP address")))?;
                if address.is_ipv6() != (key == "ip6") {
                    return Err(wrong(format!("{value} is not for {key}")));
                }
                request.addresses.push(address);
            }
            "mac" => {
                let hardware = value.parse().map_err(|error| wrong(format!("{value}: {error}")))?;
                request.hardware = Some(hardware);
            }
            "interface" => request.interface = Some(value.to_owned()),
            _ => {
                let known = "ip, ip6, mac, interface";
                return Err(wrong(format!("unknown option {key:?}; there are {known}")));
            }
        }
    }
    Ok(request)
}

fn check_distinct(requests: &[Request]) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    match requests.iter().find(|request| !seen.insert(&request.network)) {
        Some(twice) => Err(Error::invalid("--net", &*twice.network, "is given twice")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Mode> {
        Mode::parse(&[text])
    }

    #[test]
    fn every_mode_is_understood() {
        let network = |name: &str| Request { network: name.into(), ..Request::default() };
        for (text, mode, namespace) in [
            ("none", Mode::None, Namespace::New),
            ("host", Mode::Host, Namespace::Host),
            ("pasta", Mode::Rootless(Program::Pasta), Namespace::New),
            ("container:web", Mode::Container("web".into()), Namespace::OfContainer("web".into())),
            (
                "ns:/run/netns/a",
                Mode::Namespace("/run/netns/a".into()),
                Namespace::At("/run/netns/a".into()),
            ),
            ("bridge", Mode::Networks(vec![network("bridge")]), Namespace::New),
        ] {
            assert_eq!(parse(text).unwrap(), mode);
            assert_eq!(mode.namespace(), namespace);
        }
        let Mode::Networks(requests) =
            parse("data:ip=10.1.0.9,ip6=fd00::9,mac=02:00:00:00:00:09,interface=net0").unwrap()
        else {
            panic!("a network")
        };
        assert_eq!(requests[0].addresses.len(), 2);
        assert_eq!(requests[0].interface.as_deref(), Some("net0"));
        assert_eq!(
            Mode::parse(&["a", "b"]).unwrap(),
            Mode::Networks(vec![network("a"), network("b")])
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "none:x",
            "host:",
            "container",
            "container:",
            "ns:relative",
            "a/b",
            "web:ip=fd00::1",
            "web:ip6=10.0.0.1",
            "web:ip=x",
            "web:speed=1",
            "web:mac=1",
            "web:",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert!(Mode::parse(&["host", "web"]).is_err());
        assert!(Mode::parse(&["web", "web:ip=10.1.0.1"]).is_err());
    }

    #[test]
    fn publishing_is_refused_with_a_way_out_where_it_makes_no_sense() {
        assert!(parse("web").unwrap().check_publishing().is_ok());
        for mode in ["none", "host", "container:a", "ns:/a", "slirp4netns"] {
            assert!(parse(mode).unwrap().check_publishing().is_err(), "{mode}");
        }
    }
}
