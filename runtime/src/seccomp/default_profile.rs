//! The profile that a container gets when nobody gives it one.
//!
//! An allow-list: what ordinary programs need, and what a container's namespaces, user and
//! capabilities already make safe. The rest fails with EPERM, and what is newer than this list with
//! ENOSYS. It allows what the default profiles of Docker and containerd allow (so that their images
//! run here), from tables of our own; where it differs, the group says so.
//!
//! What is absent, and why:
//!
//! * **Calls that act on the whole machine**: kexec, swap, quotas, kernel modules, clocks, power,
//!   the kernel's log. Some come back with the capability that guards them ([`WITH_CAPABILITY`]).
//! * **Mounts and namespaces**: they need CAP_SYS_ADMIN, which a new user namespace hands out for
//!   free, together with many kernel paths that were never meant for strangers.
//! * **Keyrings** (`add_key`, `request_key`, `keyctl`): keys of a user are shared by all containers
//!   that have the same user.
//! * **io_uring**: its requests do not pass any filter, and it has been a steady source of holes.
//! * **userfaultfd, perf_event_open, bpf**: they make other bugs of the kernel exploitable.
//! * **AF_ALG and AF_VSOCK sockets**: the kernel's cryptography is reached by hardly anybody but
//!   exploits (CVE-2026-31431), and vsock goes past the network namespace to the hypervisor. 32-bit
//!   programs reach them by `socketcall`, whose arguments no filter sees: leave SCMP_ARCH_X86 out
//!   where that matters.
//! * **What nobody calls any more**: uselib, sysfs, ustat, nfsservctl, vm86 …

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

use super::Architecture;

/// What every container may call.
const ALWAYS: &[&str] = &[
    // Open files: all data moves through a descriptor that the caller has the right to hold.
    "open openat openat2 creat close close_range read readv pread64 preadv preadv2 write writev \
     pwrite64 pwritev pwritev2 lseek _llseek dup dup2 dup3 fcntl fcntl64 ioctl flock pipe pipe2 \
     splice tee vmsplice sendfile sendfile64 copy_file_range readahead fadvise64 fadvise64_64 \
     arm_fadvise64_64 fallocate truncate truncate64 ftruncate ftruncate64 sync fsync fdatasync \
     syncfs sync_file_range arm_sync_file_range cachestat memfd_create \
     memfd_secret",
    // Names and metadata: guarded by permissions and the container's own root. mknod is here
    // because it also makes FIFOs; devices are refused by the capability and the device filter.
    "access faccessat faccessat2 stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat \
     statx statfs statfs64 fstatfs fstatfs64 statmount listmount readlink readlinkat getdents \
     getdents64 getcwd chdir fchdir mkdir mkdirat rmdir link linkat symlink symlinkat unlink \
     unlinkat rename renameat renameat2 mknod mknodat chmod fchmod fchmodat fchmodat2 chown \
     chown32 fchown fchown32 fchownat lchown lchown32 umask utime utimes futimesat utimensat \
     utimensat_time64 name_to_handle_at file_getattr file_setattr",
    "getxattr getxattrat lgetxattr fgetxattr setxattr setxattrat lsetxattr fsetxattr listxattr \
     listxattrat llistxattr flistxattr removexattr removexattrat lremovexattr fremovexattr",
    // Waiting for events. (fanotify_mark alone is harmless: fanotify_init has its capability.)
    "poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create \
     epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 \
     eventfd eventfd2 signalfd signalfd4 inotify_init inotify_init1 inotify_add_watch \
     inotify_rm_watch fanotify_mark",
    // The older asynchronous I/O: unlike io_uring it only reads and writes open files.
    "io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64",
    // Memory of the caller itself.
    "brk mmap mmap2 munmap mremap mprotect pkey_alloc pkey_free pkey_mprotect madvise mincore \
     mlock mlock2 mlockall munlock munlockall msync mseal map_shadow_stack remap_file_pages \
     membarrier",
    // Processes of the same PID namespace. clone has a rule of its own below.
    "fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid getppid gettid getpgid \
     getpgrp setpgid getsid setsid pidfd_open pidfd_send_signal process_mrelease restart_syscall",
    // Users, groups, capabilities: the kernel checks each change against what the caller has.
    "getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 \
     getresgid getresgid32 getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid \
     setreuid32 setregid setregid32 setresuid setresuid32 setresgid setresgid32 setfsuid \
     setfsuid32 setfsgid setfsgid32 setgroups setgroups32 capget capset prctl",
    // Locking itself up further.
    "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    "kill tkill tgkill sigaltstack sigprocmask sigreturn rt_sigaction rt_sigprocmask rt_sigreturn \
     rt_sigpending rt_sigqueueinfo rt_tgsigqueueinfo rt_sigsuspend rt_sigtimedwait \
     rt_sigtimedwait_time64 pause alarm",
    // Reading clocks, sleeping, timers. Adjusting a clock needs a capability that is checked there.
    "time times gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 \
     clock_nanosleep clock_nanosleep_time64 nanosleep getitimer setitimer timer_create \
     timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 \
     timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 adjtimex \
     clock_adjtime clock_adjtime64",
    // Threads and locks.
    "futex futex_time64 futex_wait futex_waitv futex_wake futex_requeue set_robust_list \
     get_robust_list set_tid_address rseq",
    "sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam \
     sched_getscheduler sched_setscheduler sched_getattr sched_setattr sched_get_priority_max \
     sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64 getpriority \
     setpriority ioprio_get ioprio_set getcpu",
    // The network namespace's own world. socket has a rule of its own below.
    "socketpair bind listen accept accept4 connect getsockname getpeername getsockopt setsockopt \
     shutdown send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64 \
     socketcall",
    // The IPC namespace's own world.
    "ipc semget semop semctl semtimedop semtimedop_time64 msgget msgsnd msgrcv msgctl shmget shmat \
     shmdt shmctl mq_open mq_unlink mq_notify mq_getsetattr mq_timedsend mq_timedsend_time64 \
     mq_timedreceive mq_timedreceive_time64",
    "uname sysinfo getrandom getrusage getrlimit ugetrlimit setrlimit prlimit64",
    // Debuggers within the container. Safe since Linux 4.8: a tracer cannot step past a filter.
    "ptrace process_vm_readv process_vm_writev",
    // What the processor's own ABI needs.
    "arch_prctl modify_ldt get_thread_area set_thread_area set_tls breakpoint cacheflush uretprobe \
     uprobe",
];

