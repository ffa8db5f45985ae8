/* The floor: a container by system calls alone. What its program finds is what the default
 * configuration gives it (the same namespaces, mounts, hidden paths, limit, device rules and system call
 * filter), and nothing else is done: no configuration is read, nothing is checked, no state is kept, an
 * error is a number. What a runtime takes beyond this is its own.
 *
 * floor ROOTFS PROGRAM CGROUP FILTER: CGROUP is the name of a new group below /minirun-floor, FILTER a
 * file with the instructions (struct sock_filter).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHECK(call) do { if ((call) < 0) { perror(#call); _exit(99); } } while (0)

struct args { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup; };

static const char *V1[] = {"memory", "pids", "cpu", "cpuacct", "cpuset", "devices", "freezer", "blkio", "systemd"};
static int tasks[9], task_count;
static struct sock_filter filter[4096];
static struct sock_fprog program = {0, filter};

static void put(const char *directory, const char *name, const char *value) {
    char path[4096];
    int file;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    CHECK(file = open(path, O_WRONLY | O_CLOEXEC));
    CHECK(write(file, value, strlen(value)));
    close(file);
}

/* options: "key=value" or "flag", up to NULL. */
static void detached(const char *type, unsigned attributes, const char *const *options, const char *target) {
    int fs, mount;
    CHECK(fs = syscall(SYS_fsopen, type, 1));
    for (; options && *options; options++) {
        char key[64];
        const char *value = strchr(*options, '=');
        if (!value) { CHECK(syscall(SYS_fsconfig, fs, 0, *options, NULL, 0)); continue; }
        snprintf(key, sizeof key, "%.*s", (int)(value - *options), *options);
        CHECK(syscall(SYS_fsconfig, fs, 1, key, value + 1, 0));
    }
    CHECK(syscall(SYS_fsconfig, fs, 6, NULL, NULL, 0));
    CHECK(mount = syscall(SYS_fsmount, fs, 1, attributes));
    mkdir(target, 0755);
    CHECK(syscall(SYS_move_mount, mount, "", AT_FDCWD, target, 4));
    close(mount);
    close(fs);
}

#define OPTIONS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void hide(const char *path, int directory) {
    int tree = syscall(SYS_open_tree, AT_FDCWD, directory ? "dev/shm" : "/dev/null", 1);
    if (tree >= 0) { syscall(SYS_move_mount, tree, "", AT_FDCWD, path, 4); close(tree); }
}

static void seal(const char *path) {
    struct { uint64_t set, clear, propagation, userns; } read_only = {1, 0, 0, 0};
    int tree = syscall(SYS_open_tree, AT_FDCWD, path, 1 | AT_RECURSIVE);
    if (tree < 0) return;
    CHECK(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &read_only, sizeof read_only));
    CHECK(syscall(SYS_move_mount, tree, "", AT_FDCWD, path, 4));
    close(tree);
}

/* The container's view of its groups: one mount in version 2, one for each tree in version 1. */
static void cgroup_view(int unified) {
    if (unified) { detached("cgroup2", 0xf, NULL, "sys/fs/cgroup"); return; }
    detached("tmpfs", 0xe, OPTIONS("mode=755", "size=64k"), "sys/fs/cgroup");
    for (unsigned i = 0; i < sizeof V1 / sizeof *V1; i++) {
        char target[64], name[64];
        snprintf(target, sizeof target, "sys/fs/cgroup/%s", V1[i]);
        int named = !strcmp(V1[i], "systemd");
        snprintf(name, sizeof name, "%s%s", named ? "name=" : "", V1[i]);
        detached("cgroup", 0xf, OPTIONS(named ? "none" : name, name), target);
    }
    detached("cgroup2", 0xf, NULL, "sys/fs/cgroup/unified");
}

