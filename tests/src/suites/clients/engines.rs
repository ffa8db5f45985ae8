//! The engines: how each is told about minirun, and how each gets the image.

use std::path::PathBuf;

use super::daemons::{self, Daemon};
use crate::programs;
use crate::world::World;

/// What containerd calls the image that Docker made.
pub(super) const IMAGE_OF_CONTAINERD: &str = "docker.io/library/box:latest";

const DOCKER_CONFIG: &str = "/etc/docker/daemon.json";

/// Runs shell lines that must succeed.
pub(super) fn shell(world: &World, lines: &str) -> String {
    let script = format!("set -e; {lines}");
    world.program("/bin/sh").args(&["-c", &script]).run().exits(0).output
}

/// An image with busybox under all its names, as a tar archive.
fn archive(world: &World) -> PathBuf {
    let archive = world.path("image.tar");
    let lines = format!(
        "mkdir image; cd image; mkdir bin etc tmp root proc sys dev
         for name in $({busybox} --list); do ln -s busybox bin/$name 2>/dev/null || true; done
         rm -f bin/busybox; cp {busybox} bin/busybox
         printf 'root:x:0:0:root:/root:/bin/sh\\nuser:x:1000:1000::/:/bin/sh\\n' >etc/passwd
         printf 'root:x:0:\\nuser:x:1000:\\n' >etc/group
         chmod 1777 tmp; tar -c --owner 0 --group 0 -f {archive} .",
        busybox = programs::busybox().display(),
        archive = archive.display(),
    );
    shell(world, &lines);
    archive
}

/// Docker, running; stopped again when this is dropped.
pub(super) struct Docker {
    /// Stopped in this order.
    _daemons: [Daemon; 2],
}

/// Starts Docker with minirun and crun as further runtimes, and `setting` in its configuration.
pub(super) fn docker(world: &World, setting: &str) -> Docker {
    let config = format!(
        "{{\"runtimes\": {{\"minirun\": {{\"path\": \"{}\"}}, \
         \"crun\": {{\"path\": \"/usr/bin/crun\"}}}}, {setting}}}",
        programs::minirun().display()
    );
    std::fs::create_dir_all("/etc/docker").expect("make a directory");
    std::fs::write(DOCKER_CONFIG, config).expect("configure Docker");
    let containerd = Daemon::start(world, "containerd", &["containerd"], "ctr version");
    let socket = "--containerd=/run/containerd/containerd.sock";
    let docker = Daemon::start(world, "docker", &["dockerd", socket], "docker version");
    shell(world, &format!("docker import {} box", archive(world).display()));
    Docker { _daemons: [docker, containerd] }
}

impl Drop for Docker {
    fn drop(&mut self) {
        drop(std::fs::remove_file(DOCKER_CONFIG));
    }
}

/// Gives containerd the image that Docker has.
pub(super) fn image_for_containerd(world: &World) {
    shell(world, "docker save box:latest -o box.tar; ctr image import box.tar; rm box.tar");
}

/// containerd with a handler of its CRI for each runtime; as before when this is dropped.
pub(super) struct Containerd {
    /// What the images are made with.
    _docker: Docker,
    /// Its own configuration.
    before: String,
}

const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";

/// Configures it, and gives it the image under its own name and as that of a pod's first process.
pub(super) fn containerd_with_cri(world: &World) -> Containerd {
    let before = std::fs::read_to_string(CONTAINERD_CONFIG).unwrap_or_default();
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    let mut config =
        format!("version = 2\n[{cri}]\nsandbox_image = \"docker.io/library/pause:latest\"\n");
    let found = |name| programs::find(name).expect("it is installed");
    for (name, program) in
        [("runc", found("runc")), ("crun", found("crun")), ("minirun", programs::minirun())]
    {
        let handler = format!("{cri}.containerd.runtimes.{name}");
        config.push_str(&format!(
            "[{handler}]\nruntime_type = \"io.containerd.runc.v2\"\n[{handler}.options]\n\
             BinaryName = \"{}\"\n",
            program.display()
        ));
    }
    std::fs::create_dir_all("/etc/containerd").expect("make a directory");
    std::fs::write(CONTAINERD_CONFIG, config).expect("configure containerd");
    let docker = docker(world, "\"default-runtime\": \"runc\"");
    // runc and crun find no program without a PATH, which images usually bring.
    let says = "-c 'ENV PATH=/bin' -c 'CMD [\"sleep\",\"1000000\"]'";
    let archive = world.path("image.tar");
    let import = format!("docker import {says} {} pause; docker tag pause box", archive.display());
    shell(world, &import);
    let lines = "docker save box:latest pause:latest -o cri.tar
        ctr -n k8s.io image import cri.tar; rm cri.tar";
    shell(world, lines);
    Containerd { _docker: docker, before }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        drop(std::fs::write(CONTAINERD_CONFIG, &self.before));
        drop(std::fs::remove_dir_all("/run/cri-logs"));
    }
}

/// Tells Podman about minirun, as docs/operating/engines/podman.md says, and gives it the image.
pub(super) fn podman(world: &World) {
    // Without systemd nobody makes slices, and there is no journal for events.
    let here = match daemons::has_systemd() {
        true => "",
        false => "cgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n",
    };
    let config = format!(
        "[network]\nnetwork_backend = \"netavark\"\n[engine]\n{here}\
         runtime_supports_json = [\"crun\", \"runc\", \"minirun\"]\n\
         runtime_supports_nocgroup = [\"crun\", \"minirun\"]\n\
         [engine.runtimes]\nminirun = [\"{}\"]\n",
        programs::minirun().display()
    );
    std::fs::create_dir_all("/etc/containers").expect("make a directory");
    std::fs::write("/etc/containers/containers.conf", config).expect("configure Podman");
    shell(world, &format!("podman import {} box 2>&1", archive(world).display()));
}
