//! A host of a test's own: its network, its `/run` and its `/var/lib` are nobody else's, so minirun
//! makes its bridges and rules there, and all of it ends with the test.

use std::path::PathBuf;

use rustix::process::Signal;

use crate::bundle::Bundle;
use crate::call::{Call, Ran, Running, wait_until};
use crate::programs;
use crate::world::World;

/// What a container serves at port 7000: the address that it sees its client under.
const WHO: &str = "#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo $REMOTE_ADDR | sed 's/[][]//g; s/^::ffff://'
";

/// The host, as long as this value lives.
pub(crate) struct Host<'a> {
    world: &'a World,
    processes: Vec<Running>,
}

impl<'a> Host<'a> {
    /// Makes it.
    pub(crate) fn new(world: &'a World) -> Self {
        // A new network takes over whether the machine forwards; this host does not yet.
        let script = "mount -t tmpfs run /run && mount -t tmpfs lib /var/lib && \
                      echo 0 >/proc/sys/net/ipv4/ip_forward && ip link set lo up && \
                      echo ready && exec sleep 100000";
        let mut host = Self { world, processes: Vec::new() };
        let holder = world.program("unshare").args(&["--net", "--mount", "sh", "-c", script]);
        host.keep(holder.spawn());
        host.processes[0].wait_for("ready");
        host
    }

    fn keep(&mut self, process: Running) {
        self.processes.push(process);
    }

