//! The two calls of 32-bit x86 that stand for many: `socketcall` and `ipc`.
//!
//! Until Linux 4.3 a 32-bit program could reach the socket calls only through `socketcall(which,
//! pointer)`, and old C libraries still do; System V IPC had `ipc(which, …)` until Linux 5.1. A rule
//! about `socket` must therefore also be one about `socketcall(1, …)`, or it could be walked round.
//! A filter cannot follow the pointer: of the rule's own conditions, the one on the first argument
//! gives way to the selector, and others would look at the wrong things (as in libseccomp, whose
//! verdicts these are). A profile that means it denies `socketcall` and `ipc` as a whole.

/// Each call that can be reached so, with the way and its selector there, linux/net.h and
/// linux/ipc.h.
const WAYS: [(&str, &str, u32); 32] = [
    ("socket", "socketcall", 1),
    ("bind", "socketcall", 2),
    ("connect", "socketcall", 3),
    ("listen", "socketcall", 4),
    ("accept", "socketcall", 5),
    ("getsockname", "socketcall", 6),
    ("getpeername", "socketcall", 7),
    ("socketpair", "socketcall", 8),
    ("send", "socketcall", 9),
    ("recv", "socketcall", 10),
    ("sendto", "socketcall", 11),
    ("recvfrom", "socketcall", 12),
    ("shutdown", "socketcall", 13),
    ("setsockopt", "socketcall", 14),
    ("getsockopt", "socketcall", 15),
    ("sendmsg", "socketcall", 16),
    ("recvmsg", "socketcall", 17),
    ("accept4", "socketcall", 18),
    ("recvmmsg", "socketcall", 19),
    ("sendmmsg", "socketcall", 20),
    ("semop", "ipc", 1),
    ("semget", "ipc", 2),
    ("semctl", "ipc", 3),
    ("semtimedop", "ipc", 4),
    ("msgsnd", "ipc", 11),
    ("msgrcv", "ipc", 12),
    ("msgget", "ipc", 13),
    ("msgctl", "ipc", 14),
    ("shmat", "ipc", 21),
    ("shmdt", "ipc", 22),
    ("shmget", "ipc", 23),
    ("shmctl", "ipc", 24),
];

/// The multiplexed call of 32-bit x86 through which `name` can be reached, and its selector there.
pub(super) fn way_to(name: &str) -> Option<(&'static str, u32)> {
    let way = WAYS.iter().find(|(call, ..)| *call == name);
    way.map(|(_, multiplexed, selector)| (*multiplexed, *selector))
}

/// Whether there is a way to `name`, asked once for each call, by the compiler.
pub(super) const fn has_way(name: &str) -> bool {
    let mut at = 0;
    while at < WAYS.len() {
        if is_same(WAYS[at].0.as_bytes(), name.as_bytes()) {
            return true;
        }
        at += 1;
    }
    false
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

#[cfg(test)]
mod tests {
    use super::super::syscalls;
    use super::*;

    #[test]
    fn the_table_of_calls_knows_all_that_have_a_way() {
        for (name, multiplexed, _) in WAYS {
            assert!(syscalls::by_name(name).is_some_and(|call| call.is_multiplexed), "{name}");
            assert!(syscalls::by_name(multiplexed).is_some(), "{multiplexed}");
        }
        assert!(!has_way("socke") && !has_way("sockets") && !has_way("read"));
    }
}
