//! The proxies, each with its responders, started alike and stopped in the end.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The responders of nginx and HAProxy.
const RESPONDERS: [u16; 2] = [18_101, 18_102];

/// A proxy that runs.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) name: &'static str,
    pub(super) http_port: u16,
    pub(super) tcp_port: u16,
    /// The process that carries the requests.
    pid: u32,
    /// What ends with it.
    children: Children,
    down: Option<Command>,
    groups: Option<Groups>,
}

/// Processes that end with this.
#[derive(Debug, Default)]
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Asked to end, not killed: nginx's master takes its worker along only then.
            let asked = Command::new("kill").arg(child.id().to_string()).status();
            if !asked.is_ok_and(|status| status.success()) {
                let _ = child.kill(); // it has ended already, or there is no kill(1)
            }
            let _ = child.wait();
        }
    }
}

/// Control groups like those of containers. A group weighs as much as a process beside it: bare
/// responders would get several times the processor of responders in containers on a busy machine.
#[derive(Debug)]
struct Groups(Option<PathBuf>);

impl Groups {
    fn make() -> Groups {
        let roots = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"];
        let root = roots.into_iter().map(Path::new).find(|root| root.is_dir());
        let top = root.map(|root| root.join(format!("bench-proxies-{}", std::process::id())));
        Groups(top.filter(|top| std::fs::create_dir(top).is_ok()))
    }

    fn take(&self, child: &Child, port: u16) {
        let Some(top) = &self.0 else { return };
        let group = top.join(port.to_string());
        let taken = std::fs::create_dir(&group)
            .and_then(|()| std::fs::write(group.join("cgroup.procs"), child.id().to_string()));
        if let Err(error) = taken {
            eprintln!("{}: {error}: the comparison favours the others", group.display());
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        let Some(top) = &self.0 else { return };
        for port in RESPONDERS {
            let _ = std::fs::remove_dir(top.join(port.to_string())); // empty by now
        }
        let _ = std::fs::remove_dir(top);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(down) = &mut self.down {
            let _ = down.status(); // what is left is seen by whoever looks
        }
    }
}

impl Proxy {
    /// The processor time it has taken, in microseconds.
    pub(super) fn cpu_us(&self) -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/schedstat", self.pid))?;
        let ns: f64 = text.split(' ').next().context("an empty schedstat")?.parse()?;
        Ok(ns / 1000.0)
    }

    /// The most memory it has had, in KiB.
    pub(super) fn peak_kib(&self) -> String {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid));
        let text = text.unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.unwrap_or("?").trim().trim_end_matches(" kB").to_string()
    }
}

/// Starts all of them; the first is ours.
pub(super) fn start_all(minisup: &Path, dir: &Path) -> Result<Vec<Proxy>> {
    let own = std::env::current_exe()?;
    let groups = Groups::make();
    let mut responders = Children::default();
    for port in RESPONDERS {
        let responder = Command::new(&own).args(["--respond", &port.to_string()]).spawn()?;
        groups.take(&responder, port);
        responders.0.push(responder);
    }
    let mut nginx = nginx(dir)?;
    nginx.children.0.append(&mut responders.0);
    nginx.groups = Some(groups);
    let all = vec![ours(minisup, dir, &own)?, nginx, haproxy(dir)?];
    for proxy in &all {
        for port in [proxy.http_port, proxy.tcp_port] {
            wait_for(port).with_context(|| format!("{} does not listen", proxy.name))?;
        }
    }
    Ok(all)
}