    /// The directory under which its files are to be seen from here.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        format!("/proc/{}/root{path}", self.processes[0].pid().as_raw_nonzero()).into()
    }

    /// The process that holds it.
    pub(crate) fn pid(&self) -> i32 {
        self.processes[0].pid().as_raw_nonzero().get()
    }

    /// A program on this host.
    pub(crate) fn call(&self, program: &str, arguments: &[&str]) -> Call {
        let pid = self.processes[0].pid().as_raw_nonzero().to_string();
        let within = ["-t", &pid, "--net", "--mount", program];
        self.world.program("nsenter").args(&within).args(arguments)
    }

    /// minirun on this host.
    pub(crate) fn minirun(&self, arguments: &[&str]) -> Call {
        let (minirun, root) = (programs::minirun(), self.world.root());
        self.call(minirun.to_str().expect("UTF-8"), &["--root", root.to_str().expect("UTF-8")])
            .args(arguments)
    }

    /// A program of busybox on this host; whether it succeeded, and what it printed.
    pub(crate) fn busybox(&self, arguments: &[&str]) -> (bool, String) {
        let busybox = programs::busybox();
        let ran = self.call(busybox.to_str().expect("UTF-8"), arguments).run();
        (ran.status == 0, ran.output)
    }

    /// A bundle that serves.
    pub(crate) fn serving(&self, name: &str) -> Bundle {
        let server = ["/bin/busybox", "httpd", "-f", "-p", "7000", "-h", "/www"];
        self.world.bundle(name).file("www/cgi-bin/who", WHO, 0o755).args(&server)
    }

    /// Runs a container that serves, with these options; it answers when this returns.
    pub(crate) fn serve(&self, name: &str, options: &[&str]) {
        let bundle = self.serving(name);
        let ran = self.minirun(&["run", "-d"]).args(options).args(&[bundle.path()]).run();
        assert_eq!(ran.status, 0, "{ran:?}");
        let up = || self.asks(name, "127.0.0.1:7000").is_some();
        assert!(wait_until(up), "{name} does not serve");
    }

    /// What the server at `at` says to a process in that container; `None` when it is not reached.
    pub(crate) fn asks(&self, container: &str, at: &str) -> Option<String> {
        let url = format!("http://{at}/cgi-bin/who");
        let ran = self.minirun(&["exec", container, "wget", "-q", "-O", "-", &url]).run();
        (ran.status == 0).then(|| ran.output.trim().to_owned())
    }

    /// The addresses of a container in a network: of both families when it has both.
    pub(crate) fn addresses(&self, network: &str, container: &str) -> (String, String) {
        let seen = self.minirun(&["network", "inspect", network]).run().ok().json();
        let all = seen["containers"].as_array().expect("containers");
        let one = all.iter().find(|one| one["container"] == container).expect("the container");
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        (text("ipv4"), text("ipv6"))
    }

    /// A machine outside: 192.0.2.2, behind a cable to this host, 192.0.2.1. It serves at port
    /// 7000, and knows no way to any container. Gives its process.
    pub(crate) fn outside(&mut self) -> i32 {
        let www = self.world.path("outside");
        std::fs::create_dir_all(www.join("cgi-bin")).expect("make a directory");
        let who = www.join("cgi-bin/who");
        std::fs::write(&who, WHO).expect("write a program");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&who, mode).expect("let it be run");
        let script = format!(
            "ip link set lo up && echo ready && exec {} httpd -f -p 7000 -h {}",
            programs::busybox().display(),
            www.display()
        );
        let machine = self.world.program("unshare").args(&["--net", "sh", "-c", &script]).spawn();
        machine.wait_for("ready");
        let pid = machine.pid().as_raw_nonzero().get();
        self.keep(machine);
        let number = pid.to_string();
        let here = [
            "link add uplink type veth peer name eth0 netns PID",
            "addr add 192.0.2.1/24 dev uplink",
            "link set uplink up",
        ];
        for words in here {
            let words = words.replace("PID", &number);
            self.call("ip", &words.split(' ').collect::<Vec<_>>()).run().ok();
        }
        for words in ["addr add 192.0.2.2/24 dev eth0", "link set eth0 up"] {
            let there = self.world.program("nsenter").args(&["-t", &number, "--net", "ip"]);
            there.args(&words.split(' ').collect::<Vec<_>>()).run().ok();
        }
        pid
    }

    /// Has this host serve as the machine outside does, at port 7000.
    pub(crate) fn serves_itself(&mut self) {
        let (busybox, www) = (programs::busybox(), self.world.path("outside"));
        let server = ["httpd", "-f", "-p", "7000", "-h", www.to_str().expect("UTF-8")];
        let server = self.call(busybox.to_str().expect("UTF-8"), &server).spawn();
        self.keep(server);
        let asks = ["wget", "-q", "-O", "-", "http://127.0.0.1:7000/cgi-bin/who"];
        assert!(wait_until(|| self.busybox(&asks).0), "this host does not serve");
    }

    /// The processes of that name whose network is this host's.
    pub(crate) fn processes_named(&self, name: &str) -> Vec<i32> {
        self.processes(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
            // pasta executes the variant of itself that is made for this processor.
            let program = String::from_utf8_lossy(program);
            let program = program.split([' ', '.']).next().unwrap_or_default();
            program.rsplit('/').next() == Some(name)
        })
    }

    /// minirun's processes on this host: its own, and those that serve published ports.
    pub(crate) fn processes_of_minirun(&self) -> Vec<i32> {
        self.processes(|pid| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.starts_with("minirun") || name.trim() == "nft"
        })
    }

    /// The processes on this host that make a container's network bad.
    pub(crate) fn relays(&self) -> Vec<i32> {
        self.processes(|pid| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim() == "minirun-faults"
        })
    }

    /// The names of the interfaces that begin so.
    pub(crate) fn interfaces(&self, start: &str) -> Vec<String> {
        let links = self.words("ip", &["-o", "link"]);
        let names = links.lines().filter_map(|line| line.split(": ").nth(1));
        let names = names.filter_map(|name| name.split('@').next());
        names.filter(|name| name.starts_with(start)).map(str::to_owned).collect()
    }

    /// What a program prints.
    fn words(&self, program: &str, arguments: &[&str]) -> String {
        let asked = || self.call(program, arguments).run();
        // What changes while the kernel lists it is asked for again.
        let again = |ran: &Ran| ran.errors.contains("Dump was interrupted");
        std::iter::repeat_with(asked).find(|ran| !again(ran)).expect("a list").ok().output
    }

    fn processes(&self, is_it: impl Fn(i32) -> bool) -> Vec<i32> {
        let network = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let here = network(self.processes[0].pid().as_raw_nonzero().get());
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| network(*pid) == here && is_it(*pid)).collect()
    }

    /// Whatever minirun has made on this host and not removed.
    pub(crate) fn traces(&self) -> Vec<String> {
        let mut found = Vec::new();
        for start in ["mr", "mi", "mt"] {
            found.extend(self.interfaces(start).into_iter().map(|name| format!("link {name}")));
        }
        let tables = self.words("nft", &["list", "tables"]);
        found.extend(tables.lines().filter(|line| line.contains("minirun")).map(String::from));
        let rules = self.words("ip", &["rule"]);
        found.extend(rules.lines().filter(|line| line.contains("17700")).map(String::from));
        for directory in ["leases", "traffic"] {
            let path = self.path("/run/minirun/network").join(directory);
            found.extend(files_below(&path).into_iter().filter(|name| name != "hand"));
        }
        found.extend(files_below(&self.path("/var/lib/minirun/networks")));
        found
    }
}

fn files_below(directory: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => found.extend(files_below(&entry.path())),
            false => found.push(entry.file_name().to_string_lossy().into_owned()),
        }
    }
    found
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        for process in self.processes.drain(..) {
            process.signal(Signal::KILL);
            process.wait();
        }
    }
}
