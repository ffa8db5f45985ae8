//! Push to registries that break off, forget, or have the blob elsewhere.

use crate::common::{Place, Tar, has, layout};
use crate::registry::Registry;
use rootfs_tools::Digest;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Bodies from this size on are broken off.
const LARGE: usize = 100_000;

/// A registry that gets less than it was sent.
#[derive(Default)]
struct Weak {
    /// How many more bodies break off in their middle.
    breaks: AtomicUsize,
    /// Whether it keeps what arrived before.
    keeps: bool,
    uploads: Mutex<BTreeMap<usize, Vec<u8>>>,
    /// What it was asked, without the names of blobs.
    asked: Mutex<Vec<String>>,
    /// The blobs that are complete.
    blobs: Mutex<Vec<Vec<u8>>>,
}

fn serve(weak: Arc<Weak>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (weak, stream) = (weak.clone(), stream.unwrap());
            // The client may have had enough.
            std::thread::spawn(move || drop(answer(&weak, stream)));
        }
    });
    port
}

fn answer(weak: &Weak, mut stream: TcpStream) -> std::io::Result<()> {
    let mut input = BufReader::new(stream.try_clone()?);
    let mut head = Vec::new();
    for line in input.by_ref().lines() {
        match line? {
            line if line.is_empty() => break,
            line => head.push(line.to_lowercase()),
        }
    }
    let words: Vec<_> = head[0].split(' ').collect();
    let (method, url) = (words[0], words[1]);
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let length: usize = length.unwrap_or(0);
    let number = path.strip_prefix("/v2/web/blobs/uploads/").and_then(|n| n.parse::<usize>().ok());
    let mut say = |status: &str, headers: &str| {
        write!(
            stream,
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n"
        )
    };
    if let Some(number) = number {
        let large = if length >= LARGE { " large" } else { "" };
        weak.asked.lock().unwrap().push(format!("{method}{large}"));
        let mut body = Vec::new();
        let breaks = length >= LARGE
            && weak
                .breaks
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_ok();
        let take = if breaks { length / 2 } else { length };
        input.take(take as u64).read_to_end(&mut body)?;
        let mut uploads = weak.uploads.lock().unwrap();
        let kept = uploads.entry(number).or_default();
        kept.extend(body);
        if breaks {
            return Ok(());
        }
        let place = format!("Location: /v2/web/blobs/uploads/{number}\r\n");
        return match method {
            "get" if weak.keeps => {
                say("204 No Content", &format!("{place}Range: 0-{}\r\n", kept.len() - 1))
            }
            "patch" => say("202 Accepted", &place),
            "put" => {
                let digest = query.strip_prefix("digest=").unwrap().replace("%3a", ":");
                if Digest::of(kept).to_string() != digest {
                    return say("400 Bad Request", "");
                }
                weak.blobs.lock().unwrap().push(std::mem::take(kept));
                say("201 Created", "")
            }
            _ => say("404 Not Found", ""),
        };
    }
    // A connection that is closed before everything was read is broken for who still writes.
    std::io::copy(&mut input.take(length as u64), &mut std::io::sink())?;
    match method {
        "head" => say("404 Not Found", ""),
        "post" => {
            let mut uploads = weak.uploads.lock().unwrap();
            let number = uploads.len();
            uploads.insert(number, Vec::new());
            say("202 Accepted", &format!("Location: /v2/web/blobs/uploads/{number}\r\n"))
        }
        _ => say("201 Created", ""),
    }
}

/// An image whose one layer is large and does not compress.
fn image(place: &Place) {
    let mut state = 7_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let noise: Vec<u8> = (0..400_000).map(|_| next()).collect();
    layout(&place.path("layout"), "image", &[Tar::new().file("noise", &noise).done()]);
    place.ok(&["import", "layout", "web"]);
}

/// What is asked about the large blob when so many bodies break.
fn asked_when(breaks: usize, keeps: bool) -> Vec<String> {
    let breaks = AtomicUsize::new(breaks);
    let weak = Arc::new(Weak { breaks, keeps, ..Weak::default() });
    let place = Place::new();
    image(&place);
    let target = format!("127.0.0.1:{}/web:v1", serve(weak.clone()));
    assert!(place.ok(&["push", "web", &target, "--insecure"]).contains("2 blobs sent"));
    let sizes: Vec<_> = weak.blobs.lock().unwrap().iter().map(Vec::len).collect();
    assert!(sizes.len() == 2 && sizes.iter().any(|&size| size > 400_000), "{sizes:?}");
    let asked = weak.asked.lock().unwrap();
    // One of the small ones is that of the configuration, whenever it comes.
    let config = asked.iter().position(|what| what == "put").unwrap();
    asked.iter().enumerate().filter(|(at, _)| *at != config).map(|(_, what)| what.clone()).collect()
}

#[test]
fn what_a_registry_has_kept_is_not_sent_again() {
    assert_eq!(asked_when(0, true), ["put large"]);
    assert_eq!(asked_when(1, true), ["put large", "get", "patch large", "put"]);
    let twice = ["put large", "get", "patch large", "get", "patch large", "put"];
    assert_eq!(asked_when(2, true), twice);
}

#[test]
fn what_a_registry_has_not_kept_is_sent_again() {
    assert_eq!(asked_when(2, false), ["put large", "get", "put large", "get", "put large"]);
}

#[test]
fn a_registry_that_always_breaks_off_is_given_up() {
    let weak = Arc::new(Weak { breaks: AtomicUsize::new(usize::MAX), ..Weak::default() });
    let place = Place::new();
    image(&place);
    let target = format!("127.0.0.1:{}/web:v1", serve(weak.clone()));
    let error = place.fails(&["push", "web", &target, "--insecure"]);
    assert!(error.contains("push sha256:") && error.contains("PUT http://127.0.0.1"), "{error}");
    let sent = weak.asked.lock().unwrap().iter().filter(|what| *what == "put large").count();
    assert_eq!(sent, 5);
}

#[test]
fn a_blob_of_another_repository_is_taken_from_there() {
    if !has("docker-registry") {
        return;
    }
    let place = Place::new();
    let registry = Registry::start(&place, "", "");
    image(&place);
    let (here, there) = (registry.image("team/web:v1"), registry.image("other/web:v2"));
    place.ok(&["tag", "web", &here]);
    assert!(place.ok(&["push", &here, "--insecure"]).contains("2 blobs sent"));
    let said = place.ok(&["push", &here, &there, "--insecure"]);
    assert!(said.contains("0 blobs sent") && said.contains("2 taken"), "{said}");
    let other = Place::new();
    other.ok(&["pull", &there, "--insecure"]);
    assert_eq!(other.ok(&["verify"]), format!("{there}: as it was\n"));
    // A name here says nothing about what is there: the registry has not that repository.
    let (empty, third) = (registry.image("empty/web:v1"), registry.image("third/web:v1"));
    let second = Place::new();
    image(&second);
    second.ok(&["tag", "web", &empty]);
    let said = second.ok(&["push", "web", &third, "--insecure"]);
    assert!(said.contains("2 blobs sent"), "{said}");
}
