//! The command line's side of the API, and the start of a project's processes.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use minisup_core::input::Command;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::brain::api::{EventView, StateView};
use crate::layout::{Layout, Place};
use crate::model::Stack;

/// How long a project's processes may take to answer for the first time.
const START: Duration = Duration::from_secs(10);

/// The least time between two starts of a keeper.
const REST: Duration = Duration::from_millis(100);

/// How long one brain may take to follow another.
const SUCCESSION: Duration = Duration::from_secs(5);

/// There is no answer, because who was asked has gone.
#[derive(Clone, Copy, Debug)]
struct WentAway;

impl std::fmt::Display for WentAway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the supervisor went away")
    }
}

/// What was done so far to start a project.
#[derive(Default)]
struct Begun {
    lock: Option<(Place, File)>,
    keeper: Option<(Instant, Child)>,
}

/// What has just been done of it.
#[derive(PartialEq, Eq)]
enum Did {
    /// The project's lock was taken.
    Lock,
    /// What comes after it, as far as it was missing.
    Rest,
}

/// A project, as the command line reaches it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) layout: Layout,
}

impl Client {
    /// Whether the project's supervisor answers.
    pub(crate) async fn answers(&self) -> bool {
        self.state().await.is_ok()
    }

    /// Starts the project's keeper if it does not run, and waits until the brain answers.
    pub(crate) async fn start(&self) -> Result<()> {
        let mut begun = Begun::default();
        let mut since = Instant::now();
        while !self.answers().await {
            match self.start_what_is_missing(&mut begun) {
                // One that ends just now removes the directories.
                Err(error) if is_not_there(&error) => {}
                // Waiting for others, or for the disk, may have taken any time.
                Ok(Did::Lock) => since = Instant::now(),
                Ok(Did::Rest) => {}
                Err(error) => return Err(error),
            }
            if since.elapsed() > START {
                bail!(
                    "the supervisor did not come up in {START:?}; see {}",
                    self.layout.complaints().display()
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Makes the directories, takes the project's lock and starts a keeper, as far as that has not
    /// been done by us or by others. The lock is that of a directory, and goes with it.
    fn start_what_is_missing(&self, begun: &mut Begun) -> Result<Did> {
        let place = self.layout.place();
        if place.is_none() || begun.lock.as_ref().map(|(place, _)| *place) != place {
            begun.lock = None; // of a directory that has gone; two would be one too many
            self.layout.make()?;
            let path = self.layout.lock();
            let place = self.layout.place();
            let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
            // Two `up` at once: the second finds what the first has started.
            file.lock().context("cannot lock the project")?;
            begun.lock = place.map(|place| (place, file));
            return Ok(Did::Lock); // that took time: it may answer by now
        }
        let works = match &mut begun.keeper {
            Some((since, keeper)) => since.elapsed() < REST || keeper.try_wait()?.is_none(),
            None => false,
        };
        // Of keeper and brain one may just be starting the other again.
        if !works && !self.layout.is_supervised() {
            begun.keeper = Some((Instant::now(), self.start_keeper()?));
        }
        Ok(Did::Rest)
    }

    fn start_keeper(&self) -> Result<Child> {
        let path = self.layout.complaints();
        let complaints = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        let mut keeper = Program::new("/proc/self/exe");
        keeper
            .arg0("minisup")
            .arg("keeper")
            .arg(&self.layout.project)
            .current_dir("/")
            .stdin(Stdio::null());
        keeper.stdout(complaints.try_clone()?).stderr(complaints);
        keeper.process_group(0);
        keeper.spawn().context("cannot start the keeper")
    }

    /// What there is.
    pub(crate) async fn state(&self) -> Result<StateView> {
        self.get("/v1/state").await
    }

    /// What happened after event number `after`; with `wait`, at least one.
    pub(crate) async fn events(
        &self,
        after: i64,
        slot: Option<&str>,
        wait: bool,
    ) -> Result<Vec<EventView>> {
        let slot = slot.map(|slot| format!("&slot={slot}")).unwrap_or_default();
        let wait = if wait { "&wait" } else { "" };
        let path = format!("/v1/events?after={after}{slot}{wait}");
        self.get(&path).await
    }

    /// Makes a project so.
    pub(crate) async fn apply(&self, stack: &Stack) -> Result<()> {
        let done: serde_json::Value = self.call(Method::POST, "/v1/apply", Some(stack)).await?;
        drop(done);
        Ok(())
    }

    /// Has a command done.
    pub(crate) async fn command(&self, command: &Command) -> Result<()> {
        let done: serde_json::Value = self.call(Method::POST, "/v1/command", Some(command)).await?;
        drop(done);
        Ok(())
    }

    /// Has a program take over.
    pub(crate) async fn upgrade(&self, program: &Path) -> Result<()> {
        let body = serde_json::json!({ "program": program });
        let done: serde_json::Value = self.call(Method::POST, "/v1/upgrade", Some(&body)).await?;
        drop(done);
        Ok(())
    }

    /// A document of the API.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call(Method::GET, path, None::<&()>).await
    }

    /// A text of the API.
    pub(crate) async fn text(&self, path: &str) -> Result<String> {
        let bytes = self.exchange(Method::GET, path, None::<&()>).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T> {
        let bytes = self.exchange(method, path, body).await?;
        serde_json::from_slice(&bytes).context("the supervisor's answer cannot be understood")
    }

    /// Asks, also while one brain follows another: what has not been sent is sent to the next, and
    /// so is a question, which changes nothing.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Bytes> {
        let json = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let mut since = Instant::now();
        loop {
            let begun = Instant::now();
            let error = match UnixStream::connect(self.layout.api()).await {
                Ok(stream) => match self.ask(stream, &method, path, json.clone()).await {
                    Err(error) if method == Method::GET && error.is::<WentAway>() => error,
                    done => return done,
                },
                Err(error) => anyhow::Error::new(error).context(format!(
                    "project {} does not run (`minisup ls` lists those that do)",
                    self.layout.project
                )),
            };
            // A question may have waited for long, and its brain went just now.
            if begun.elapsed() > SUCCESSION {
                since = Instant::now();
            }
            if since.elapsed() > SUCCESSION || !self.layout.is_supervised() {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn ask(
        &self,
        stream: UnixStream,
        method: &Method,
        path: &str,
        json: Vec<u8>,
    ) -> Result<Bytes> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.context(WentAway)?;
        tokio::task::spawn(connection);
        let request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header("host", "minisup")
            .body(Full::new(Bytes::from(json)))?;
        let answer = sender.send_request(request).await.context(WentAway)?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await.context(WentAway)?.to_bytes();
        if !status.is_success() {
            let error: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let text = error.get("error").and_then(serde_json::Value::as_str);
            bail!("{}", text.unwrap_or("the supervisor answered with an error"));
        }
        Ok(bytes)
    }
}

/// Whether a file or directory was not there.
fn is_not_there(error: &anyhow::Error) -> bool {
    let error = error.root_cause().downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}
