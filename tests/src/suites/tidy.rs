//! What every file of the source must be like, beyond what the compiler and its lints see.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::needs::Need;
use crate::{Test, programs};

/// The limits, in lines and columns.
const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;
const COLUMNS: usize = 100;

pub(super) fn tests() -> Vec<Test> {
    let tidy = |name, check: fn(&File) -> Vec<String>| {
        Test::anybody(name, move |_| complain(check)).needs(Need::Workspace)
    };
    vec![
        tidy("columns", columns),
        tidy("file_lengths", file_lengths),
        tidy("function_lengths", function_lengths),
        tidy("unsafe_is_in_one_crate", unsafe_is_in_one_crate),
        tidy("safety_is_argued", safety_is_argued),
        tidy("no_leftovers", no_leftovers),
        tidy("lessons_have_their_headings", lessons_have_their_headings),
        tidy("container_paths_are_never_used_as_text", container_paths_are_never_used_as_text),
        tidy("no_names_that_say_nothing", no_names_that_say_nothing),
        Test::anybody("proofs_are_tests", |_| proofs_are_tests()).needs(Need::Workspace),
    ]
}

/// A page that proves its sentences by tests names some that exist.
fn proofs_are_tests() {
    let page = "docs/reference/runtime-spec.md";
    let page = programs::source().expect("the workspace").join(page);
    let text = std::fs::read_to_string(page).expect("read the page");
    let known: BTreeSet<String> = super::all()
        .into_iter()
        .flat_map(|(suite, tests)| tests.into_iter().map(move |test| (suite, test)))
        .map(|(suite, test)| format!("{suite}::{}", test.name))
        .collect();
    let code = text.split('`').skip(1).step_by(2);
    let cited: Vec<&str> = code.filter(|text| text.contains("::") && !text.contains(' ')).collect();
    assert!(cited.len() > 100, "only {} tests are cited", cited.len());
    let unknown: Vec<_> = cited.into_iter().filter(|name| !known.contains(*name)).collect();
    assert!(unknown.is_empty(), "there are no such tests: {unknown:?}");
}

/// One source file.
struct File {
    /// Its path in the project.
    path: String,
    lines: Vec<String>,
}

impl File {
    fn is_below(&self, directory: &str) -> bool {
        self.path.starts_with(directory)
    }

    /// The lines before the unit tests, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.lines.iter().position(|line| line.starts_with("#[cfg(test)]"));
        let end = end.unwrap_or(self.lines.len());
        self.lines.iter().take(end).enumerate().map(|(at, line)| (at + 1, line.as_str()))
    }

    /// A complaint about one line.
    fn at(&self, number: usize, what: &str) -> String {
        format!("{}:{number}: {what}", self.path)
    }
}

fn complain(check: fn(&File) -> Vec<String>) {
    let root = programs::source().expect("the source");
    let mut files = Vec::new();
    collect(&root, &root, &mut files);
    assert!(files.len() > 100, "only {} files were found", files.len());
    let complaints: Vec<_> = files.iter().flat_map(check).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

fn collect(root: &Path, directory: &Path, files: &mut Vec<File>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(directory).expect("a directory").flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            collect(root, &path, files);
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            let path = path.strip_prefix(root).expect("below").to_string_lossy().into_owned();
            files.push(File { path, lines: text.lines().map(str::to_owned).collect() });
        }
    }
}

/// A text in quotes may be as long as it must be, and so may the shell lines of a lesson: whoever
/// searches for them finds them in one piece.
fn columns(file: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut in_text = false;
    for (at, line) in file.lines.iter().enumerate() {
        let comment = line.trim_start().starts_with("//");
        let bare = line.replace("\\\"", "").replace("'\"'", "");
        let quotes = if comment { 0 } else { bare.matches('"').count() };
        let has_text = in_text || quotes > 0 || line.starts_with("//! ");
        in_text ^= quotes % 2 == 1;
        if line.chars().count() > COLUMNS && !has_text {
            complaints.push(file.at(at + 1, "longer than 100 columns"));
        }
    }
    complaints
}

fn file_lengths(file: &File) -> Vec<String> {
    let length = file.lines.len();
    let complaint = || file.at(length, &format!("{length} lines: split it by its ideas"));
    (length > FILE_LINES).then(complaint).into_iter().collect()
}

fn function_lengths(file: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    for (start, line) in file.lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words: Vec<_> = line.split_whitespace().take(5).collect();
        if !words.contains(&"fn")
            || line.trim_start().starts_with("//")
            || line.ends_with([';', ','])
        {
            continue;
        }
        let close = format!("{}}}", " ".repeat(indent));
        let end = file.lines.iter().skip(start).position(|line| *line == close);
        if let Some(length) = end.filter(|length| length + 1 > FUNCTION_LINES) {
            complaints.push(file.at(start + 1, &format!("a function of {} lines", length + 1)));
        }
    }
    complaints
}