static void inside(const char *rootfs, char *argument, int unified) {
    for (int i = 0; i < task_count; i++) CHECK(write(tasks[i], "0", 1));
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setsid();
    if (!unified) CHECK(unshare(CLONE_NEWCGROUP));
    CHECK(mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL));
    CHECK(mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL));
    CHECK(chdir(rootfs));
    detached("proc", 0xe, NULL, "proc");
    detached("tmpfs", 0x2, OPTIONS("mode=755", "size=65536k"), "dev");
    detached("devpts", 0xa, OPTIONS("ptmxmode=0666", "mode=0620", "gid=5"), "dev/pts");
    detached("tmpfs", 0xe, OPTIONS("mode=1777", "size=65536k"), "dev/shm");
    detached("mqueue", 0xe, NULL, "dev/mqueue");
    detached("sysfs", 0xf, NULL, "sys");
    cgroup_view(unified);
    const int devices[6][2] = {{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}};
    const char *names[6] = {"dev/null", "dev/zero", "dev/full", "dev/random", "dev/urandom", "dev/tty"};
    for (int i = 0; i < 6; i++) CHECK(mknod(names[i], S_IFCHR | 0666, makedev(devices[i][0], devices[i][1])));
    CHECK(symlink("/proc/self/fd", "dev/fd"));
    CHECK(symlink("/proc/self/fd/0", "dev/stdin"));
    CHECK(symlink("/proc/self/fd/1", "dev/stdout"));
    CHECK(symlink("/proc/self/fd/2", "dev/stderr"));
    CHECK(symlink("pts/ptmx", "dev/ptmx"));
    hide("proc/acpi", 1); hide("proc/interrupts", 0); hide("proc/keys", 0); hide("proc/timer_list", 0);
    hide("proc/kcore", 0); hide("sys/firmware", 1);
    seal("proc/bus"); seal("proc/fs"); seal("proc/irq"); seal("proc/sys"); seal("proc/sysrq-trigger");
    CHECK(sethostname("floor", 5));
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    CHECK(ioctl(control, SIOCSIFFLAGS, &request));
    CHECK(syscall(SYS_pivot_root, ".", "."));
    CHECK(umount2(".", MNT_DETACH));
    CHECK(chdir("/"));
    for (int cap = 9; cap <= 40; cap++) prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
    char *argv[] = {argument, NULL}, *envp[] = {"PATH=/bin", NULL};
    execve(argument, argv, envp);
    _exit(127);
}

static void read_filter(const char *path) {
    int file, length;
    CHECK(file = open(path, O_RDONLY | O_CLOEXEC));
    CHECK(length = read(file, filter, sizeof filter));
    program.len = length / sizeof *filter;
    close(file);
}

/* On version 1 only; version 2 has a program for this, which takes another few calls. */
static void device_rules(const char *group) {
    const char *allowed[] = {"b *:* m", "c *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm",
                             "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm"};
    put(group, "devices.deny", "a");
    for (unsigned i = 0; i < sizeof allowed / sizeof *allowed; i++) put(group, "devices.allow", allowed[i]);
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    char path[4096], v1[4096];
    struct statfs info;
    read_filter(argv[4]);
    int unified = statfs("/sys/fs/cgroup", &info) == 0 && info.f_type == 0x63677270;
    const char *top = unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/unified";
    snprintf(path, sizeof path, "%s/minirun-floor", top); mkdir(path, 0755);
    if (unified) { put(top, "cgroup.subtree_control", "+memory +pids"); put(path, "cgroup.subtree_control", "+memory"); }
    snprintf(path, sizeof path, "%s/minirun-floor/%s", top, argv[3]);
    CHECK(mkdir(path, 0755));
    int group = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!unified)
        for (unsigned i = 0; i < sizeof V1 / sizeof *V1; i++) {
            snprintf(v1, sizeof v1, "/sys/fs/cgroup/%s/minirun-floor", V1[i]); mkdir(v1, 0755);
            if (!strcmp(V1[i], "cpuset")) { put(v1, "cpuset.cpus", "0"); put(v1, "cpuset.mems", "0"); }
            snprintf(v1, sizeof v1, "/sys/fs/cgroup/%s/minirun-floor/%s", V1[i], argv[3]);
            CHECK(mkdir(v1, 0755));
            if (!strcmp(V1[i], "cpuset")) { put(v1, "cpuset.cpus", "0"); put(v1, "cpuset.mems", "0"); }
            strcat(v1, "/tasks");
            CHECK(tasks[task_count++] = open(v1, O_WRONLY | O_CLOEXEC));
        }
    int pidfd = -1;
    struct args args = {.flags = 0x1000 | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | (unified ? CLONE_NEWCGROUP : 0) | 0x200000000ULL,
                        .pidfd = (uint64_t)(uintptr_t)&pidfd, .exit_signal = SIGCHLD, .cgroup = group};
    long pid = syscall(SYS_clone3, &args, sizeof args);
    CHECK(pid);
    if (pid == 0) inside(argv[1], argv[2], unified);
    if (unified) {
        put(path, "memory.max", "536870912");
    } else {
        snprintf(v1, sizeof v1, "/sys/fs/cgroup/memory/minirun-floor/%s", argv[3]);
        put(v1, "memory.limit_in_bytes", "536870912");
        snprintf(v1, sizeof v1, "/sys/fs/cgroup/devices/minirun-floor/%s", argv[3]);
        device_rules(v1);
    }
    int status;
    CHECK(waitpid(pid, &status, 0));
    CHECK(rmdir(path));
    if (!unified)
        for (unsigned i = 0; i < sizeof V1 / sizeof *V1; i++) {
            snprintf(v1, sizeof v1, "/sys/fs/cgroup/%s/minirun-floor/%s", V1[i], argv[3]); rmdir(v1);
        }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
