//! ADD: what COPY does, and two things more. A URL is fetched, and an archive of the context is
//! unpacked (Dockerfile reference, "ADD").
//!
//! An archive is known by its content, as for Docker, and unpacked by the code for layers, so a
//! hostile one gets no further. What is fetched is not unpacked. Its time is that of the image and
//! not the server's word for it: the same content gives the same image.

use super::copy::Source;
use crate::digest::{Digest, Digesting};
use crate::error::{Context, Error, Result};
use crate::image::view::View;
use crate::layer::compression::Compression;
use crate::layer::limits::Limits;
use crate::layer::name::Name;
use crate::layer::unpack::Unpacking;
use crate::layer::walk::{Walk, is_tar};
use crate::layer::whiteout::Form;
use crate::registry::client;
use linux::OFlag;
use nix::sys::stat::SFlag;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

/// Whether ADD fetches this source.
pub(super) fn is_url(source: &str) -> bool {
    source.starts_with("https://") || source.starts_with("http://")
}

/// A file that was fetched: a tree with nothing else in it, and its name there.
pub(super) fn fetch(
    url: &str,
    checksum: Option<&Digest>,
    directory: &Path,
) -> Result<(View, Name)> {
    let step = || format!("fetch {url}");
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let name =
        path.rsplit('/').next().filter(|name| !name.is_empty() && path.matches('/').count() > 2);
    // Without a name in the URL the target must be one; it is never a directory then.
    let name = Name::new(name.unwrap_or("index").as_bytes()).context(step)?;
    let file = directory.join(super::copy::as_path(&name));
    let insecure = url.starts_with("http://");
    let options = client::Options { insecure, ..client::Options::default() };
    let agent = client::agent(&options).context(step)?;
    let response = agent.get(url).call().map_err(|error| client::network(&error)).context(step)?;
    let response = client::expect(response, &[ureq::http::StatusCode::OK]).context(step)?;
    let limit = Limits::default();
    let mut body = Digesting::new(response.into_body().into_with_config().limit(u64::MAX).reader());
    let mut output = File::create_new(&file).context(step)?;
    let mut limited = (&mut body).take(limit.bytes + 1);
    let count = io::copy(&mut limited, &mut output).map_err(client::broken).context(step)?;
    limit.check_bytes(count).context(step)?;
    if let Some(checksum) = checksum {
        checksum.expect(body.finish().1).context(step)?;
    }
    // As Docker does it: what came from elsewhere is its owner's alone.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).context(step)?;
    Ok((View::open(&[directory], Form::User)?, name))
}

/// The tree in an archive, unpacked below `directory`; `None` for a file that is no archive.
pub(super) fn unpacked(
    source: &Source<'_>,
    name: &Name,
    directory: impl FnOnce() -> Result<PathBuf>,
) -> Result<Option<View>> {
    let Some(found) = source.view.find(name)?.filter(|found| found.kind() == SFlag::S_IFREG) else {
        return Ok(None);
    };
    let mut file = File::from(found.open(OFlag::O_RDONLY)?);
    let step = || format!("unpack `{name}`");
    let compression = Compression::detect(&mut BufReader::new(&file)).context(step)?;
    file.rewind()?;
    if !is_tar(BufReader::new(compression.decoder(BufReader::new(&file))?)) {
        return Ok(None);
    }
    let limits = Limits::default();
    file.rewind()?;
    let directory = directory()?;
    let tree = directory.join("tree");
    fs::create_dir(&tree).context(step)?;
    let record = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(directory.join("record"))
        .context(step)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let mut unpacking =
        Unpacking::new(linux::path::open(&tree, flags)?, record, Form::User, limits)?;
    let plain = BufReader::with_capacity(128 * 1024, compression.decoder(BufReader::new(&file))?);
    unpacking.write(&mut Walk::new(plain, limits)).context(step)?;
    let nothing = View::open(&[] as &[&Path], Form::User)?;
    unpacking.complete(&nothing).context(step)?;
    View::open(&[&tree], Form::User).map(Some)
}

/// `--checksum=sha256:…`.
pub(super) fn checksum(text: Option<&String>) -> Result<Option<Digest>> {
    text.map(|text| {
        text.parse().map_err(|error: Error| Error::Invalid(format!("--checksum: {error}")))
    })
    .transpose()
}
