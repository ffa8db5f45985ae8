/* The floor: a container by system calls alone. No configuration, no checks, no state, no errors but
 * a number. What a runtime takes beyond this is its own.
 *
 * floor ROOTFS PROGRAM CGROUP: CGROUP is the name of a new group below /minirun-floor.
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

static void detached(const char *type, unsigned attributes, const char *key, const char *value, const char *target) {
    int fs, mount;
    CHECK(fs = syscall(SYS_fsopen, type, 1));
    if (key) CHECK(syscall(SYS_fsconfig, fs, 1, key, value, 0));
    CHECK(syscall(SYS_fsconfig, fs, 6, NULL, NULL, 0));
    CHECK(mount = syscall(SYS_fsmount, fs, 1, attributes));
    mkdir(target, 0755);
    CHECK(syscall(SYS_move_mount, mount, "", AT_FDCWD, target, 4));
    close(mount);
    close(fs);
}

static void hide(const char *path, int directory) {
    int tree = syscall(SYS_open_tree, AT_FDCWD, directory ? "dev/shm" : "/dev/null", 1);
    if (tree >= 0) { syscall(SYS_move_mount, tree, "", AT_FDCWD, path, 4); close(tree); }
}

static void inside(const char *rootfs, char *program) {
    for (int i = 0; i < task_count; i++) CHECK(write(tasks[i], "0", 1));
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setsid();
    CHECK(mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL));
    CHECK(mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL));
    CHECK(chdir(rootfs));
    detached("proc", 0xe, NULL, NULL, "proc");
    detached("tmpfs", 0x2, "mode", "755", "dev");
    detached("devpts", 0xa, "ptmxmode", "0666", "dev/pts");
    detached("tmpfs", 0xe, "mode", "1777", "dev/shm");
    detached("mqueue", 0xe, NULL, NULL, "dev/mqueue");
    detached("sysfs", 0xf, NULL, NULL, "sys");
    struct statfs info;
    if (statfs("/sys/fs/cgroup", &info) == 0 && info.f_type == 0x63677270)
        detached("cgroup2", 0, NULL, NULL, "sys/fs/cgroup");
    const int devices[6][2] = {{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}};
    const char *names[6] = {"dev/null", "dev/zero", "dev/full", "dev/random", "dev/urandom", "dev/tty"};
    for (int i = 0; i < 6; i++) CHECK(mknod(names[i], S_IFCHR | 0666, makedev(devices[i][0], devices[i][1])));
    CHECK(symlink("/proc/self/fd", "dev/fd"));
    hide("proc/acpi", 1); hide("proc/interrupts", 0); hide("proc/keys", 0); hide("proc/timer_list", 0);
    hide("proc/kcore", 0); hide("sys/firmware", 1);
    CHECK(sethostname("floor", 5));
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    CHECK(ioctl(control, SIOCSIFFLAGS, &request));
    CHECK(syscall(SYS_pivot_root, ".", "."));
    CHECK(umount2(".", MNT_DETACH));
    CHECK(chdir("/"));
    for (int cap = 9; cap <= 40; cap++) prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    struct sock_filter allow[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog filter = {1, allow};
    CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter));
    char *argv[] = {program, NULL}, *envp[] = {"PATH=/bin", NULL};
    execve(program, argv, envp);
    _exit(127);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    char path[4096];
    struct statfs info;
    int unified = statfs("/sys/fs/cgroup", &info) == 0 && info.f_type == 0x63677270;
    const char *top = unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/unified";
    snprintf(path, sizeof path, "%s/minirun-floor", top); mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/minirun-floor/%s", top, argv[3]);
    CHECK(mkdir(path, 0755));
    int group = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!unified)
        for (unsigned i = 0; i < sizeof V1 / sizeof *V1; i++) {
            char v1[4096];
            snprintf(v1, sizeof v1, "/sys/fs/cgroup/%s/minirun-floor", V1[i]); mkdir(v1, 0755);
            if (!strcmp(V1[i], "cpuset")) continue;
            snprintf(v1, sizeof v1, "/sys/fs/cgroup/%s/minirun-floor/%s", V1[i], argv[3]);
            if (mkdir(v1, 0755)) continue;
            strcat(v1, "/tasks");
            tasks[task_count++] = open(v1, O_WRONLY | O_CLOEXEC);
        }
    int pidfd = -1;
    struct args args = {.flags = 0x1000 | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | 0x200000000ULL,
                        .pidfd = (uint64_t)(uintptr_t)&pidfd, .exit_signal = SIGCHLD, .cgroup = group};
    long pid = syscall(SYS_clone3, &args, sizeof args);
    CHECK(pid);
    if (pid == 0) inside(argv[1], argv[2]);
    int status;
    CHECK(waitpid(pid, &status, 0));
    CHECK(rmdir(path));
    if (!unified)
        for (unsigned i = 0; i < sizeof V1 / sizeof *V1; i++) {
            char v1[4096];
            snprintf(v1, sizeof v1, "/sys/fs/cgroup/%s/minirun-floor/%s", V1[i], argv[3]); rmdir(v1);
        }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
