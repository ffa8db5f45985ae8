//! Limits that minirun sets, read back by `cgroups-rs`; and set by both, compared file by file.
//!
//! One thread: a process that is born in a group is a copy of this one.

#[cfg(test)]
mod witness;

fn main() {
    let mut arguments = libtest_mimic::Arguments::from_args();
    arguments.test_threads = Some(1);
    let is_root = linux::credentials::effective_user() == 0;
    let tests = witness::TESTS.map(|(name, act)| {
        let run = move || {
            act();
            Ok(())
        };
        libtest_mimic::Trial::test(name, run).with_ignored_flag(!is_root)
    });
    libtest_mimic::run(&arguments, tests.into()).exit();
}