fn unsafe_is_in_one_crate(file: &File) -> Vec<String> {
    if file.is_below("linux/") {
        return Vec::new();
    }
    let word = concat!("un", "safe");
    let uses = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        ["{", "fn", "impl", "extern"].iter().any(|next| code.contains(&format!("{word} {next}")))
    };
    file.code().filter(|(_, line)| uses(line)).map(|(at, _)| file.at(at, word)).collect()
}

fn safety_is_argued(file: &File) -> Vec<String> {
    let empty = ["valid parameter", "this is safe", "trivially", "safe because we", "obviously"];
    let is_empty = |line: &str| {
        let text = line.trim_start().strip_prefix("// SAFETY:").map(str::to_lowercase);
        text.is_some_and(|t| t.trim().len() < 15 || empty.iter().any(|words| t.contains(words)))
    };
    let lines = file.code().filter(|(_, line)| is_empty(line));
    lines.map(|(at, _)| file.at(at, "say what makes it sound")).collect()
}

fn no_leftovers(file: &File) -> Vec<String> {
    // In two parts, or this file would complain about itself.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("dbg", "!("),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[al", "low("),
        concat!("#![al", "low("),
    ];
    let lines = file.lines.iter().enumerate();
    let found = lines.filter_map(|(at, line)| {
        let word = words.iter().find(|word| line.contains(**word))?;
        Some(file.at(at + 1, word))
    });
    found.collect()
}

fn lessons_have_their_headings(file: &File) -> Vec<String> {
    // Not kernel ideas: the list of the steps, and why a program does not start.
    let others = ["runtime/src/steps/mod.rs", "runtime/src/steps/diagnose.rs"];
    if !file.is_below("runtime/src/steps/") || others.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let found: Vec<_> = file.lines.iter().filter_map(|line| line.strip_prefix("//! # ")).collect();
    let wanted = ["What the kernel offers", "What we do", "What goes wrong without it", "By hand"];
    (found != wanted)
        .then(|| file.at(1, &format!("its headings are {found:?}")))
        .into_iter()
        .collect()
}

/// The rule that closes most ways out: a container's path is turned into a descriptor by
/// `linux::path`, and never given to anything that mounts, opens, makes or changes a file.
fn container_paths_are_never_used_as_text(file: &File) -> Vec<String> {
    let calls = [
        "nix::mount::mount(",
        "nix::mount::umount",
        "unistd::chown(",
        "fs::chown(",
        "libc::mount(",
        "fs::set_permissions(",
        "fs::create_dir",
        "fs::write(",
        "fs::rename(",
        "fs::hard_link(",
        "unix::fs::symlink",
        "fs::remove_",
        "File::create",
        "unistd::mkdir(",
        "stat::mknod(",
        "unistd::chroot(",
        "unistd::pivot_root(",
    ];
    if !file.is_below("runtime/src/steps/") && !file.is_below("linux/src/") {
        return Vec::new();
    }
    let found = file.code().filter_map(|(at, line)| {
        let code = line.split("//").next().unwrap_or_default();
        let call = calls.iter().find(|call| code.contains(**call))?;
        let allowed =
            OF_THE_HOST.iter().any(|(path, part)| file.path == *path && code.contains(part));
        (!allowed).then(|| file.at(at, &format!("{call}…) takes a path as text")))
    });
    found.collect()
}

/// Where a path is the host's or `.`: (file, part of the line).
const OF_THE_HOST: &[(&str, &str)] = &[
    // The directories of the writable layer, in the bundle.
    ("runtime/src/steps/rootfs.rs", "create_dir_all(&path)"),
    // The host's resctrl file system, which no container sees.
    ("runtime/src/steps/resctrl.rs", "fs::remove_dir(dir)"),
    ("runtime/src/steps/resctrl.rs", "fs::create_dir(path)"),
    ("runtime/src/steps/resctrl.rs", "fs::write(file, text)"),
    // What this process stands in.
    ("linux/src/mount.rs", "pivot_root(\".\", \".\")"),
    ("linux/src/mount.rs", "umount2(\".\""),
    ("linux/src/mount.rs", "chroot(\".\")"),
    // The number of a descriptor, in a procfs of our own.
    ("linux/src/mount.rs", "umount2(name.as_str()"),
    // Without the new mount interface's overlay: through /proc/self/fd.
    ("linux/src/overlay.rs", "nix::mount::mount("),
];

fn no_names_that_say_nothing(file: &File) -> Vec<String> {
    let stem = Path::new(&file.path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let nothing = ["util", "utils", "helper", "helpers", "manager", "handler", "misc"];
    let complaint = || file.at(1, "name it after the idea that it holds");
    nothing.contains(&stem.as_str()).then(complaint).into_iter().collect()
}
