//! Real clients: Docker, Podman and containerd drive `runc`, `crun` and minirun through the same
//! operations. minirun must do everything that either of the others does.
//!
//! What a client is asked to do is a line of shell; what is right is what it then prints. The
//! engines run in a guest (`cargo vm run --profile docker`), where nothing else uses them.

use std::sync::Mutex;

use crate::needs::Need;
use crate::world::World;
use crate::{Test, programs, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("docker", docker).needs(Need::Systemd).needs(Need::Program("dockerd")),
        test("docker_swarm", docker_swarm).needs(Need::Systemd).needs(Need::Program("dockerd")),
        test("podman", podman).needs(Need::Systemd).needs(Need::Program("podman")),
        test("containerd", containerd).needs(Need::Systemd).needs(Need::Program("ctr")),
    ]
}

/// An operation: its name, the shell lines, what they print.
type Operation = (&'static str, &'static str, &'static str);

/// The operations that Docker and Podman spell alike; `$E` is the engine, `$R` the way to choose
/// the runtime, `$N` a name for this container.
const BOTH: &[Operation] = &[
    ("attached", "$E run --rm $R box echo hello", "hello"),
    ("stderr", "$E run --rm $R box sh -c 'echo oops >&2' 2>&1", "oops"),
    ("input", "echo typed | $E run --rm -i $R box cat", "typed"),
    ("status", "$E run --rm $R box sh -c 'exit 7'; echo $?", "7"),
    ("not found", "$E run --rm $R box /nowhere 2>/dev/null; echo $?", "127"),
    ("not a program", "$E run --rm $R box /etc 2>/dev/null; echo $?", "126"),
    ("not executable", "$E run --rm $R box /etc/passwd 2>/dev/null; echo $?", "126"),
    ("killed by itself", "$E run --rm $R box sh -c 'kill -9 $$'; echo $?", "137"),
    ("terminal", "script -qc \"$E run --rm -t $R box tty\" /dev/null | tr -d '\\r'", "/dev/pts/0"),
    (
        "detached, logs, wait",
        "$E run -d --name $N $R box sh -c 'echo one; echo two; exit 3' >/dev/null; $E wait $N; \
         $E logs $N",
        "3\none\ntwo",
    ),
    (
        "exec",
        "$E run -d --name $N $R box sleep 1000 >/dev/null; $E exec $N echo inside; \
         $E exec $N sh -c 'exit 9'; echo $?; $E exec $N nowhere >/dev/null 2>&1; echo $?; \
         $E exec -u 1000 $N id -u; $E exec -w /tmp -e A=b $N sh -c 'pwd; echo $A'; \
         echo through | $E exec -i $N cat; \
         script -qc \"$E exec -t $N tty\" /dev/null | tr -d '\\r'",
        "inside\n9\n127\n1000\n/tmp\nb\nthrough\n/dev/pts/0",
    ),
    (
        "stop",
        "$E run -d --name $N $R box sh -c 'trap \"exit 5\" TERM; while :; do sleep 0.1; done' \
         >/dev/null; sleep 1; $E stop -t 20 $N >/dev/null; $E inspect -f '{{.State.ExitCode}}' $N",
        "5",
    ),
    (
        "kill",
        "$E run -d --name $N $R box sleep 1000 >/dev/null; $E kill $N >/dev/null; $E wait $N",
        "137",
    ),
    (
        "signal",
        "$E run -d --name $N $R box sh -c 'trap \"exit 4\" USR1; while :; do sleep 0.1; done' \
         >/dev/null; sleep 1; $E kill -s USR1 $N >/dev/null; $E wait $N",
        "4",
    ),
    (
        "pause",
        "$E run -d --name $N $R box sleep 1000 >/dev/null; $E pause $N >/dev/null; \
         $E inspect -f '{{.State.Status}}' $N; $E unpause $N >/dev/null; \
         $E inspect -f '{{.State.Status}}' $N",
        "paused\nrunning",
    ),
    (
        "restart",
        "$E run -d --name $N $R box sleep 1000 >/dev/null; $E restart -t 0 $N >/dev/null; \
         $E exec $N echo again",
        "again",
    ),
    (
        "top and stats",
        "$E run -d --name $N $R box sleep 1234 >/dev/null; $E top $N | grep -c 'sleep 1234'; \
         $E stats --no-stream $N | grep -c $N",
        "1\n1",
    ),
    (
        "limits",
        "$E run --rm $R -m 64m --memory-swap 64m --cpus 0.5 --pids-limit 50 box sh -c \
         'cd /sys/fs/cgroup; cat memory.max memory.swap.max cpu.max pids.max'",
        "67108864\n0\n50000 100000\n50",
    ),
    (
        "update",
        "$E run -d --name $N $R -m 64m box sleep 1000 >/dev/null; \
         $E update -m 96m --memory-swap 96m $N >/dev/null; \
         $E exec $N cat /sys/fs/cgroup/memory.max",
        "100663296",
    ),
    (
        "out of memory",
        "$E run --name $N $R -m 16m --memory-swap 16m box dd if=/dev/zero of=/dev/null bs=64M \
         count=4 2>/dev/null; echo $?; $E inspect -f '{{.State.OOMKilled}}' $N",
        "137\ntrue",
    ),
    (
        "read-only",
        "$E run --rm $R --read-only --tmpfs /t box sh -c \
         'touch /x 2>/dev/null || echo refused; touch /t/x && echo made'",
        "refused\nmade",
    ),
    (
        "capabilities",
        "$E run --rm $R --cap-drop ALL --cap-add NET_ADMIN box sh -c \
         'grep -e CapEff -e CapBnd /proc/self/status | cut -f2'",
        "0000000000001000\n0000000000001000",
    ),
    (
        "user",
        "$E run --rm $R -u 1000:5 --group-add 7 box sh -c 'id -u; id -g; id -G'",
        "1000\n5\n5 7",
    ),
    ("environment", "$E run --rm $R -e A=b box sh -c 'echo $A $HOME'", "b /root"),
    ("working directory", "$E run --rm $R -w /made/here box pwd", "/made/here"),
    ("name of the host", "$E run --rm $R --hostname blue box hostname", "blue"),
    (
        "volume",
        "mkdir -p /tmp/v; echo data >/tmp/v/file; \
         $E run --rm $R -v /tmp/v:/v:ro box sh -c 'cat /v/file; touch /v/x 2>/dev/null || echo ro'",
        "data\nro",
    ),
    (
        "device",
        "$E run --rm $R --device /dev/fuse box sh -c 'test -c /dev/fuse && echo yes'",
        "yes",
    ),
    (
        "ulimit",
        "$E run --rm $R --ulimit nofile=100:200 box sh -c 'ulimit -n; ulimit -Hn'",
        "100\n200",
    ),
    (
        "parameter",
        "$E run --rm $R --sysctl net.ipv4.ip_forward=1 box cat /proc/sys/net/ipv4/ip_forward",
        "1",
    ),
    ("init", "$E run --rm $R --init box sh -c 'cut -d\" \" -f1 /proc/self/stat | wc -l'", "1"),
    (
        "unconfined",
        "$E run --rm $R --privileged box sh -c 'mount -t tmpfs t /tmp && echo mounted'",
        "mounted",
    ),
    (
        "confined",
        "$E run --rm $R box sh -c 'grep Seccomp: /proc/self/status | cut -f2; \
         unshare -U true 2>/dev/null || echo refused'",
        "2\nrefused",
    ),
    (
        "profile of one's own",
        "echo '{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"mkdir\",\"mkdirat\"],\
         \"action\":\"SCMP_ACT_ERRNO\"}]}' >/tmp/profile.json; \
         $E run --rm $R --security-opt seccomp=/tmp/profile.json box sh -c \
         'mkdir /tmp/x 2>/dev/null || echo refused'",
        "refused",
    ),
    (
        "process namespace of another",
        "$E run -d --name $N $R box sleep 4321 >/dev/null; \
         $E run --rm $R --pid container:$N box sh -c 'ps | grep -c \"[s]leep 4321\"'",
        "1",
    ),
    ("host's names", "$E run --rm $R --net host --uts host --ipc host box hostname", "vm"),
    (
        "published port",
        "$E run -d --name $N $R -p 127.0.0.1:8099:80 box sh -c \
         'while :; do echo answer | nc -l -p 80; done' >/dev/null; sleep 2; \
         busybox nc -w 5 127.0.0.1 8099 </dev/null",
        "answer",
    ),
    (
        "restart policy",
        "$E run -d --name $N $R --restart on-failure:2 box sh -c 'exit 1' >/dev/null; sleep 8; \
         $E inspect -f '{{.RestartCount}}' $N",
        "2",
    ),
    (
        "health",
        "$E run -d --name $N $R --health-cmd 'test -e /tmp/well' --health-interval 1s box sh -c \
         'touch /tmp/well; sleep 1000' >/dev/null; sleep 6; $E inspect -f '{{.State.Health.Status}}' $N",
        "healthy",
    ),
];

const CONTAINERD: &[Operation] = &[
    ("attached", "ctr run --rm $R docker.io/library/box:latest $N echo hello", "hello"),
    ("status", "ctr run --rm $R docker.io/library/box:latest $N sh -c 'exit 7'; echo $?", "7"),
    (
        "exec",
        "ctr run -d $R docker.io/library/box:latest $N sleep 1000; \
         ctr task exec --exec-id e $N echo inside; ctr task pause $N; ctr task ls | grep $N | \
         awk '{print $3}'; ctr task resume $N; ctr task kill -s KILL $N; sleep 2; \
         ctr task delete $N >/dev/null 2>&1; ctr container delete $N",
        "inside\nPAUSED",
    ),
    (
        "systemd's cgroup",
        "ctr run --rm $R --runc-systemd-cgroup --cgroup system.slice:ctr:$N \
         docker.io/library/box:latest $N echo hello",
        "hello",
    ),
];

/// Runs every operation with every runtime; the rows in which minirun is behind are the failure.
fn compare(world: &World, setup: &str, operations: &[Operation], choose: impl Fn(&str) -> String) {
    let script = format!("set -e; {setup}");
    world.program("/bin/sh").args(&["-c", &script]).run().exits(0);
    // What minirun does right needs no comparison, unless somebody wants the whole table.
    let all = std::env::var_os("MINIRUN_TESTS_ALL").is_some();
    let mut behind = Vec::new();
    let mut table = String::new();
    for (index, (name, lines, expected)) in operations.iter().enumerate() {
        let run = |runtime: &str| {
            let container = format!("n{index}{runtime}");
            let ran = world
                .program("/bin/sh")
                .args(&["-c", lines])
                .env("R", choose(runtime))
                .env("N", &container)
                .env("RUNTIME", runtime)
                .env("E", world.path("engine").as_os_str())
                .run();
            let cleanup = "\"$E\" rm -f \"$N\" >/dev/null 2>&1 || true";
            world
                .program("/bin/sh")
                .args(&["-c", cleanup])
                .env("N", &container)
                .env("E", world.path("engine").as_os_str())
                .run();
            (ran.output.trim() == *expected, ran)
        };
        let ours = run("minirun");
        if ours.0 && !all {
            continue;
        }
        let [runc, crun] = ["runc", "crun"].map(run);
        let mark = |good: bool| if good { "yes" } else { "no" };
        table += &format!("{name}: minirun {}, ", mark(ours.0));
        table += &format!("runc {}, crun {}\n", mark(runc.0), mark(crun.0));
        if !ours.0 && (runc.0 || crun.0) {
            behind.push(format!("{name}: {:?} {:?}", ours.1.output, ours.1.errors));
        }
    }
    println!("{table}");
    assert!(behind.is_empty(), "{table}\n{}", behind.join("\n"));
}

/// An image with busybox, as a tar archive, and a program `engine` that is the engine's client.
fn image(world: &World, engine: &str) -> String {
    let dir = world.path("image");
    let bin = dir.join("bin");
    std::fs::create_dir_all(&bin).expect("make a directory");
    crate::world::fill(&bin);
    for name in ["etc", "tmp", "root", "proc", "sys", "dev"] {
        std::fs::create_dir(dir.join(name)).expect("make a directory");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n";
    std::fs::write(dir.join("etc/passwd"), passwd).expect("write a file");
    std::fs::write(dir.join("etc/group"), "root:x:0:\nuser:x:1000:\n").expect("write a file");
    let client = world.path("engine");
    std::fs::write(&client, format!("#!/bin/sh\nexec {engine} \"$@\"\n")).expect("write a file");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&client, std::fs::Permissions::from_mode(0o755)).expect("set mode");
    dir.to_str().expect("UTF-8").to_owned()
}

/// One test at a time: they share the daemons of the machine.
static DAEMONS: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    DAEMONS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Docker with the three runtimes; `default` is the one that nobody has to name.
fn start_docker(default: &str) -> String {
    let minirun = programs::minirun();
    let config = format!(
        "{{\"runtimes\": {{\"minirun\": {{\"path\": \"{}\"}}, \"crun\": {{\"path\": \
         \"/usr/bin/crun\"}}}}, \"default-runtime\": \"{default}\"}}",
        minirun.display()
    );
    std::fs::create_dir_all("/etc/docker").expect("make a directory");
    std::fs::write("/etc/docker/daemon.json", config).expect("configure Docker");
    "systemctl reset-failed docker 2>/dev/null || true; systemctl restart docker; ".to_owned()
}

fn docker(world: &World) {
    let _alone = alone();
    let image = image(world, "docker");
    let setup = start_docker("runc") + &format!("tar -C {image} -c . | docker import - box");
    compare(world, &setup, BOTH, |runtime| format!("--runtime={runtime}"));
    stop(world, "docker docker.socket containerd");
}

fn podman(world: &World) {
    let _alone = alone();
    let image = image(world, "podman");
    let minirun = programs::minirun();
    let config = format!(
        "[engine]\nruntime_supports_json = [\"crun\", \"runc\", \"minirun\"]\n\
         runtime_supports_nocgroups = [\"crun\", \"minirun\"]\n\
         [engine.runtimes]\nminirun = [\"{}\"]\n",
        minirun.display()
    );
    std::fs::create_dir_all("/etc/containers").expect("make a directory");
    std::fs::write("/etc/containers/containers.conf", config).expect("configure Podman");
    let setup = format!("tar -C {image} -c . | podman import - box");
    // Podman takes the runtime before the verb.
    let client = "#!/bin/sh\nexec podman ${RUNTIME:+--runtime=$RUNTIME} \"$@\"\n";
    std::fs::write(world.path("engine"), client).expect("write a file");
    compare(world, &setup, BOTH, |_| String::new());
}

fn containerd(world: &World) {
    let _alone = alone();
    let image = image(world, "true");
    let setup = start_docker("runc")
        + &format!(
            "tar -C {image} -c . | docker import - box:latest; docker save box:latest -o \
             /tmp/box.tar; ctr image import /tmp/box.tar >/dev/null"
        );
    compare(world, &setup, CONTAINERD, |runtime| {
        let program = match runtime {
            "minirun" => programs::minirun(),
            other => programs::find(other).expect("it is installed"),
        };
        format!("--runc-binary {}", program.display())
    });
    stop(world, "docker docker.socket containerd");
}

/// Swarm with minirun as the default runtime: three replicas, and a new one for one that dies.
fn docker_swarm(world: &World) {
    let _alone = alone();
    let image = image(world, "docker");
    let setup = start_docker("minirun") + &format!("tar -C {image} -c . | docker import - box");
    let script = "
        docker swarm init --advertise-addr 127.0.0.1 >/dev/null
        docker service create -d --name web --replicas 3 --restart-delay 1s box sleep 1000 \
            >/dev/null
        running() { docker ps -q --filter name=web | wc -l; }
        wait_for() { i=0; while test $(running) != $1; do i=$((i + 1)); test $i -lt 120 || exit 1; sleep 1; done; }
        wait_for 3
        first=$(docker ps -q --filter name=web | head -1)
        docker inspect -f '{{.HostConfig.Runtime}}' $first
        docker kill $first >/dev/null
        i=0; while docker ps -q --filter name=web | grep -q $first; do i=$((i + 1)); test $i -lt 60 || exit 1; sleep 1; done
        wait_for 3
        echo healed
        docker service scale -d web=1 >/dev/null
        wait_for 1
        docker service rm web >/dev/null
        docker swarm leave --force >/dev/null
    ";
    let script = format!("set -e; {setup} >/dev/null; {script}");
    world.program("/bin/sh").args(&["-c", &script]).run().exits(0).prints("minirun\nhealed\n");
    stop(world, "docker docker.socket containerd");
}

fn stop(world: &World, units: &str) {
    let script = format!("systemctl stop {units}; rm -f /etc/docker/daemon.json");
    world.program("/bin/sh").args(&["-c", &script]).run();
}