const SYS_ADMIN: &str = "CAP_SYS_ADMIN";

/// What a capability brings back: the kernel asks for that capability anyway, and a container has
/// it only because somebody gave it.
const WITH_CAPABILITY: &[(&str, &str)] = &[
    (
        SYS_ADMIN,
        "mount mount_setattr umount umount2 move_mount open_tree open_tree_attr fsopen fsconfig \
         fsmount fspick pivot_root setns unshare clone clone3 sethostname setdomainname quotactl \
         quotactl_fd bpf perf_event_open fanotify_init lookup_dcookie syslog lsm_get_self_attr \
         lsm_set_self_attr lsm_list_modules",
    ),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_SYS_NICE", "get_mempolicy set_mempolicy set_mempolicy_home_node mbind"),
    ("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_MODULE", "init_module finit_module delete_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
];

/// All namespaces that clone(2) can make: mount, cgroup, UTS, IPC, user, PID, network.
const CLONE_NEW: u64 = 0x7e02_0000;
/// As before, with the one that only unshare(2) can make: time. (In clone(2) that bit is part of
/// the signal's number.)
const UNSHARE_NEW: u64 = CLONE_NEW | 0x80;
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
/// Linux, and 32-bit Linux, each with and without the 2.6 version number; and "tell me".
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The default profile for a container that can have these capabilities (`CAP_SYS_ADMIN`, …): those
/// of its bounding set.
pub fn default_profile<S: AsRef<str>>(capabilities: &[S]) -> LinuxSeccomp {
    let granted = |name: &str| capabilities.iter().any(|granted| granted.as_ref() == name);
    let mut syscalls = vec![allow(ALWAYS.iter().flat_map(|group| group.split_whitespace()))];
    for (capability, names) in WITH_CAPABILITY {
        if granted(capability) {
            syscalls.push(allow(names.split_whitespace()));
        }
    }
    if !granted(SYS_ADMIN) {
        syscalls.extend(without_namespaces());
    }
    syscalls.extend(sockets());
    for personality in PERSONALITIES {
        let equal = condition(LinuxSeccompOperator::ScmpCmpEq, personality, None);
        syscalls.push(allow_where("personality", equal));
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_architectures(Some(Architecture::NATIVE.family().iter().map(|a| a.oci()).collect()))
        .set_syscalls(Some(syscalls));
    profile
}

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Processes and threads, but no namespaces.
///
/// clone3 has its flags behind a pointer, where no filter sees them. It "does not exist": every C
/// library then falls back on clone. unshare keeps the uses that end at the caller (its own table
/// of files, its own working directory); Docker has it whole or not at all.
fn without_namespaces() -> [LinuxSyscall; 3] {
    let none_of = |flags| condition(LinuxSeccompOperator::ScmpCmpMaskedEq, flags, Some(0));
    let mut clone3 = LinuxSyscall::default();
    clone3
        .set_names(vec!["clone3".into()])
        .set_action(LinuxSeccompAction::ScmpActErrno)
        .set_errno_ret(Some(ENOSYS));
    [allow_where("clone", none_of(CLONE_NEW)), allow_where("unshare", none_of(UNSHARE_NEW)), clone3]
}

/// Sockets of all families but two. Three rules, because two conditions on one argument in one
/// rule would mean "or" ([`super::policy`]).
fn sockets() -> [LinuxSyscall; 3] {
    use LinuxSeccompOperator as Is;
    [
        allow_where("socket", condition(Is::ScmpCmpLt, AF_ALG, None)),
        allow_where("socket", condition(Is::ScmpCmpEq, AF_ALG + 1, None)),
        allow_where("socket", condition(Is::ScmpCmpGt, AF_VSOCK, None)),
    ]
}

fn allow<'n>(names: impl Iterator<Item = &'n str>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.map(str::to_owned).collect()).set_action(LinuxSeccompAction::ScmpActAllow);
    rule
}

fn allow_where(name: &str, condition: LinuxSeccompArg) -> LinuxSyscall {
    let mut rule = allow([name].into_iter());
    rule.set_args(Some(vec![condition]));
    rule
}

/// A condition on the first argument.
fn condition(op: LinuxSeccompOperator, value: u64, value_two: Option<u64>) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default().index(0_usize).op(op).value(value);
    let built = match value_two {
        Some(value_two) => builder.value_two(value_two).build(),
        None => builder.build(),
    };
    built.unwrap_or_else(|error| unreachable!("every field has a value: {error}"))
}
