//! Is everything still what it was? Documents and blobs against their digests, unpacked trees
//! against their records, and the records against theirs.

use super::Store;
use super::index::Image;
use super::seal::Roots;
use crate::digest::{Digest, Digesting};
use crate::error::{Context, Result};
use crate::layer::listing::Line;
use crate::layer::name::Name;
use crate::layer::scan::{self, describe, describe_by, digest_of, kind_of};
use crate::layer::whiteout::Form;
use linux::{OFlag, entry, fd};
use nix::sys::stat::SFlag;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

/// How many differences are named; one is a reason to act, a thousand are the same reason.
const MOST_NAMED: usize = 20;

/// What is wrong with an image of the store, a line each; nothing, when all is well.
///
/// # Errors
/// When something cannot be read at all.
pub fn image(store: &Store, image: &Image) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for blob in &image.manifest.layers {
        let mut content = Digesting::new(store.open_blob(&blob.digest)?);
        io::copy(&mut content, &mut io::sink()).context(|| format!("read blob {}", blob.digest))?;
        let found = content.finish().1;
        if found != blob.digest {
            wrong.push(format!("blob {}: its content is {found}", blob.digest));
        }
    }
    for chain_id in image.chain() {
        let found = layer(store, &chain_id).context(|| format!("layer {chain_id}"))?;
        wrong.extend(found.into_iter().map(|line| format!("layer {}: {line}", chain_id.short())));
    }
    Ok(wrong)
}

/// What is wrong with an unpacked layer. One that is not unpacked has nothing wrong.
///
/// # Errors
/// When something cannot be read at all.
pub fn layer(store: &Store, chain_id: &Digest) -> Result<Vec<String>> {
    let Some(record) = store.layer(chain_id)? else { return Ok(Vec::new()) };
    let listing = store.layer_path(chain_id).join("tree.mtree");
    let mut content = Digesting::new(File::open(&listing).context(|| "open its record".into())?);
    io::copy(&mut content, &mut io::sink())?;
    if content.finish().1 != record.tree {
        return Ok(vec!["its record tree.mtree was changed".into()]);
    }
    let roots = match store.roots(chain_id, &record) {
        Ok(roots) => roots,
        Err(error) => return Ok(vec![error.chain()]),
    };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let root = linux::path::open(&store.tree_path(chain_id), flags)?;
    let mut wrong = Vec::new();
    let mut known = BTreeSet::new();
    for text in BufReader::new(File::open(&listing)?).lines() {
        let Some(line) = Line::parse(&text?)? else { continue };
        let name = Name::joined(&line.name, b"");
        let difference = match line.kind() {
            "opaque" => opaque(root.as_fd(), &name, record.form),
            "hardlink" => hard_link(root.as_fd(), &name, &line),
            _ => same(root.as_fd(), &name, &line, (record.form, &roots)),
        };
        match difference {
            Ok(None) => {}
            Ok(Some(what)) => wrong.push(format!("{name}: {what}")),
            Err(error) => wrong.push(format!("{name}: {}", error.chain())),
        }
        known.insert(line.name);
    }
    strangers(root.as_fd(), &known, &mut wrong)?;
    if wrong.len() > MOST_NAMED {
        let more = wrong.len() - MOST_NAMED;
        wrong.truncate(MOST_NAMED);
        wrong.push(format!("and {more} more"));
    }
    Ok(wrong)
}

/// Compares a file with its line. The content of a sealed one the kernel vouches for.
fn same(
    root: BorrowedFd<'_>,
    name: &Name,
    line: &Line,
    (form, roots): (Form, &Roots),
) -> Result<Option<String>> {
    let (found, _, _) =
        describe_by(root, name, form, |file| match roots.holds(&line.name, file)? {
            None => digest_of(file),
            Some(true) => Ok(line.word("sha256digest").unwrap_or_default().to_owned()),
            Some(false) => Ok("not sealed, or sealed anew".to_owned()),
        })?;
    if found == *line {
        return Ok(None);
    }
    let differs = line.words.iter().filter(|(key, value)| found.word(key) != Some(value));
    let named: Vec<_> = differs.map(|(key, _)| &**key).collect();
    if named.is_empty() {
        return Ok(Some("it has attributes that it had not".into()));
    }
    Ok(Some(format!("another {}", named.join(", "))))
}

fn opaque(root: BorrowedFd<'_>, name: &Name, form: Form) -> Result<Option<String>> {
    let (_, _, opaque) = describe(root, name, form)?;
    Ok((!opaque).then(|| "it does not hide the layers below any more".into()))
}

fn hard_link(root: BorrowedFd<'_>, name: &Name, line: &Line) -> Result<Option<String>> {
    let to = line.word("to").and_then(crate::layer::listing::unescape).unwrap_or_default();
    let inode = |name: &Name| -> Result<(u64, u64)> {
        let stat = fd::stat(scan::open(root, name, OFlag::O_PATH)?)?;
        Ok((stat.st_dev, stat.st_ino))
    };
    let same = inode(name)? == inode(&Name::new(&to)?)?;
    Ok((!same).then(|| "it is another file now".into()))
}

/// Files that the record does not know.
fn strangers(
    root: BorrowedFd<'_>,
    known: &BTreeSet<Vec<u8>>,
    wrong: &mut Vec<String>,
) -> Result<()> {
    let mut waiting = vec![Name::new(b".")?];
    while let Some(name) = waiting.pop() {
        let file = scan::open(root, &name, OFlag::O_PATH)?;
        if !name.is_root() && !known.contains(name.as_bytes()) {
            wrong.push(format!("{name}: the layer has no such file"));
            continue;
        }
        if kind_of(&fd::stat(&file)?) != SFlag::S_IFDIR {
            continue;
        }
        for last in entry::names(file.as_fd())? {
            waiting.push(Name::joined(name.as_bytes(), last.as_bytes()));
        }
    }
    Ok(())
}
