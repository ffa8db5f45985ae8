//! A blob on its way to a registry: taken from another repository there, or sent; and when the
//! connection breaks, continued where the registry says that it is, or begun anew.
//!
//! Distribution specification, "Pushing blobs": the whole in one PUT. What a broken one has left is
//! asked for by GET at the upload's place (`Range: 0-N`), the rest is a PATCH. Not every registry
//! keeps a part (docker-registry counts what it got in one request only when that ended well); then
//! there is another upload.

use super::client::{Client, FIRST_PAUSE, TRIES, expect, may_pass};
use crate::error::{Error, Result};
use crate::image::document::Descriptor;
use crate::progress::{Part, Progress, Watched};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::PathBuf;
use std::thread::sleep;
use ureq::http::{Method, Response, StatusCode};
use ureq::{Body, SendBody};

/// How a blob came to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It was there already.
    Present,
    /// The registry took it from another of its repositories.
    Mounted,
    /// It was sent.
    Sent,
}

/// A blob that is to be sent.
#[derive(Debug)]
pub(super) struct Upload<'a> {
    pub(super) client: &'a Client,
    pub(super) blob: &'a Descriptor,
    /// The file with its content.
    pub(super) path: PathBuf,
    /// A repository of the registry that may have it.
    pub(super) elsewhere: Option<String>,
    pub(super) part: Part,
    pub(super) progress: &'a dyn Progress,
}

impl Upload<'_> {
    /// Brings the blob there.
    ///
    /// # Errors
    /// When the registry refuses, or cannot be reached for long.
    pub(super) fn run(&self) -> Result<Arrival> {
        let url = self.client.url(&format!("blobs/{}", self.blob.digest));
        if self.client.request(Method::HEAD, &url, &[])?.status() == StatusCode::OK {
            return Ok(Arrival::Present);
        }
        if let Some(repository) = &self.elsewhere {
            let wish = format!("?mount={}&from={repository}", self.blob.digest);
            let response = self.post(&wish)?;
            if response.status() == StatusCode::CREATED {
                return Ok(Arrival::Mounted);
            }
            // It does not offer that, or has it not: then this is an upload like any other. A
            // repository that we may not read is no reason to fail either.
            if response.status() == StatusCode::ACCEPTED {
                let place = self.place(&response)?;
                return self.send(place).map(|()| Arrival::Sent);
            }
        }
        let place = self.begin()?;
        self.send(place).map(|()| Arrival::Sent)
    }

    fn post(&self, query: &str) -> Result<Response<Body>> {
        let url = self.client.url(&format!("blobs/uploads/{query}"));
        self.client.send(Method::POST, &url, &[("Content-Length", "0")], || Ok(SendBody::none()))
    }

    /// Begins an upload; where it goes.
    fn begin(&self) -> Result<String> {
        let response = expect(self.post("")?, &[StatusCode::ACCEPTED])?;
        self.place(&response)
    }

    fn place(&self, response: &Response<Body>) -> Result<String> {
        let location = response.headers().get("location").and_then(|value| value.to_str().ok());
        let location = location
            .ok_or_else(|| Error::Invalid("the registry does not say where to upload".into()))?;
        Ok(self.client.absolute(location))
    }

    fn send(&self, mut place: String) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        let mut from = 0;
        for left in (0..TRIES).rev() {
            let outcome = self.send_from(from, &place);
            let passing = match &outcome {
                Ok(response) if response.status() == StatusCode::CREATED => return Ok(()),
                // What was continued and does not fit after all can still be sent as a whole.
                Ok(response) => may_pass(response.status()) || from > 0,
                Err(error) => matches!(error.innermost(), Error::Network(_)),
            };
            if left == 0 || !passing {
                // The registry computes the digest of what it got: a damaged blob ends here.
                return expect(outcome?, &[StatusCode::CREATED]).map(drop);
            }
            sleep(pause);
            pause *= 2;
            (place, from) = match self.kept(&place).filter(|_| outcome.is_err()) {
                Some(there) => there,
                None => (self.begin()?, 0),
            };
        }
        Ok(())
    }

    /// Where to go on, and from which byte; `None` when the registry knows nothing of the upload.
    fn kept(&self, place: &str) -> Option<(String, u64)> {
        let response = self.client.request(Method::GET, place, &[]).ok()?;
        if response.status() != StatusCode::NO_CONTENT {
            return None;
        }
        let range = response.headers().get("range")?.to_str().ok()?;
        let last: u64 = range.trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok()?;
        // Of nothing they say `0-0` as well; a single byte is not worth a question.
        let count = if last == 0 { 0 } else { last + 1 };
        let next = self.place(&response).unwrap_or_else(|_| place.to_owned());
        (count <= self.blob.size && count > 0).then_some((next, count))
    }

    /// Sends what is missing, and says that it is all.
    fn send_from(&self, from: u64, place: &str) -> Result<Response<Body>> {
        let whole = self.blob.size - from;
        let length = whole.to_string();
        let kind = ("Content-Type", "application/octet-stream");
        let rest = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(from))?;
            let mut advance = self.progress.begin(self.part);
            advance.advance(from);
            Ok(SendBody::from_owned_reader(Watched::new(file, advance)))
        };
        if from == 0 {
            let headers = [kind, ("Content-Length", &length)];
            return self.client.attempt(Method::PUT, &self.last(place), &headers, rest);
        }
        let mut place = place.to_owned();
        if whole > 0 {
            let range = format!("{from}-{}", self.blob.size - 1);
            let headers = [kind, ("Content-Length", &length), ("Content-Range", &range)];
            let response = self.client.attempt(Method::PATCH, &place, &headers, rest)?;
            if response.status() != StatusCode::ACCEPTED {
                return Ok(response);
            }
            place = self.place(&response)?;
        }
        let nothing = || Ok(SendBody::none());
        self.client.attempt(Method::PUT, &self.last(&place), &[("Content-Length", "0")], nothing)
    }

    /// The place, with the digest that ends an upload.
    fn last(&self, place: &str) -> String {
        let separator = if place.contains('?') { '&' } else { '?' };
        format!("{place}{separator}digest={}", self.blob.digest)
    }
}