fn wait_for(port: u16) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > until {
            bail!("nobody listens at {port}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn ours(minisup: &Path, dir: &Path, own: &Path) -> Result<Proxy> {
    const CONFIG: &str = r#"{"ociVersion":"1.0.2","root":{"path":"rootfs","readonly":true},
        "process":{"args":["/bench","--respond","3000"],"cwd":"/","env":["PATH=/"],
                   "user":{"uid":0,"gid":0}},
        "mounts":[{"destination":"/proc","type":"proc","source":"proc"}],
        "linux":{"namespaces":[{"type":"mount"}]}}"#;
    let bundle = dir.join("bundle");
    for sub in ["proc", "dev", "sys", "tmp"] {
        std::fs::create_dir_all(bundle.join("rootfs").join(sub))?;
    }
    std::fs::copy(own, bundle.join("rootfs/bench"))?;
    std::fs::write(bundle.join("config.json"), CONFIG)?;
    let ports = |port, kind| {
        format!("{{target: 3000, published: {port}, host_ip: 127.0.0.1, app_protocol: {kind}}}")
    };
    let file = bundle.join("compose.yaml");
    let text = format!(
        "services:\n  app:\n    image: .\n    deploy: {{replicas: 2}}\n    ports:\n      - {}\n      - {}\n",
        ports(18_110, "http"),
        ports(18_111, "tcp")
    );
    std::fs::write(&file, text)?;
    let command = || {
        let mut command = Command::new(minisup);
        command.env("MINISUP_RUN_DIR", dir.join("run")).env("MINISUP_STATE_DIR", dir.join("state"));
        command.env("MINISUP_WAY_OUT", "no").args(["--project", "bench"]);
        command
    };
    let status = command().args(["up", "-d", "--wait", "--file"]).arg(&file).status()?;
    if !status.success() {
        bail!("minisup up failed");
    }
    let mut down = command();
    down.arg("down");
    let pid = process(|words| words == ["minisup", "plane", "bench"])?;
    let (http_port, tcp_port) = (18_110, 18_111);
    Ok(Proxy {
        name: "minisup",
        http_port,
        tcp_port,
        pid,
        children: Children::default(),
        down: Some(down),
        groups: None,
    })
}

fn nginx(dir: &Path) -> Result<Proxy> {
    let stream = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
    if !stream.exists() {
        bail!("nginx has no stream module: install libnginx-mod-stream");
    }
    let servers: String = RESPONDERS.map(|port| format!("server 127.0.0.1:{port};")).concat();
    let text = format!(
        "load_module {};\nworker_processes 1;\npid {}/nginx.pid;\nerror_log stderr warn;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 1000000000;\n\
         upstream app {{ {servers} keepalive 512; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:18112; location / {{ proxy_pass http://app;\n\
         proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }} }}\n\
         stream {{ upstream app {{ {servers} }}\n\
         server {{ listen 127.0.0.1:18113; proxy_pass app; }} }}\n",
        stream.display(),
        dir.display()
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, text)?;
    let child = Command::new("nginx")
        .args(["-g", "daemon off;", "-c"])
        .arg(&file)
        .spawn()
        .context("nginx, from the package nginx-light")?;
    let master = child.id().to_string();
    let children = Children(vec![child]);
    wait_for(18_112)?;
    let pid = first_child_of(&master).context("nginx has no worker")?;
    let (http_port, tcp_port) = (18_112, 18_113);
    Ok(Proxy { name: "nginx", http_port, tcp_port, pid, children, down: None, groups: None })
}

fn haproxy(dir: &Path) -> Result<Proxy> {
    let servers: String = (1..).zip(RESPONDERS).fold(String::new(), |text, (number, port)| {
        text + &format!("  server s{number} 127.0.0.1:{port}\n")
    });
    let text = format!(
        "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  timeout connect 5s\n  timeout client 1m\n  \
         timeout server 1m\n\
         listen http\n  bind 127.0.0.1:18114\n  mode http\n  option forwardfor\n  \
         http-reuse always\n{servers}\
         listen tcp\n  bind 127.0.0.1:18115\n  mode tcp\n{servers}"
    );
    let file: PathBuf = dir.join("haproxy.cfg");
    std::fs::write(&file, text)?;
    let child = Command::new("haproxy")
        .args(["-db", "-f"])
        .arg(&file)
        .stdout(Stdio::null())
        .spawn()
        .context("haproxy, from the package of that name")?;
    let (http_port, tcp_port, pid) = (18_114, 18_115, child.id());
    Ok(Proxy {
        name: "haproxy",
        http_port,
        tcp_port,
        pid,
        children: Children(vec![child]),
        down: None,
        groups: None,
    })
}

/// The process whose command line is that.
fn process(wanted: impl Fn(&[&str]) -> bool) -> Result<u32> {
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&str> = line.split_terminator('\0').collect();
        if wanted(&words) {
            return Ok(entry.file_name().to_string_lossy().parse()?);
        }
    }
    bail!("the process of the data plane is not there")
}

/// Waits for it: nginx listens before it has a worker.
fn first_child_of(parent: &str) -> Option<u32> {
    let file = format!("/proc/{parent}/task/{parent}/children");
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        let children = std::fs::read_to_string(&file).ok()?;
        if let Some(first) = children.split_whitespace().next() {
            return first.parse().ok();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}
